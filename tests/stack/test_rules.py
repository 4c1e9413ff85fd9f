"""The rules, their unit tests, runbooks and docs agree, and promtool reports no problem."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def load(path: Path) -> Any:
    """Parse a YAML file of ours."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    """Return every rule of every group."""
    return [rule for path in RULES for group in load(path)["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def covered(*, firing: bool) -> list[tuple[str, dict[str, str]]]:
    """Return name and labels of each alert expected to fire, or the names expected silent."""
    found: list[tuple[str, dict[str, str]]] = []
    for path in UNIT_TESTS:
        for test in load(path)["tests"]:
            for case in test.get("alert_rule_test", []):
                expected = case["exp_alerts"]
                if firing:
                    found += [(case["alertname"], alert["exp_labels"]) for alert in expected]
                elif not expected:
                    found.append((case["alertname"], {}))
    return found


def seconds(duration: str) -> int:
    """Turn a duration such as 1h2m3s into seconds."""
    factors = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(int(count) * factors[unit] for count, unit in re.findall(r"(\d+)([dhms])", duration))


@pytest.mark.parametrize("config", ["prometheus.yml", "local.yml"])
def test_promtool_accepts_a_config(run: Run, config: str) -> None:
    """Both configs are valid, including the rules that they load."""
    result = run("promtool", "check", "config", "--lint=all", "--lint-fatal", PROMETHEUS / config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(RULES)} rule files found" in result.stdout


def test_promtool_accepts_the_rules(run: Run) -> None:
    """Every rule file is valid, and no two rules are equal."""
    result = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.timeout(250)  # a promtool run takes a minute on a loaded machine
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_the_rules_pass(run: Run, path: Path) -> None:
    """Alerts fire or stay silent, and recording rules return the numbers, as the tests expect."""
    result = run("promtool", "test", "rules", path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_two_configs_differ_in_their_targets_only() -> None:
    """local.yml scrapes and alerts like the Compose stack, which also discovers its demo."""
    differ = {"targets", "dns_sd_configs", "relabel_configs"}
    addresses = {"browser_url", "runbooks_url"}

    def without_targets(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: without_targets(value) for key, value in node.items() if key not in differ}
        return [without_targets(item) for item in node] if isinstance(node, list) else node

    compose, local = (load(PROMETHEUS / name) for name in ("prometheus.yml", "local.yml"))
    assert compose != local
    assert without_targets(compose) == without_targets(local)
    assert compose["global"]["scrape_interval"] == compose["global"]["evaluation_interval"] == "5s"
    for config in (compose, local):
        job = next(one for one in config["scrape_configs"] if one["job_name"] == "connection-exporter")
        assert job["static_configs"][0]["labels"].keys() == addresses
        (drop,) = job["metric_relabel_configs"]
        (drop_from_alerts,) = config["alerting"]["alert_relabel_configs"]
        assert drop == {"action": "labeldrop", "regex": "browser_url|runbooks_url"}
        assert drop_from_alerts == {"action": "labeldrop", "regex": "grafana_url|browser_url|runbooks_url"}
        assert config["global"]["external_labels"].keys() == {"grafana_url"}


def constant(labels: dict[str, str]) -> dict[str, str]:
    """Return the labels of a rule without its group, which depends on the service."""
    return {name: value for name, value in labels.items() if name != "group"}


@pytest.mark.parametrize(
    "rule", ALERTS, ids=lambda rule: "-".join([rule["alert"], *constant(rule["labels"]).values()])
)
def test_every_alert_has_a_unit_test_in_which_it_fires(rule: dict[str, Any]) -> None:
    """This includes rules with the same name but another severity or window."""
    expected = constant(rule["labels"]).items()
    assert any(name == rule["alert"] and expected <= labels.items() for name, labels in covered(firing=True))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Watchdog"])
def test_every_alert_has_a_unit_test_in_which_it_is_silent(name: str) -> None:
    """All except the Watchdog, which always fires."""
    assert name in {silent for silent, _ in covered(firing=False)}


def test_every_recording_rule_is_read_by_a_unit_test() -> None:
    """A wrong recording rule would go unnoticed otherwise."""
    expressions = " ".join(
        case["expr"]
        for path in UNIT_TESTS
        for test in load(path)["tests"]
        for case in test.get("promql_expr_test", [])
    )
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert [name for name in recorded if not re.search(rf"{name}(?!\w)", expressions)] == []


@pytest.mark.parametrize(
    "rule", [rule for rule in rules() if "record" in rule], ids=lambda rule: str(rule["record"])
)
def test_recording_rules_are_named_level_metric_operations(rule: dict[str, Any]) -> None:
    """This is the convention of Prometheus' documentation."""
    assert re.fullmatch(r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+", rule["record"])


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_look_between_two_samples(path: Path) -> None:
    """At the time of a sample, Prometheus 2 and 3 disagree on what a range contains."""
    content = load(path)
    for test in content["tests"]:
        step = seconds(test["interval"])
        for case in [*test.get("alert_rule_test", []), *test.get("promql_expr_test", [])]:
            assert seconds(case["eval_time"]) % step != 0, (test["name"], case["eval_time"])


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_has_every_annotation_that_a_reader_needs(rule: dict[str, Any]) -> None:
    """A constant summary, values in the description, what to do, and two links; no values in labels."""
    annotations, labels = rule["annotations"], rule["labels"]
    name = rule["alert"]
    assert set(annotations) - {"affected", "reason"} == {
        "summary",
        "description",
        "action",
        "runbook_url",
        "dashboard_url",
    }
    assert labels["severity"] in {"critical", "warning", "info", "none"}
    assert "{{" not in str(constant(labels))
    assert ("group" in labels) is ("$labels.name" in annotations["description"])
    assert "{{" not in annotations["summary"] + annotations["action"]
    assert annotations["summary"].endswith(".")
    assert len(annotations["action"]) <= 62, "it must fit into an SMS"
    assert annotations["runbook_url"] == f"{{{{ $externalURL }}}}/user/runbooks/{name}.md"
    uid = r"connection-(overview|service|history|monitor)"
    grafana = re.escape("{{ $externalLabels.grafana_url }}")
    assert re.match(rf"{grafana}/d/{uid}(\?|$)", annotations["dashboard_url"])
    assert not re.search(r"localhost|:\d{4}\b", str(annotations))


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_comment_above_each_alert_explains_its_delay(path: Path) -> None:
    """The comment starts with the `for`, or with "No `for`"."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if "- alert:" not in line:
            continue
        comment = ""
        above = number - 1
        while lines[above].strip().startswith("#"):
            comment = lines[above].strip("# ") + " " + comment
            above -= 1
        body = lines[number + 1 :]
        end = next(
            (at for at, text in enumerate(body) if "- alert:" in text or "- name:" in text),
            len(body),
        )
        wait = next((text.split()[1] for text in body[:end] if text.strip().startswith("for:")), "No `for`")
        assert comment.startswith(wait), f"{path.name}:{number + 1} says {comment!r}, but waits {wait}"


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_runbook(name: str) -> None:
    """Meaning, impact, diagnosis with commands, mitigation; and the index names it."""
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == [
        "Meaning",
        "Impact",
        "Diagnosis",
        "Mitigation",
    ]
    diagnosis = text.split("## Diagnosis")[1].split("## Mitigation")[0]
    assert "```" in diagnosis
    assert f"[{name}]({name}.md)" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")


def test_every_runbook_has_an_alert() -> None:
    """No page is left of an alert that was removed."""
    pushed = {"ConnectionDown"}  # the exporter sends it, not a rule
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {*NAMES, *pushed}


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_alerts_in_the_docs_has_each(name: str) -> None:
    """docs/alerts.md has the name and severities of each alert."""
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| \[{name}\]\(runbooks/{name}\.md\) \| ([^|]+) \|", text, flags=re.MULTILINE)
    assert row is not None
    assert set(re.findall(r"\w+", row.group(1))) == {
        r["labels"]["severity"] for r in ALERTS if r["alert"] == name
    }
