"""Writes the sample lines of a metric family, for speed by hand: a thousand services have 48,000 of them.

Tests compare every byte with prometheus_client.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

from prometheus_client.utils import floatToGoString

from connection_exporter.kind import MetricType
from connection_exporter.monitor.record import Histogram, Record

_PLAIN: Final = 1e6
"""From here on the reference library writes an exponent."""
_LATELY: Final = 1e9
"""From here on, and below ten times as much, are the timestamps from 2001 to 2286."""
_SERVICE: Final = "\0"
"""Stands for the label pair of a service's name."""

Shown = tuple[Record, str]
"""A record, and the label pairs that every sample of its service has (``kind="…",name="…"``)."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family.

    ``each`` returns the sample lines of each service, ended by a newline: of many at once, since calling a function for
    each takes as long as writing a line. ``measured`` says that a check may change them even if its answer is as good
    as the last one, ``fixed`` that no check does.
    """

    name: str
    help: str
    type: MetricType
    each: Callable[[Iterable[Shown]], list[str]]
    measured: bool = False
    fixed: bool = False

    def text(self, services: Iterable[Shown]) -> str:
        """Return the sample lines of all of these services."""
        return "".join(self.each(services))


def label_pairs(record: Record) -> str:
    """Return the label pairs that every sample of a service has."""
    return f'kind="{record.service.kind}",name="{record.name}"'


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
    """Return ``value`` as the reference library writes it; what needs no exponent, which is most, by a shorter way."""
    if -_PLAIN < value < _PLAIN:
        if type(value) is float:
            return repr(value)
        return f"{value}.0" if type(value) is int else repr(float(value))
    if _LATELY <= value < 10 * _LATELY:
        digits = repr(float(value))  # 0.8 us, where the reference library takes 1.3; each check brings three
        return f"{digits[0]}.{digits[1:10]}{digits[11:]}".rstrip("0.") + "e+09"
    return floatToGoString(value)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]


def family_of_values(
    name: str,
    help_text: str,
    of_type: MetricType,
    read: Callable[[Record], float | None],
    *,
    measured: bool = False,
) -> Family:
    """Return a family with one sample for each service for which ``read`` returns a number."""

    def each(services: Iterable[Shown]) -> list[str]:
        return [
            "" if (value := read(record)) is None else f"{name}{{{labels}}} {number(value)}\n"
            for record, labels in services
        ]

    return Family(name, help_text, of_type, each, measured)


def family_of_labelled_values(
    name: str,
    help_text: str,
    of_type: MetricType,
    label: str,
    read: Callable[[Record], Collection[tuple[str, float]]],
    *,
    fixed: bool = False,
) -> Family:
    """Return a family with a sample for each value of ``label`` and its number that ``read`` returns."""

    def lines(pairs: Iterable[tuple[str, float]], labels: str) -> str:
        kind, _, service = labels.partition(",")
        keys, values = zip(*pairs, strict=True)
        return (_labelled_lines(name, kind, label, keys) % (*map(number, values),)).replace(_SERVICE, service)

    def each(services: Iterable[Shown]) -> list[str]:
        return [lines(pairs, labels) if (pairs := read(record)) else "" for record, labels in services]

    return Family(name, help_text, of_type, each, fixed=fixed)


@lru_cache(maxsize=1024)
def _labelled_lines(name: str, kind: str, label: str, keys: tuple[str, ...]) -> str:
    """Return the lines of any service of a kind with these values of a label: five take 2 us to fill in, not 5."""
    before, after = around(f"{kind},{_SERVICE}".replace("%", "%%"), label)
    escaped = (key.replace("%", "%%") for key in keys)
    return "".join(f"{name}{{{before}{key}{after}}} %s\n" for key in escaped)


def family_of_histograms(name: str, help_text: str, read: Callable[[Record], Histogram | None]) -> Family:
    """Return a family with a histogram for each service for which ``read`` returns one."""

    def lines(histogram: Histogram, labels: str) -> str:
        kind, _, service = labels.partition(",")
        counts = (*histogram.cumulative(),)
        small = counts[-1] < _PLAIN
        form = _histogram_lines(name, kind, histogram.bounds, "%d.0" if small else "%s")
        every = counts if small else (*map(number, counts),)
        return (form % (*every, every[-1], number(histogram.sum))).replace(_SERVICE, service)

    def each(services: Iterable[Shown]) -> list[str]:
        return [
            "" if (histogram := read(record)) is None else lines(histogram, labels)
            for record, labels in services
        ]

    return Family(name, help_text, MetricType.HISTOGRAM, each, measured=True)


@cache
def _histogram_lines(name: str, kind: str, bounds: tuple[float, ...], count: str) -> str:
    """Return the lines of any service of a kind: 14 take 3 us to fill in, where writing each takes 8."""
    labels = f"{kind.replace('%', '%%')},{_SERVICE}"
    before, after = around(labels, "le")
    buckets = "".join(f"{name}_bucket{{{before}{bound}{after}}} {count}\n" for bound in _bounds(bounds))
    return f"{buckets}{name}_count{{{labels}}} {count}\n{name}_sum{{{labels}}} %s\n"


@cache
def _bounds(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(number, bounds), "+Inf")
