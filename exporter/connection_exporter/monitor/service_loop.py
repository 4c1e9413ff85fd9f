"""Runs the loop of one service: connect, probe, hold the session, notice its loss, and try again.

This is the heart of the program. Each outer iteration is the lifetime of a session, each inner iteration a probe. It
does not decide about health: it reports what happened, and the board advances the facts.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import Any

from connection_exporter.core.health import Event, Reason
from connection_exporter.kind import Failure, Service, Session, TooEarly
from connection_exporter.monitor.attempt import (
    Attempts,
    Held,
    Result,
    origin,
    raise_if_cancelled,
    this_task,
    valid_failure,
)
from connection_exporter.monitor.batches import Batches
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.canary import Canary
from connection_exporter.monitor.deadlines import Deadlines
from connection_exporter.monitor.lookout import look_out
from connection_exporter.monitor.plan import Plan
from connection_exporter.monitor.rate_limiter import RateLimiter
from connection_exporter.monitor.record import Report
from connection_exporter.system.log import get_logger
from connection_exporter.system.wakeup import Wakeup

log = get_logger(__name__)


class ServiceLoop:
    """The loop of one service.

    ``rand`` returns numbers from 0 to 1. ``spawn`` starts a task that the supervisor owns. ``delay`` is the number of
    seconds until the first attempt. All loops share ``batches``, ``deadlines``, and ``limiter``, for which they wait
    before they connect.
    """

    def __init__(
        self,
        service: Service,
        board: Board,
        *,
        rand: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        delay: float,
        limiter: RateLimiter,
        batches: Batches,
        deadlines: Deadlines,
    ) -> None:
        self._service = service
        self._policy = service.policy
        self._board = board
        self._now = board.clock.monotonic
        self._rand = rand
        self._spawn = spawn
        self._attempts = Attempts(service, self._now, deadlines)
        self._limiter = limiter
        self._batches = batches
        self._address = service.address
        self._loop = asyncio.get_running_loop()
        self._wakeup = Wakeup()
        self._plan = Plan(self._policy, batches, now=self._now, rand=rand, delay=delay)
        self._in_attempt = False
        self._in_batch = False
        self._forced: asyncio.Future[None] | None = None  # ends with the attempt that is forced
        self._over = False
        self._held = Held()
        self._lost: asyncio.Future[Failure] | None = None  # that of the present session
        self._session_since = 0.0
        self._canary: Canary | None = None

    async def run(self) -> None:
        """Run until cancelled. An error of the check does not leave this method."""
        task = this_task()
        try:
            await self._wait_until_planned()
            self._put(Report(Event.BEGUN, next_attempt=self._now()))
            while True:
                await self._live(task)
                await self._wait_until_planned()
        finally:
            self._over = True
            self._release_forced()

    async def force(self) -> None:
        """Join the attempt in flight, or make one now; then run a canary, unless they are off."""
        if self._over:
            return
        if self._forced is None:
            self._forced = self._loop.create_future()
        forced = self._forced
        if not self._in_attempt:
            if self._canary is not None:  # many may be forced together; to connect has a turn of its own
                await self._limiter.turn()
            self._wakeup.set()
        await asyncio.wait({forced}, timeout=self._attempts.longest)
        if self._canary is not None and (canary := self._canary.start()) is not None:
            await asyncio.wait({canary}, timeout=self._attempts.longest)

    def attempt_now(self) -> None:
        """Make the next attempt now, and repeat a canary that was bad, unless an attempt is in flight.

        Not sooner than ``retry_delay`` after the last time.
        """
        if self._in_attempt:
            return
        at = self._plan.attempt_early()
        if self._canary is not None:
            self._canary.repeat_bad(at)
        self._wakeup.set()

    def abandon(self) -> None:
        """Ignore whatever the check still does: its task cannot be stopped."""
        self._over = True

    def recheck_clock(self) -> None:
        """Compare the time of the next attempt with the clock, which has jumped."""
        self._wakeup.set()

    async def _live(self, task: "asyncio.Task[Any]") -> None:
        """Run one session from its first attempt to its end, or one failed attempt. ``task`` is the one that runs."""
        self._held = Held()
        try:
            self._in_attempt = True
            await self._limiter.turn()
            first = await self._attempts.make(task, self._held)
            session = first[0]
            self._session_since = self._now()
            self._notice_loss_of(session)
            self._canary = self._canary_over(session)
            self._answered(first, held=False)
            del first  # its details take up to 0.6 KiB, and would be kept as long as the session
            while (held := await self._idle(session, self._canary)) is not None:
                session = held
                self._in_attempt = True
                self._answered(await self._attempts.make(task, self._held, session), held=True)
        except Failure as failure:
            self._ended(failure)
            self._end_session()
            await self._limiter.turn()  # losses of other services are reported before this one is closed
        except BaseException as error:  # noqa: BLE001 - a broken check, even SystemExit, affects no other service
            raise_if_cancelled()
            self._crashed(error)
        finally:
            self._end_session()
            await self._attempts.close(self._held)

    async def _idle(self, session: Session, canary: Canary) -> Session | None:
        """Hold the session until its next probe is due; return None or raise as soon as it is lost.

        None is for a loss that is reported already: a `Failure` that is raised would keep the session in memory, in its
        traceback. 1,000 lost sessions would keep 25 objects each until the garbage collector finds them.

        Canaries start here. If one finds that the name leads elsewhere, its connection replaces the session: no loss.
        """
        while True:
            slot, turn = min(self._plan.due, canary.due), self._wakeup.waiter(self._loop)
            self._batches.join(slot, self._now(), self._address, turn)
            try:
                await turn
            finally:  # it may have its turn and be cancelled before it runs: then it passes its turn on as well
                self._in_batch = turn.done() and not turn.cancelled() and turn.result()
                if not self._in_batch:
                    self._batches.leave(slot, turn)
            if canary.successor is not None:
                old, (session, self._held) = self._held, canary.take_successor()
                self._notice_loss_of(session)
                await self._attempts.close(old)
            if self._canary is None:  # the session is lost, and `_note_loss` has reported it
                return None
            if session.lost.done():
                raise valid_failure(session.lost.result())
            now = self._now()
            if now >= self._plan.due or self._forced is not None:
                return session
            if now >= canary.due:
                canary.start()
            self._end_attempt()  # passes the turn on: no check waits for a canary, or for a turn that came too early

    def _notice_loss_of(self, session: Session) -> None:
        self._lost = session.lost
        self._lost.add_done_callback(self._note_loss)

    def _note_loss(self, lost: "asyncio.Future[Failure]") -> None:
        """Report the loss of an idle session now. `_live` closes it later, in turn: 1,000 may be lost together."""
        is_idle = self._canary is not None and self._canary.successor is None and not self._in_attempt
        if is_idle and lost is self._lost:  # not that of an earlier session, which was still being closed
            with suppress(BaseException):  # `_idle` raises it again
                self._ended(valid_failure(lost.result()))
                self._end_session()
                self._limiter.turn().add_done_callback(self._wakeup.set)
                return
        self._wakeup.set()

    async def _wait_until_planned(self) -> None:
        """Wait until the next attempt is due or forced, or until an absent service is seen."""
        if self._forced is not None or self._plan.due <= self._now():
            return
        in_sight, look_every = await look_out(self._service)
        while self._forced is None and (left := self._plan.due - self._now()) > 0:
            await self._wakeup.wait(min(left, look_every))
            if look_every < inf:
                was_in_sight = in_sight
                in_sight, look_every = await look_out(self._service)
                if in_sight and not was_in_sight:
                    break

    def _answered(self, result: Result, *, held: bool) -> None:
        _, observation, latency = result
        reason, message = observation.reason, observation.message
        limit = self._policy.max_latency
        if reason is None and limit is not None and latency > limit:
            reason = Reason.SLOW
            message = f"answered after {latency:.3f} s, more than max_latency {limit:g} s"
        log.debug("probe", name=self._service.name, reason=reason, latency=latency)
        self._plan.probe_again(good=reason is None)
        event = Event.ANSWERED_GOOD if reason is None else Event.ANSWERED_BAD
        self._put(Report(event, reason, message, observation, latency, held, self._plan.due))
        if observation.fresh and held and reason is None and self._canary is not None:
            self._canary.passed()
        self._end_attempt()

    def _ended(self, failure: Failure) -> None:
        """Report that the attempt failed, or that the session is lost."""
        if failure.reason is Reason.INTERNAL:
            self._crashed(failure)
        elif isinstance(failure, TooEarly):
            self._plan.attempt_after(failure.seconds)
            self._put(Report(Event.BEGUN, message=failure.message, next_attempt=self._plan.due))
        elif self._canary is None or not self._service.traits.holds_session:
            self._plan.retry(failures=self._failures + 1)
            self._put(Report(Event.FAILED, failure.reason, failure.message, next_attempt=self._plan.due))
        else:
            age = self._now() - self._session_since
            self._plan.reconnect(session_age=age, failures=self._failures)
            self._put(Report(Event.LOST, failure.reason, failure.message, next_attempt=self._plan.due))

    def _crashed(self, error: BaseException) -> None:
        self._plan.retry(failures=self._failures + 1)
        if isinstance(error, Failure):
            message = error.message
        else:
            message = f"{origin(error)}; the exporter's log has more"
            log.error("check_crashed", name=self._service.name, kind=self._service.kind, exc_info=error)
        self._put(Report(Event.CRASHED, Reason.INTERNAL, message, next_attempt=self._plan.due))

    @property
    def _failures(self) -> int:
        """How many attempts in a row have failed, as the board counts them."""
        return self._board.retry_count(self._service.name)

    def _end_attempt(self) -> None:
        if self._in_batch:  # also without an attempt: the session may be lost first
            self._in_batch = False
            self._batches.checked(self._address)
        if self._in_attempt:
            self._in_attempt = False
            self._release_forced()

    def _end_session(self) -> None:
        """End the attempt and the canary, if there are any. Their connections are closed by the caller."""
        self._end_attempt()
        if self._canary is not None and (unused := self._canary.stop()) is not None:
            self._held.add(unused)
        self._canary = self._lost = None

    def _release_forced(self) -> None:
        if self._forced is not None:
            self._forced.set_result(None)
            self._forced = None

    def _canary_over(self, session: Session) -> Canary:
        return Canary(
            self._service,
            session,
            self._attempts,
            report=self._canary_ended,
            spawn=self._spawn,
            now=self._now,
            rand=self._rand,
            slot_until=self._batches.slot_until,
        )

    def _canary_ended(self, result: Report | None) -> None:
        if result is not None:
            self._put(result)
        self._wakeup.set()

    def _put(self, report: Report) -> None:
        if not self._over:  # a canary that ends late must not report about the loop that replaced this one
            self._board.put(self._service.name, report)
