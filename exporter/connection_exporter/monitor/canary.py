"""Runs the canary of one session: from time to time, a probe over a fresh connection, as a second, independent signal.

A canary lives as long as its session, so that its result always belongs to that session.
"""

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, Final

from connection_exporter.core.health import Event, Reason
from connection_exporter.core.retry import backoff
from connection_exporter.kind import Failure, Service, Session
from connection_exporter.monitor.attempt import Attempts, Held, origin, raise_if_cancelled, this_task
from connection_exporter.monitor.details import presentable
from connection_exporter.monitor.record import Report
from connection_exporter.system.log import get_logger

_SPREAD: Final = 0.1
log = get_logger(__name__)


class Canary:
    """The canaries of one session.

    ``report`` receives the result of each, or None if the exporter cannot make one. ``spawn`` starts a task that the
    supervisor owns. ``rand`` returns numbers from 0 to 1. ``slot_until`` is that of `Batches`. ``due`` is when the next
    canary starts; never while one is running, and if canaries are off. ``successor`` is the connection of a canary
    which found that the name leads to another address.
    """

    def __init__(
        self,
        service: Service,
        session: Session,
        attempts: Attempts,
        *,
        report: Callable[[Report | None], None],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        now: Callable[[], float],
        rand: Callable[[], float],
        slot_until: Callable[[float, float], float],
    ) -> None:
        self.due = inf
        self._service = service
        self._session = session
        self._attempts = attempts
        self._report = report
        self._spawn = spawn
        self._now = now
        self._rand = rand
        self._slot_until = slot_until
        self._failed = 0
        self._running: asyncio.Task[None] | None = None
        self.successor: tuple[Session, Held] | None = None
        self._plan()

    def start(self) -> "asyncio.Task[None] | None":
        """Start a canary now, or return the one that is running; None if they are off."""
        if self._running is None and self._service.policy.canary is not None:
            self.due = inf
            self._running = self._spawn(self._try_fresh_connection())
        return self._running

    def repeat_bad(self, at: float) -> None:
        """Start the next canary at the time ``at``, unless it is due before, if the last one was bad."""
        if self._failed and self._running is None:
            self.due = min(self.due, at)

    def passed(self) -> None:
        """Count a good probe that needed a new connection as a canary."""
        if self._service.policy.canary is not None:
            self._done(Report(Event.CANARY_GOOD))

    def take_successor(self) -> tuple[Session, Held]:
        """Return ``successor``, once. Raises RuntimeError if there is none."""
        successor, self.successor = self.successor, None
        if successor is None:
            raise RuntimeError("no canary has found another address")
        self._session = successor[0]
        return successor

    def stop(self) -> Held | None:
        """End with the session; return a connection that has to be closed, if there is one."""
        if self._running is not None:
            self._running.cancel()
        _, unused = self.successor or (None, None)
        self.successor = None
        return unused

    async def _try_fresh_connection(self) -> None:
        name, kind, session = self._service.name, self._service.kind, self._session
        fresh = Held()
        verdict: Report | None = Report(Event.CANARY_GOOD)
        try:
            fresh_session, observation, _ = await self._attempts.make(this_task(), fresh)
            if observation.reason is not None:
                verdict = _bad(observation.reason, observation.message)
            elif (
                session.peer is not None
                and fresh_session.addresses
                and session.peer not in fresh_session.addresses
            ):
                self.successor, fresh = (fresh_session, fresh), Held()
        except Failure as failure:
            if failure.reason is Reason.INTERNAL:  # no descriptor or thread is left
                log.warning(
                    "canary_not_made",
                    name=name,
                    kind=kind,
                    message=presentable(failure.message, self._service.hide),
                )
                verdict = None
            else:
                verdict = _bad(failure.reason, failure.message)
        except BaseException as error:
            raise_if_cancelled()
            log.error("canary_crashed", name=name, kind=kind, exc_info=error)
            verdict = _bad(Reason.INTERNAL, origin(error))
        finally:
            await self._attempts.close(fresh)
        self._running = None
        self._done(verdict)

    def _done(self, verdict: Report | None) -> None:
        self._failed = 0 if verdict is not None and verdict.event is Event.CANARY_GOOD else self._failed + 1
        self._plan()
        self._report(verdict)

    def _plan(self) -> None:
        """Plan the next canary: after its period, or sooner while canaries fail.

        It starts in a slot, when the process is awake in any case: with wake-ups of its own, a canary of redis takes
        0.9 ms more.
        """
        policy = self._service.policy
        if policy.canary is None or self._running is not None:
            self.due = inf
        elif self._failed:
            self.due = self._now() + backoff(policy, failures=self._failed, rand=self._rand())
        else:
            due = self._now() + policy.canary * (1 - _SPREAD + 2 * _SPREAD * self._rand())
            self.due = self._slot_until(due, min(policy.interval, policy.canary))


def _bad(reason: Reason, message: str) -> Report:
    return Report(Event.CANARY_BAD, reason, f"new connection: {message}")
