"""Plans the attempts at one service: when its next probe or retry is due, by the rules of `core.retry`."""

from collections.abc import Callable
from math import inf

from connection_exporter.core.retry import Policy, backoff, recheck, reconnects_at_once
from connection_exporter.monitor.batches import Batches
from connection_exporter.system.wakeup import TICK


class Plan:
    """When the next attempt at a service starts: at ``due``, on the clock ``now``; the first after ``delay`` seconds.

    ``rand`` returns numbers from 0 to 1. Regular probes start in the slots of ``batches``.
    """

    __slots__ = ("_bad_answers", "_batches", "_early", "_now", "_policy", "_rand", "_spread_next", "due")

    def __init__(
        self,
        policy: Policy,
        batches: Batches,
        *,
        now: Callable[[], float],
        rand: Callable[[], float],
        delay: float,
    ) -> None:
        self.due = now() + delay
        self._policy = policy
        self._batches = batches
        self._now = now
        self._rand = rand
        self._spread_next = True
        self._bad_answers = 0
        self._early = -inf

    def attempt_early(self) -> float:
        """Make the next attempt now, or ``retry_delay`` after the last one that was early. Return when.

        A service whose causes recover again and again would otherwise be attempted each time.
        """
        now = self._now()
        if self._early <= now:
            self._early = max(now, self._early + self._policy.retry_delay)
        self.due = min(self.due, self._early)
        return self._early

    def attempt_after(self, seconds: float) -> None:
        """Make the next attempt in ``seconds``, when there can be an answer (`TooEarly`), but not in this iteration."""
        self.due = self._now() + max(seconds, TICK)

    def probe_again(self, *, good: bool) -> None:
        """Plan the next probe after an answer: one interval after the last probe, or earlier after a bad answer.

        The second probe, and the first one after a pause of more than an interval, start in a random slot. A good
        answer to a forced probe leaves the plan as it is.
        """
        now, interval = self._now(), self._policy.interval
        if not good:
            self._bad_answers += 1
            self.due = now + recheck(self._policy, bad_answers=self._bad_answers)
        else:
            self._bad_answers = 0
            if self._spread_next or now - self.due > interval:
                self.due = self._batches.random_slot(now, interval, rand=self._rand())
            elif self.due <= now:
                self.due = self._batches.slot_until(self.due + interval, interval)
        self._spread_next = False

    def retry(self, *, failures: int) -> None:
        """Plan the next attempt after ``failures`` in a row, with exponential back-off."""
        self.due = self._now() + backoff(self._policy, failures=failures, rand=self._rand())

    def reconnect(self, *, session_age: float, failures: int) -> None:
        """Plan the first attempt after the loss of a session: at once, unless it was a short one."""
        if reconnects_at_once(self._policy, session_age=session_age):
            self.due = self._now()
        else:
            self.retry(failures=failures)
