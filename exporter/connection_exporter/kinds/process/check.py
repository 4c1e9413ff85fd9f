"""Kind process: holds a process of this machine by a pidfd, and reads its details at each probe.

A session ends when the kernel says so, or at a probe when the pidfile names another process.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Final
from weakref import WeakKeyDictionary

import psutil

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Json, Observation, Session, Traits
from connection_exporter.kinds.process.config import Heartbeat, ProcessConfig
from connection_exporter.kinds.process.facts import (
    METRICS,
    FactsReader,
    HeartbeatAge,
    judge_heartbeat,
    judge_status,
)
from connection_exporter.kinds.process.files import FileReader
from connection_exporter.kinds.process.find import Search, find_unit, zombie_message
from connection_exporter.kinds.process.pidfile import Pidfile
from connection_exporter.kinds.process.proc import is_zombie
from connection_exporter.kinds.process.table import ProcessTable, named, with_command
from connection_exporter.kinds.process.watch import Watch, watch
from connection_exporter.net import Network, translated
from connection_exporter.net.pacing import Pacer

_LOOK_FOR_PIDFILE: Final = 0.25
_LOOK_TIMEOUT: Final = 0.25
_TABLES: Final[WeakKeyDictionary[Pacer, ProcessTable]] = WeakKeyDictionary()
"""One table for all services of an event loop, which share the pacer of their networks."""


class ProcessCheck:
    """One process of this machine."""

    traits = Traits(
        reasons=frozenset(
            {
                Reason.MISSING,
                Reason.PERMISSION,
                Reason.AMBIGUOUS,
                Reason.ZOMBIE,
                Reason.EXIT,
                Reason.STOPPED,
                Reason.HEARTBEAT,
                Reason.SLOW,
                Reason.TIMEOUT,
                Reason.UNREACHABLE,
                Reason.STALE,
                Reason.INTERNAL,
            }
        ),
        metrics=METRICS,
        crosses_network=ProcessConfig.CONNECTS,
    )

    def __init__(self, config: ProcessConfig, network: Network) -> None:
        self._config = config
        patience = config.timeout / 2  # so that a probe can still say which file it waited for
        self._pidfile = Pidfile(config.pidfile, timeout=patience) if config.pidfile is not None else None
        self._search = _search(config, network.pacer)
        self._heartbeat = _heartbeat(config.heartbeat, patience) if config.heartbeat is not None else None
        self._restarts = _RestartCount()

    @property
    def address(self) -> str:
        """The configured pidfile, name, pattern or unit."""
        return self._config.address

    @property
    def look_every(self) -> float:
        """Seconds between two looks while there is no process."""
        return _LOOK_FOR_PIDFILE if self._pidfile else self._config.retry_delay

    async def present(self) -> bool:
        """Return whether there is a process to hold. Always false for a unit: asking systemd costs a process."""
        try:
            if self._pidfile is not None and self._pidfile.has_no_process():
                return False
            async with asyncio.timeout(_LOOK_TIMEOUT):
                if self._pidfile:
                    pid = await self._pidfile.find()
                elif self._search:
                    pid = await self._search.find_new()
                else:
                    return False
            return not is_zombie(pid)
        except (Failure, OSError, psutil.Error):  # a TimeoutError is an OSError
            return False

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Find the process and hold it. Raises `Failure`."""
        with translated(self.address):
            pid, unit_restarts = await self._find()
            watched = watch(pid)
        with closing(watched):
            process = _identify(pid, watched)
            with closing(FactsReader(process)) as facts:
                yield ProcessSession(
                    *(self._config, process, facts, watched),
                    pidfile=self._pidfile,
                    heartbeat=self._heartbeat,
                    restarts=self._restarts,
                    unit_restarts=unit_restarts,
                )

    async def _find(self) -> tuple[int, int | None]:
        if self._pidfile:
            return await self._pidfile.find(), None
        if self._search:
            return await self._search.find(), None
        assert self._config.unit is not None
        unit = await find_unit(self._config.unit)
        return unit.pid, unit.restarts


class _RestartCount:
    """Remembers, across sessions, which process was seen last, and thus which one is new."""

    def __init__(self) -> None:
        self._last: psutil.Process | None = None
        self._last_of_unit: int | None = None

    def since_last(self, process: psutil.Process, unit: int | None) -> int:
        """Return how often the process was restarted since the last call.

        ``unit`` is systemd's own count, which is exact, but starts at 0 again when somebody starts the unit by hand.
        That is also a restart.
        """
        new = int(self._last is not None and self._last != process)
        if unit is not None:
            if self._last_of_unit is not None:
                new = max(new, unit - self._last_of_unit)
            self._last_of_unit = unit
        self._last = process
        return new


class ProcessSession:
    """A process that is being watched."""

    peer: Final = None
    addresses: Final[frozenset[str]] = frozenset()

    def __init__(
        self,
        config: ProcessConfig,
        process: psutil.Process,
        facts: FactsReader,
        watched: Watch,
        *,
        pidfile: Pidfile | None,
        heartbeat: FileReader[float] | None,
        restarts: _RestartCount,
        unit_restarts: int | None,
    ) -> None:
        self._config = config
        self._process = process
        self._pid = process.pid
        self._facts = facts
        self._watched = watched
        self._pidfile = pidfile
        self._heartbeat = heartbeat
        self._ages = HeartbeatAge()
        self._restarts = restarts
        self._unit_restarts = unit_restarts
        self._cpu_seconds: float | None = None
        self._last: Observation | None = None
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        watched.on_end(self._ended)

    async def probe(self) -> Observation:
        """Read the details. Raises `Failure` when the process has ended or the pidfile names another one."""
        if self._pidfile is not None and not self._pidfile.still_names(self._pid):
            await self._look_for_successor(self._pidfile)
        try:
            facts = self._facts.read()
        except psutil.NoSuchProcess:
            raise self._end() from None
        last = self._last
        if last is not None and last.details is facts and self._heartbeat is None:
            return self._repeated(last)  # it lives, and nothing has changed
        if self._watched.ended:
            raise self._end()
        verdict = judge_status(facts)
        if self._config.heartbeat is not None and self._heartbeat is not None:
            facts = facts.copy()
            beat = await _last_beat(self._heartbeat)
            stale = judge_heartbeat(self._config.heartbeat, beat, facts, self._ages, now=time.time())
            verdict = stale or verdict
        reason, message = verdict or (None, "")
        if last is not None and last.details == facts and (last.reason, last.message) == (reason, message):
            return self._repeated(last)
        self._last = Observation(reason, message, facts, self._counts(facts))
        return self._last

    def _repeated(self, last: Observation) -> Observation:
        """Return the last observation again, as the same object: the monitor then has nothing to compare."""
        if last.counts:  # they have been counted
            self._last = last = Observation(last.reason, last.message, last.details)
        return last

    async def _look_for_successor(self, pidfile: Pidfile) -> None:
        """Raise `Failure` when the process has ended or the pidfile names another one."""
        if self._watched.ended:
            raise self._end()
        successor = await pidfile.successor_of(self._pid)
        if successor is not None:
            message = f"{self._config.address} names process {successor} now, no longer {self._pid}"
            raise Failure(Reason.EXIT, message)

    def _counts(self, facts: dict[str, Json]) -> dict[str, float]:
        """Return what is new since the last probe: a restart before the first one, and CPU time after it."""
        counts: dict[str, float] = {}
        if self._last is None:
            counts["restarts"] = self._restarts.since_last(self._process, self._unit_restarts)
        now = facts.get("cpu_seconds")
        if isinstance(now, float):
            if self._cpu_seconds is not None:
                counts["cpu_seconds"] = max(now - self._cpu_seconds, 0.0)
            self._cpu_seconds = now
        return counts

    def _ended(self) -> None:
        if not self.lost.done():
            self.lost.set_result(self._end())

    def _end(self) -> Failure:
        return Failure(Reason.EXIT, f"process {self._pid} {self._watched.how()}")


def _heartbeat(heartbeat: Heartbeat, timeout: float) -> FileReader[float]:
    return FileReader(heartbeat.file, lambda: heartbeat.file.stat().st_mtime, timeout=timeout)


async def _last_beat(heartbeat: FileReader[float]) -> float | OSError:
    try:
        return await heartbeat.read()
    except OSError as error:
        return error


def _search(config: ProcessConfig, pacer: Pacer) -> Search | None:
    if config.name is not None:
        criterion = named(config.name)
    elif config.cmdline is not None:
        criterion = with_command(config.cmdline)
    else:
        return None
    return Search(_TABLES.setdefault(pacer, ProcessTable()), criterion)


def _identify(pid: int, watched: Watch) -> psutil.Process:
    """Return the process that is being watched. Raises `Failure` when there is nothing left to watch."""
    try:
        process = psutil.Process(pid)
        if not watched.ended:
            return process
        if process.status() == psutil.STATUS_ZOMBIE:
            raise Failure(Reason.ZOMBIE, zombie_message(pid, process.ppid()))
    except psutil.NoSuchProcess as error:
        if not watched.ended:
            raise Failure(Reason.PERMISSION, f"process {pid} is hidden in /proc (hidepid)") from error
    except psutil.AccessDenied as error:
        raise Failure(Reason.PERMISSION, f"no permission to inspect process {pid}") from error
    raise Failure(Reason.MISSING, f"process {pid} has just ended")
