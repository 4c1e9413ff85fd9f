"""The exceptions of a check: no answer, and no answer yet."""

from connection_exporter.core.health import Reason


class Failure(Exception):
    """No answer: an attempt that failed, or the end of a held session.

    The message is for people and is published as it is, so it must never hold a secret.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __repr__(self) -> str:
        return f"Failure({self.reason}: {self.message})"


class TooEarly(Failure):
    """No answer yet, and none is due for ``seconds`` from now: this is not a failed attempt."""

    def __init__(self, reason: Reason, message: str, *, seconds: float) -> None:
        super().__init__(reason, message)
        self.seconds = seconds
