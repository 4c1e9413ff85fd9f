"""Owns kind process: a process of this machine, held by a pidfd, and what can be read of it.

A session ends when the kernel says so, or at a probe, when the pidfile names another process.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psutil

from exporter.check import Failure, Json, Observation, Session, Traits
from exporter.checks.process_end import Watch, watch
from exporter.checks.process_facts import METRICS, judge_heartbeat, judge_status, read_facts
from exporter.checks.process_find import ByPidfile, BySearch, find_unit, zombie_message
from exporter.checks.process_table import ProcessTable
from exporter.config.kinds.process import ProcessConfig
from exporter.core.health import Reason
from exporter.net import Network, translated

_LOOK_FOR_PIDFILE: Final = 0.25
_TABLE: Final = ProcessTable()  # of the kernel's one table


class ProcessCheck:
    """One process of this machine."""

    Config = ProcessConfig
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
                Reason.STALE,
                Reason.INTERNAL,
            }
        ),
        metrics=METRICS,
        crosses_network=False,
    )

    def __init__(self, config: ProcessConfig, network: Network) -> None:
        del network  # a process is on this machine
        self._config = config
        self._pidfile = ByPidfile(config.pidfile) if config.pidfile is not None else None
        self._search = _search(config)
        self._ledger = _Ledger()

    @property
    def address(self) -> str:
        """The configured pidfile, name, pattern or unit."""
        return self._config.address

    @property
    def look_every(self) -> float:
        """Seconds between two looks while there is no process."""
        return _LOOK_FOR_PIDFILE if self._pidfile else self._config.retry_delay

    def present(self) -> bool:
        """Tell whether there is a process to hold. Never for a unit: systemd cannot be asked in passing."""
        try:
            if self._pidfile:
                pid = self._pidfile.find()
            elif self._search:
                pid = self._search.glance()
            else:
                return False
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except (Failure, OSError, psutil.Error):
            return False

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Find the process and hold it. Raises `Failure`."""
        with translated(self.address):
            pid, unit_restarts = await self._find()
            watched = watch(pid)
        try:
            process = _identify(pid, watched)
            yield _Held(
                *(self._config, process, watched),
                pidfile=self._pidfile,
                ledger=self._ledger,
                unit_restarts=unit_restarts,
            )
        finally:
            watched.close()

    async def _find(self) -> tuple[int, int | None]:
        if self._pidfile:
            return self._pidfile.find(), None
        if self._search:
            return await self._search.find(), None
        assert self._config.unit is not None
        unit = await find_unit(self._config.unit)
        return unit.pid, unit.restarts


class _Ledger:
    """Remembers over all sessions which process was seen last, and so which one is new."""

    def __init__(self) -> None:
        self._former: psutil.Process | None = None
        self._former_unit: int | None = None

    def restarts(self, process: psutil.Process, unit: int | None) -> int:
        """Return how often the process was started anew since the last call.

        ``unit`` is systemd's own count, which is exact, and begins at 0 again after a start by hand. That
        is a restart too.
        """
        new = int(self._former is not None and self._former != process)
        if unit is not None:
            if self._former_unit is not None:
                new = max(new, unit - self._former_unit)
            self._former_unit = unit
        self._former = process
        return new


class _Held:
    """A process that is watched."""

    peer: Final = None
    addresses: Final[frozenset[str]] = frozenset()

    def __init__(
        self,
        config: ProcessConfig,
        process: psutil.Process,
        watched: Watch,
        *,
        pidfile: ByPidfile | None,
        ledger: _Ledger,
        unit_restarts: int | None,
    ) -> None:
        self._config = config
        self._process = process
        self._watched = watched
        self._pidfile = pidfile
        self._ledger = ledger
        self._unit_restarts = unit_restarts
        self._cpu_seconds: float | None = None
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        watched.tell(self._ended)

    async def probe(self) -> Observation:
        """Read what can be read. Raises `Failure` when the process has ended or another took its place."""
        if self._watched.ended:
            raise self._end()
        successor = self._pidfile.successor_of(self._process.pid) if self._pidfile else None
        if successor is not None:
            message = f"{self._config.address} names process {successor} now, no longer {self._process.pid}"
            raise Failure(Reason.EXIT, message)
        try:
            facts = read_facts(self._process)
        except psutil.NoSuchProcess:
            raise self._end() from None
        verdict = judge_status(facts)
        if self._config.heartbeat is not None:
            verdict = judge_heartbeat(self._config.heartbeat, facts, now=time.time()) or verdict
        counts: dict[str, float] = {"restarts": self._ledger.restarts(self._process, self._unit_restarts)}
        self._count_cpu(facts, counts)
        if verdict is None:
            return Observation(details=facts, counts=counts)
        reason, message = verdict
        return Observation(reason, message, facts, counts)

    def _count_cpu(self, facts: dict[str, Json], counts: dict[str, float]) -> None:
        now = facts.get("cpu_seconds")
        if isinstance(now, float):
            if self._cpu_seconds is not None:
                counts["cpu_seconds"] = max(now - self._cpu_seconds, 0.0)
            self._cpu_seconds = now

    def _ended(self) -> None:
        if not self.lost.done():
            self.lost.set_result(self._end())

    def _end(self) -> Failure:
        return Failure(Reason.EXIT, f"process {self._process.pid} {self._watched.how()}")


def _search(config: ProcessConfig) -> BySearch | None:
    if config.name is not None:
        return BySearch.by_name(_TABLE, config.name)
    if config.cmdline is not None:
        return BySearch.by_command(_TABLE, config.cmdline)
    return None


def _identify(pid: int, watched: Watch) -> psutil.Process:
    """Return the process that is being watched. Raises `Failure` when there is nothing to watch any more."""
    try:
        process = psutil.Process(pid)
        if not watched.ended:
            return process
        if process.status() == psutil.STATUS_ZOMBIE:
            raise Failure(Reason.ZOMBIE, zombie_message(pid, process.ppid()))
    except psutil.NoSuchProcess as error:
        if not watched.ended:
            raise Failure(Reason.PERMISSION, f"process {pid} is hidden from us in /proc (hidepid)") from error
    except psutil.AccessDenied as error:
        raise Failure(Reason.PERMISSION, f"process {pid} may not be looked at") from error
    raise Failure(Reason.MISSING, f"process {pid} has just ended")
