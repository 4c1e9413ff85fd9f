"""Says what is wrong with certificates and keys, where OpenSSL says no more than "PEM lib". Does no I/O."""

import re
import ssl
from typing import Final, Literal

MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""OpenSSL's reasons for a key of another certificate. The last one is that for a key of another type."""


def defect(content: bytes, wanted: Literal["certificate", "private key"]) -> str | None:
    """Return what is wrong with a text that has nothing of what is ``wanted``, after its name; ``None`` if it has."""
    if not content.strip():
        return f"is empty: expected a {wanted} (PEM)"
    if re.search(rf"-----BEGIN [A-Z0-9 ]*{wanted.upper()}-----".encode(), content):
        return None
    return f"contains no {wanted}: expected PEM, with -----BEGIN {wanted.upper()}-----"


def words(error: OSError | ValueError) -> str:
    """Return OpenSSL's reason as words."""
    reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
    return reason.replace("_", " ").lower() if reason else "damaged"
