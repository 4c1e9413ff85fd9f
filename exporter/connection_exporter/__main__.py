"""``python -m connection_exporter`` is ``connection-exporter``."""

import sys

from connection_exporter.cli.main import main

sys.exit(main())
