"""What libpq makes of a connection string: the library of the wheel that the tests run PostgreSQL from."""

import ctypes
from functools import cache

from connection_exporter.demo.postgresql import postgresql_root


class _Option(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")),
        ("dispsize", ctypes.c_int),
    )


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(postgresql_root() / "lib" / "libpq.so.5"))
    library.PQconninfoParse.restype = ctypes.POINTER(_Option)
    library.PQconninfoFree.argtypes = [ctypes.POINTER(_Option)]
    return library


def libpq(dsn: str) -> dict[str, str] | None:
    """Return the parameters of a connection string, ``None`` where libpq refuses it."""
    library = _library()
    options = library.PQconninfoParse(dsn.encode(), None)
    if not options:
        return None
    found, at = {}, 0
    while options[at].keyword:
        if options[at].val is not None:
            found[options[at].keyword.decode()] = options[at].val.decode("utf-8", "surrogateescape")
        at += 1
    library.PQconninfoFree(options)
    return found
