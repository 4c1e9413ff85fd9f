"""An event loop whose time passes only when nobody has anything to do: hours of waiting in no time, exactly.

Timers fire in their order and at their time, to the nanosecond, whatever else the machine does. Real sockets
and threads do not belong on it: it never waits for them.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any


class _Jump(selectors.SelectSelector):
    """Jumps to the next timer instead of waiting for it."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and no timer will end it")
        if not ready and timeout is not None:
            self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; `time` starts at 1000 s."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


class VirtualClock:
    """The clocks of the loop it is used on. A suspend moves them, but not the loop's timers, as on Linux."""

    def __init__(self) -> None:
        self.suspended = 0.0
        self.wall_ahead = 1_700_000_000.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.suspended

    def wall(self) -> float:
        return self.monotonic() + self.wall_ahead

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: timers stand still meanwhile."""
        self.suspended += seconds


def on_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a virtual loop, and see that it leaves no task behind and no error unseen."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        unseen: list[Mapping[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
            await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"left behind: {left}"

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main())
        assert unseen == []

    return run
