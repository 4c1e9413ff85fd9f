"""Compares two checkouts of this repository: `python -m benchmarks --against PATH`.

The load of the machine changes from second to second, so two runs one after the other cannot be compared. Here, both
checkouts either run at the same time against the same servers, or take many short turns. Each row shows the median of
both, and the ratio: for what is measured at the same time, the median of the ratios.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import answers, held, per_check, starting
from benchmarks.figures import percentile, shown, table_of
from benchmarks.processes import HERE, Checkout, Program, exporter

_WINDOWS: Final = 4
_WINDOW: Final = 2.0
_SERVICES: Final = 100
"""Windows of so many seconds, in each of which each exporter checks so many services every second."""

_RESPONSES: Final = 15
_STARTS: Final = 5
_KILLS: Final = 60
_AT_REST: Final = 15.0
_RECOVERED_AFTER: Final = 12.0


@dataclass(frozen=True, slots=True)
class Pair:
    """What was measured of the other checkout and of this one, in ``unit``; the values come in pairs."""

    what: str
    unit: str
    other: list[float]
    this: list[float]

    @property
    def ratio(self) -> float:
        """This checkout relative to the other: below 1 is better."""
        return median(this / other for this, other in zip(self.this, self.other, strict=True))

    def cells(self) -> tuple[str, ...]:
        """Return the line of the table."""
        return (
            self.what,
            shown(median(self.other), self.unit),
            shown(median(self.this), self.unit),
            f"{self.ratio:.2f}",
        )


async def measure(other: Checkout, folder: Path, *, parts: list[str], rounds: int) -> list[Pair]:
    """Measure the parts one after the other, and print each row when it is known."""
    pairs: list[Pair] = []
    for part in parts:
        async for pair in PARTS[part](other, folder, rounds):
            pairs.append(pair)
            print("  " + "  ".join(pair.cells()), flush=True)
    return pairs


def table(pairs: list[Pair]) -> str:
    """Return the rows as a Markdown table."""
    return table_of(("what", "other", "this", "ratio"), [pair.cells() for pair in pairs])


async def _checks(other: Checkout, folder: Path, rounds: int) -> AsyncIterator[Pair]:
    async with per_check.running_servers(sessions=2 * _SERVICES) as servers:
        for kind, of_kind in servers.services().items():
            config = per_check.write_config(folder, of_kind, services=_SERVICES)
            pair = Pair(f"CPU of a check, {kind}", "us", [], [])
            memory = Pair(f"memory with {_SERVICES} services, {kind}", "MiB", [], [])
            for turn in range(rounds):
                async with AsyncExitStack() as stack:
                    programs = await _both(stack, other, config, other_first=turn % 2 == 0)
                    await asyncio.gather(*(per_check.until_spread(program) for program in programs))
                    for _ in range(_WINDOWS):
                        cpu = await asyncio.gather(
                            *(per_check.cpu_of_check(program, seconds=_WINDOW) for program in programs)
                        )
                        _add(pair, *cpu)
                    _add(memory, *(program.resident() / 2**20 for program in programs))
            yield pair
            yield memory


async def _answers(other: Checkout, folder: Path, rounds: int) -> AsyncIterator[Pair]:
    del folder
    size = 1000
    async with (
        answers.board_server(size, checkout=other) as theirs,
        answers.board_server(size) as ours,
    ):
        for program in (theirs, ours):
            await answers.one_interval(program)
        for path, gzipped in (("/metrics", True), ("/metrics", False), ("/health/detailed", False)):
            pair = Pair(f"CPU of {path}, {'gzip, ' * gzipped}{size} services", "ms", [], [])
            for program in (theirs, ours):
                await program.get(path, gzipped=gzipped)
            for _ in range(_RESPONSES * rounds):
                cpu = [await answers.cpu_of_response(p, path, gzipped=gzipped) for p in (theirs, ours)]
                _add(pair, *cpu)
            yield pair


async def _held(other: Checkout, folder: Path, rounds: int) -> AsyncIterator[Pair]:
    async with held.world_of(folder, exporters=2) as world:
        async for pair in _at_rest(other, world):
            yield pair
        pairs: dict[str, Pair] = {}
        for _ in range(rounds):
            results = [await _kills(world, checkout) for checkout in (other, HERE)]
            for what, (unit, _) in results[0].items():
                pair = pairs.setdefault(what, Pair(what, unit, [], []))
                _add(pair, *(result[what][1] for result in results))
        for pair in pairs.values():
            yield pair


async def _at_rest(other: Checkout, world: held.World) -> AsyncIterator[Pair]:
    few, many = world.services(1), world.services(held.OF_EACH)
    resident: list[list[float]] = []
    for services in (few, many):
        async with AsyncExitStack() as stack:
            programs = await _both(stack, other, held.write_config(world, services), other_first=True)
            await asyncio.gather(*(program.healthy(within=60.0) for program in programs))
            await asyncio.gather(*(held.scrapes(program, 6.0) for program in programs))
            resident.append([program.resident() / 2**10 for program in programs])
            if services is many:
                share = await asyncio.gather(
                    *(held.share_of_a_core(program, seconds=_AT_REST) for program in programs)
                )
    idle, full = resident
    theirs, ours = ((all_ - one) / (len(many) - len(few)) for one, all_ in zip(idle, full, strict=True))
    yield Pair("memory, idle, one of each kind", "MiB", [idle[0] / 2**10], [idle[1] / 2**10])
    yield Pair(f"memory of a service, {len(many)} of mixed kinds", "KiB", [theirs], [ours])
    yield Pair(f"CPU of {len(many)} held sessions", "% of a core", [share[0]], [share[1]])


async def _kills(world: held.World, checkout: Checkout) -> dict[str, tuple[str, float]]:
    async with held.watching(world, checkout=checkout) as (watched, port, total):
        took = await held.kill_one_by_one(world, watched, kills=_KILLS)
        one = f"one of {total} killed, noticed after"
        figures = {
            f"{one}, p50": ("ms", percentile(took, 0.5) * 1e3),
            f"{one}, p90": ("ms", percentile(took, 0.9) * 1e3),
        }
        await asyncio.sleep(_RECOVERED_AFTER)
        async for figure in held.kill_all(world, watched, port, total):
            figures[figure.what] = (figure.unit, figure.measured)
    return figures


async def _starting(other: Checkout, folder: Path, rounds: int) -> AsyncIterator[Pair]:
    config = starting.write_example(folder)
    commands = {"--version": ["--version"], "validate": ["validate", f"--config.file={config}"]}
    for checkout in (other, HERE):
        await starting.serve(config, checkout=checkout)  # which also compiles the modules
    for what, arguments in commands.items():
        took = [
            [await starting.run(arguments, checkout=checkout) for checkout in (other, HERE)]
            for _ in range(_STARTS * rounds)
        ]
        for pair in _clock_and_cpu(what, took):
            yield pair
    took = [
        [await starting.serve(config, checkout=checkout) for checkout in (other, HERE)]
        for _ in range(_STARTS * rounds)
    ]
    for pair in _clock_and_cpu("serve to its first response", took):
        yield pair


def _clock_and_cpu(what: str, took: list[list[starting.Took]]) -> list[Pair]:
    return [
        Pair(f"time of {what}", "ms", [a.clock for a, _ in took], [b.clock for _, b in took]),
        Pair(f"CPU of {what}", "ms", [a.cpu for a, _ in took], [b.cpu for _, b in took]),
    ]


async def _both(stack: AsyncExitStack, other: Checkout, config: Path, *, other_first: bool) -> list[Program]:
    """Run the exporters of both checkouts; return the other's and this one's."""
    order = (other, HERE) if other_first else (HERE, other)
    programs = [await stack.enter_async_context(exporter(config, checkout=checkout)) for checkout in order]
    return programs if other_first else programs[::-1]


def _add(pair: Pair, other: float, this: float) -> None:
    pair.other.append(other)
    pair.this.append(this)


PARTS: Final[dict[str, Callable[[Checkout, Path, int], AsyncIterator[Pair]]]] = {
    "checks": _checks,
    "answers": _answers,
    "held": _held,
    "starting": _starting,
}
