"""Counts what Python executes for each check: a program of `profile`.

    python -m benchmarks.opcodes CONFIG

Monitors the services of a config, and prints JSON: for each module, its opcodes (instructions of the interpreter) and
calls of Python functions per check. Unlike times, these numbers do not depend on the machine or its load. Tracing slows
the process down, so use few services: 40 at an interval of 1 s.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from types import FrameType
from typing import Any, Final

import uvloop
from connection_exporter import Monitor, load_config

_WARM_UP: Final = 4.0
_SECONDS: Final = 4.0
_OURS: Final = re.compile(r"connection_exporter/([\w/]+\.py)")


class Counts:
    """The opcodes and calls of each module while it traces this thread."""

    def __init__(self) -> None:
        self.opcodes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Count a call, and then each opcode of its frame (sys.settrace). A coroutine is called at each step."""
        module = _module_of(frame.f_code.co_filename)
        self.calls[module] += event == "call"
        frame.f_trace_opcodes, frame.f_trace_lines = True, False

        def count(_frame: FrameType, event: str, _: Any) -> Any:
            self.opcodes[module] += event == "opcode"
            return count

        return count


def _module_of(file: str) -> str:
    found = _OURS.search(file)
    return found[1] if found else "libraries"


async def _main(config: str) -> None:
    counts = Counts()
    async with Monitor(load_config(config)) as monitor:

        def checks() -> int:
            return sum(record.checks for record in monitor.board.records())

        await asyncio.sleep(_WARM_UP)
        before = checks()
        sys.settrace(counts.trace)
        await asyncio.sleep(_SECONDS)
        sys.settrace(None)
        made = checks() - before
    rows = {name: (count / made, counts.calls[name] / made) for name, count in counts.opcodes.items()}
    print(json.dumps(rows))


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
