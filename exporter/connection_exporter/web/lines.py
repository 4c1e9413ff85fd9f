"""Owns the sample lines of all services, by family, and writes again those whose values have changed.

A service changes far less often than it is scraped, and a check whose answer is as good as the last one changes only
what is measured. This module does not know how lines are sent.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import repeat
from operator import add, is_, sub
from typing import Any, Final

from connection_exporter.kind import Metric, MetricType, Service
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Record
from connection_exporter.web.coding import Compressor, Piece, kept
from connection_exporter.web.families import FAMILIES, STATE_SECONDS, family_of, in_present_status
from connection_exporter.web.rendering import Slices
from connection_exporter.web.samples import Family, labels_of, numbers, samples

_MOST: Final = 200
"""Services whose lines of one family are written, joined or compressed at once: less than a millisecond."""

_HISTOGRAMS: Final = 50
"""Services of which a histogram is written at once: a quarter of a millisecond."""

_TOGETHER: Final = 50
"""Services that are looked at together: a third of a millisecond."""

_FEW: Final = 40
"""Services that are too few for a cohort of their own: each piece of a response takes time, too."""

_FIXED: Final = tuple(f for f in FAMILIES if f.fixed)
_LASTING: Final = tuple(f for f in FAMILIES if not f.measured and not f.fixed)
_MEASURED: Final = tuple(f for f in FAMILIES if f.measured)


class Sheet:
    """The lines of all services of a board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._records: list[Record] = []
        self._families: dict[str, Family] = {}
        self._blocks: list[_Block] = []
        self._cohorts: list[_Cohort] = []

    async def renew(self, slices: Slices, compressor: Compressor | None = None) -> None:
        """Bring the lines up to date. ``compressor`` compresses what is kept, if the response will be compressed."""
        records = self._board.records()
        if len(records) != len(self._records) or not all(map(is_, records, self._records)):
            await self._arrange(records, slices)
        for block in self._blocks:
            await block.renew(self._board, slices, compressor)
        await self._renew_cohorts(slices, compressor)

    def families(self) -> Iterator[tuple[Family, list[Piece]]]:
        """Yield each family with its lines in pieces."""
        for family in self._families.values():
            parts: Sequence[_Block | _Cohort] = self._cohorts if family.measured else self._blocks
            pieces = [piece for part in parts if (piece := part.texts.get(family.name))]
            if family is STATE_SECONDS:
                pieces += [block.seconds for block in self._blocks]
            yield family, pieces

    async def _arrange(self, records: list[Record], slices: Slices) -> None:
        """Start over, with these services."""
        rows: list[_Row] = []
        families = {family.name: family for family in FAMILIES}
        for record in records:
            rows.append(_Row(record, families))
            await slices.pause_if_due()
        self._records, self._families = records, families
        self._blocks = [_Block(rows[start : start + _MOST]) for start in range(0, len(rows), _MOST)]
        self._cohorts = [_Cohort(rows)]

    async def _renew_cohorts(self, slices: Slices, compressor: Compressor | None) -> None:
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
                await cohort.write(slices, compressor)
        self._cohorts = cohorts  # at the end, so that nothing is lost if this is cancelled


class _Row:
    """A service: its record, the label pairs of its samples, and the families that its kind brings with it."""

    __slots__ = ("_families", "_metrics", "labels", "own", "record")

    def __init__(self, record: Record, families: dict[str, Family]) -> None:
        self.record = record
        self.labels = labels_of(record)
        self.own: tuple[Family, ...] = ()
        self._families = families
        self._metrics: tuple[Metric, ...] | None = None
        self.take_families()

    def take_families(self) -> None:
        """Note which families the service has, also among all ``families``."""
        metrics = self.record.service.traits.metrics
        if metrics is self._metrics:
            return
        self._metrics, self.own = metrics, _own_families(metrics)
        for family in self.own:
            self._families.setdefault(family.name, family)

    def likeness(self) -> tuple[float, str]:
        """Return what the services of a cohort should share: how often they are checked, and their families."""
        return self.record.service.policy.interval, self.record.service.kind

    @property
    def version(self) -> int:
        """The version of the record, or another one while the service has other families than were noted."""
        return self.record.version if self.record.service.traits.metrics is self._metrics else -1


class _Block:
    """Services in the order of the board, and their lines of the families that seldom change.

    What a family shows of each service is kept, and the lines of all are written again when that changes: those of 200
    take 0.05 ms. To keep each line as well would take 1 KiB for each service.
    """

    def __init__(self, rows: list[_Row]) -> None:
        self.texts: dict[str, Piece] = {}
        self.seconds = b""
        self._rows = rows
        self._records, self._labels = _columns(rows)
        self._lasting = [-1] * len(rows)
        self._services: list[Service | None] = [None] * len(rows)
        self._shown: dict[str, list[Any]] = {family.name: [None] * len(rows) for family in _LASTING}
        self._present = [""] * len(rows)
        self._before, self._since = [0.0] * len(rows), [0.0] * len(rows)

    async def renew(self, board: Board, slices: Slices, compressor: Compressor | None) -> None:
        """Bring the lines up to date."""
        stale = self._stale()
        for start in range(0, len(stale), _TOGETHER):
            self._look(stale[start : start + _TOGETHER])
            await slices.pause_if_due()
        if stale:
            self._look(self._stale())  # few have changed during the pauses
        now = board.clock.monotonic()  # not before: of a status that has ended, no later second must be shown
        self._write_seconds(now)
        await slices.pause_if_due()
        for family in (*_LASTING, *_FIXED):
            if family.name not in self.texts:
                shown = self._shown.get(family.name) or family.read(self._records, self._labels)
                text = family.write(shown, self._labels).encode()
                self.texts[family.name] = text if len(self._rows) < _FEW else kept(text, compressor)
                await slices.pause_if_due()

    def _stale(self) -> list[int]:
        """Return the places of the services that may show something else than when they were looked at."""
        lasting = [record.version - record.steady for record in self._records]
        if lasting == self._lasting:
            return []
        return [place for place, version in enumerate(lasting) if version != self._lasting[place]]

    def _look(self, places: list[int]) -> None:
        """Note what the services at these places show, and forget the text of each family in which that has changed."""
        if not places:
            return
        rows = [self._rows[place] for place in places]
        for place, row in zip(places, rows, strict=True):
            row.take_families()
            record = row.record
            self._lasting[place] = record.version - record.steady
            self._present[place] = in_present_status(row.labels, record.status)
            self._before[place], self._since[place] = record.seconds_in[record.status], record.entered
            if record.service is not self._services[place]:
                self._services[place] = record.service
                self._forget(_FIXED)
        records, labels = _columns(rows)
        for family in _LASTING:
            shown, now = self._shown[family.name], family.read(records, labels)
            if now != [*map(shown.__getitem__, places)]:
                self._forget([family])
                for place, new in zip(places, now, strict=True):
                    shown[place] = new

    def _forget(self, families: Iterable[Family]) -> None:
        for family in families:
            self.texts.pop(family.name, None)

    def _write_seconds(self, now: float) -> None:
        """Write the seconds in the present status.

        The exact sum is the one that the board makes at a transition, or a counter could fall by a bit.
        """
        seconds = map(add, self._before, map(sub, repeat(now), self._since))
        self.seconds = samples(STATE_SECONDS.name, self._present, numbers([*seconds])).encode()


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

    async def write(self, slices: Slices, compressor: Compressor | None) -> None:
        """Write the lines."""
        self._versions = [row.version for row in self.rows]
        texts: dict[str, list[str]] = {}
        for families, rows in self._families():
            records, labels = _columns(rows)
            for family in families:
                step = _HISTOGRAMS if family.type is MetricType.HISTOGRAM else _MOST
                for start in range(0, len(rows), step):
                    part = family.text(records[start : start + step], labels[start : start + step])
                    texts.setdefault(family.name, []).append(part)
                    await slices.pause_if_due()
        is_kept = len(self.rows) >= _FEW  # fewer will be written anew at the next scrape
        for name, parts in texts.items():
            text = "".join(parts).encode()
            self.texts[name] = kept(text, compressor) if is_kept else text
            await slices.pause_if_due()

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
