"""Owns the judging of an answer: which conditions failed, and what came instead. Pure.

Patterns run on RE2, so no answer can stall them. What an answer says is shown in part only.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Final

import httpx

from exporter.checks.http_answer import Answer
from exporter.config.conditions import Condition, Scalar, parse_conditions
from exporter.config.kinds.http import HttpExpect
from exporter.config.patterns import CompiledPattern
from exporter.core.health import Reason

Fault = tuple[Reason, str]
"""A condition that does not hold, in our words and for people."""

_SHOWN: Final = 100
_LOOKED_AT: Final = 65536
_ABSENT: Final = object()
_ORDERINGS: Final[Mapping[str, Callable[..., bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_UNAUTHORIZED: Final = (401, 407)


class Expectation:
    """What one service has to answer.

    ``hide`` takes secrets out of what is about to be shown, before it is cut short.
    """

    def __init__(self, expect: HttpExpect, *, body_limit: int, hide: Callable[[str], str]) -> None:
        self._statuses = frozenset(_expand(expect.status))
        self._wanted = ", ".join(str(status) for status in expect.status)
        self._headers = {name: CompiledPattern(pattern) for name, pattern in expect.headers.items()}
        self._body = CompiledPattern(expect.body) if expect.body is not None else None
        self._json = parse_conditions(expect.json_)
        self._body_limit = body_limit
        self._hide = hide

    def accepts_status(self, status: int) -> bool:
        """Tell whether ``status`` is a good one."""
        return status in self._statuses

    def faults(self, answer: Answer) -> list[Fault]:
        """Return every condition that does not hold; an empty list for a good answer."""
        faults: list[Fault] = []
        if answer.status not in self._statuses:
            reason = Reason.AUTH if answer.status in _UNAUTHORIZED else Reason.EXPECT
            faults.append((reason, f"status {named(answer.status)}, expected {self._wanted}"))
        for name, pattern in self._headers.items():
            value = answer.header(name)
            if value is None:
                faults.append((Reason.EXPECT, f"header {name} is missing"))
            elif not pattern.found_in(value.encode()):
                faults.append(
                    (
                        Reason.EXPECT,
                        f"header {name} is {shortened(self._hide(value))}, expected {pattern.source!r}",
                    )
                )
        if not answer.complete:
            faults.append((Reason.TOO_LARGE, f"the body is larger than body_limit, {self._body_limit} bytes"))
        elif self._body is not None or self._json:
            faults += self._body_faults(answer)
        return faults

    def _body_faults(self, answer: Answer) -> Iterator[Fault]:
        try:
            body = _decoded(answer, self._body_limit)
        except _UndecodableError as error:
            yield error.fault
            return
        if self._body is not None and not self._body.found_in(body):
            yield Reason.EXPECT, f"the body is {self._text(body)}, expected {self._body.source!r}"
        if not self._json:
            return
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            yield Reason.EXPECT, f"the body is not JSON: {self._text(body)}"
            return
        for condition in self._json:
            value = _at(document, condition.path)
            if not _holds(condition, value):
                yield (
                    Reason.EXPECT,
                    f"json {condition.written} {self._came(value)}, expected {_told(condition)}",
                )

    def _text(self, body: bytes) -> str:
        if not body:
            return "empty"
        return shortened(repr(self._hide(body[:_LOOKED_AT].decode("utf-8", "replace"))))

    def _came(self, value: object) -> str:
        if value is _ABSENT:
            return "is missing"
        if isinstance(value, dict | list):
            return "is an object" if isinstance(value, dict) else "is a list"
        return f"is {shortened(_as_json(self._hide(value) if isinstance(value, str) else value))}"


def shortened(text: str) -> str:
    """Return ``text``, or its beginning, for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def named(status: int) -> str:
    """Return a status with its name, as in ``503 Service Unavailable``."""
    return f"{status} {httpx.codes.get_reason_phrase(status)}".rstrip()


class _UndecodableError(Exception):
    """A body that cannot be looked into."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = (reason, message)


def _expand(statuses: Sequence[int | str]) -> Iterator[int]:
    for status in statuses:
        if isinstance(status, int):
            yield status
        else:
            yield from range(int(status[0]) * 100, int(status[0]) * 100 + 100)


def _decoded(answer: Answer, limit: int) -> bytes:
    """Undo a compression that was not asked for, up to ``limit``: a bomb yields no more than that."""
    coding = (answer.header("content-encoding") or "identity").strip().lower()
    if coding == "identity" or not answer.body:
        return answer.body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise _UndecodableError(
            Reason.EXPECT, f"the body is encoded as {shortened(coding)}, which was not asked for"
        )
    for window in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # some send deflate without zlib's header
        try:
            decoder = zlib.decompressobj(window)
            body = decoder.decompress(answer.body, limit + 1)
        except zlib.error:
            continue
        if len(body) > limit:
            raise _UndecodableError(
                Reason.TOO_LARGE, f"the body, unpacked, is larger than body_limit, {limit} bytes"
            )
        return body
    raise _UndecodableError(Reason.EXPECT, f"the body is not {coding}, as its header says")


def _at(document: object, path: Sequence[str | int]) -> object:
    value = document
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step, _ABSENT)
        elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return _ABSENT
    return value


def _holds(condition: Condition, value: object) -> bool:
    comparison, operand = condition.comparison, condition.operand
    if comparison == "exists":
        return (value is not _ABSENT) is operand
    if value is _ABSENT:
        return False
    if isinstance(operand, CompiledPattern):
        return isinstance(value, str) and operand.found_in(value.encode("utf-8", "replace"))
    if isinstance(operand, tuple):
        return any(_equal(value, item) for item in operand)
    if comparison in ("==", "!="):
        return _equal(value, operand) is (comparison == "==")
    comparable = isinstance(value, str) if isinstance(operand, str) else _is_number(value)
    return comparable and _ORDERINGS[comparison](value, operand)


def _equal(value: object, operand: Scalar) -> bool:
    """As JSON has it: 1 is 1.0, but neither true nor "1"."""
    if _is_number(operand):
        return _is_number(value) and value == operand
    return type(value) is type(operand) and value == operand


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _told(condition: Condition) -> str:
    operand = condition.operand
    if condition.comparison == "exists":
        return "it to be there" if operand else "it not to be there"
    if isinstance(operand, CompiledPattern):
        return f"a match for {operand.source!r}"
    if isinstance(operand, tuple):
        return "one of " + ", ".join(_as_json(item) for item in operand)
    return (
        _as_json(operand) if condition.comparison == "==" else f"{condition.comparison} {_as_json(operand)}"
    )


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
