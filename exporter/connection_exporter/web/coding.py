"""Owns the content codings of /metrics: gzip, which keeps what stays the same, and zstd."""

import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Final, NamedTuple

from connection_exporter.web.rendering import in_parts

try:
    from isal import isal_zlib as deflate  # 6 MB: 3 ms, where zlib takes 21, and 10 % smaller
except ImportError:  # not every machine has a wheel
    import zlib as deflate  # type: ignore[no-redef]

_LEVEL: Final = 1
"""Of both codings. Level 6 of zlib makes it a tenth smaller and costs twice as much."""

_WINDOW: Final = 12
"""4 KiB, as a power of two. More makes the text of many services no smaller, and takes longer."""

_SHORT: Final = 2048
"""Bytes of a text that is not worth keeping: compressed by itself, it takes 100 bytes more than in a longer one."""

_HEAD: Final = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
_LAST: Final = b"\x03\x00"
"""Header of a gzip member without name and time, and an empty last block (RFC 1952, section 2.3; RFC 1951)."""

ZSTD: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
"""The module, which takes milliseconds to load, and is loaded by the first client that wants it."""


class Compressed(NamedTuple):
    """Blocks of deflate that refer to no other text, and the CRC and the length of their text."""

    blocks: bytes
    crc: int
    length: int


class Compressor:
    """Compresses texts one after the other. One of 20 KB takes 25 us, and 41 if it has a compressor of its own."""

    def __init__(self) -> None:
        self._deflate = deflate.compressobj(_LEVEL, zlib.DEFLATED, -_WINDOW)

    def blocks(self, parts: Iterable[bytes]) -> Compressed:
        """Compress a text that is given in parts. isal finds next to nothing in short ones.

        After a full flush, the compressor refers to nothing that came before it.
        """
        blocks, crc, length = [], 0, 0
        for part in parts:
            blocks.append(self._deflate.compress(part))
            crc, length = deflate.crc32(part, crc), length + len(part)
        blocks.append(self._deflate.flush(zlib.Z_FULL_FLUSH))
        return Compressed(b"".join(blocks), crc, length)


class Text:
    """A text that is likely to be sent again. It is kept compressed, once it has been, and no longer plain."""

    __slots__ = ("_compressed", "_plain")

    def __init__(self, text: bytes) -> None:
        self._plain: bytes | None = text
        self._compressed: Compressed | None = None

    def plain(self) -> bytes:
        """Return the text."""
        if self._plain is not None:
            return self._plain
        assert self._compressed is not None
        return deflate.decompress(self._compressed.blocks + _LAST, -zlib.MAX_WBITS)

    def compressed(self, compressor: Compressor) -> Compressed:
        """Return its compressed form, which ``compressor`` makes if it is not kept yet."""
        if self._compressed is None:
            self._compressed = compressor.blocks([self.plain()])
            self._plain = None
        return self._compressed


Piece = bytes | Text
"""A piece of a response: a text that is sent once, or one that is kept."""


def kept(text: bytes, compressor: Compressor | None = None) -> Piece:
    """Return a piece that is kept, if it is long enough; ``compressor``, if there is one, compresses it.

    All texts of 1,000 services have 6 MB. Compressed after the last of them is written, they would leave 2 KiB for each
    service in holes of the heap.
    """
    if len(text) < _SHORT:
        return text
    piece = Text(text)
    if compressor is not None:
        piece.compressed(compressor)
    return piece


def _plain(piece: Piece) -> bytes:
    """Return the text of a piece."""
    return piece.plain() if isinstance(piece, Text) else piece


def combine(crc: int, other: int, length: int) -> int:
    """Return the CRC of two texts, of their CRCs and the length of the second one in bytes.

    For machines without isal, whose `crc32_combine` needs no bytes: 50 us for 100 KB, which zlib compresses in 400.
    """
    zeros = bytes(length)
    return zlib.crc32(zeros, crc) ^ zlib.crc32(zeros) ^ other


_combine: Final[Callable[[int, int, int], int]] = getattr(deflate, "crc32_combine", combine)


def _gzip(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Yield one member of gzip. Each piece could have one of its own, but some clients read only one."""
    crc = length = 0
    yield _HEAD
    for text in _compressed(pieces):
        yield text.blocks
        crc, length = _combine(crc, text.crc, text.length), length + text.length
    yield _LAST + struct.pack("<LL", crc, length & 0xFFFFFFFF)


def _compressed(pieces: Iterable[Piece]) -> Iterator[Compressed]:
    """Yield the pieces that are kept, and what is between two of them."""
    compressor = Compressor()
    between: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            between.append(piece)
            continue
        if between:
            yield compressor.blocks(in_parts(between))
            between = []
        yield piece.compressed(compressor)
    if between:
        yield compressor.blocks(in_parts(between))


def _zstd(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Yield one frame of zstd. Each piece could have one of its own, and be kept, but some clients read only one."""
    compressor = import_module(ZSTD).ZstdCompressor(level=_LEVEL)
    yield from map(compressor.compress, map(_plain, pieces))
    yield compressor.flush()


IDENTITY: Final = "identity"

CODINGS: Final[Mapping[str, Callable[[Iterable[Piece]], Iterable[bytes]]]] = {
    IDENTITY: partial(map, _plain),
    "gzip": _gzip,
    "zstd": _zstd,
}
"""How the body of a response is made of its pieces, in each coding. To go through all of it takes milliseconds."""


@cache
def offered() -> frozenset[str]:
    """Return the codings that this installation has: there is no zstd for every machine."""
    package, _, _ = ZSTD.partition(".")
    has_zstd = find_spec(package) is not None and find_spec(ZSTD) is not None
    return frozenset(CODINGS) if has_zstd else frozenset(CODINGS) - {"zstd"}
