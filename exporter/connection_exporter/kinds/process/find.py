"""Finds the process of a service by name, command line or systemd unit.

Each way ends in a process ID, or in a `Failure` that says what was looked for and what was found.
"""

import asyncio
import shutil
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.process.proc import Entry
from connection_exporter.kinds.process.table import Criterion, ProcessTable, oldest_root

_UNIT_PROPERTIES: Final = ("LoadState", "ActiveState", "SubState", "MainPID", "NRestarts")
_LONGEST_OUTPUT: Final = 64 * 1024
_EXCERPT: Final = 200

_CHOICES: Final = 10
"""Processes that are chosen one after another, if each has changed since it was read."""


class Search:
    """Finds the oldest process that matches, among those whose parent does not match."""

    def __init__(self, table: ProcessTable, criterion: Criterion) -> None:
        self._table = table
        self._criterion = criterion

    async def find(self) -> int:
        """Search all processes. Raises `Failure`."""
        return await self._current(self._table.search)

    async def find_new(self) -> int:
        """Search, reading only new processes. Raises `Failure`."""
        return await self._current(self._table.search_new)

    async def _current(self, search: Callable[[Criterion], Awaitable[Sequence[Entry]]]) -> int:
        """Choose a process, and another one if it was read a moment ago and has ended or changed since."""
        for _ in range(_CHOICES):
            chosen = self._choose(await search(self._criterion))
            if self._table.is_current(chosen):
                break
        return chosen.pid

    def _choose(self, found: Sequence[Entry]) -> Entry:
        what = self._criterion.description
        alive = [entry for entry in found if not entry.zombie]
        chosen = oldest_root(alive)
        if chosen is not None:
            return chosen
        if alive:
            pids = ", ".join(str(entry.pid) for entry in alive[:5])
            raise Failure(Reason.AMBIGUOUS, f"{len(alive)} processes {what}, none of them the oldest: {pids}")
        if found:
            raise Failure(Reason.ZOMBIE, zombie_message(found[0].pid, found[0].ppid))
        if self._table.unreadable:
            raise Failure(
                Reason.PERMISSION,
                f"there is no process {what} among those that can be inspected; "
                f"no permission to inspect {self._table.unreadable} processes",
            )
        raise Failure(Reason.MISSING, f"there is no process {what}")


class UnitState(NamedTuple):
    """A unit's state, from systemd."""

    pid: int
    restarts: int


async def find_unit(unit: str) -> UnitState:
    """Ask systemd for the main process of ``unit``. Raises `Failure`."""
    program = shutil.which("systemctl")
    if program is None:
        raise Failure(Reason.MISSING, "there is no systemctl here: use pidfile, name or cmdline")
    properties = await _show(program, unit)
    if properties.get("LoadState") == "not-found":
        raise Failure(Reason.MISSING, f"systemd has no unit {unit}")
    pid = _number(properties.get("MainPID"))
    if pid == 0:
        state = f"{properties.get('ActiveState')} ({properties.get('SubState')})"[:_EXCERPT]
        raise Failure(Reason.MISSING, f"unit {unit} is {state} and has no main process")
    return UnitState(pid, _number(properties.get("NRestarts")))


def zombie_message(pid: int, parent: int) -> str:
    """Say that a process has ended, and which process has to collect it."""
    return f"process {pid} has ended, but its parent {parent} has not collected it (zombie)"


async def _show(program: str, unit: str) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(program, "show", f"--property={','.join(_UNIT_PROPERTIES)}", "--", unit),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
    )
    assert process.stdout is not None
    try:
        await process.stdout.readexactly(_LONGEST_OUTPUT)
        raise Failure(
            Reason.MISSING, f"systemctl printed more than {_LONGEST_OUTPUT} bytes about unit {unit}"
        )
    except asyncio.IncompleteReadError as end:
        output = end.partial.decode(errors="replace")
        await process.wait()
    except asyncio.CancelledError as cancelled:
        raise cancelled from Failure(Reason.TIMEOUT, f"systemctl did not answer for unit {unit}")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        problem = output.strip().partition("\n")[0][:_EXCERPT]
        raise Failure(Reason.MISSING, f"systemctl failed for unit {unit}: {problem}")
    lines = (line.partition("=") for line in output.splitlines())
    return {key: value for key, _, value in lines}


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 20 else 0  # also "[not set]"
