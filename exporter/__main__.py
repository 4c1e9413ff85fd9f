"""``python -m exporter`` is ``connection-exporter``."""

import sys

from exporter.cli import main

sys.exit(main())
