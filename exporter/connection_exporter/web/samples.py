"""Writes the sample lines of a metric family: a thousand services have 58,000 of them.

The line of a gauge takes 0.2 us, and 5 in prometheus_client, with which tests compare every byte.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, compress, islice
from operator import add
from typing import Any, Final

from prometheus_client.utils import floatToGoString
from pydantic_core import to_json

from connection_exporter.kind import Json, MetricType
from connection_exporter.monitor.record import Histogram, Record

_PLAIN: Final = 1e6
"""From here on the reference library writes an exponent."""
_TIME: Final = 1e9
_LARGE: Final = 1e10
"""From here on, the exponent has two digits. Timestamps are between these two until 2286."""
_SMALL: Final = 1e-4
"""Below, Python writes an exponent, JSON does not always."""
_NUMBERS: Final = (int, float)
_USUAL: Final = {int, float, bool}
_SERVICE: Final = "\0"
"""Stands for what a sample says of its service."""

Labelled = tuple[tuple[str, ...], tuple[float, ...]]
"""Values of a label, and the number of each."""


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A metric family.

    ``read`` returns what the family shows of each service: a value, or its lines if writing them takes
    longer than comparing them. ``write`` turns that into the sample lines, each ended by a newline. Both take many
    services at once, since calling a function for each takes as long as writing a line. The labels that they take are
    those of `labels_of`. ``measured`` says that a check may change the lines even if its answer is as good as the last
    one, ``fixed`` that only the config does.
    """

    name: str
    help: str
    type: MetricType
    read: Callable[[Sequence[Record], Sequence[str]], Sequence[Any]]
    write: Callable[[Sequence[Any], Sequence[str]], str]
    measured: bool = False
    fixed: bool = False

    def text(self, records: Sequence[Record], labels: Sequence[str]) -> str:
        """Return the sample lines of all of these services."""
        return self.write(self.read(records, labels), labels)


def labels_of(record: Record) -> str:
    """Return the labels of a service as they are before a number: ``{kind="…",name="…"} ``."""
    return f'{{kind="{record.service.kind}",name="{record.name}"}} '


def pairs_of(labels: str) -> str:
    """Return the label pairs without what is around them: ``kind="…",name="…"``."""
    return labels[1:-2]


def around(labels: str, key: str) -> tuple[str, str]:
    """Return what is before and after the value of one more pair, in the reference library's order: by name."""
    if key < "kind":
        return f'{key}="', f'",{labels}'
    if key > "name":
        return f'{labels},{key}="', '"'
    kind, _, name = labels.partition(",")
    return f'{kind},{key}="', f'",{name}'


def escape(text: str) -> str:
    """Escape a label value as the text format wants it."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number(value: float) -> str:
    """Return ``value`` as the reference library writes it.

    Most values need no exponent, and are written in 0.5 us instead of 0.7.
    """
    if -_PLAIN < value < _PLAIN:
        if type(value) is float:
            return repr(value)
        return f"{value}.0" if type(value) is int else repr(float(value))
    if _PLAIN <= value < _LARGE:
        return _with_exponent(repr(float(value)))
    return floatToGoString(value)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]


def numbers(values: Sequence[float]) -> list[str]:
    """Return each of ``values`` as `number` does. pydantic finds the digits in 0.11 us, where Python takes 0.46."""
    if not values:
        return []
    floats = [*map(float, values)]
    text = to_json(floats)[1:-1].decode()
    most = max(floats)
    if most < _PLAIN and not ("-" in text or "e" in text or "0.0000" in text):
        return text.split(",")
    every = _times(text) if min(floats) >= _TIME and most < _LARGE else None
    return every or [
        digits
        if _SMALL <= value < _PLAIN or value == 0.0
        else _with_exponent(digits)
        if _PLAIN <= value < _LARGE
        else number(value)
        for value, digits in zip(floats, text.split(","), strict=True)
    ]


def _times(text: str) -> list[str] | None:
    """Return timestamps with exponents, or None if one is whole or they do not all begin with the same digit.

    That takes 0.1 us for each, and `_with_exponent` 0.9.
    """
    first, commas = text[0], text.count(",")
    if text.count(f",{first}") < commas or text.count(".0,") or text.endswith(".0") or "N" in text:
        return None
    digits = text[1:].replace(".", "").replace(f",{first}", f"e+09,{first}.")
    return f"{first}.{digits}e+09".split(",")


def _with_exponent(digits: str) -> str:
    """Move the decimal point behind the first digit: in half of the time that the reference library takes."""
    whole, _, fraction = digits.partition(".")
    mantissa = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0.")
    return f"{mantissa}e+0{len(whole) - 1}"


def samples(name: str, labels: Iterable[str], texts: Iterable[str]) -> str:
    """Return a line for each number, with the labels that belong to it."""
    lines = f"\n{name}".join(map(add, labels, texts))
    return f"{name}{lines}\n" if lines else ""


def family_of_values(
    name: str,
    help_text: str,
    of_type: MetricType,
    read: Callable[[Sequence[Record]], Sequence[Json]],
    *,
    measured: bool = False,
) -> Family:
    """Return a family with one sample for each service for which ``read`` returns a number."""

    def write(values: Sequence[Any], labels: Sequence[str]) -> str:
        if {*map(type, values)} <= _USUAL:
            return samples(name, labels, numbers(values))
        found = [isinstance(value, _NUMBERS) for value in values]
        return samples(name, compress(labels, found), numbers([*compress(values, found)]))

    return Family(name, help_text, of_type, lambda records, _: read(records), write, measured)


def family_of_lines(
    name: str,
    help_text: str,
    of_type: MetricType,
    read: Callable[[Sequence[Record], Sequence[str]], Sequence[str]],
    *,
    fixed: bool = False,
) -> Family:
    """Return a family of which ``read`` returns the lines of each service."""
    return Family(name, help_text, of_type, read, lambda lines, _: "".join(lines), fixed=fixed)


def family_of_labelled_values(
    name: str,
    help_text: str,
    of_type: MetricType,
    label: str,
    read: Callable[[Record], Labelled],
    *,
    fixed: bool = False,
) -> Family:
    """Return a family with a sample for each value of ``label`` that ``read`` returns, with its number.

    By its name, the label is not between ``kind`` and ``name``.
    """

    def lines(records: Sequence[Record], labels: Sequence[str]) -> list[str]:
        every = [*map(read, records)]
        texts = iter(numbers([*chain.from_iterable([values for _, values in every])]))
        return [
            (_labelled_lines(name, label, keys) % (*islice(texts, len(keys)),)).replace(
                _SERVICE, pairs_of(its)
            )
            for (keys, _), its in zip(every, labels, strict=True)
        ]

    return family_of_lines(name, help_text, of_type, lines, fixed=fixed)


def family_of_labelled_counts(
    name: str, help_text: str, of_type: MetricType, label: str, read: Callable[[Record], Labelled]
) -> Family:
    """Return the same for small whole numbers: many services have the same, and their lines take 1 us instead of 4."""

    def lines(records: Sequence[Record], labels: Sequence[str]) -> list[str]:
        return [
            _lines_of_counts(name, label, *shown).replace(_SERVICE, pairs_of(its))
            for shown, its in zip(map(read, records), labels, strict=True)
        ]

    return family_of_lines(name, help_text, of_type, lines)


@lru_cache(maxsize=1024)
def _lines_of_counts(name: str, label: str, keys: tuple[str, ...], counts: tuple[float, ...]) -> str:
    return _labelled_lines(name, label, keys) % (*map(number, counts),)


@lru_cache(maxsize=1024)
def _labelled_lines(name: str, label: str, keys: tuple[str, ...]) -> str:
    """Return the lines of any service with these values of a label, where numbers belong in place of each %s."""
    before, after = around(_SERVICE, label)
    return "".join([f"{name}{{{before}{key.replace('%', '%%')}{after}}} %s\n" for key in keys])


def family_of_histograms(name: str, help_text: str, read: Callable[[Record], Histogram | None]) -> Family:
    """Return a family with a histogram for each service for which ``read`` returns one."""

    def lines(histogram: Histogram, total: str, labels: str) -> str:
        kind, _, service = pairs_of(labels).partition(",")
        counts = (*histogram.cumulative(),)
        small = counts[-1] < _PLAIN
        form = _histogram_lines(name, kind, histogram.bounds, "%d.0" if small else "%s")
        every = counts if small else (*map(number, counts),)
        return service.join(form) % (*every, every[-1], total)

    def write(histograms: Sequence[Histogram | None], labels: Sequence[str]) -> str:
        sums = iter(numbers([histogram.sum for histogram in histograms if histogram is not None]))
        return "".join(
            [
                lines(histogram, next(sums), its_labels)
                for histogram, its_labels in zip(histograms, labels, strict=True)
                if histogram is not None
            ]
        )

    return Family(
        name, help_text, MetricType.HISTOGRAM, lambda records, _: [*map(read, records)], write, measured=True
    )


@cache
def _histogram_lines(name: str, kind: str, bounds: tuple[float, ...], count: str) -> tuple[str, ...]:
    """Return the lines of a kind, cut where the label of a service belongs.

    14 take 3 us to fill in, where writing each takes 8.
    """
    labels = f"{kind.replace('%', '%%')},{_SERVICE}"
    before, after = around(labels, "le")
    buckets = "".join(f"{name}_bucket{{{before}{bound}{after}}} {count}\n" for bound in _bounds(bounds))
    text = f"{buckets}{name}_count{{{labels}}} {count}\n{name}_sum{{{labels}}} %s\n"
    return (*text.split(_SERVICE),)


@cache
def _bounds(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(number, bounds), "+Inf")
