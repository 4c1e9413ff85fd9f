"""Makes one attempt at a service: connects and probes under a deadline, and measures the latency.

A check may belong to a plug-in. Its mistakes with cancellations, timeouts and its own errors are corrected here, and
what it returns is checked here, for the service's loop and its canary alike.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from math import isfinite
from typing import Any, Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Observation, Service, Session, TooEarly
from connection_exporter.monitor.deadlines import Deadlines
from connection_exporter.system.log import get_logger

CLOSE_WITHIN: Final = 5.0
"""Seconds in which a check has to close a connection; it is abandoned afterwards."""

log = get_logger(__name__)

Result = tuple[Session, Observation, float]
"""A session, what it observed, and the latency in seconds."""


class Held:
    """What is open for one session. An AsyncExitStack would do the same, but takes 0.7 KiB of each service."""

    __slots__ = ("_context", "_other")

    def __init__(self) -> None:
        self._context: AbstractAsyncContextManager[Session] | None = None
        self._other: Held | None = None

    async def enter(self, context: AbstractAsyncContextManager[Session]) -> Session:
        """Enter ``context``; `aclose` leaves it."""
        session = await context.__aenter__()
        self._context = context
        return session

    def add(self, other: "Held") -> None:
        """Close ``other`` before this one."""
        self._other = other

    async def aclose(self) -> None:
        """Leave what was entered, once."""
        context, self._context = self._context, None
        other, self._other = self._other, None
        try:
            if other is not None:
                await other.aclose()
        finally:
            if context is not None:
                await context.__aexit__(None, None, None)


class Attempts:
    """Attempts at one service; ``now`` is the clock that measures latency, and all services share ``deadlines``."""

    def __init__(self, service: Service, now: Callable[[], float], deadlines: Deadlines) -> None:
        self._service = service
        self._now = now
        self._deadline = deadlines.after(service.policy.timeout)

    @property
    def longest(self) -> float:
        """Seconds within which two connections are closed and an attempt ends, unless the check cannot be stopped."""
        return self._deadline.seconds + 2 * CLOSE_WITHIN

    async def make(
        self, task: "asyncio.Task[Any]", connection: Held, session: Session | None = None
    ) -> Result:
        """Probe ``session``. Without one, connect before: ``connection`` then owns the session.

        One deadline is for all of it. Raises `Failure`, which names what was waited for. ``task`` is the one that runs:
        to ask for it takes a system call before Python 3.12.
        """
        deadline = self._deadline
        deadline.begin(task)
        try:
            if session is None:
                session = await connection.enter(self._service.check.connect())
            began = self._now()
            observation = await session.probe()
            return session, _valid(observation), self._now() - began
        except (asyncio.CancelledError, TimeoutError) as error:  # some checks turn one into the other
            if not deadline.has_passed(task) or task.cancelling() > 1:
                raise
            silent = f"{self._service.address}: no answer within {deadline.seconds:g} s"
            raise waited_for(error) or Failure(Reason.TIMEOUT, silent) from None
        except Failure as failure:
            raise valid_failure(failure) from failure.__cause__
        finally:
            deadline.end(task)
            if task.cancelling():  # also if the check has swallowed it
                raise asyncio.CancelledError

    async def close(self, connection: Held) -> None:
        """Close what ``connection`` owns, within `CLOSE_WITHIN` seconds, whatever the check raises."""
        try:
            async with asyncio.timeout(CLOSE_WITHIN) as deadline:
                await connection.aclose()
        except BaseException as error:  # noqa: BLE001 - the connection is given up in any case
            abandoned = isinstance(error, TimeoutError) and deadline.expired()
            if abandoned:
                log.error("close_abandoned", name=self._service.name, seconds=CLOSE_WITHIN)
            else:
                log.debug("close_failed", name=self._service.name, error=type(error).__name__)
        raise_if_cancelled()


def this_task() -> "asyncio.Task[Any]":
    """Return the task that runs."""
    task = asyncio.current_task()
    assert task is not None, "no task is running"
    return task


def raise_if_cancelled() -> None:
    """Raise CancelledError if this task was cancelled, even if a check has swallowed the cancellation."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def origin(error: BaseException) -> str:
    """Return the type and the place of an error, without its text, which may contain a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" in {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    return f"unexpected {type(error).__name__}{place}"


def waited_for(error: BaseException) -> Failure | None:
    """Return what an attempt was waiting for when its deadline expired: the cause of its cancellation.

    ``error`` is the CancelledError, or the TimeoutError that `asyncio.timeout` makes of it. The context of a
    CancelledError does not help: it is what was being handled at that moment, not what was waited for.
    """
    cause: BaseException | None = error
    if isinstance(error, TimeoutError):
        cause = error.__cause__ or error.__context__  # up to Python 3.11.2 it is in the context alone
    while cause is not None and not isinstance(cause, Failure):
        cause = cause.__cause__
    return cause


def valid_failure(failure: object) -> Failure:
    """Return a `Failure` if its fields have the right types. Raises TypeError."""
    if not isinstance(failure, Failure):
        raise TypeError(f"a session was lost with {type(failure).__name__}, not a Failure")
    if not isinstance(failure.reason, Reason) or not isinstance(failure.message, str):
        raise TypeError("the reason of a Failure is not a Reason, or its message not str")
    if isinstance(failure, TooEarly) and not (
        isinstance(failure.seconds, int | float) and isfinite(failure.seconds)
    ):
        raise TypeError("the seconds of a TooEarly are not a finite number")
    return failure


def _valid(observation: object) -> Observation:
    """Return what a probe returned if it is an `Observation` with fields of the right types. Raises TypeError.

    Anything else would fail later, where it would disturb the other services: in the JSON of the whole board. The
    details are looked at by `clean`.
    """
    if not isinstance(observation, Observation):
        raise TypeError(f"probe() returned {type(observation).__name__}, not an Observation")
    reason, message, _, counts, _ = observation
    if not (reason is None or isinstance(reason, Reason)):
        raise TypeError(f"the reason of an Observation is {type(reason).__name__}, not a Reason")
    if not isinstance(message, str):
        raise TypeError(f"the message of an Observation is {type(message).__name__}, not str")
    for key, count in counts.items():
        if not isinstance(count, int | float) or not 0 <= count < float("inf"):
            raise TypeError(f"the count {key!r} of an Observation is not a positive number")
    return observation
