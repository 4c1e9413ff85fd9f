"""Answers PostgreSQL's authentication requests: password, MD5 and SCRAM-SHA-256. No I/O.

https://www.postgresql.org/docs/current/sasl-authentication.html, RFC 5802 (SCRAM), RFC 7677 (SCRAM-SHA-256). As in
libpq, a server may ask for any of the three; over an untrusted network, `sslmode: verify-full` is what protects the
password.
"""

import base64
import hashlib
import hmac
import secrets
import stringprep
import struct
import unicodedata
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kinds.postgresql.messages import Violation, malformed

ITERATIONS: Final = 1_000_000
"""SCRAM iterations. PostgreSQL's default is 4,096; a million takes about half a second of CPU, in a thread."""

_SALTED: Final[dict[tuple[bytes, bytes, int], bytes]] = {}
"""Salted passwords, by password, salt and iterations: the salt of a role seldom changes, and salting takes 2 ms. RFC
5802, section 5.1, lets a client keep them. They are worth no more than the passwords, which are in memory too."""

SALTED_LIMIT: Final = 256
"""Salted passwords that are kept. Then all are dropped, so that a server that makes up salts fills no memory."""

_LONGEST_SALT: Final = 64
"""Bytes of a salt with which a password is kept. PostgreSQL's have 16, and a login has room for 48,000."""

MECHANISM: Final = "SCRAM-SHA-256"


def md5_answer(user: str, password: str, salt: bytes) -> bytes:
    """Return the answer to AuthenticationMD5Password (PostgreSQL docs, 53.2.1)."""
    inner = hashlib.md5(password.encode() + user.encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return b"md5" + outer.encode() + b"\0"


class Scram:
    """One SCRAM-SHA-256 exchange, without channel binding. Every method raises `Violation`."""

    def __init__(self, offered: bytes, password: str) -> None:
        if MECHANISM.encode() not in offered.split(b"\0", 8):
            raise Violation(Reason.AUTH, f"offers no authentication that is supported, such as {MECHANISM}")
        self._password = _prepared(password)
        self._nonce = base64.b64encode(secrets.token_bytes(18)).decode()
        self._client_first = f"n=,r={self._nonce}"  # PostgreSQL takes the user from the StartupMessage
        self._server_signature: bytes | None = None

    def first(self) -> bytes:
        """Return the SASLInitialResponse."""
        content = b"n,," + self._client_first.encode()
        return MECHANISM.encode() + b"\0" + struct.pack("!I", len(content)) + content

    def challenge(self, server_first: bytes) -> None:
        """Take the challenge of the server, which `final` answers. Raises `Violation`."""
        fields = _fields(server_first)
        nonce, iterations = fields.get("r", ""), fields.get("i", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise malformed("the SCRAM nonce is not ours")
        if not (iterations.isascii() and iterations.isdigit() and len(iterations) <= 10 and int(iterations)):
            raise malformed("the SCRAM iteration count is not a number")
        if int(iterations) > ITERATIONS:
            raise Violation(Reason.TOO_LARGE, f"asks for {iterations} SCRAM iterations (limit: {ITERATIONS})")
        self._salt = _decoded(fields.get("s", "")), int(iterations)
        self._bare_final = f"c=biws,r={nonce}"  # biws is n,, in base64
        self._signed = f"{self._client_first},{server_first.decode()},{self._bare_final}".encode()

    @property
    def is_quick(self) -> bool:
        """Whether `final` takes no time, because the password has been salted before."""
        return (self._password, *self._salt) in _SALTED

    def final(self) -> bytes:
        """Return the SASLResponse with the proof. Takes CPU for each iteration, so run it in a thread."""
        salted = _salted(self._password, *self._salt)
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), self._signed)
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), self._signed)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{self._bare_final},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check that the server knows the password too."""
        signature = _decoded(_fields(server_final).get("v", ""))
        if self._server_signature is None or not hmac.compare_digest(signature, self._server_signature):
            raise malformed("the server's SCRAM signature is wrong")


def _salted(password: bytes, salt: bytes, iterations: int) -> bytes:
    kept = _SALTED.get((password, salt, iterations))
    if kept is None:
        kept = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
        if len(_SALTED) >= SALTED_LIMIT:
            _SALTED.clear()
        if len(salt) <= _LONGEST_SALT:
            _SALTED[password, salt, iterations] = kept
    return kept


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")


def _fields(content: bytes) -> dict[str, str]:
    """Read ``r=…,s=…,i=…``. Every field begins with one letter (RFC 5802, section 5.1)."""
    if not content.isascii():
        raise malformed("a SCRAM message is not ASCII")
    parts = content.decode().split(",", 16)
    return {part[:1]: part[2:] for part in parts if part[1:2] == "="}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise malformed("a SCRAM message is not base64") from None


def _prepared(password: str) -> bytes:
    """Return a password as SASLprep gives it (RFC 4013); as it is if SASLprep forbids it, like libpq."""
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if not stringprep.in_table_b1(char)
    )
    normalized = unicodedata.normalize("NFKC", mapped)
    if not normalized or any(_forbidden(char) for char in normalized) or _mixes_directions(normalized):
        return password.encode()
    return normalized.encode()


_FORBIDDEN: Final = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def _forbidden(char: str) -> bool:
    return any(in_table(char) for in_table in _FORBIDDEN)


def _mixes_directions(text: str) -> bool:
    """Return whether right-to-left text breaks the rules of RFC 3454, section 6."""
    if not any(stringprep.in_table_d1(char) for char in text):
        return False
    ends_right_to_left = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends_right_to_left or any(stringprep.in_table_d2(char) for char in text)
