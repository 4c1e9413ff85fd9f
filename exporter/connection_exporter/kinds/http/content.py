"""Turns the body of a response into content: undoes content codings, and decodes text. Does no I/O.

Compression is never asked for, so what arrives compressed is an exception. The decoders of br and zstd are loaded when
they are needed. Everything here may take long for a hostile body; `is_costly` says which ones belong in a thread.
"""

import codecs
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from encodings.aliases import aliases
from functools import partial
from importlib import import_module
from typing import Any, Final, Protocol

from connection_exporter.core.health import Reason
from connection_exporter.net.http1.response import Response

UNPACK_SECONDS: Final = 0.25
"""CPU time for decompressing one body. 64 KiB of empty blocks, the most expensive input, take 10 ms."""

MEMBERS: Final = 1000
"""Members or frames of one body. Each costs a decoder, 10 µs; bgzip, which writes many, puts 64 KiB into each."""

LAYERS: Final = 5
"""Codings of one body. It is the limit of curl."""

_PIECE: Final = 4096
_ZSTD_WINDOW: Final = 23  # 8 MiB: the most that a server may require (RFC 9659)

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ANY_MARK: Final = tuple(mark for mark, _ in _MARKS)
_WITHOUT_MARK: Final = {"utf_16": "utf_16_le", "utf_32": "utf_32_le"}  # as in browsers
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:+-]{1,40})", re.IGNORECASE | re.ASCII)
_QUICK: Final = frozenset({"ascii", "latin_1", "utf_8"})
_CHARSETS: Final = _QUICK.union(
    ("utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"),
    (f"iso8859_{number}" for number in (*range(2, 12), *range(13, 17))),
    (f"cp{number}" for number in (*range(1250, 1259), 437, 850, 866, 874, 932, 949)),
    ("koi8_r", "koi8_u", "mac_roman", "tis_620", "big5", "big5hkscs", "gb2312", "gbk", "gb18030"),
    ("euc_jp", "euc_kr", "iso2022_jp", "shift_jis"),
)
"""Text encodings of Python that are linear in time: a server must not choose punycode, or what is no charset at all."""


class Unreadable(Exception):
    """A body whose content cannot be had: the reason, and a message."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Decoder(Protocol):
    """What zlib and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Brotli:
    """A decoder of brotli with the interface of the others."""

    unused_data = b""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    @property
    def eof(self) -> bool:
        return bool(self._decoder.is_finished())

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return bytes(self._decoder.process(data, output_buffer_limit=max_length))


_Variant = tuple[Callable[[], _Decoder], type[Exception]]
"""A way to read a coding, and the error for damaged data."""


class _Damaged(Exception):
    """Data that is not what the coding says."""


def _zlib() -> Iterator[_Variant]:
    for window in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # some send deflate without zlib's header
        yield partial(zlib.decompressobj, window), zlib.error


def _brotli() -> Iterator[_Variant]:
    brotli = import_module("brotli")
    yield lambda: _Brotli(brotli.Decompressor()), brotli.error


def _zstd() -> Iterator[_Variant]:
    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
    yield partial(zstd.ZstdDecompressor, options=options), zstd.ZstdError


_CODINGS: Final[Mapping[str, Callable[[], Iterator[_Variant]]]] = {
    **dict.fromkeys(("gzip", "x-gzip", "deflate"), _zlib),
    "br": _brotli,
    "zstd": _zstd,
}


def is_costly(response: Response) -> bool:
    """Return whether the content of a response is to be read in a thread."""
    return bool(_codings(response)) or _charset(response) not in (None, *_QUICK)


def content_of(response: Response, *, limit: int) -> bytes:
    """Undo the codings of a body; unknown ones, as in ``Content-Encoding: UTF-8``, are none. Raises `Unreadable`.

    ``limit`` is in bytes, and applies to the result of each coding.
    """
    codings = _codings(response)
    if len(codings) > LAYERS:
        raise Unreadable(Reason.EXPECT, f"the body has more than {LAYERS} content codings")
    content, stops = response.body, time.thread_time() + UNPACK_SECONDS
    for coding in reversed(codings):
        content = _decoded(content, coding, limit, stops)
    return content


def text_of(response: Response, content: bytes) -> str:
    """Decode content: by its byte order mark, the charset of Content-Type, or else as UTF-8. Never raises.

    An unknown charset counts as UTF-8, and what cannot be decoded becomes U+FFFD.
    """
    declared = _charset(response) or "utf_8"
    codec = _marked(content)
    if codec is None and declared in ("utf_8", "utf_16"):
        codec = _utf_16(content)
    codec = codec or _WITHOUT_MARK.get(declared, declared)
    if codec == "utf_8" and len(content) <= _PIECE:
        return content.decode(errors="replace")  # as below, without 130 opcodes of Python's decoder
    decoder = codecs.getincrementaldecoder(codec)("replace")
    pieces = [decoder.decode(content[at : at + _PIECE]) for at in range(0, len(content), _PIECE)]
    return "".join((*pieces, decoder.decode(b"", final=True)))


def _codings(response: Response) -> list[str]:
    header = response.header("content-encoding")
    if not header or not response.body:
        return []
    return [name for name in map(str.strip, header.lower().split(",", 100)) if name in _CODINGS]


def _charset(response: Response) -> str | None:
    """Return the codec of the charset that Content-Type declares. ``None`` if it declares none, or an unknown one."""
    found = _CHARSET.search(response.header("content-type") or "")
    if found is None:
        return None
    label = re.sub(r"[.:+-]", "_", found[1].lower())
    codec = aliases.get(label, label)  # codecs.lookup would remember every name that a server makes up
    return codec if codec in _CHARSETS else None


def _marked(content: bytes) -> str | None:
    """Return the codec of a byte order mark."""
    if not content.startswith(_ANY_MARK):
        return None
    return next((codec for mark, codec in _MARKS if content.startswith(mark)), None)


def _utf_16(content: bytes) -> str | None:
    """Return the codec if content begins with an ASCII character in UTF-16, as all JSON in UTF-16 does."""
    first, second = content[:1] == b"\0", content[1:2] == b"\0"
    if len(content) < 2 or first is second:
        return None
    return "utf_16_be" if first else "utf_16_le"


def _decoded(data: bytes, coding: str, limit: int, stops: float) -> bytes:
    try:
        for variant in _CODINGS[coding]():
            with suppress(_Damaged):
                return _unpacked(data, variant, limit=limit, stops=stops)
    except ImportError:
        package = "brotli" if coding == "br" else "backports.zstd"
        raise Unreadable(
            Reason.EXPECT, f"the body is encoded as {coding}, and the package {package} is not installed"
        ) from None
    raise Unreadable(Reason.EXPECT, f"the body is not {coding}, as its header says, or is damaged")


def _unpacked(data: bytes, variant: _Variant, *, limit: int, stops: float) -> bytes:
    """Decompress piece by piece. Raises `_Damaged`, and `Unreadable` above the limits."""
    new, error = variant
    decoder, content, members = new(), bytearray(), 1
    several = data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")) or data[1:4] == b"\x2a\x4d\x18"
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        while piece:
            if decoder.eof:
                if not several:
                    raise _Damaged
                decoder = new()  # gzip has members (RFC 1952, section 2.2), zstd frames (RFC 8878, section 3)
                members += 1
            try:
                content += decoder.decompress(piece, limit + 1 - len(content))
            except error:
                raise _Damaged from None
            if len(content) > limit:
                raise Unreadable(
                    Reason.TOO_LARGE, f"the body, decompressed, is larger than body_limit, {limit} bytes"
                )
            if members > MEMBERS:
                raise Unreadable(Reason.TOO_LARGE, f"the body has more than {MEMBERS} members")
            if time.thread_time() > stops:
                raise Unreadable(
                    Reason.TOO_LARGE, f"decompressing the body takes more than {UNPACK_SECONDS:g} s of CPU"
                )
            piece = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise _Damaged
    return bytes(content)
