"""The commands: flags, exit codes, and what is printed."""

from typing import Final

DEFAULT_FILE: Final = "connection-exporter.yml"
"""The config that is read if no flag names another."""

BAD_CONFIG: Final = 2
"""The exit status for a config with errors."""
