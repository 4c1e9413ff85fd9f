"""The bot of the demo: a process that only writes a pidfile and a heartbeat file."""

import argparse
import os
import signal
import threading
from pathlib import Path


def main() -> None:
    """Write the pidfile, touch the heartbeat file until SIGTERM, and remove the pidfile."""
    parser = argparse.ArgumentParser(prog="python -m connection_exporter.demo.bot", description=__doc__)
    parser.add_argument("--pidfile", type=Path, required=True, help="file for the process ID")
    parser.add_argument("--heartbeat", type=Path, required=True, help="file to touch")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two heartbeats")
    arguments = parser.parse_args()

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    draft = arguments.pidfile.with_suffix(".new")
    draft.write_text(f"{os.getpid()}\n")
    draft.replace(arguments.pidfile)  # atomic, so that no reader sees half of it
    try:
        while not stopped.is_set():
            arguments.heartbeat.touch()
            stopped.wait(arguments.every)
    finally:
        arguments.pidfile.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
