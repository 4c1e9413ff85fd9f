"""Logs in to PostgreSQL: answers authentication requests until the server is ready for a query."""

from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.postgresql.authentication import Scram, md5_answer
from connection_exporter.kinds.postgresql.messages import (
    READY,
    Violation,
    malformed,
    password_message,
    startup,
)
from connection_exporter.kinds.postgresql.wire import Wire
from connection_exporter.system.threads import run_in_thread

_AUTHENTICATION: Final = ord("R")
_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
"""Codes of authentication requests (PostgreSQL docs, 53.7)."""

_METHODS: Final = {
    _OK: "none",
    _CLEARTEXT: "password",
    _MD5: "md5",
    7: "gss",
    9: "sspi",
    _SASL: "scram-sha-256",
}
"""What libpq's require_auth calls them."""

_UNSUPPORTED: Final = {2: "Kerberos 5", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}


async def log_in(
    wire: Wire, where: str, *, user: str, password: str | None, database: str, methods: frozenset[str]
) -> None:
    """Log in by one of the ``methods``, as libpq's require_auth names them. Raises `Failure`."""
    wire.start(startup(user, database))
    try:
        await _authenticate(wire, user, password, methods)
        await _until_ready(wire)
    except Violation as violation:
        raise Failure(violation.reason, f"{where} {violation.message}") from violation


async def _authenticate(wire: Wire, user: str, password: str | None, methods: frozenset[str]) -> None:
    """Answer one authentication request of the server's choice; it must not ask for more than that."""
    code, content = await _request(wire)
    method = _METHODS.get(code)
    if method is not None and method not in methods:
        raise Violation(
            Reason.AUTH, f"asks for the authentication method {method}, which require_auth excludes"
        )
    if code == _OK:
        return
    if code in _UNSUPPORTED:
        raise Violation(Reason.AUTH, f"asks for {_UNSUPPORTED[code]}, which is not supported")
    if password is None:
        raise Violation(Reason.AUTH, "asks for a password, and none is configured")
    if code == _CLEARTEXT:
        wire.send(password_message(password.encode() + b"\0"))
    elif code == _MD5:
        wire.send(password_message(md5_answer(user, password, content[:4])))
    elif code == _SASL:
        await _authenticate_by_scram(wire, Scram(content, password))
    else:
        raise malformed(f"an authentication request with the code {code}")
    code, _ = await _request(wire)
    if code != _OK:
        raise malformed(f"a further authentication request with the code {code}")


async def _authenticate_by_scram(wire: Wire, scram: Scram) -> None:
    wire.send(password_message(scram.first()))
    scram.challenge(await _sasl(wire, _SASL_CONTINUE))
    proof = scram.final() if scram.is_quick else await run_in_thread(scram.final, name="postgresql scram")
    wire.send(password_message(proof))
    scram.verify(await _sasl(wire, _SASL_FINAL))


async def _sasl(wire: Wire, expected: int) -> bytes:
    code, content = await _request(wire)
    if code != expected:
        raise malformed(f"an authentication request with the code {code} during SCRAM")
    return content


async def _request(wire: Wire) -> tuple[int, bytes]:
    """Return the code and the content of the next authentication request."""
    while True:
        kind, body = await wire.receive()
        if kind == _AUTHENTICATION and len(body) >= 4:
            return int.from_bytes(body[:4]), body[4:]
        if kind == READY:
            raise malformed("no authentication")


async def _until_ready(wire: Wire) -> None:
    while True:
        kind, _ = await wire.receive()
        if kind == READY:
            wire.finish_login()
            return
        if kind == _AUTHENTICATION:
            raise malformed("an authentication request after the end of authentication")
