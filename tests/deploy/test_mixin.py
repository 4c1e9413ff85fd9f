"""The mixin: what jsonnet makes of it is the rules and dashboards of the repository, with the values of _config."""

import json
from pathlib import Path
from typing import Any

import _jsonnet
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MIXIN = ROOT / "deploy" / "mixin" / "mixin.libsonnet"
FIELDS = ("prometheusAlerts", "prometheusRules", "grafanaDashboards")


def evaluated(**config: object) -> dict[str, Any]:
    fields = ", ".join(f"{field}: mixin.{field}" for field in FIELDS)
    program = f"local mixin = (import '{MIXIN}') + {{_config+:: {json.dumps(config)}}}; {{{fields}}}"
    made: dict[str, Any] = json.loads(_jsonnet.evaluate_snippet("test", program))
    return made


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return evaluated()


def groups() -> list[dict[str, Any]]:
    files = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
    return [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]


def test_every_group_of_rules_is_in_the_mixin_once(plain: dict[str, Any]) -> None:
    """Unchanged: alerts with the recording rules of their group, the other groups apart."""
    alerts, rules = plain["prometheusAlerts"]["groups"], plain["prometheusRules"]["groups"]
    made = {group["name"]: group for group in [*alerts, *rules]}
    assert made == {group["name"]: group for group in groups()}
    assert len(made) == len(alerts) + len(rules)
    assert all(any("alert" in rule for rule in group["rules"]) for group in alerts)
    assert not any("alert" in rule for group in rules for rule in group["rules"])
    assert alerts
    assert rules


def test_every_dashboard_is_in_the_mixin(plain: dict[str, Any]) -> None:
    files = (ROOT / "grafana" / "dashboards").glob("*.json")
    expected = {f"connection-{path.name}": json.loads(path.read_text()) for path in files}
    assert plain["grafanaDashboards"] == expected


def test_the_config_changes_selectors_links_and_tags() -> None:
    """And leaves nothing of the defaults."""
    made = evaluated(
        connectionExporterSelector='cluster="a",job="exporter"',
        grafanaUrl="https://grafana.example.com/",
        runbooksUrl="https://wiki.example.com/r",
        dashboardTags=["mine"],
    )
    text = json.dumps(made["prometheusAlerts"])
    assert json.dumps('up{cluster="a",job="exporter"} == 0')[1:-1] in text
    assert 'job=\\"connection-exporter\\"' not in text
    assert "https://grafana.example.com/d/connection-service" in text
    assert "https://wiki.example.com/r/ConnectionDisconnected.md" in text
    assert "externalLabels.grafana_url" not in text
    assert {tuple(dashboard["tags"]) for dashboard in made["grafanaDashboards"].values()} == {("mine",)}


def test_prometheus_accepts_the_rules_of_the_mixin(tmp_path: Path, run: Any) -> None:
    """With other selectors and links, as promtool reads them."""
    made = evaluated(connectionExporterSelector='job=~"exporter.*"', grafanaUrl="https://g.example.com")
    for field in ("prometheusAlerts", "prometheusRules"):
        path = tmp_path / f"{field}.yml"
        path.write_text(yaml.safe_dump(made[field]))
        checked = run("promtool", "check", "rules", path)
        assert checked.returncode == 0, checked.stdout + checked.stderr
