"""Owns how checks reach the network: names, sockets, TLS, and what the kernel's errors mean.

One `Network` is shared by all checks of a process. Nothing here knows a protocol or a service.
"""

from exporter.net.dial import Link, Network
from exporter.net.failures import failure_from, translated
from exporter.net.tls import TlsOptions

__all__ = ["Link", "Network", "TlsOptions", "failure_from", "translated"]
