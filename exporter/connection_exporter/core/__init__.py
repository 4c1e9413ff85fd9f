"""The rules, and nothing else: what a service's health is, when to try again, what it all comes to.

Nothing below this package reads a clock, draws a random number or does I/O, and it imports only the
standard library. Everything here can be tested by calling it.
"""
