"""Gathers the checks of all services into batches: the program sleeps between batches, and not between checks.

A process that has slept finds the caches of the CPU cold. At 200 checks a second, with a wake-up for each, a bare PING
of Redis costs 94 us; eight batches a second make it 20 us (`make bench ARGS="--only floor"`).
"""

import asyncio
from collections import deque
from math import ceil, floor
from typing import Final

from connection_exporter.system.wakeup import TICK

_SIZE: Final = 50
"""Checks of a batch, if all services have the same interval. 1,000 services take 1.74 % of a core, and in batches of 25
1.90 %. Batches of 100 take 1.66 %, but every tenth latency of PostgreSQL that is shown exceeds 13 ms, instead of 5."""

_FEWEST: Final = 8
_MOST: Final = 64
"""Slots of an interval: regular checks start at the beginnings of slots."""

_PATIENCE: Final = 0.05
"""Seconds for which checks of the same address wait for each other. One that does not respond delays the others by
no more than this. Of several services on a frozen server, some are noticed later than `detection_bounds` says, by this
much."""

_ROUNDING: Final = 1e-6
"""Share of a slot that sums of floating-point numbers may be off."""


class _Slot:
    """Those who wait for a slot, each with the address to check, in the order in which they came."""

    __slots__ = ("timer", "waiting")

    def __init__(self) -> None:
        self.timer: asyncio.TimerHandle
        self.waiting: dict[asyncio.Future[bool], str] = {}


class Batches:
    """When checks are due, and whose turn it is in a batch. Belongs to one event loop.

    ``origin`` is a time on the clock of the checks; exporters that began at different times have different slots.
    """

    def __init__(self, *, origin: float) -> None:
        self.slots = _FEWEST
        """Slots of an interval."""
        self._origin = origin
        self._due: dict[float, _Slot] = {}  # future slots, each with at least one waiter
        self._ready: deque[tuple[str, asyncio.Future[bool]]] = deque()
        self._queues: dict[str, deque[asyncio.Future[bool]]] = {}  # of each address that is being checked
        self._timers: dict[str, asyncio.TimerHandle] = {}  # of the queues in which a check has waited

    def resize(self, services: int) -> None:
        """Choose the number of slots for so many services."""
        self.slots = min(max(services // _SIZE, _FEWEST), _MOST)

    def slot_until(self, at: float, interval: float) -> float:
        """Return the last beginning of a slot up to the time ``at``, for checks every ``interval`` seconds.

        Never later than ``at``: that a fault is noticed within an interval remains true.
        """
        length = interval / self.slots
        return self._origin + floor((at - self._origin) / length + _ROUNDING) * length

    def random_slot(self, now: float, interval: float, *, rand: float) -> float:
        """Return the beginning of one of the slots of the next interval; ``rand``, from 0 to 1, chooses it."""
        slots = max(ceil(rand * self.slots), 1)
        return self.slot_until(now, interval) + slots * interval / self.slots

    def join(self, slot: float, now: float, address: str, waiter: "asyncio.Future[bool]") -> None:
        """Call `wake` at the beginning of a slot, unless ``waiter`` is done by then.

        All services of a slot share one timer. Call `leave` if ``waiter`` was done before.
        """
        due = self._due.get(slot)
        if due is None:
            due = self._due[slot] = _Slot()
            due.timer = waiter.get_loop().call_later(slot - now + TICK, self._begin_slot, slot, due)
        due.waiting[waiter] = address

    def leave(self, slot: float, waiter: "asyncio.Future[bool]") -> None:
        """Wait for ``slot`` no more. A service that is forced joins again each time, mostly for another slot."""
        due = self._due.get(slot)
        if due is not None and due.waiting.pop(waiter, None) is not None and not due.waiting:
            due.timer.cancel()
            del self._due[slot]

    def recheck_clock(self) -> None:
        """Forget the timers of all slots, which are late because the clock has jumped: later checks start new ones."""
        self._due = {}

    def wake(self, address: str, waiter: "asyncio.Future[bool]") -> None:
        """Set the result of ``waiter``, whose check of ``address`` then starts, when it is its turn.

        One check starts in each iteration of the event loop, which reads sockets in between: no response waits until
        all other requests of the batch are sent. Those with the same address, which may be a single server, follow
        each other: each waits until `checked` is called for the one before it, or for `_PATIENCE`.
        """
        queue = self._queues.get(address)
        if queue is None:
            self._queues[address] = deque()
            self._enqueue(address, waiter)
        else:
            if not queue:
                self._cancel_timer(address)
                self._timers[address] = waiter.get_loop().call_later(_PATIENCE, self._end_queue, address)
            queue.append(waiter)

    def checked(self, address: str) -> None:
        """Let the next check of ``address`` start, because one has ended."""
        queue = self._queues.get(address)
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                if self._ready:
                    self._enqueue(address, waiter)
                else:  # it starts in the next iteration, as does one for each other check that ends in this one
                    waiter.set_result(True)
                return
        if queue is not None:
            del self._queues[address]
            self._cancel_timer(address)  # or it would wake the process after each batch

    def _begin_slot(self, slot: float, due: "_Slot") -> None:
        if self._due.get(slot) is due:
            del self._due[slot]
        del due.timer  # otherwise, each would keep the other in memory
        for waiter, address in due.waiting.items():
            if not waiter.done():
                self.wake(address, waiter)

    def _end_queue(self, address: str) -> None:
        del self._timers[address]
        for waiter in self._queues.pop(address):
            self._enqueue(address, waiter)

    def _cancel_timer(self, address: str) -> None:
        if (timer := self._timers.pop(address, None)) is not None:
            timer.cancel()

    def _enqueue(self, address: str, waiter: "asyncio.Future[bool]") -> None:
        self._ready.append((address, waiter))
        if len(self._ready) == 1:
            waiter.get_loop().call_soon(self._wake_next)

    def _wake_next(self) -> None:
        address, waiter = self._ready.popleft()
        if self._ready:
            waiter.get_loop().call_soon(self._wake_next)
        if waiter.done():  # its session is lost
            self.checked(address)
        else:
            waiter.set_result(True)
