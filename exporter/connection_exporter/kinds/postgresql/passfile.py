"""Looks up a password in a file in the format of ``.pgpass``. No I/O.

https://www.postgresql.org/docs/current/libpq-pgpass.html
"""

import re
from collections.abc import Sequence
from typing import Final

_FIELD: Final = r"((?:[^:\\]|\\.)*):"
_ESCAPED: Final = r"\\(.)"


def password_in(text: str, fields: Sequence[str]) -> str:
    """Return the password of the first line that matches host, port, database and user; empty if there is none.

    A line has five fields with colons between them. ``*`` matches anything, and a backslash escapes what follows it.
    """
    for ended in text.split("\n"):
        line = ended.removesuffix("\r")
        if line.startswith("#"):
            continue
        at = 0
        for wanted in fields:
            field = re.compile(_FIELD).match(line, at)
            if field is None or (field[1] != "*" and re.sub(_ESCAPED, r"\1", field[1]) != wanted):
                break
            at = field.end()
        else:
            return re.sub(_ESCAPED, r"\1", line[at:])
    return ""
