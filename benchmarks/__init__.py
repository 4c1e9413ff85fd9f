"""Measures what the exporter costs and how fast it is, in the same run as its peers: `make bench`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))  # for stack_servers and stack_receiver
