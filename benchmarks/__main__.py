"""Measures what the exporter costs, in the same run as its peers, and prints medians, ratios and the machine.

    make bench                              a few minutes; ARGS is passed on
    python -m benchmarks --only checks      one part
    python -m benchmarks --against PATH     compare this checkout with another one, instead of the peers
    python -m benchmarks --write            also write the results into docs/performance.md

Nothing here passes or fails, because other programs on the machine change the figures. People judge them.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import alerts, answers, floor, held, paired, per_check, profile, sharded, starting
from benchmarks.figures import Figure, machine, table
from benchmarks.processes import ROOT, Checkout, peer_versions, peers_problem

PARTS: Final = {
    "checks": per_check.measure,
    "floor": floor.measure,
    "answers": answers.measure,
    "held": held.measure,
    "starting": starting.measure,
    "alerts": alerts.measure,
    "sharded": sharded.measure,
}
ON_DEMAND: Final = frozenset({"sharded"})
"""Parts that run only if they are named: they need much memory."""

QUICK: Final = 3
FULL: Final = 9
QUICK_PAIRED: Final = 1
DOCUMENT: Final = ROOT / "docs" / "performance.md"
RESULTS: Final = "results"
PAIRED: Final = "paired results"
PROFILE: Final = "profile"


async def measure(names: list[str], *, rounds: int) -> str:
    """Run the parts one after the other, print each figure when it is known, and return the table."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ce-bench-") as folder:
        for name in names:
            began = time.monotonic()
            print(f"{name} …", flush=True)
            async for figure in PARTS[name](Path(folder), rounds=rounds):
                figures.append(figure)
                print("  " + "  ".join(filter(None, figure.cells())), flush=True)
            print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    return table(figures)


async def compare(other: Checkout, names: list[str], *, rounds: int) -> str:
    """Measure this checkout and another one, and return the table."""
    with tempfile.TemporaryDirectory(prefix="ce-bench-") as folder:
        return paired.table(await paired.measure(other, Path(folder), parts=names, rounds=rounds))


async def profiled() -> str:
    """Profile each kind, and return the tables."""
    with tempfile.TemporaryDirectory(prefix="ce-bench-") as folder:
        return "\n\n".join([table async for table in profile.measure(Path(folder))])


def write(results: str, mark: str) -> None:
    """Write the results between their marks in the document."""
    first, last = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    before, _, rest = DOCUMENT.read_text().partition(first)
    _, _, after = rest.partition(last)
    DOCUMENT.write_text(f"{before}{first}{results}\n{last}{after}")


def _rounds(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def _checkout(text: str) -> Checkout:
    try:
        return Checkout.at(Path(text))
    except FileNotFoundError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what the exporter costs."
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="measure one part; may be repeated")
    parser.add_argument(
        "--against",
        type=_checkout,
        metavar="PATH",
        help="compare with another checkout of this repository, with a .venv of its own, instead of the peers",
    )
    parser.add_argument(
        "--profile", action="store_true", help="show where the CPU of a check goes, instead of comparing"
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--full", dest="rounds", action="store_const", const=FULL, help=f"{FULL} rounds, for steadier figures"
    )
    pace.add_argument(
        "--rounds",
        type=_rounds,
        help=f"how often each part is repeated (default: {QUICK}, and {QUICK_PAIRED} with --against)",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write the results into {DOCUMENT.relative_to(ROOT)}"
    )
    options = parser.parse_args()
    if options.profile and (options.only or options.against or options.rounds):
        parser.error(
            "--profile measures this checkout as a whole: leave out --only, --against, --rounds and --full"
        )
    with_peers = options.against is None and not options.profile
    if with_peers and (problem := peers_problem()):
        parser.error(problem)
    known = PARTS if options.against is None else paired.PARTS
    names = options.only or [name for name in known if name not in ON_DEMAND]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{unknown[0]} cannot be compared with another checkout: leave out --against")
    heading = f"{machine()}\n\n{peer_versions()}" if with_peers else machine()
    print(heading, flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.profile:
            results, mark = runner.run(profiled()), PROFILE
        elif options.against is None:
            results, mark = runner.run(measure(names, rounds=options.rounds or QUICK)), RESULTS
        else:
            results, mark = (
                runner.run(compare(options.against, names, rounds=options.rounds or QUICK_PAIRED)),
                PAIRED,
            )
    results = f"{heading}\n\n{results}"
    print(f"\n{results}")
    if options.write:
        write(results, mark)


if __name__ == "__main__":
    main()
