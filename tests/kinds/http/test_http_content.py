"""Content codings: what is decoded, what counts as damaged, and what a hostile body may cost."""

import codecs
import gzip
import sys
import tracemalloc
import zlib
from importlib import import_module
from typing import Any

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kinds.http.content import text_of
from connection_exporter.net.http1.response import Response
from hypothesis import given
from hypothesis import strategies as st
from support.http_servers import answers, ask, reply, serving

brotli: Any = import_module("brotli")
zstd: Any = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

TEXT = b'{"status": "ok"}'
GZIP, ZLIB, RAW = gzip.compress(TEXT), zlib.compress(TEXT), zlib.compress(TEXT, wbits=-15)
BR, ZSTD = brotli.compress(TEXT), zstd.compress(TEXT)


async def message_for(packed: bytes, *codings: str, **keys: object) -> tuple[Reason | None, str]:
    headers = [f"Content-Encoding: {coding}" for coding in codings]
    async with serving(answers(reply(packed, "200 OK", *headers))) as server:
        seen = await ask(server.url(), **{"expect": {"json": {"status": "ok"}}, **keys})
    return seen.reason, seen.message


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", GZIP),
        ("GZip", GZIP),
        ("x-gzip", GZIP),
        ("gzip", gzip.compress(TEXT[:5]) + gzip.compress(TEXT[5:])),
        ("gzip", gzip.compress(b"") + GZIP),
        ("gzip", ZLIB),
        ("deflate", ZLIB),
        ("deflate", RAW),
        ("br", BR),
        ("zstd", ZSTD),
        ("zstd", zstd.compress(TEXT[:5]) + zstd.compress(TEXT[5:])),
        ("zstd", b"\x50\x2a\x4d\x18\x02\0\0\0ab" + ZSTD),
        ("gzip, br", brotli.compress(GZIP)),
        ("br ,gzip", gzip.compress(BR)),
        ("gzip, gzip, zstd", zstd.compress(gzip.compress(GZIP))),
        ("gzip, identity", GZIP),
        ("identity", TEXT),
        ("", TEXT),
        ("none", TEXT),
        ("UTF-8", TEXT),
        ("compress", TEXT),
        ("UTF-8, gzip", GZIP),
    ],
)
async def test_a_coding_is_undone(coding: str, packed: bytes) -> None:
    """The members of gzip and the frames of zstd are joined; what is not a coding counts as none."""
    assert await message_for(packed, coding) == (None, "")


async def test_codings_may_be_in_several_headers() -> None:
    """The first header has the coding that was applied first."""
    assert await message_for(brotli.compress(GZIP), "gzip", "br") == (None, "")


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", GZIP[:-1]),
        ("gzip", GZIP[:12]),
        ("gzip", GZIP + GZIP[:12]),
        ("gzip", GZIP + b"garbage"),
        ("gzip", GZIP + b"\0" * 20),
        ("gzip", GZIP[:-8] + bytes(4) + GZIP[-4:]),
        ("gzip", GZIP[:-4] + bytes(4)),
        ("gzip", TEXT),
        ("deflate", ZLIB[:-5]),
        ("deflate", RAW[:-2]),
        ("deflate", ZLIB + b"garbage"),
        ("deflate", RAW + b"garbage"),
        ("br", BR[:-1]),
        ("br", BR + b"garbage"),
        ("br", TEXT),
        ("zstd", ZSTD[:-1]),
        ("zstd", ZSTD + b"garbage"),
        ("zstd", TEXT),
    ],
)
async def test_damaged_data_is_a_bad_answer(coding: str, packed: bytes) -> None:
    """Truncated data too, and data after the end, which curl and Go also refuse."""
    reason, message = await message_for(packed, coding)
    assert reason is Reason.EXPECT
    assert message == f"the body is not {coding}, as its header says, or is damaged"


async def test_a_decoder_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are machines for which it has no wheel."""
    monkeypatch.setitem(sys.modules, "brotli", None)
    assert await message_for(BR, "br") == (
        Reason.EXPECT,
        "the body is encoded as br, and the package brotli is not installed",
    )


async def test_more_codings_than_curl_undoes_are_refused() -> None:
    """No server has a reason for six."""
    packed = TEXT
    for _ in range(6):
        packed = gzip.compress(packed)
    assert await message_for(packed, ",".join(["gzip"] * 6)) == (
        Reason.EXPECT,
        "the body has more than 5 content codings",
    )


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        ("gzip", gzip.compress(bytes(50 * 2**20))),
        ("deflate", zlib.compress(bytes(50 * 2**20))),
        ("br", brotli.compress(bytes(50 * 2**20))),
        ("zstd", zstd.compress(bytes(50 * 2**20))),
        ("zstd, br", brotli.compress(zstd.compress(bytes(50 * 2**20)))),
    ],
)
async def test_a_bomb_takes_little_memory(coding: str, bomb: bytes) -> None:
    """It is `too_large`; without a condition on the body, it is not decompressed at all."""
    assert len(bomb) < 65536
    assert await message_for(bomb, coding, expect={}) == (None, "")
    tracemalloc.start()
    try:
        reason, message = await message_for(bomb, coding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (reason, "decompressed" in message) == (Reason.TOO_LARGE, True)
    assert peak < 8 * 2**20


async def test_zstd_must_not_require_a_large_window() -> None:
    """8 MiB are the most (RFC 9659), although a frame may ask for gigabytes."""
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    packed = compressor.compress(TEXT) + compressor.flush()
    assert (await message_for(packed, "zstd"))[0] is Reason.EXPECT


async def test_conditions_on_the_status_and_on_headers_do_not_decompress() -> None:
    """The body may be damaged."""
    seen = await message_for(
        b"garbage", "gzip", expect={"status": 200, "headers": {"Content-Encoding": "gzip"}}
    )
    assert seen == (None, "")


@given(st.binary() | st.text().map(str.encode))
def test_a_short_text_is_decoded_like_a_long_one(content: bytes) -> None:
    """UTF-8 in one call has the same result as in pieces, also where it is damaged or cut short."""
    content = b"ok" + content  # so that it is not UTF-16
    decoder = codecs.getincrementaldecoder("utf_8")("replace")
    in_pieces = "".join(decoder.decode(content[at : at + 1]) for at in range(len(content)))
    response = Response(200, "1.1", (), content, True, 0, 0)
    assert text_of(response, content) == in_pieces + decoder.decode(b"", final=True)
