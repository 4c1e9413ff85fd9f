"""Holds a live connection to everything a system depends on, and reports within milliseconds when one breaks."""

from typing import TYPE_CHECKING, Any

__version__ = "0.9.0"
__all__ = [
    "Config",
    "ConfigError",
    "Monitor",
    "NotRunning",
    "Reason",
    "Status",
    "TooSoon",
    "Transition",
    "UnknownService",
    "load_config",
]

if TYPE_CHECKING:
    from connection_exporter.config import Config, ConfigError
    from connection_exporter.core.health import Reason, Status
    from connection_exporter.kinds import load as load_config
    from connection_exporter.monitor.errors import NotRunning, TooSoon, UnknownService
    from connection_exporter.monitor.monitor import Monitor
    from connection_exporter.monitor.record import Transition

_WHERE = {
    "Monitor": ("connection_exporter.monitor.monitor", "Monitor"),
    "Transition": ("connection_exporter.monitor.record", "Transition"),
    "UnknownService": ("connection_exporter.monitor.errors", "UnknownService"),
    "NotRunning": ("connection_exporter.monitor.errors", "NotRunning"),
    "TooSoon": ("connection_exporter.monitor.errors", "TooSoon"),
    "Config": ("connection_exporter.config", "Config"),
    "ConfigError": ("connection_exporter.config", "ConfigError"),
    "load_config": ("connection_exporter.kinds", "load"),
    "Reason": ("connection_exporter.core.health", "Reason"),
    "Status": ("connection_exporter.core.health", "Status"),
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``--version`` does not wait for pydantic."""
    if name not in _WHERE:
        raise AttributeError(f"module 'connection_exporter' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """Return the names of `__all__` too, for `help` and completion, although they are not imported yet."""
    return sorted({*globals(), *__all__})
