"""What an error from PostgreSQL or from a pooler means: its fields, and the reason that it means. No I/O."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from connection_exporter.core.health import Reason

# https://www.postgresql.org/docs/current/errcodes-appendix.html
BY_SQLSTATE: Final[Mapping[str, Reason]] = {
    "08P01": Reason.PROTOCOL,
    "28000": Reason.AUTH,
    "28P01": Reason.AUTH,
    "3D000": Reason.MISSING,
    "42501": Reason.PERMISSION,
    "53300": Reason.SLOTS_FULL,
    "57P01": Reason.SHUTDOWN,
    "57P02": Reason.SHUTDOWN,
    "57P03": Reason.STARTING,
    "57P05": Reason.IDLE_CLOSED,
}

# Poolers report nearly everything under one SQLSTATE and differ by text. PgBouncer's texts are in its src/client.c and
# src/objects.c (versions 1.5 to 1.24; newer ones use 28P01 for some), Supavisor's under XX000.
_BY_TEXT: Final[Mapping[str, tuple[tuple[str, Reason], ...]]] = {
    "08P01": (
        ("no more connections allowed", Reason.SLOTS_FULL),
        ("no such database", Reason.MISSING),
        ("no such user", Reason.AUTH),
        ("authentication failed", Reason.AUTH),  # "password …" and "SASL …", since 1.18
        ("auth failed", Reason.AUTH),
        ("login rejected", Reason.AUTH),
        ("wrong password type", Reason.AUTH),
        ("password required", Reason.AUTH),
        ("certificate required", Reason.AUTH),
        ("not allowed", Reason.AUTH),
        ("does not allow connections", Reason.AUTH),
        ("ssl required", Reason.TLS),
        ("server login has been failing", Reason.UNREACHABLE),
        ("server login failed", Reason.UNREACHABLE),
        ("cannot connect to server", Reason.UNREACHABLE),
        ("query_wait_timeout", Reason.TIMEOUT),
        ("client_login_timeout", Reason.TIMEOUT),
        ("client_idle_timeout", Reason.IDLE_CLOSED),
        ("shutting down", Reason.SHUTDOWN),
    ),
    "XX000": (
        ("tenant or user not found", Reason.AUTH),
        ("max client connections reached", Reason.SLOTS_FULL),
    ),
    "": (("could not fork new process", Reason.SLOTS_FULL),),  # PostgreSQL itself, as `messages` explains
}

_FIELDS: Final = 32
"""Fields of one error that are read. PostgreSQL defines 18."""

_TEXT: Final = 1000
"""Characters kept of one field."""


class ErrorResponse(NamedTuple):
    """An ErrorResponse. After a fatal one, the server ends the session."""

    fatal: bool
    state: str
    text: str

    @property
    def reason(self) -> Reason | None:
        """What the error means, by a pooler's own words or by its SQLSTATE; ``None`` if neither is known."""
        text = self.text.lower()
        for known, reason in _BY_TEXT.get(self.state, ()):
            if known in text:
                return reason
        return BY_SQLSTATE.get(self.state)

    def __str__(self) -> str:
        return f"{self.text} ({self.state})" if self.state else self.text


def read_error(body: bytes) -> ErrorResponse:
    """Read the fields of an ErrorResponse: a letter, a text and a zero byte each (PostgreSQL docs, 53.8).

    V is the severity in English; PostgreSQL before 9.6 and PgBouncer send only S, which PostgreSQL translates.
    """
    fields: dict[bytes, str] = {}
    at = 0
    for _ in range(_FIELDS):
        end = body.find(b"\0", at)
        if end <= at:
            break
        fields.setdefault(body[at : at + 1], _cut(body[at + 1 : end]))
        at = end + 1
    severity = fields.get(b"V") or fields.get(b"S", "")
    return ErrorResponse(
        severity in ("FATAL", "PANIC"),
        fields.get(b"C", "")[:5],
        fields.get(b"M") or "an error without a text",
    )


def _cut(text: bytes) -> str:
    return text[: 4 * _TEXT].decode("utf-8", "replace")[:_TEXT]
