"""Owns the boundary to what people write: everything behind `load` is valid.

All mistakes are found at once. Each names the file, the line, the path and the mend.
"""

from exporter.config.load import EXAMPLE, Config, ConfigError, load, load_environment, load_text

__all__ = ["EXAMPLE", "Config", "ConfigError", "load", "load_environment", "load_text"]
