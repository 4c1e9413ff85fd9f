"""Write the dashboards to grafana/dashboards/*.json, or check that the committed files are current.

python grafana/build.py
python grafana/build.py --check
python grafana/build.py --output=/tmp/dashboards
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from builder import history, monitor, overview, service
from builder.palette import Json

HERE = Path(__file__).resolve().parent
DASHBOARDS: dict[str, Callable[[], Json]] = {
    "overview": overview.build,
    "service": service.build,
    "history": history.build,
    "monitor": monitor.build,
}


def rendered() -> dict[str, str]:
    """Return the text of each dashboard by its file name."""
    return {
        f"{name}.json": json.dumps(build(), indent=2, ensure_ascii=False) + "\n"
        for name, build in DASHBOARDS.items()
    }


def differing(folder: Path, files: dict[str, str]) -> list[str]:
    """Return the names of files that are missing, different or unexpected."""
    present = {path.name: path.read_text("utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in files.keys() | present.keys() if files.get(name) != present.get(name))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 1 if --check finds a difference."""
    parser = argparse.ArgumentParser(description="Build the Grafana dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if they differ")
    parser.add_argument("--output", type=Path, default=HERE / "dashboards", metavar="DIR")
    options = parser.parse_args(arguments)
    files = rendered()
    if options.check:
        wrong = differing(options.output, files)
        for name in wrong:
            print(f"{options.output / name}: differs from what grafana/build.py writes", file=sys.stderr)
        return 1 if wrong else 0
    options.output.mkdir(parents=True, exist_ok=True)
    for name in differing(options.output, files):
        if name in files:
            (options.output / name).write_text(files[name], "utf-8")
            print(f"wrote {options.output / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
