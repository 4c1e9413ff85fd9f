#!/usr/bin/env python3
"""Writes deploy/kubernetes/prometheusrule.yaml from prometheus/rules; with --check, says whether they differ."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
OUTPUT: Final = ROOT / "deploy" / "kubernetes" / "prometheusrule.yaml"
_HEADER: Final = "# Made by scripts/kubernetes.py from prometheus/rules: change those, and run it again.\n"
_RUNBOOKS: Final = "{{ $externalURL }}/user/runbooks/"
_GRAFANA: Final = "{{ $externalLabels.grafana_url }}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or compare; return the exit status."""
    options = _parser().parse_args(arguments)
    text = prometheus_rule(grafana=options.grafana.rstrip("/"), runbooks=options.runbooks.rstrip("/") + "/")
    output: Path = options.output
    if options.check:
        same = output.exists() and output.read_text() == text
        if not same:
            print(f"{output.name} is not what the rules say: run scripts/kubernetes.py", file=sys.stderr)
        return int(not same)
    output.write_text(text)
    return 0


def prometheus_rule(*, grafana: str = _GRAFANA, runbooks: str = _RUNBOOKS) -> str:
    """Return one PrometheusRule with every group of every rule file, links pointing at these addresses."""
    groups: list[Any] = []
    for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml")):
        groups += yaml.safe_load(path.read_text().replace(_GRAFANA, grafana).replace(_RUNBOOKS, runbooks))[
            "groups"
        ]
    whole = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "connection-exporter",
            "labels": {"app.kubernetes.io/name": "connection-exporter"},
        },
        "spec": {"groups": groups},
    }
    return _HEADER + yaml.dump(whole, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """YAML as people write it: no aliases, and blocks for what has several lines."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if the file is not current"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help="where to write it")
    parser.add_argument(
        "--grafana",
        default=_GRAFANA,
        metavar="URL",
        help="the address of Grafana (default: the external label grafana_url of Prometheus)",
    )
    parser.add_argument(
        "--runbooks",
        default=_RUNBOOKS,
        metavar="URL",
        help="the address of docs/runbooks (default: served by Prometheus)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
