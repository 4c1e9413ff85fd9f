"""Owns the watch of one service: connect, probe, hold, notice, and try again, for ever.

This is the heart of the program. Its outer turn is a session's lifetime, its inner turn a probe. It
measures and decides nothing about health: it says what happened, and the board advances the facts.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from exporter.attempt import Attempts, heed_cancellation, origin
from exporter.bell import Bell
from exporter.board import Board
from exporter.canary import Canary
from exporter.check import Failure, LooksOut, Observation, Service, Session
from exporter.core.health import Event, Reason
from exporter.core.retry import backoff, recheck, reconnects_at_once
from exporter.record import Report
from exporter.turnstile import Turnstile

_NEVER: Final = float("inf")
log = structlog.get_logger()


class Watch:
    """The watch of one service.

    ``rand`` gives numbers from 0 to 1; ``spawn`` starts a task that somebody else owns; ``delay`` is the
    number of seconds until the first attempt; ``turnstile`` is what all watches go through before they connect.
    """

    def __init__(
        self,
        service: Service,
        board: Board,
        *,
        rand: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        delay: float,
        turnstile: Turnstile | None = None,
    ) -> None:
        self._service = service
        self._check = service.check
        self._policy = service.policy
        self._looks_out = service.check if isinstance(service.check, LooksOut) else None
        self._board = board
        self._now = board.clock.monotonic
        self._rand = rand
        self._spawn = spawn
        self._attempts = Attempts(service, self._now)
        self._turnstile = turnstile or Turnstile()
        self._bell = Bell()
        self._planned = self._now() + delay
        self._spread_next = True
        self._bad_answers = 0
        self._in_attempt = False
        self._forced = False
        self._waiters: list[asyncio.Future[None]] = []
        self._over = False
        self._held = AsyncExitStack()
        self._session_since = 0.0
        self._canary: Canary | None = None

    async def run(self) -> None:
        """Watch until cancelled. Whatever the check does wrong stays in here."""
        try:
            await self._wait_for_turn()
            self._put(Report(Event.BEGUN, next_attempt=self._now()))
            while True:
                await self._live()
                await self._wait_for_turn()
        finally:
            self._over = True
            self._release_waiters()

    async def force(self) -> None:
        """Join the attempt in flight, or make one now; then one canary, where there is one."""
        if self._over:
            return
        attempted = asyncio.get_running_loop().create_future()
        self._waiters.append(attempted)
        if not self._in_attempt:
            self._forced = True
            self._bell.ring()
        await attempted
        if self._canary is not None and (canary := self._canary.start()) is not None:
            await asyncio.wait({canary})

    async def _live(self) -> None:
        """Live through one session, from the attempt to make it to its end, or through a failed attempt."""
        self._held = AsyncExitStack()
        try:
            self._begin_attempt()
            await self._turnstile.wait()
            session, first = await self._attempts.connect(self._held)
            self._session_since = self._now()
            session.lost.add_done_callback(self._bell.ring)
            self._canary = self._canary_over(session)
            self._answered(*first, held=False)
            while True:
                session = await self._idle(session, self._canary)
                self._begin_attempt()
                self._answered(*await self._attempts.probe(session), held=True)
        except Failure as failure:
            self._ended(failure)
            self._end_session()
            await self._turnstile.wait()  # what others have to tell comes before our closing
        except Exception as error:  # noqa: BLE001 - the one catch-all: a broken check disturbs nobody else
            self._crashed(error)
        except asyncio.CancelledError as error:
            heed_cancellation()
            self._crashed(error)  # a cancellation of the check's own making
        finally:
            self._end_session()
            await self._attempts.close(self._held)

    async def _idle(self, session: Session, canary: Canary) -> Session:
        """Hold the session until its next probe is due; raise at once when it is lost.

        Canaries start here. The connection of one that found the name pointing elsewhere takes the place of
        the session: that is no loss.
        """
        while True:
            if (successor := canary.take_successor()) is not None:
                old, (session, self._held) = self._held, successor
                session.lost.add_done_callback(self._bell.ring)
                await self._attempts.close(old)
            if session.lost.done():
                raise session.lost.result()
            now = self._now()
            if self._forced or now >= self._planned:
                return session
            if canary.due is not None and now >= canary.due:
                canary.start()
            await self._bell.wait(min(self._planned, canary.due or _NEVER) - now)

    async def _wait_for_turn(self) -> None:
        """Wait for the next attempt to be due, to be forced, or for an absent service to come into sight."""
        if self._forced or self._planned <= self._now():
            return
        in_sight, look_every = self._look_out()
        while not self._forced and (left := self._planned - self._now()) > 0:
            await self._bell.wait(min(left, look_every))
            if look_every < _NEVER:
                was_in_sight, (in_sight, look_every) = in_sight, self._look_out()
                if in_sight and not was_in_sight:
                    break

    def _look_out(self) -> tuple[bool, float]:
        """Tell whether the service is in sight, and after how many seconds to look again."""
        if self._looks_out is None:
            return False, _NEVER
        try:
            return self._looks_out.present(), self._looks_out.look_every
        except Exception as error:  # a broken check disturbs nobody else
            log.error("lookout_crashed", name=self._service.name, kind=self._service.kind, exc_info=error)
            return False, _NEVER

    def _answered(self, observation: Observation, latency: float, *, held: bool) -> None:
        reason, message = observation.reason, observation.message
        limit = self._policy.max_latency
        if reason is None and limit is not None and latency > limit:
            reason, message = (
                Reason.SLOW,
                f"answered after {latency:.3f} s, more than max_latency {limit:g} s",
            )
        log.debug("probe", name=self._service.name, reason=reason, latency=latency)
        self._bad_answers = 0 if reason is None else self._bad_answers + 1
        self._plan_probe()
        self._put(
            Report(
                Event.ANSWERED_GOOD if reason is None else Event.ANSWERED_BAD,
                reason,
                message,
                observation,
                latency,
                held,
                self._planned,
            )
        )
        if self._canary is not None and observation.fresh and held and reason is None:
            self._canary.stands()
        self._end_attempt()

    def _ended(self, failure: Failure) -> None:
        """Report that the attempt came to nothing, or that the session is over."""
        if failure.reason is Reason.INTERNAL:
            self._crashed(failure)
        elif self._canary is None or not self._check.traits.holds_session:
            self._plan_retry(failed=1)
            self._put(Report(Event.FAILED, failure.reason, failure.message, next_attempt=self._planned))
        else:
            if reconnects_at_once(self._policy, session_age=self._now() - self._session_since):
                self._planned = self._now()
            else:
                self._plan_retry(failed=0)
            self._put(Report(Event.LOST, failure.reason, failure.message, next_attempt=self._planned))

    def _crashed(self, error: BaseException) -> None:
        self._plan_retry(failed=1)
        if isinstance(error, Failure):
            message = error.message
        else:
            message = f"{origin(error)}; the exporter's log has more"
            log.error("check_crashed", name=self._service.name, kind=self._service.kind, exc_info=error)
        self._put(Report(Event.CRASHED, Reason.INTERNAL, message, next_attempt=self._planned))

    def _plan_probe(self) -> None:
        """Plan the next probe: on the beat, unless the beat was missed or the answers are bad."""
        now, interval = self._now(), self._policy.interval
        if self._bad_answers:
            self._planned = now + recheck(self._policy, bad_answers=self._bad_answers)
        elif self._spread_next or now - self._planned > interval:
            self._planned = now + self._rand() * interval
        elif self._planned <= now:
            self._planned = max(self._planned + interval, now)
        self._spread_next = False

    def _plan_retry(self, *, failed: int) -> None:
        failures = self._board.retry_count(self._service.name) + failed
        self._planned = self._now() + backoff(self._policy, failures=failures, rand=self._rand())

    def _begin_attempt(self) -> None:
        self._in_attempt, self._forced = True, False

    def _end_attempt(self) -> None:
        if self._in_attempt:
            self._in_attempt = False
            self._release_waiters()

    def _end_session(self) -> None:
        """End the attempt and the canary, if there are any; the connections are then still to be closed."""
        self._end_attempt()
        if self._canary is not None and (unused := self._canary.stop()) is not None:
            self._held.push_async_callback(unused.aclose)
        self._canary = None

    def _release_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _canary_over(self, session: Session) -> Canary:
        def tell(verdict: Report | None) -> None:
            if verdict is not None:
                self._put(verdict)
            self._bell.ring()

        return Canary(
            self._service,
            session,
            self._attempts,
            tell=tell,
            spawn=self._spawn,
            now=self._now,
            rand=self._rand,
        )

    def _put(self, report: Report) -> None:
        if not self._over:  # a canary that ends late has nothing to say about whoever came after
            self._board.put(self._service.name, report)
