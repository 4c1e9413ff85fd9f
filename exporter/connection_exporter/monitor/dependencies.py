"""Attempts services before they are due: those whose cause has recovered, and possible causes of a fault."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from connection_exporter.core.health import Status
from connection_exporter.core.retry import pause
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Transition

_SUSPECT_EVERY: Final = 1.0
"""Seconds from the end of one check of a dependency that may be the cause of a fault to the next such check."""


class Dependencies:
    """Follows the dependencies of one board until `stop`.

    ``spawn`` starts a task that the supervisor owns. ``attempt_now`` makes the next attempt of a service now, and
    ``check_now`` returns when the results of services are on the board.
    """

    def __init__(
        self,
        board: Board,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        attempt_now: Callable[[str], None],
        check_now: Callable[[Iterable[str]], Awaitable[None]],
    ) -> None:
        self._board = board
        self._spawn = spawn
        self._attempt_now = attempt_now
        self._check_now = check_now
        self._affected: set[str] = set()
        """The services that are about to be attempted because a cause of theirs has recovered."""
        self._suspects: dict[str, bool] = {}
        """The dependencies that are being checked, and whether another service has failed since their check began."""
        self.stop = board.subscribe(self._note)

    def _note(self, transition: Transition) -> None:
        """Attempt those services now whose status the transition puts in question. Called inside `Board.put`."""
        if not self._board.active:
            return
        if transition.status is Status.HEALTHY:
            self._attempt_affected(transition.name)
        elif transition.status is not Status.UNKNOWN and transition.reason is not None:  # else it only starts
            for name in self._board.graph.dependencies(transition.name):
                self._suspect(name)

    def _attempt_affected(self, recovered: str) -> None:
        """Attempt the services that depend on one that is healthy again, and have no other cause.

        They have often recovered too, but would notice only with their next attempt, by default up to 41 s later.
        Meanwhile, they would fail without a cause, and people would be paged for each.
        """
        affected = [
            name
            for name in self._board.graph.dependents(recovered)
            if self._board.graph.is_unexplained(name) and name not in self._affected
        ]
        if affected:
            self._affected.update(affected)
            self._spawn(self._attempt_one_by_one(affected))

    async def _attempt_one_by_one(self, names: Sequence[str]) -> None:
        for name in names:
            self._affected.remove(name)
            if self._board.graph.is_unexplained(name):  # still, when it is its turn
                self._attempt_now(name)
            await asyncio.sleep(pause(len(names)))

    def _suspect(self, name: str) -> None:
        """Check a healthy dependency of a service that fails, or check it again after the check that is running.

        A dependency that is frozen, or lets nobody log in, would show it only in its next probe or canary. Until then,
        the service would fail without a cause, and people would be paged for it.
        """
        if name in self._suspects:
            self._suspects[name] = True
        elif self._board.is_healthy(name):
            self._suspects[name] = False
            self._spawn(self._check_suspect(name))

    async def _check_suspect(self, name: str) -> None:
        again = True
        while again and self._board.is_healthy(name):
            self._suspects[name] = False
            await self._check_now([name])
            await asyncio.sleep(_SUSPECT_EVERY)
            again = self._suspects[name]
        del self._suspects[name]
