"""The commands that are more than serving: what they do and what they print."""

from typing import Final

DEFAULT_FILE: Final = "connection-exporter.yml"
"""The config that is read if no flag names another."""
