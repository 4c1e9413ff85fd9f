"""The boundary to what people write: everything behind `load` is valid.

All errors are found at once. Each names the file, the line, the path and the fix.
"""

from connection_exporter.config.errors import ConfigError
from connection_exporter.config.load import Config
from connection_exporter.config.reader import EXAMPLE, KindError, Kinds

__all__ = ["EXAMPLE", "Config", "ConfigError", "KindError", "Kinds"]
