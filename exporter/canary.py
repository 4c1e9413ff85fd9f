"""Owns the canary of one session: a probe over a fresh connection, now and then, the second witness.

It lives as long as the session it watches over, so that its verdict always belongs to that session.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from exporter.attempt import Attempts, heed_cancellation, origin
from exporter.check import Failure, Service, Session
from exporter.core.health import Event, Reason
from exporter.core.retry import backoff
from exporter.record import Report

_SPREAD: Final = 0.1
log = structlog.get_logger()


class Canary:
    """The canaries over one session.

    ``tell`` takes the verdict of each, ``None`` where we ourselves could not make one; ``spawn`` starts a task that
    somebody else owns; ``rand`` gives numbers from 0 to 1. ``due`` is when the next is due, ``None`` while one is
    under way and where they are off.
    """

    def __init__(
        self,
        service: Service,
        session: Session,
        attempts: Attempts,
        *,
        tell: Callable[[Report | None], None],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        now: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self.due: float | None = None
        self._service = service
        self._session = session
        self._attempts = attempts
        self._tell = tell
        self._spawn = spawn
        self._now = now
        self._rand = rand
        self._failed = 0
        self._running: asyncio.Task[None] | None = None
        self._successor: tuple[Session, AsyncExitStack] | None = None
        self._plan()

    def start(self) -> "asyncio.Task[None] | None":
        """Begin one now, or return the one under way; ``None`` where they are off."""
        if self._running is None and self._service.policy.canary is not None:
            self.due = None
            self._running = self._spawn(self._try_fresh_connection())
        return self._running

    def stands(self) -> None:
        """Take a probe that had to connect anew, and was good, for a canary."""
        if self._service.policy.canary is not None:
            self._done(Report(Event.CANARY_GOOD))

    def take_successor(self) -> tuple[Session, AsyncExitStack] | None:
        """Return, once, the connection of a canary that found the name pointing elsewhere."""
        successor, self._successor = self._successor, None
        if successor is not None:
            self._session = successor[0]
        return successor

    def stop(self) -> AsyncExitStack | None:
        """End with the session; return what is left to be closed, if anything."""
        if self._running is not None:
            self._running.cancel()
        _, unused = self._successor or (None, None)
        self._successor = None
        return unused

    async def _try_fresh_connection(self) -> None:
        name, kind, session = self._service.name, self._service.kind, self._session
        fresh = AsyncExitStack()
        verdict: Report | None = Report(Event.CANARY_GOOD)
        try:
            witness, (observation, _) = await self._attempts.connect(fresh)
            if observation.reason is not None:
                verdict = _bad(observation.reason, observation.message)
            elif session.peer is not None and witness.addresses and session.peer not in witness.addresses:
                self._successor, fresh = (witness, fresh), AsyncExitStack()
        except Failure as failure:
            if failure.reason is Reason.INTERNAL:  # no descriptor or thread left
                log.warning("canary_not_made", name=name, kind=kind, message=failure.message)
                verdict = None
            else:
                verdict = _bad(failure.reason, failure.message)
        except (Exception, asyncio.CancelledError) as error:
            heed_cancellation()
            log.error("canary_crashed", name=name, kind=kind, exc_info=error)
            verdict = _bad(Reason.INTERNAL, origin(error))
        finally:
            await self._attempts.close(fresh)
        self._running = None
        self._done(verdict)

    def _done(self, verdict: Report | None) -> None:
        self._failed = 0 if verdict is not None and verdict.event is Event.CANARY_GOOD else self._failed + 1
        self._plan()
        self._tell(verdict)

    def _plan(self) -> None:
        """Plan the next: on its period, or sooner while canaries fail."""
        policy = self._service.policy
        if policy.canary is None or self._running is not None:
            self.due = None
        elif self._failed:
            self.due = self._now() + backoff(policy, failures=self._failed, rand=self._rand())
        else:
            self.due = self._now() + policy.canary * (1 - _SPREAD + 2 * _SPREAD * self._rand())


def _bad(reason: Reason, message: str) -> Report:
    return Report(Event.CANARY_BAD, reason, f"new connection: {message}")
