"""The rules, and nothing else: the health of a service, when to try again, and the overall status.

Nothing below this package reads a clock, draws a random number or does I/O, and it imports only the
standard library. Everything here can be tested by calling it.
"""
