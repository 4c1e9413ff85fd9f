"""Renders the Helm chart with Helm's own library, in a process of its own: its Go runtime has signal handlers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "connection-exporter"

_PROGRAM = """
import json, sys
from helm_python import HelmError
from helm_python.chart import Chart, lint
given = json.load(sys.stdin)
try:
    with Chart.load(given["chart"]) as chart:
        chart.validate_schema(given["values"])
        print(json.dumps({
            "rendered": chart.render(given["values"], name="rel", namespace="obs"),
            "lint": lint(given["chart"], given["values"], strict=True),
        }))
except HelmError as error:
    print(json.dumps({"error": str(error)}))
"""


class ChartError(Exception):
    """The chart does not take these values; the message is Helm's."""


def helm(values: dict[str, Any], chart: Path = CHART) -> dict[str, Any]:
    """Return what Helm renders, by template, and what ``helm lint --strict`` finds. Raises ChartError."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps({"chart": str(chart), "values": values}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise ChartError(answer["error"])
    return answer


def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of a release called ``rel`` in the namespace ``obs``."""
    rendered: dict[str, str] = helm(values)["rendered"]
    texts = [text for name, text in rendered.items() if name.endswith(".yaml")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def one(made: list[dict[str, Any]], kind: str, suffix: str = "") -> dict[str, Any]:
    """Return the only object of a kind whose name ends in ``suffix``."""
    (found,) = (
        o for o in made if o["kind"] == kind and o["metadata"]["name"] == f"rel-connection-exporter{suffix}"
    )
    return found
