"""Parses the head of an HTTP/1.1 response: status line, headers, and how the body ends. Does no I/O.

It accepts what curl and Go's net/http both accept (a test lists the facts), and notes what is irregular. What one of
them refuses raises `Malformed`. llhttp's lenient flags are no alternative: they do not say what was irregular, and
refuse a repeated Content-Length all the same.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

BARE_LF: Final = "bare LF line ends"
FOLDED: Final = "folded header"
SPACE_BEFORE_COLON: Final = "space before the colon"
SPACE_IN_NAME: Final = "space in a header name"
NO_REASON: Final = "no reason phrase"
SPACES_IN_STATUS_LINE: Final = "several spaces in the status line"
HTTP_2: Final = "version HTTP/2.0 in an HTTP/1.1 response"
TWO_LENGTHS: Final = "repeated identical Content-Length"
TWO_FRAMINGS: Final = "Transfer-Encoding together with Content-Length"
CHUNKED_1_0: Final = "Transfer-Encoding in an HTTP/1.0 response"
CLOSE_AND_KEEP: Final = "Connection: close together with keep-alive"
KEEP_WITHOUT_LENGTH: Final = "Connection: keep-alive without a length of the body"
BODY_OF_204: Final = "length of a body in a response without one"

_STATUS_LINE: Final = re.compile(rb"HTTP/[^ ]*( +)([1-9][0-9]{2})(?:( +)([^\0]*))?", re.DOTALL)
_VERSIONS: Final = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0", b"HTTP/2.0": "2.0"}
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-][!#$%&'*+.^_`|~0-9A-Za-z -]*")
_REGULAR_FIELD: Final = re.compile(
    rb"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\0-\x08\x0a-\x1f\x7f]*)\r\n", re.MULTILINE
)
_CONTROL: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")  # RFC 9112, section 5.2
_FOLDED_FRAMING: Final = re.compile(
    rb"(?i)(?<![^\n])(content-length|transfer-encoding):[^\n]*\n[ \t]++(?:\r?\n[ \t]++)*[^\r\n\t ]"
)
_OPTIONS: Final = 100
_LENGTH_DIGITS: Final = 18
_FRAMING: Final = (b"content-length", b"transfer-encoding", b"connection")
_SHOWN: Final = 40

Headers = list[tuple[bytes, bytes]]


class Malformed(Exception):
    """Something that is not HTTP/1.1; the text says what, with a short excerpt."""


@dataclass(slots=True)
class Head:
    """A status line and headers, whose names are in lower case. ``irregular`` says what was irregular."""

    status: int
    version: str
    phrase: bytes
    headers: Headers
    irregular: list[str]

    @property
    def shown_status(self) -> str:
        """The status, with the reason phrase that the server chose, for messages."""
        return f"{self.status} {self.phrase[:_SHOWN].decode('latin-1')}".rstrip()

    @property
    def is_interim(self) -> bool:
        """Whether another response follows (RFC 9110, section 15.2)."""
        return self.status < 200 and self.status != 101

    def note(self, irregularity: str) -> None:
        """Note something irregular, once."""
        if irregularity not in self.irregular:
            self.irregular.append(irregularity)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of all headers of this name."""
        return [value for key, value in self.headers if key == name]


class Framing(NamedTuple):
    """How a body ends: after ``length`` bytes, after the last chunk, or else with the connection."""

    length: int | None
    chunked: bool
    keeps_connection: bool


def parse_head(data: bytes) -> Head:
    """Parse a head, up to and with its empty line, in linear time. Raises `Malformed`.

    One search finds all regular headers: with five of them, a head takes 230 opcodes instead of 590.
    """
    first, _, _ = data.partition(b"\n")
    head = _status_line(first.removesuffix(b"\r"))
    regular = _REGULAR_FIELD.findall(data, len(first) + 1)
    if len(regular) == data.count(b"\n") - 2 and data.endswith(b"\r\n") and first.endswith(b"\r"):
        head.headers = [(name.lower(), value.strip(b" \t")) for name, value in regular]
    else:
        fields = data[len(first) + 1 :].removesuffix(b"\n").removesuffix(b"\r")
        _take_irregular_fields(head, data, fields)
    return head


def field_of(line: bytes) -> tuple[bytes, bytes]:
    """Split a header into its name, as received, and its value. Raises `Malformed`."""
    name, colon, value = line.partition(b":")
    if not colon:
        raise Malformed(f"a header without a colon: {_shown(line)}")
    if not _NAME.fullmatch(name):
        raise Malformed(f"{_shown(name)} is not the name of a header")
    if _CONTROL.search(value):
        raise Malformed(f"the header {_shown(name)} contains a control character")
    return name, value.strip(b" \t")


def framing_of(head: Head, *, bodyless: bool) -> Framing:
    """Decide how the body ends (RFC 9112, section 6.3). Raises `Malformed`. ``bodyless``: a response to HEAD."""
    lengths, codings, connection = _framing_values(head)
    length, chunked = _length(head, lengths), _is_chunked(codings)
    if chunked and length is not None:
        head.note(TWO_FRAMINGS)
    if chunked and head.version == "1.0":
        head.note(CHUNKED_1_0)
    options = _options(connection)
    close, keep_alive = b"close" in options, b"keep-alive" in options
    if close and keep_alive:
        head.note(CLOSE_AND_KEEP)
    keeps = not close and (head.version == "1.1" or keep_alive)
    if head.status == 204 and (chunked or length):
        head.note(BODY_OF_204)
    if bodyless or head.status in (101, 204, 304):
        return Framing(0, False, keeps and head.status != 101)
    if chunked:
        return Framing(None, True, keeps and head.version != "1.0")
    if length is None and keep_alive:
        head.note(KEEP_WITHOUT_LENGTH)
    return Framing(length, False, keeps and length is not None)


def with_irregularities(message: str, irregular: tuple[str, ...]) -> str:
    """Return the message of a bad answer or a failure, with what was irregular in the response."""
    return f"{message}; the response is irregular: {', '.join(irregular)}" if irregular else message


def _status_line(line: bytes) -> Head:
    version = line.partition(b" ")[0]
    if version not in _VERSIONS:
        raise Malformed(f"the version is {_shown(version)}, not HTTP/1.1 or HTTP/1.0")
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise Malformed(f"the status line is {_shown(line)}")
    before, status, after, phrase = found.groups()
    head = Head(int(status), _VERSIONS[version], phrase or b"", [], [])
    if version == b"HTTP/2.0":
        head.note(HTTP_2)
    if after is None:
        head.note(NO_REASON)
    if before != b" " or after not in (b" ", None):
        head.note(SPACES_IN_STATUS_LINE)
    return head


def _take_irregular_fields(head: Head, data: bytes, fields: bytes) -> None:
    if data.count(b"\n") != data.count(b"\r\n"):
        head.note(BARE_LF)
    if fields.startswith((b" ", b"\t")):
        raise Malformed("the first header begins with white space")
    if _FOLD.search(fields):
        head.note(FOLDED)
        if found := _FOLDED_FRAMING.search(fields):  # curl and Go read it differently
            raise Malformed(f"the header {_shown(found[1])} is folded")
        fields = _FOLD.sub(b" ", fields)
    for line in fields.split(b"\n")[:-1]:
        _take_field(head, line.removesuffix(b"\r"))


def _take_field(head: Head, line: bytes) -> None:
    received, value = field_of(line)
    name = received.rstrip(b" ").lower()
    if len(name) != len(received):
        head.note(SPACE_BEFORE_COLON)
        if name in _FRAMING:
            name += b" "  # curl and Go do not recognize it, so it must not decide where the body ends
    elif b" " in name:
        head.note(SPACE_IN_NAME)
    head.headers.append((name, value))


def _framing_values(head: Head) -> list[list[bytes]]:
    """Return the values of each header in `_FRAMING`. Where no name is repeated, it takes 70 opcodes instead of 210."""
    by_name = dict(head.headers)
    if len(by_name) < len(head.headers):
        return [head.values(name) for name in _FRAMING]
    return [[by_name[name]] if name in by_name else [] for name in _FRAMING]


def _length(head: Head, lengths: list[bytes]) -> int | None:
    for length in lengths:
        if not length.isdigit() or len(length.lstrip(b"0")) > _LENGTH_DIGITS:
            raise Malformed(f"Content-Length is {_shown(length)}, not a number of bytes")
    if len(set(lengths)) > 1:
        raise Malformed("there are two different Content-Lengths")
    if len(lengths) > 1:
        head.note(TWO_LENGTHS)
    return int(lengths[0]) if lengths else None


def _is_chunked(codings: list[bytes]) -> bool:
    if codings and [coding.lower() for coding in codings] != [b"chunked"]:
        raise Malformed(f"Transfer-Encoding is {_shown(b', '.join(codings))}, not chunked")
    return bool(codings)


def _options(connection: list[bytes]) -> set[bytes]:
    options = b",".join(connection).lower().split(b",", _OPTIONS)[:_OPTIONS]
    return {option.strip(b" \t") for option in options}


def _shown(data: bytes) -> str:
    text = data[:_SHOWN].decode("latin-1").encode("unicode_escape").decode()
    return f"'{text}'" if len(data) <= _SHOWN else f"'{text}…'"
