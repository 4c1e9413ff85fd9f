"""Holds a live connection to everything a system depends on, and tells within milliseconds when one breaks."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Monitor", "Status", "Transition", "load_config"]

if TYPE_CHECKING:
    from exporter.app import Monitor
    from exporter.config import load as load_config
    from exporter.core.health import Status
    from exporter.record import Transition

_WHERE = {
    "Monitor": ("exporter.app", "Monitor"),
    "Transition": ("exporter.record", "Transition"),
    "load_config": ("exporter.config", "load"),
    "Status": ("exporter.core.health", "Status"),
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``--version`` need not wait for pydantic."""
    if name not in _WHERE:
        raise AttributeError(f"module 'exporter' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
