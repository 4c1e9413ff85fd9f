"""A check that follows a script, and a board that records what it receives and when."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager

from connection_exporter.core.health import Event, Reason
from connection_exporter.core.retry import Policy
from connection_exporter.kind import Check, Failure, Metric, Observation, Service, Session, Traits
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report, Transition
from connection_exporter.system.clock import Clock

Step = Observation | BaseException | Callable[[], Awaitable[Observation]]
"""What a probe, or a connect, does: it answers, it raises, or it does something of its own."""

GOOD = Observation()
BAD = Observation(Reason.EXPECT, "not what was expected")
REFUSED = Failure(Reason.REFUSED, "nobody listens")
EOF = Failure(Reason.EOF, "closed by the server")


async def hang() -> Observation:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


def after(seconds: float, then: Step = GOOD) -> Step:
    """Do a step later."""

    async def later() -> Observation:
        await asyncio.sleep(seconds)
        return await play(then)

    return later


async def raise_cancelled() -> Observation:
    """End as if cancelled, though nobody asked for it: the mistake of a check that awaits a cancelled task."""
    raise asyncio.CancelledError


async def play(step: Step) -> Observation:
    if isinstance(step, BaseException):
        raise step
    return step if isinstance(step, Observation) else await step()


class ScriptedSession:
    """One connection that a scripted check made."""

    def __init__(self, check: "ScriptedCheck") -> None:
        self.check = check
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self.peer: str | None = check.peer
        self.addresses = check.addresses
        self.probed: list[float] = []
        self.since = asyncio.get_running_loop().time()
        self.closed = False
        if check.lifetime is not None:
            asyncio.get_running_loop().call_later(check.lifetime, self.lose)

    async def probe(self) -> Observation:
        self.probed.append(asyncio.get_running_loop().time())
        steps = self.check.probes
        return await play(steps.pop(0) if steps else GOOD)

    def lose(self, failure: Failure = EOF) -> None:
        """Break the connection, as the kernel would report it."""
        if not self.closed:
            self.lost.set_result(failure)


class ScriptedCheck:
    """Connects and gives good answers at once, except for the given steps, which are used up in order."""

    address = "scripted:1"

    def __init__(
        self,
        *,
        connects: Iterable[Step] = (),
        probes: Iterable[Step] = (),
        closes: Iterable[Step] = (),
        lifetime: float | None = None,
        holds_session: bool = True,
        metrics: tuple[Metric, ...] = (),
    ) -> None:
        self.connects = list(connects)
        self.probes = list(probes)
        self.closes = list(closes)
        self.lifetime = lifetime
        self.traits = Traits(frozenset(Reason), metrics, holds_session=holds_session)
        self.peer: str | None = None
        self.addresses: frozenset[str] = frozenset()
        self.asked: list[float] = []
        self.made: list[ScriptedSession] = []

    def connect(self) -> AbstractAsyncContextManager[Session]:
        return _Connection(self)

    @property
    def open(self) -> list[ScriptedSession]:
        """The connections that were not closed."""
        return [session for session in self.made if not session.closed]


class _Connection:
    """What `connect` gives. Not a generator, which the garbage collector would close where the watch forgets to."""

    def __init__(self, check: ScriptedCheck) -> None:
        self._check = check
        self._session: ScriptedSession | None = None

    async def __aenter__(self) -> Session:
        check = self._check
        check.asked.append(asyncio.get_running_loop().time())
        await play(check.connects.pop(0) if check.connects else GOOD)
        self._session = ScriptedSession(check)
        check.made.append(self._session)
        return self._session

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        if not self._session.lost.done():  # as a session of PostgreSQL does
            self._session.lose(Failure(Reason.EOF, "closed here"))
        self._session.closed = True
        await play(self._check.closes.pop(0) if self._check.closes else GOOD)


class Journal(Board):
    """A board that keeps every report, with the time on the board's clock at which it came."""

    def __init__(self, services: Iterable[Service], clock: Clock) -> None:
        super().__init__(services, clock)
        self.reports: list[tuple[float, str, Report]] = []

    def put(self, name: str, report: Report) -> Transition | None:
        self.reports.append((self.clock.monotonic(), name, report))
        return super().put(name, report)

    def events(self, name: str = "it") -> list[Event]:
        return [report.event for _, who, report in self.reports if who == name]

    def times(self, *events: Event, name: str = "it") -> list[float]:
        return [at for at, who, report in self.reports if who == name and report.event in events]


def service(check: Check, policy: Policy, name: str = "it") -> Service:
    return Service(name, "scripted", check, policy)
