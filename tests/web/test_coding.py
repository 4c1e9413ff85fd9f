"""In each content coding, pieces come out as their whole text, whatever of them was kept from before."""

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterable
from importlib import import_module

import pytest
from connection_exporter.web.coding import CODINGS, ZSTD, Compressor, Piece, Text, combine, kept, offered
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

LONG = b"".join(b'connection_up{kind="redis",name="redis_%d"} 1.0\n' % number for number in range(2000))

PIECES = [
    pytest.param([], b"", id="nothing"),
    pytest.param([b"a\n"], b"a\n", id="one text"),
    pytest.param([b"a\n", b"b\n", Text(LONG), b"", b"c\n"], b"a\nb\n" + LONG + b"c\n", id="both sorts"),
    pytest.param([Text(LONG), Text(b""), Text(b"x\n")], LONG + b"x\n", id="texts that are kept"),
    pytest.param([LONG, LONG, Text(LONG)], LONG * 3, id="the same text"),
]


def body(coding: str, pieces: Iterable[Piece]) -> bytes:
    return b"".join(CODINGS[coding](pieces))


@pytest.mark.parametrize(("pieces", "text"), PIECES)
def test_the_pieces_are_one_member_of_gzip(pieces: list[Piece], text: bytes) -> None:
    """Each time: what was compressed for the first response is used for the second one."""
    for _ in range(2):
        packed = body("gzip", pieces)
        decoder = zlib.decompressobj(wbits=31)
        assert decoder.decompress(packed) == text, "CRC and length are right, too"
        assert (decoder.eof, decoder.unused_data) == (True, b""), "some clients read only one member"
        assert gzip.decompress(packed) == isal_zlib.decompress(packed, 31) == text


@pytest.mark.parametrize(("pieces", "text"), PIECES)
def test_the_pieces_are_one_frame_of_zstd(pieces: list[Piece], text: bytes) -> None:
    """Also when they have been compressed for gzip before."""
    for coding in ("zstd", "gzip", "zstd", "identity"):
        packed = body(coding, pieces)
        if coding == "zstd":
            decoder = import_module(ZSTD).ZstdDecompressor()
            assert decoder.decompress(packed) == text
            assert (decoder.eof, decoder.unused_data) == (True, b""), "some clients read only one frame"
    assert packed == text


def test_a_text_that_is_kept_is_compressed_once() -> None:
    """And no longer kept plain, which takes ten times the memory."""
    text = kept(LONG)
    assert isinstance(text, Text)
    assert text.plain() is LONG
    first = text.compressed(Compressor())
    assert text.compressed(Compressor()) is first
    assert text.plain() is not LONG
    assert text.plain() == LONG
    assert len(first.blocks) < len(LONG) / 8


@given(st.lists(st.sampled_from([b"", b"a\n", LONG, LONG[:100], LONG[:20_000], LONG[7:]]), max_size=6))
def test_a_text_that_is_kept_refers_to_no_other(texts: list[bytes]) -> None:
    """Although one compressor compresses all: at the next response, any of them may have changed."""
    compressor = Compressor()
    kept_texts = [*map(Text, texts)]
    for text in kept_texts:
        text.compressed(compressor)
    assert [text.plain() for text in kept_texts] == texts


def test_a_short_text_is_not_kept() -> None:
    """It would make the response longer."""
    assert kept(b"short\n") == b"short\n"


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_crc_of_two_texts_follows_from_theirs(first: bytes, second: bytes) -> None:
    """With isal and without."""
    crcs = zlib.crc32(first), zlib.crc32(second)
    assert combine(*crcs, len(second)) == isal_zlib.crc32_combine(*crcs, len(second))
    assert combine(*crcs, len(second)) == zlib.crc32(first + second)


WITHOUT = """
import sys
sys.modules["isal"] = sys.modules["backports"] = sys.modules["compression"] = None
from connection_exporter.web.coding import CODINGS, Text, combine, deflate, offered
assert deflate.__name__ == "zlib"
text = Text(b"kept\\n" * 1000)
for _ in range(2):
    sys.stdout.buffer.write(b"".join(CODINGS["gzip"]([b"once\\n", text, b"again\\n"])))
sys.stderr.write(",".join(sorted(offered())))
"""


def test_a_machine_without_the_packages_has_gzip_of_the_standard_library() -> None:
    """There is not a wheel of isal and of zstd for every machine."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, check=False, timeout=60)
    text = b"once\n" + b"kept\n" * 1000 + b"again\n"
    assert (done.returncode, done.stderr) == (0, b"gzip,identity")
    assert gzip.decompress(done.stdout) == text * 2


def test_this_machine_offers_zstd() -> None:
    """The package is a dependency where there is a wheel."""
    assert offered() == {"identity", "gzip", "zstd"}
