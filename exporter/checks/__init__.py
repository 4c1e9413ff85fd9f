"""The kinds: one file each, and the only place that imports a driver.

Each maps its driver's errors to `Failure` and knows nothing of other kinds, the board or the monitor.
"""
