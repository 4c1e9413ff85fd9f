"""Owns one attempt at a service: connecting and probing under a deadline, measured, with nothing let through.

Whatever a check makes of a cancellation, a timeout or its own mistakes is put right here, for the watch
and its canary alike.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, TypeVar

import structlog

from exporter.check import Failure, Observation, Service, Session
from exporter.core.health import Reason

_T = TypeVar("_T")
_LATE: Final = 0.1
"""Seconds by which a timer of ours is late when the process was suspended, or the event loop held up."""
_GRACE: Final = 0.05
"""Seconds in which an answer that came meanwhile is read, before the deadline is held against it."""
log = structlog.get_logger()

Answer = tuple[Observation, float]
"""What a probe saw, and how long it took, in seconds."""


class Attempts:
    """Attempts at one service; ``now`` is the clock that latency is measured on."""

    def __init__(self, service: Service, now: Callable[[], float]) -> None:
        self._service = service
        self._now = now

    async def connect(self, held: AsyncExitStack) -> tuple[Session, Answer]:
        """Connect and probe under one deadline; ``held`` then owns the session. Raises `Failure`."""
        return await self._within_deadline(self._connect(held))

    async def probe(self, session: Session) -> Answer:
        """Probe a held session under the deadline. Raises `Failure`."""
        return await self._within_deadline(self._measured(session))

    async def close(self, held: AsyncExitStack) -> None:
        """Close what ``held`` owns, whatever the check has to say about that."""
        try:
            await held.aclose()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - what is closed is given up
            log.debug("close_failed", name=self._service.name, error=type(error).__name__)
        heed_cancellation()

    async def _connect(self, held: AsyncExitStack) -> tuple[Session, Answer]:
        session = await held.enter_async_context(self._service.check.connect())
        return session, await self._measured(session)

    async def _measured(self, session: Session) -> Answer:
        began = self._now()
        return await session.probe(), self._now() - began

    async def _within_deadline(self, attempt: Awaitable[_T]) -> _T:
        """Await ``attempt`` for at most ``timeout``. Raises `Failure`, which says what was waited for."""
        seconds = self._service.policy.timeout
        deadline, loop = asyncio.timeout(None), asyncio.get_running_loop()
        timer = loop.call_later(seconds, _strike, deadline, loop.time() + seconds)
        try:
            async with deadline:
                return await attempt
        except TimeoutError as error:
            if not deadline.expired():
                raise  # the check's own, and not declared
            silent = f"{self._service.check.address}: no answer within {seconds:g} s"
            raise waited_for(error) or Failure(Reason.TIMEOUT, silent) from None
        finally:
            timer.cancel()
            heed_cancellation()


def heed_cancellation() -> None:
    """Raise CancelledError if this task is to end, whatever a check has made of that."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def origin(error: BaseException) -> str:
    """Say which error came from where, without its text, which may hold a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" in {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    return f"unexpected {type(error).__name__}{place}"


def waited_for(error: TimeoutError) -> Failure | None:
    """Find what an attempt was waiting for when asyncio's timeout cut it off: the cause of its cancellation."""
    cause = error.__cause__ or error.__context__  # up to Python 3.11.2 it is in the context alone
    while cause is not None and not isinstance(cause, Failure):
        cause = cause.__cause__
    return cause


def _strike(deadline: asyncio.Timeout, due: float) -> None:
    """End an attempt whose time is up; where it is we who are late, read first what came meanwhile."""
    now = asyncio.get_running_loop().time()
    deadline.reschedule(now + _GRACE if now - due > _LATE else now)
