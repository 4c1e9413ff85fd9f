"""Decides whether a response is good: which conditions do not hold, and what was received instead. Does no I/O.

Patterns run on RE2, in time linear in the text: a factor of a few nanoseconds for `^ok$`, of microseconds for a large
counted repetition. `Expectation.is_costly` says which responses are to be judged in a thread.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from connection_exporter.config.conditions import parse_conditions
from connection_exporter.config.evaluation import excerpt, load_json, violated, work_per_byte
from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.core.health import Reason
from connection_exporter.kinds.http import content
from connection_exporter.kinds.http.config import HeaderCondition, HttpExpect
from connection_exporter.kinds.http.statuses import described, matching
from connection_exporter.net.http1.response import Response

Violation = tuple[Reason, str]
"""A condition that does not hold: the reason, and the message."""

_COSTLY: Final = 200_000
"""Units of work from which a response is judged in a thread: bytes of text times the size of the compiled pattern.
The most expensive pattern measured takes 7 ns for each."""

_LOOKED_AT: Final = 1024
_UNAUTHORIZED: Final = (401, 407)


class Expectation:
    """The conditions of one service. Messages show at most a short excerpt of what was received."""

    def __init__(self, expect: HttpExpect, *, body_limit: int) -> None:
        self._statuses = matching(expect.status)
        self._expected = described(expect.status)
        self._headers = [_HeaderCondition(name, written) for name, written in expect.headers.items()]
        self._body = _compiled(expect.body)
        self._not_body = _compiled(expect.not_body)
        self._json = parse_conditions(expect.json_)
        self._reads_body = expect.reads_body
        self._body_limit = body_limit
        self._header_work = 2 * sum(condition.work for condition in self._headers)
        self._body_work = sum(pattern.size for pattern in (*self._body, *self._not_body))
        self._body_work += work_per_byte(self._json)

    def accepts_status(self, status: int) -> bool:
        """Return whether ``status`` is a good one."""
        return status in self._statuses

    def is_costly(self, response: Response) -> bool:
        """Return whether `violations` may take longer than a millisecond or two."""
        if self._reads_body and content.is_costly(response):
            return True
        work = len(response.body) * self._body_work
        if self._header_work:
            work += sum(len(value) for _, value in response.headers) * self._header_work
        return work > _COSTLY

    def violations(self, response: Response) -> list[Violation]:
        """Return every condition that does not hold; an empty list for a good response. Changes nothing."""
        found: list[Violation] = []
        if response.status not in self._statuses:
            reason = Reason.AUTH if response.status in _UNAUTHORIZED else Reason.EXPECT
            found.append((reason, f"status {status_text(response.status)}, expected {self._expected}"))
        for condition in self._headers:
            found += ((Reason.EXPECT, message) for message in condition.violations(response))
        if not response.complete:
            found.append((Reason.TOO_LARGE, f"the body is larger than body_limit, {self._body_limit} bytes"))
        elif self._reads_body:
            found += self._body_violations(response)
        return found

    def _body_violations(self, response: Response) -> Iterator[Violation]:
        try:
            body = content.content_of(response, limit=self._body_limit)
        except content.Unreadable as error:
            yield error.reason, str(error)
            return
        text = content.text_of(response, body)
        searched = text.encode() if self._body or self._not_body else b""
        for pattern in self._body:
            if not pattern.found_in(searched):
                yield Reason.EXPECT, f"the body is {_quoted(text)}, expected {pattern.source!r}"
        for pattern in self._not_body:
            if pattern.found_in(searched):
                yield Reason.EXPECT, f"the body is {_quoted(text)}, expected no match for {pattern.source!r}"
        if self._json:
            try:
                document = load_json(text)
            except ValueError:
                yield Reason.EXPECT, f"the body is not JSON: {_quoted(text)}"
                return
            yield from ((Reason.EXPECT, message) for message in violated(self._json, document))


class _HeaderCondition:
    """What must be true of the headers of one name, each of which is looked at, and all of them joined by commas."""

    def __init__(self, name: str, written: HeaderCondition) -> None:
        self._name = name
        keys = (
            {"matches": written} if isinstance(written, str) else {str(key): written[key] for key in written}
        )
        self._absent = keys.get("absent")
        self._matches = _compiled(keys.get("matches"))
        self._not = _compiled(keys.get("not"))
        self.work = sum(pattern.size for pattern in (*self._matches, *self._not))

    def violations(self, response: Response) -> Iterator[str]:
        values = response.values(self._name)
        if not values:
            if self._absent is False or self._matches:
                yield f"header {self._name} is missing"
            return
        shown = f"header {self._name} is {excerpt(header_text(b', '.join(values)))}"
        if self._absent:
            yield f"{shown}, expected it to be absent"
        searched = [header_text(value).encode() for value in ({*values, b", ".join(values)})]
        for pattern in self._matches:
            if not any(pattern.found_in(value) for value in searched):
                yield f"{shown}, expected {pattern.source!r}"
        for pattern in self._not:
            if any(pattern.found_in(value) for value in searched):
                yield f"{shown}, expected no match for {pattern.source!r}"


def header_text(value: bytes) -> str:
    """Decode the value of a header: as UTF-8, in which many servers send it in spite of RFC 9110, or as Latin-1."""
    try:
        return value.decode()
    except ValueError:
        return value.decode("latin-1")


def status_text(status: int) -> str:
    """Return a status with its standard phrase, as in ``503 Service Unavailable``; never the server's phrase."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _compiled(patterns: object) -> list[CompiledPattern]:
    if patterns is None:
        return []
    return [
        CompiledPattern(str(pattern)) for pattern in (patterns if isinstance(patterns, list) else [patterns])
    ]


def _quoted(text: str) -> str:
    return excerpt(repr(text[:_LOOKED_AT])) if text else "empty"
