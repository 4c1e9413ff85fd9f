"""Owns the bot of the demo: a process that does nothing but be there, and says so in two files."""

import argparse
import os
import signal
import threading
from pathlib import Path


def main() -> None:
    """Write the pidfile, beat until SIGTERM, and take the pidfile away."""
    parser = argparse.ArgumentParser(prog="python -m exporter.demo.bot", description=__doc__)
    parser.add_argument("--pidfile", type=Path, required=True, help="file for the process id")
    parser.add_argument("--heartbeat", type=Path, required=True, help="file to touch")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two heartbeats")
    arguments = parser.parse_args()

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    draft = arguments.pidfile.with_suffix(".new")
    draft.write_text(f"{os.getpid()}\n")
    draft.replace(arguments.pidfile)  # at once, so that nobody reads half of it
    try:
        while not stopped.is_set():
            arguments.heartbeat.touch()
            stopped.wait(arguments.every)
    finally:
        arguments.pidfile.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
