"""Owns the sample lines of all services, by family, and writes those anew whose values have changed.

A service changes far less often than it is scraped, and a check whose answer is as good as the last one changes only
what is measured. This module does not know how lines are sent.
"""

from collections.abc import Iterator
from functools import cache
from operator import is_
from typing import Final

from connection_exporter.kind import Metric, MetricType, Service
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Record
from connection_exporter.web.coding import Piece, kept
from connection_exporter.web.families import (
    FAMILIES,
    STATE_SECONDS,
    Spent,
    family_of,
    spent,
    spent_until,
)
from connection_exporter.web.rendering import Slices
from connection_exporter.web.samples import Family, label_pairs

_MOST: Final = 200
"""Services whose lines of one family are written, joined or compressed at once: less than a millisecond."""

_HISTOGRAMS: Final = 50
"""Services of which a histogram is written at once: a quarter of a millisecond."""

_TOGETHER: Final = 20
"""Services of which all lines are written at once: about a millisecond."""

_FEW: Final = 40
"""Services that are too few for a cohort of their own: each piece of a response takes time, too."""

_LASTING: Final = tuple(f for f in FAMILIES if not f.measured and f is not STATE_SECONDS)
_CHANGING: Final = tuple(f for f in _LASTING if not f.fixed)
_FIXED: Final = tuple(f for f in _LASTING if f.fixed)
_MEASURED: Final = tuple(f for f in FAMILIES if f.measured)


class Sheet:
    """The lines of all services of a board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._records: list[Record] = []
        self._families: dict[str, Family] = {}
        self._blocks: list[_Block] = []
        self._cohorts: list[_Cohort] = []

    async def renew(self, slices: Slices) -> None:
        """Bring the lines up to date."""
        records = self._board.records()
        if len(records) != len(self._records) or not all(map(is_, records, self._records)):
            await self._arrange(records, slices)
        for block in self._blocks:
            await block.renew(self._board, slices)
        await self._renew_cohorts(slices)

    def families(self, *, compressed: bool) -> Iterator[tuple[Family, Iterator[Piece]]]:
        """Yield each family with its lines in pieces, some of which are empty.

        ``compressed`` says whether the response will be; what is kept for it is of no use otherwise.
        """
        for family in self._families.values():
            if family is STATE_SECONDS:
                yield family, (block.seconds for block in self._blocks)
            elif family.measured:
                yield family, (cohort.texts.get(family.name, b"") for cohort in self._cohorts)
            else:
                yield family, (block.lines(family, compressed=compressed) for block in self._blocks)

    async def _arrange(self, records: list[Record], slices: Slices) -> None:
        """Begin anew, with these services."""
        rows: list[_Row] = []
        families = {family.name: family for family in FAMILIES}
        for record in records:
            rows.append(_Row(record, families))
            await slices.pause_if_due()
        self._records, self._families = records, families
        self._blocks = [_Block(rows[start : start + _MOST]) for start in range(0, len(rows), _MOST)]
        self._cohorts = [_Cohort(rows)]

    async def _renew_cohorts(self, slices: Slices) -> None:
        """Write the lines of the services that have changed, and of those that they leave in too small a cohort."""
        cohorts: list[_Cohort] = []
        moving: list[_Row] = []
        for cohort in self._cohorts:
            changed = cohort.changed()
            if len(changed) == len(cohort.rows) and _MOST // 2 < len(changed) <= _MOST:
                cohorts.append(_Cohort(changed))
            elif len(cohort.rows) - len(changed) < _FEW:
                moving += cohort.rows
            elif changed:
                moving += changed
                cohorts.append(_Cohort(cohort.unchanged()))
            else:
                cohorts.append(cohort)
            await slices.pause_if_due()
        if len(moving) > _MOST:
            moving = await _alike_together(moving, slices)
        cohorts += [_Cohort(moving[start : start + _MOST]) for start in range(0, len(moving), _MOST)]
        for cohort in cohorts:
            if not cohort.texts:
                await slices.pause_if_due()
                await cohort.write(slices)
        self._cohorts = cohorts  # at the end, so that nothing is lost if this is cancelled


class _Row:
    """A service: its record, the label pairs of its samples, and the families that its kind brings with it."""

    __slots__ = ("_families", "_metrics", "_service", "labels", "own", "record")

    def __init__(self, record: Record, families: dict[str, Family]) -> None:
        self.record = record
        self.labels = label_pairs(record)
        self.own: tuple[Family, ...] = ()
        self._families = families
        self._metrics: tuple[Metric, ...] | None = None
        self._service: Service | None = None
        self.take_families()

    def take_families(self) -> None:
        """Note which families the service has, also among all ``families``."""
        metrics = self.record.service.traits.metrics
        if metrics is self._metrics:
            return
        self._metrics, self.own = metrics, _own_families(metrics)
        for family in self.own:
            self._families.setdefault(family.name, family)

    def take_service(self) -> bool:
        """Note the service, and which families it has. Return whether it is another one than was noted."""
        self.take_families()
        is_new, self._service = self._service is not self.record.service, self.record.service
        return is_new

    def likeness(self) -> tuple[float, str]:
        """Return what the services of a cohort should share: how often they are checked, and their families."""
        return self.record.service.policy.interval, self.record.service.kind

    @property
    def version(self) -> int:
        """The version of the record, or another one while the service has other families than were noted."""
        return self.record.version if self.record.service.traits.metrics is self._metrics else -1


class _Block:
    """Services in the order of the board, and their lines of the families that seldom change."""

    def __init__(self, rows: list[_Row]) -> None:
        self._rows = rows
        self._records = [row.record for row in rows]
        self._lasting = [-1] * len(rows)
        self._lines = {family.name: [b""] * len(rows) for family in _LASTING}
        self._kept: dict[str, Piece] = {}
        self._spent = [Spent("", 0.0, 0.0, "")] * len(rows)
        self.seconds = b""

    async def renew(self, board: Board, slices: Slices) -> None:
        """Bring the lines up to date."""
        now = board.clock.monotonic()  # of a status that ends during a pause, no later second must be shown
        stale = self._stale()
        for start in range(0, len(stale), _TOGETHER):
            self._renew(stale[start : start + _TOGETHER])
            await slices.pause_if_due()
        self.seconds = spent_until(now, self._spent).encode()
        await slices.pause_if_due()

    def lines(self, family: Family, *, compressed: bool) -> Piece:
        """Return the lines of a family, and keep them if the response will be ``compressed``."""
        if not compressed:
            return b"".join(self._lines[family.name])
        if family.name not in self._kept:
            text = b"".join(self._lines[family.name])
            self._kept[family.name] = text if len(self._rows) < _FEW else kept(text)
        return self._kept[family.name]

    def _stale(self) -> list[int]:
        lasting = [record.version - record.steady for record in self._records]
        if lasting == self._lasting:
            return []
        return [place for place, version in enumerate(lasting) if version != self._lasting[place]]

    def _renew(self, places: list[int]) -> None:
        rows = [(place, self._rows[place]) for place in places]
        new = [place for place, row in rows if row.take_service()]
        for family in _CHANGING:
            self._write(family, places)
        if new:
            for family in _FIXED:
                self._write(family, new)
        for place, row in rows:
            self._spent[place] = spent(row.record, row.labels)
            self._lasting[place] = row.record.version - row.record.steady

    def _write(self, family: Family, places: list[int]) -> None:
        lines = self._lines[family.name]
        texts = family.each(*_columns([self._rows[place] for place in places]))
        for place, text in zip(places, texts, strict=True):
            if (line := text.encode()) != lines[place]:
                lines[place] = line
                self._kept.pop(family.name, None)


class _Cohort:
    """Services that have changed between the same two scrapes, and their lines of the families that are measured.

    They are likely to change together again. With an interval of 30 s and a scrape every 5 s, five cohorts of six stay
    as they are, and their text is neither written nor compressed. In the order of the board, each part of the text
    would have services that have changed.
    """

    def __init__(self, rows: list[_Row]) -> None:
        self.rows = rows
        self._records = [row.record for row in rows]
        self.texts: dict[str, Piece] = {}
        self._versions = [-1] * len(rows)

    def changed(self) -> list[_Row]:
        """Return the services that have changed since their lines were written."""
        versions = [record.version for record in self._records]
        if versions == self._versions:
            return []
        return [
            row for row, now, then in zip(self.rows, versions, self._versions, strict=True) if now != then
        ]

    def unchanged(self) -> list[_Row]:
        """Return those that have not."""
        versions = zip(self.rows, self._versions, strict=True)
        return [row for row, version in versions if row.record.version == version]

    async def write(self, slices: Slices) -> None:
        """Write the lines."""
        self._versions = [row.version for row in self.rows]
        texts: dict[str, list[str]] = {}
        for families, rows in self._families():
            records, labels = _columns(rows)
            for family in families:
                step = _HISTOGRAMS if family.type is MetricType.HISTOGRAM else _MOST
                for start in range(0, len(rows), step):
                    text = family.text(records[start : start + step], labels[start : start + step])
                    texts.setdefault(family.name, []).append(text)
                    await slices.pause_if_due()
        keep = kept if len(self.rows) >= _FEW else bytes  # fewer will be written anew at the next scrape
        self.texts = {name: keep("".join(parts).encode()) for name, parts in texts.items()}

    def _families(self) -> Iterator[tuple[tuple[Family, ...], list[_Row]]]:
        """Yield families, and the services that have each. Several kinds may have the same family."""
        kinds: dict[int, list[_Row]] = {}
        for row in self.rows:
            kinds.setdefault(id(row.own), []).append(row)
        yield _MEASURED, self.rows
        for rows in kinds.values():
            yield rows[0].own, rows


def _columns(rows: list[_Row]) -> tuple[list[Record], list[str]]:
    """Return what a family needs to write the lines of services."""
    return [row.record for row in rows], [row.labels for row in rows]


async def _alike_together(rows: list[_Row], slices: Slices) -> list[_Row]:
    """Return the services sorted by their likeness. To sort 10,000 at once would take 6 ms."""
    alike: dict[tuple[float, str], list[_Row]] = {}
    for start in range(0, len(rows), _MOST):
        for row in rows[start : start + _MOST]:
            alike.setdefault(row.likeness(), []).append(row)
        await slices.pause_if_due()
    return [row for likeness in sorted(alike) for row in alike[likeness]]


@cache
def _own_families(metrics: tuple[Metric, ...]) -> tuple[Family, ...]:
    """Return the families that a kind brings with it."""
    return tuple(map(family_of, metrics))
