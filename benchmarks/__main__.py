"""Measure what the exporter costs, beside its peers, and print it: medians, ratios, the machine.

    make bench                              a few minutes; ARGS is passed on
    python -m benchmarks --only checks      one part alone
    python -m benchmarks --write            also put the results into docs/performance.md

Nothing here passes or fails: a shared machine is no judge. The verdicts are for people.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import answers, held, per_check, starting
from benchmarks.figures import Figure, machine, table
from benchmarks.processes import ROOT

PARTS: Final = {
    "checks": per_check.measure,
    "answers": answers.measure,
    "held": held.measure,
    "starting": starting.measure,
}
QUICK: Final = 3
FULL: Final = 9
DOCUMENT: Final = ROOT / "docs" / "performance.md"
MARKS: Final = ("<!-- results -->\n", "<!-- end of results -->\n")


async def measure(names: list[str], *, rounds: int) -> list[Figure]:
    """Run the parts one after the other, and print each figure as it comes."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ce-bench-") as folder:
        for name in names:
            began = time.monotonic()
            print(f"{name} …", flush=True)
            async for figure in PARTS[name](Path(folder), rounds=rounds):
                figures.append(figure)
                print("  " + "  ".join(filter(None, figure.cells())), flush=True)
            print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    return figures


def write(results: str) -> None:
    """Put the results between their marks in the document."""
    before, _, rest = DOCUMENT.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    DOCUMENT.write_text(f"{before}{MARKS[0]}{results}\n{MARKS[1]}{after}")


def main() -> None:
    """Take the options and measure."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what the exporter costs."
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; repeatable")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--quick", dest="rounds", action="store_const", const=QUICK, help="some minutes (the default)"
    )
    pace.add_argument(
        "--full", dest="rounds", action="store_const", const=FULL, help="three times as many rounds"
    )
    pace.add_argument("--rounds", type=int, help="rounds in turn of the exporter and its peers")
    parser.add_argument(
        "--write", action="store_true", help=f"put the results into {DOCUMENT.relative_to(ROOT)}"
    )
    options = parser.parse_args()
    told = machine()
    print(told, flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(options.only or list(PARTS), rounds=options.rounds or QUICK))
    results = f"{told}\n\n{table(figures)}"
    print(f"\n{results}")
    if options.write:
        write(results)


if __name__ == "__main__":
    main()
