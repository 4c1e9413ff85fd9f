"""The exceptions that a caller of `Monitor` may meet. A config that is not valid raises `ConfigError` instead."""

from collections.abc import Iterable


class UnknownService(KeyError):
    """No service has this name; ``known`` lists those that exist."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = tuple(known)

    def __str__(self) -> str:
        return f"no service is called {self.name!r}; known: {', '.join(self.known)}"


class TooSoon(Exception):
    """A check was forced right after the last one. ``retry_after`` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the last forced check was moments ago: try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class NotRunning(Exception):
    """Monitoring has not started, or has stopped."""

    def __init__(self) -> None:
        super().__init__("the monitor is not running: use it within its `async with` block")
