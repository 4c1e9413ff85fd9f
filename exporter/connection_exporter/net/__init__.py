"""Owns how checks reach the network: names, sockets, TLS, and what the kernel's errors mean.

All checks of a process share one `Network`; each service has an `Endpoint`. Nothing here knows a protocol or a service.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connection_exporter.net.dial import Link, Network
    from connection_exporter.net.endpoint import Endpoint, LinkDetails
    from connection_exporter.net.failures import failure_from, translated
    from connection_exporter.net.proxy import Proxy
    from connection_exporter.net.tls_options import TlsOptions

__all__ = ["Endpoint", "Link", "LinkDetails", "Network", "Proxy", "TlsOptions", "failure_from", "translated"]

_MODULES = {
    "Link": "dial",
    "Network": "dial",
    "Endpoint": "endpoint",
    "LinkDetails": "endpoint",
    "failure_from": "failures",
    "translated": "failures",
    "Proxy": "proxy",
    "TlsOptions": "tls_options",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the config needs the names of hosts alone, and sockets and TLS take 25 ms."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
