"""What render.py writes, where alerts are routed, what inhibits what, and how each text reads."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ALERTMANAGER = ROOT / "alertmanager"
COMMITTED = ALERTMANAGER / "alertmanager.yml"
TEMPLATES = ALERTMANAGER / "templates" / "*.tmpl"
GOLDEN = Path(__file__).parent / "golden"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def render(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run render.py as a user does, with nothing but these variables."""
    command = [sys.executable, str(ALERTMANAGER / "render.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def secret(directory: Path, name: str, content: str) -> str:
    """Write a secret file and return its path."""
    path = directory / name
    path.write_text(content + "\n", encoding="utf-8")
    return str(path)


def environments(directory: Path) -> dict[str, dict[str, str]]:
    """Return the variables for each receiver, all of them complete, with their files."""
    hook = secret(directory, "hook", "https://hooks.example.com/services/T0/B0/secret")
    word = secret(directory, "word", "s3cret-word")
    return {
        "email": {
            "ALERT_EMAIL_TO": "ops@example.com, boss@example.com",
            "ALERT_EMAIL_FROM": "alerts@example.com",
            "ALERT_EMAIL_SMARTHOST": "mail.example.com:587",
            "ALERT_EMAIL_USERNAME": "alerts",
            "ALERT_EMAIL_PASSWORD_FILE": word,
        },
        "sns": {"ALERT_SMS_PHONE_NUMBER": "+4915112345678", "ALERT_SMS_REGION": "eu-central-1"},
        "slack": {"ALERT_SLACK_URL_FILE": hook, "ALERT_SLACK_CHANNEL": "#alerts"},
        "discord": {"ALERT_DISCORD_URL_FILE": hook},
        "telegram": {"ALERT_TELEGRAM_TOKEN_FILE": word, "ALERT_TELEGRAM_CHAT_ID": "-1001234567890"},
        "pagerduty": {"ALERT_PAGERDUTY_KEY_FILE": word},
        "webhook": {
            "ALERT_WEBHOOK_URL": "http://127.0.0.1:9095/",
            "ALERT_WEBHOOK_TOKEN_FILE": word,
        },
        "watchdog": {"ALERT_WATCHDOG_URL": "http://127.0.0.1:9095/watchdog"},
        "webhook_file": {"ALERT_WEBHOOK_URL_FILE": hook},
        "watchdog_file": {"ALERT_WATCHDOG_URL_FILE": hook},
    }


RECEIVERS = ["email", "sns", "slack", "discord", "telegram", "pagerduty", "webhook", "watchdog"]
FILE_RECEIVERS = ["webhook_file", "watchdog_file"]
# Alertmanager 0.28 is the floor; Debian 12 has 0.25, which cannot take these secrets from files,
# only in the config.
NEED_028 = {"discord", "telegram", "webhook_file", "watchdog_file"}


def is_before_028(run: Run) -> bool:
    """Tell whether amtool is older than the floor."""
    result = run("amtool", "--version")
    found = re.search(r"version (\d+)\.(\d+)", result.stdout + result.stderr)
    assert found is not None
    return (int(found[1]), int(found[2])) < (0, 28)


def test_the_committed_config_is_what_an_empty_environment_renders() -> None:
    """Nothing set is a valid state: it notifies nobody."""
    result = render({})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == COMMITTED.read_text(encoding="utf-8")
    assert all(set(receiver) == {"name"} for receiver in yaml.safe_load(result.stdout)["receivers"])


def test_amtool_accepts_the_committed_config(run: Run) -> None:
    """It is valid as it is, templates included."""
    result = run("amtool", "check-config", COMMITTED)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 templates" in result.stdout


@pytest.mark.parametrize("name", RECEIVERS + FILE_RECEIVERS)
def test_amtool_accepts_each_receiver(run: Run, tmp_path: Path, name: str) -> None:
    """Each receiver alone; an Alertmanager before 0.28 refuses the four that need it."""
    output = tmp_path / "alertmanager.yml"
    result = render(environments(tmp_path)[name], "--templates", TEMPLATES, "--output", output)
    assert result.returncode == 0, result.stderr
    checked = run("amtool", "check-config", output)
    said = checked.stdout + checked.stderr
    if name in NEED_028 and is_before_028(run):
        assert checked.returncode != 0
        assert "_file" in said
    else:
        assert checked.returncode == 0, said


def test_all_receivers_fit_together(run: Run, tmp_path: Path) -> None:
    """Pages go everywhere, tickets do not wake anybody, and what is for the chat stays there."""
    old = is_before_028(run)
    environment: dict[str, str] = {}
    for name in RECEIVERS:
        if not (old and name in NEED_028):
            environment |= environments(tmp_path)[name]
    output = tmp_path / "alertmanager.yml"
    result = render(environment, "--templates", TEMPLATES, "--output", output)
    assert result.returncode == 0, result.stderr
    checked = run("amtool", "check-config", output)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    result = render({key: value for name in RECEIVERS for key, value in environments(tmp_path)[name].items()})
    channels = {r["name"]: set(r) - {"name"} for r in yaml.safe_load(result.stdout)["receivers"]}
    chat = {"slack_configs", "discord_configs", "telegram_configs", "webhook_configs"}
    assert channels == {
        "page": chat | {"email_configs", "sns_configs", "pagerduty_configs"},
        "ticket": chat | {"email_configs"},
        "info": chat,
        "watchdog": {"webhook_configs"},
        "nobody": set(),
    }


def test_no_secret_is_in_the_output(tmp_path: Path) -> None:
    """Secrets are named by their files, and every file has an absolute path."""
    environment = {key: value for name in RECEIVERS for key, value in environments(tmp_path)[name].items()}
    text = render(environment).stdout
    assert "s3cret" not in text
    assert "hooks.example.com" not in text
    assert "&id" not in text, "aliases are hard to read"
    paths = re.findall(r"_file: (\S+)", text)
    assert paths
    assert all(path.startswith(str(tmp_path)) for path in paths)


def test_only_email_carries_the_lines_for_the_chat_too(tmp_path: Path) -> None:
    """Rather than lose them."""
    config = yaml.safe_load(render(environments(tmp_path)["email"]).stdout)
    assert {r["name"] for r in config["receivers"] if "email_configs" in r} == {
        "page",
        "ticket",
        "info",
    }


def test_sms_is_for_pages_only_even_when_there_is_nothing_else(tmp_path: Path) -> None:
    """And render.py says that tickets then reach nobody."""
    result = render(environments(tmp_path)["sns"])
    assert [r["name"] for r in yaml.safe_load(result.stdout)["receivers"] if len(r) > 1] == ["page"]
    assert "nobody receives the tickets" in result.stderr


def test_the_watchdog_sends_no_resolve(tmp_path: Path) -> None:
    """A dead man's switch would take a resolve for a sign of life."""
    config = yaml.safe_load(render(environments(tmp_path)["watchdog"]).stdout)
    (receiver,) = (r for r in config["receivers"] if r["name"] == "watchdog")
    assert receiver["webhook_configs"][0]["send_resolved"] is False


EMAIL = {
    "ALERT_EMAIL_TO": "ops@example.com",
    "ALERT_EMAIL_FROM": "alerts@example.com",
    "ALERT_EMAIL_SMARTHOST": "mail.example.com:587",
}
BAD = {
    "an unknown name": (
        {"ALERT_EMIAL_TO": "ops@example.com"},
        "ALERT_EMIAL_TO is not a variable of this program: did you mean ALERT_EMAIL_TO?",
    ),
    "a secret in a variable": (
        {"ALERT_SLACK_URL": "https://hooks.example.com/s3cret"},
        "ALERT_SLACK_URL is not a variable of this program: secrets come from files only: "
        "put it into a file and "
        "set ALERT_SLACK_URL_FILE to the path",
    ),
    "half an email": (
        {"ALERT_EMAIL_TO": "ops@example.com", "ALERT_EMAIL_FROM": "alerts@example.com"},
        "ALERT_EMAIL_SMARTHOST is not set, but email needs it: set it (email: host:port of the mail server)",
    ),
    "a smarthost without port": (
        {**EMAIL, "ALERT_EMAIL_SMARTHOST": "mail.example.com"},
        "ALERT_EMAIL_SMARTHOST is 'mail.example.com': write it like mail.example.com:587",
    ),
    "a user without password": (
        {**EMAIL, "ALERT_EMAIL_USERNAME": "alerts"},
        "ALERT_EMAIL_PASSWORD_FILE is not set, but ALERT_EMAIL_USERNAME needs it: set it",
    ),
    "neither true nor false": (
        {**EMAIL, "ALERT_EMAIL_REQUIRE_TLS": "no"},
        "ALERT_EMAIL_REQUIRE_TLS is 'no': write it like true or false",
    ),
    "a national number": (
        {"ALERT_SMS_PHONE_NUMBER": "0151123", "ALERT_SMS_REGION": "eu-central-1"},
        "ALERT_SMS_PHONE_NUMBER is '0151123': write it like +4915112345678",
    ),
    "a channel without a webhook": (
        {"ALERT_SLACK_CHANNEL": "#alerts"},
        "ALERT_SLACK_URL_FILE is not set, but ALERT_SLACK_CHANNEL needs it: set it",
    ),
    "a chat by its name": (
        {"ALERT_TELEGRAM_CHAT_ID": "@ops", "ALERT_TELEGRAM_TOKEN_FILE": "{tmp}/word"},
        "ALERT_TELEGRAM_CHAT_ID is '@ops': write it like -1001234567890",
    ),
    "a missing file": (
        {"ALERT_PAGERDUTY_KEY_FILE": "{tmp}/nothing"},
        "ALERT_PAGERDUTY_KEY_FILE names {tmp}/nothing, which does not exist: create it, or "
        "unset ALERT_PAGERDUTY_KEY_FILE",
    ),
    "a directory": (
        {"ALERT_PAGERDUTY_KEY_FILE": "{tmp}"},
        "ALERT_PAGERDUTY_KEY_FILE names {tmp}, which is a directory: Docker creates one "
        "if a mounted file is missing",
    ),
    "an empty file": (
        {"ALERT_PAGERDUTY_KEY_FILE": "{tmp}/empty"},
        "ALERT_PAGERDUTY_KEY_FILE names {tmp}/empty, which is empty: write the secret to it",
    ),
    "a relative path": (
        {"ALERT_PAGERDUTY_KEY_FILE": "secrets/key"},
        "ALERT_PAGERDUTY_KEY_FILE names secrets/key, a relative path, which Alertmanager may "
        "resolve differently",
    ),
    "no address in the file": (
        {"ALERT_DISCORD_URL_FILE": "{tmp}/word"},
        "ALERT_DISCORD_URL_FILE names {tmp}/word, whose content is not one URL that starts with https://",
    ),
    "a password in a plain address": (
        {"ALERT_WEBHOOK_URL": "http://user:pass@example.com/"},
        "ALERT_WEBHOOK_URL is not a plain http:// or https:// URL: correct it or, if it contains a "
        "user or a password",
    ),
    "two addresses": (
        {"ALERT_WEBHOOK_URL": "http://example.com/", "ALERT_WEBHOOK_URL_FILE": "{tmp}/hook"},
        "ALERT_WEBHOOK_URL and ALERT_WEBHOOK_URL_FILE are both set: unset one of them",
    ),
    "a token for no webhook": (
        {"ALERT_WEBHOOK_TOKEN_FILE": "{tmp}/word"},
        "ALERT_WEBHOOK_URL is not set, but ALERT_WEBHOOK_TOKEN_FILE needs it: set it, or "
        "ALERT_WEBHOOK_URL_FILE",
    ),
    "Amazon's keys missing": (
        {
            "ALERT_SMS_PHONE_NUMBER": "+4915112345678",
            "ALERT_SMS_REGION": "eu-central-1",
            "AWS_SHARED_CREDENTIALS_FILE": "{tmp}/nothing",
        },
        "AWS_SHARED_CREDENTIALS_FILE names {tmp}/nothing, which does not exist",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_an_error_names_the_variable_and_the_fix_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    """Exit 2, one line that names the variable or the file; the output from before stays."""
    environments(tmp_path)
    (tmp_path / "empty").touch()
    variables, message = BAD[case]
    output = tmp_path / "alertmanager.yml"
    output.write_text("from before", encoding="utf-8")
    filled = {key: value.replace("{tmp}", str(tmp_path)) for key, value in variables.items()}
    result = render(filled, "--templates", TEMPLATES, "--output", output)
    assert result.returncode == 2
    assert f"render.py: error: {message.replace('{tmp}', str(tmp_path))}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "s3cret" not in result.stderr
    assert output.read_text(encoding="utf-8") == "from before"


def test_all_errors_are_reported_at_once() -> None:
    """So that nobody has to fix one, start again and meet the next."""
    result = render({"ALERT_EMAIL_TO": "ops", "ALERT_SMS_REGION": "Frankfurt", "ALERT_X": "1"})
    names = re.findall(r"error: (ALERT_\w+)", result.stderr)
    assert sorted(names) == [
        "ALERT_EMAIL_FROM",
        "ALERT_EMAIL_SMARTHOST",
        "ALERT_EMAIL_TO",
        "ALERT_SMS_PHONE_NUMBER",
        "ALERT_SMS_REGION",
        "ALERT_X",
    ]


def test_an_unreadable_file_is_named_with_the_user_who_cannot_read_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Seen as an ordinary user, which root becomes for a moment, for it may read everything."""
    specification = importlib.util.spec_from_file_location("render", ALERTMANAGER / "render.py")
    assert specification is not None
    assert specification.loader is not None
    program = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(program)
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        key = Path(secret(Path(directory), "key", "s3cret-word"))
        key.chmod(0)
        os.seteuid(before or 65534)
        try:
            status = program.main([], {"ALERT_PAGERDUTY_KEY_FILE": str(key)})
            user = os.geteuid()
        finally:
            os.seteuid(before)
    assert status == 2
    wanted = f"ALERT_PAGERDUTY_KEY_FILE names {key}, which user {user} cannot read"
    assert wanted in capsys.readouterr().err


def test_an_empty_variable_is_an_unset_one() -> None:
    """Compose files pass `${VAR:-}`."""
    assert render({"ALERT_EMAIL_TO": "", "ALERT_SLACK_URL_FILE": " "}).stdout == render({}).stdout


def test_the_output_is_replaced_at_once_and_readable_for_all(tmp_path: Path) -> None:
    """Alertmanager runs as another user; nothing else is left behind."""
    output = tmp_path / "alertmanager.yml"
    output.write_text("from before", encoding="utf-8")
    result = render({}, "--templates", TEMPLATES, "--output", output)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["alertmanager.yml"]


def test_check_writes_nothing(tmp_path: Path) -> None:
    """For a look before a start."""
    output = tmp_path / "alertmanager.yml"
    assert render({}, "--check", "--output", output).returncode == 0
    assert not output.exists()


def test_a_directory_that_is_not_there_is_exit_1(tmp_path: Path) -> None:
    """It is the machine that is wrong, not the input."""
    output = tmp_path / "nowhere" / "alertmanager.yml"
    result = render({}, "--templates", TEMPLATES, "--output", output)
    assert result.returncode == 1
    assert (
        f"render.py: error: cannot write {output} (No such file or directory): create its directory"
        in result.stderr
    )


def test_missing_templates_are_reported_before_a_start(tmp_path: Path) -> None:
    """Alertmanager itself would start without them and fail at the first notification."""
    result = render({}, "--output", tmp_path / "alertmanager.yml")
    assert result.returncode == 2
    assert "--templates templates/*.tmpl matches no file" in result.stderr


def test_help_names_every_variable_and_the_exit_codes() -> None:
    """What --help does not say does not exist."""
    text = render({}, "--help").stdout
    documented = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^  (ALERT_\w+) ", text, flags=re.MULTILINE))
    assert len(names) == 21
    assert "exit status: 0 written, 1 the output cannot be written" in text
    assert {name for name in names if name not in documented} == set()


ROUTES = [
    ("watchdog", {"alertname": "Watchdog", "severity": "none"}),
    ("page", {"alertname": "ConnectionDisconnected", "severity": "critical", "name": "database"}),
    ("ticket", {"alertname": "ConnectionDisconnected", "severity": "warning", "name": "database"}),
    ("page", {"alertname": "ConnectionDown", "severity": "critical", "name": "database"}),
    (
        "nobody",
        {"alertname": "ConnectionDisconnected", "severity": "critical", "push": "silent", "name": "database"},
    ),
    (
        "page",
        {
            "alertname": "ConnectionDisconnected",
            "severity": "critical",
            "push": "failing",
            "name": "database",
        },
    ),
    ("page", {"alertname": "ConnectionExporterDown", "severity": "critical"}),
    ("ticket", {"alertname": "AlertmanagerNotificationsFailing", "severity": "warning"}),
    ("info", {"alertname": "ConnectionCertificateRenewalDue", "severity": "info"}),
    ("ticket", {"alertname": "SomethingOfYours"}),
]


@pytest.mark.parametrize(("receiver", "labels"), ROUTES, ids=str)
def test_alerts_are_routed_by_severity(run: Run, receiver: str, labels: dict[str, str]) -> None:
    """An alert without a severity is a ticket: never lost, and nobody is woken."""
    pairs = [f"{key}={value}" for key, value in labels.items()]
    result = run(
        "amtool",
        "config",
        "routes",
        "test",
        f"--config.file={COMMITTED}",
        f"--verify.receivers={receiver}",
        *pairs,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def routed(run: Run, config: Path, labels: dict[str, str]) -> str:
    """Return the receiver to which amtool routes an alert."""
    pairs = [f"{key}={value}" for key, value in labels.items()]
    result = run("amtool", "config", "routes", "test", f"--config.file={config}", *pairs)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def with_routes(directory: Path, routes: str) -> dict[str, str]:
    """Return variables for email, PagerDuty and a webhook, with these routes."""
    path = directory / "routes.yml"
    path.write_text(routes, encoding="utf-8")
    channels = environments(directory)
    return {
        **channels["email"],
        **channels["pagerduty"],
        **channels["webhook"],
        "ALERT_ROUTES": str(path),
    }


def test_only_prod_pages_takes_two_lines(run: Run, tmp_path: Path) -> None:
    """A group reaches its own channels; other services those of `default`; the monitoring itself all."""
    output = tmp_path / "alertmanager.yml"
    environment = with_routes(tmp_path, "default: [email]\nprod: [pagerduty, webhook]\n")
    result = render(environment, "--templates", TEMPLATES, "--output", output)
    assert result.returncode == 0, result.stderr
    checked = run("amtool", "check-config", output)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    receivers = {r.pop("name"): set(r) for r in yaml.safe_load(output.read_text())["receivers"]}
    down = {"alertname": "ConnectionDisconnected", "severity": "critical", "name": "database"}
    for labels, receiver, channels in (
        ({**down, "group": "prod"}, "page-prod", {"pagerduty_configs", "webhook_configs"}),
        ({**down, "group": "prod", "severity": "warning"}, "ticket-prod", {"webhook_configs"}),
        ({**down, "group": "prod", "severity": "info"}, "info-prod", {"webhook_configs"}),
        ({**down, "group": "staging"}, "page-default", {"email_configs"}),
        (down, "page-default", {"email_configs"}),
        (
            {"alertname": "ConnectionExporterDown", "severity": "critical"},
            "page",
            {"email_configs", "pagerduty_configs", "webhook_configs"},
        ),
        ({"alertname": "SomethingOfYours"}, "ticket", {"email_configs", "webhook_configs"}),
    ):
        assert routed(run, output, labels) == receiver, labels
        assert receivers[receiver] == channels, labels


def test_routes_inherit_the_timing_of_their_severity(tmp_path: Path) -> None:
    """A page stays a page, whichever channels it reaches."""
    result = render(with_routes(tmp_path, "prod: [email]\n"))
    down, page = (r for r in yaml.safe_load(result.stdout)["route"]["routes"] if r["receiver"] == "page")
    assert (down["group_wait"], page["group_wait"]) == ("0s", "1s")
    prod = {"matchers": ['group="prod"'], "receiver": "page-prod"}
    assert down["routes"] == [prod]
    assert page["routes"] == [prod, *config()["route"]["routes"][3]["routes"]]


def test_alerts_without_a_service_are_a_message_each() -> None:
    """Otherwise the end of one would be a reason to notify of another one again."""
    without_name = [
        {"matchers": ['name=""'], "receiver": receiver, "group_by": ["alertname", "instance"]}
        for receiver in ("page", "ticket")
    ]
    routes = config()["route"]["routes"]
    assert [r for r in routes if "routes" in r] == [routes[3]]
    assert (routes[3]["matchers"], routes[3]["routes"]) == (['severity="critical"'], without_name[:1])
    assert routes[-1:] == without_name[1:]


def test_no_page_is_looked_at_again_before_the_cluster_has_agreed() -> None:
    """What the second member of a cluster sends after its wait would be out of date (`--cluster.peer-timeout`)."""
    pages = [r for r in config()["route"]["routes"] if r["receiver"] == "page"]
    assert [route["group_interval"] for route in pages] == ["20s", "20s"]


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ("prod: [emial]", "prod: 'emial' is not a channel: did you mean email?"),
        ("prod: [telegram]", "prod: telegram is not configured: set its ALERT_TELEGRAM_… variables"),
        ("prod: email", "prod: a list of channels is needed, such as [telegram, email]"),
        ("'pr\"od': [email]", "the name of a group is text of letters, digits, spaces, dots, _ and -"),
        ("[prod]", "which does not map groups to channels: write lines such as `prod: [telegram, email]`"),
        ("{", "which cannot be read (it is not YAML)"),
    ],
)
def test_an_error_in_the_routes_names_the_file_and_the_fix(tmp_path: Path, routes: str, message: str) -> None:
    """Exit 2, and nothing is written."""
    result = render(with_routes(tmp_path, routes))
    assert (result.returncode, result.stdout) == (2, "")
    assert str(tmp_path / "routes.yml") in result.stderr
    assert message in result.stderr


def test_the_watchdog_is_sent_every_minute() -> None:
    """It is due again after one flush of its group and before the second."""
    (route,) = (r for r in config()["route"]["routes"] if r["receiver"] == "watchdog")
    assert (route["group_interval"], route["repeat_interval"]) == ("30s", "45s")


@cache
def config() -> Any:
    """Return the committed configuration."""
    return yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))


@cache
def alerts() -> list[dict[str, str]]:
    """Return the labels of each alert, as Prometheus would send it for one service."""
    found = []
    for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if "alert" not in rule:
                    continue
                labels = {"alertname": rule["alert"], **rule["labels"], "job": "j", "instance": "i"}
                labels.pop("group", None)  # a template: it depends on the service
                if "$labels.name" in rule["annotations"]["description"]:
                    labels |= {"name": "database", "kind": "postgresql"}
                found.append(labels)
    return found


def down(severity: str = "critical") -> dict[str, str]:
    """Return the labels of the alert that the exporter sends itself: it has no job."""
    return {
        "alertname": "ConnectionDown",
        "source": "connection-exporter",
        "severity": severity,
        "name": "database",
        "kind": "postgresql",
        "instance": "i",
    }


def with_push(push: str) -> dict[str, str]:
    """Return the labels of ConnectionDisconnected, as the rules relate it to push."""
    return {**named("ConnectionDisconnected", "critical"), "push": push}


def possible() -> list[dict[str, str]]:
    """Return the labels of every alert that can reach Alertmanager for a critical service."""
    pages = {a["alertname"] for a in alerts() if a["severity"] == "critical"}
    ours = [a for a in alerts() if a["severity"] == "critical" or a["alertname"] not in pages]
    return [*ours, down(), with_push("failing"), with_push("silent")]


def matches(matchers: list[str], labels: dict[str, str]) -> bool:
    """Do what Alertmanager does with matchers."""
    for matcher in matchers:
        parts = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher)
        assert parts is not None
        name, operator, wanted = parts.groups()
        value = labels.get(name, "")
        equal = re.fullmatch(wanted, value) is not None if "~" in operator else value == wanted
        if equal is operator.startswith("!"):
            return False
    return True


def inhibited_by(source: dict[str, str], target: dict[str, str]) -> bool:
    """Tell whether one alert mutes the other."""
    return any(
        matches(rule["source_matchers"], source)
        and matches(rule["target_matchers"], target)
        and all(source.get(label, "") == target.get(label, "") for label in rule["equal"])
        for rule in config()["inhibit_rules"]
    )


def test_no_alert_can_match_both_sides_of_an_inhibition() -> None:
    """Depending on the order of arrival, it would inhibit itself or nothing."""
    for rule in config()["inhibit_rules"]:
        both = [
            a
            for a in possible()
            if matches(rule["source_matchers"], a) and matches(rule["target_matchers"], a)
        ]
        assert both == [], rule


def test_no_two_alerts_inhibit_each_other() -> None:
    """Nobody would be notified of either."""
    for first in possible():
        for second in possible():
            assert not (inhibited_by(first, second) and inhibited_by(second, first)), (first, second)


def named(name: str, severity: str = "") -> dict[str, str]:
    """Return the labels of an alert of the rules."""
    return next(a for a in alerts() if a["alertname"] == name and severity in ("", a["severity"]))


@pytest.mark.parametrize(
    "target",
    [a for a in alerts() if "name" in a],
    ids=lambda a: f"{a['alertname']}-{a['severity']}",
)
def test_an_exporter_that_is_gone_stalled_or_cut_off_speaks_for_its_services(
    target: dict[str, str],
) -> None:
    """Of this exporter, and of no other."""
    for source in ("ConnectionExporterDown", "ConnectionExporterLoopStalled", "ConnectionAllDown"):
        assert inhibited_by(named(source), target)
        assert not inhibited_by(named(source), {**target, "instance": "another"})


def test_an_exporter_that_is_gone_speaks_for_all_down_and_its_own_troubles() -> None:
    """One cause, one message."""
    for target in (
        "ConnectionAllDown",
        "ConnectionExporterLoopStalled",
        "ConnectionExporterReloadFailed",
    ):
        assert inhibited_by(named("ConnectionExporterDown"), named(target))
        assert not inhibited_by(named(target), named("ConnectionExporterDown"))


def test_a_page_mutes_the_tickets_of_the_same_service_only() -> None:
    """Alerts without a name are no symptom: labels that both lack count as equal."""
    page = named("ConnectionCertificateExpired", "critical")
    assert inhibited_by(page, named("ConnectionLatencyHigh"))
    assert not inhibited_by(page, {**named("ConnectionLatencyHigh"), "name": "redis"})
    assert not inhibited_by(page, named("ConnectionDisconnected", "critical"))
    assert not inhibited_by(named("PrometheusWithoutAlertmanager"), named("AlertmanagerNotificationsFailing"))


@pytest.mark.parametrize("severity", ["critical", "warning"])
@pytest.mark.parametrize(
    "symptom", ["Unhealthy", "LatencyHigh", "Flapping", "CanaryFailing", "Stale", "ErrorBudgetBurn"]
)
def test_disconnected_and_down_inhibit_the_symptoms_of_the_service(severity: str, symptom: str) -> None:
    """This includes services that are not critical, whose alerts are all tickets."""
    target = named(f"Connection{symptom}")
    for source in (named("ConnectionDisconnected", severity), down(severity)):
        assert inhibited_by(source, target)
        assert not inhibited_by(source, {**target, "name": "redis"})


def test_one_service_notifies_under_one_name() -> None:
    """The first of the two is enough, and the end of a lease is not the end of an outage."""
    disconnected = named("ConnectionDisconnected", "critical")
    assert inhibited_by(down(), disconnected)
    assert not inhibited_by(disconnected, down())
    for push in ("failing", "silent"):
        assert inhibited_by(with_push(push), down())
        assert not inhibited_by(down(), with_push(push))
    for other in ({"name": "redis"}, {"kind": "redis"}):
        assert not inhibited_by(down(), {**disconnected, **other})


def test_an_exporter_that_prometheus_cannot_reach_still_notifies() -> None:
    """ConnectionDown of a service that breaks meanwhile; what Prometheus knows from before waits."""
    gone = named("ConnectionExporterDown")
    assert not inhibited_by(gone, down())
    assert inhibited_by(gone, with_push("silent"))
    assert inhibited_by(gone, named("ConnectionDisconnected"))


def test_all_down_inhibits_down_of_the_same_exporter_only() -> None:
    """Pushed alerts have no job, so only the instance is compared."""
    all_down = named("ConnectionAllDown")
    assert inhibited_by(all_down, down())
    assert not inhibited_by(all_down, {**down(), "instance": "another"})


def test_a_failing_canary_mutes_the_unhealthy_that_it_causes() -> None:
    """And not the other way round."""
    assert inhibited_by(named("ConnectionCanaryFailing"), named("ConnectionUnhealthy"))
    assert not inhibited_by(named("ConnectionUnhealthy"), named("ConnectionCanaryFailing"))


def test_the_watchdog_is_never_muted() -> None:
    """Whatever fires."""
    assert not any(inhibited_by(source, named("Watchdog")) for source in alerts())


DATA = sorted(GOLDEN.glob("*.json"))
TEXTS = [
    "email.subject",
    "email.text",
    "email.html",
    "chat.title",
    "chat.link",
    "chat.color",
    "chat.text",
    "sms",
]


def template(run: Run, name: str, data: Path) -> str:
    """Render one of our templates with amtool."""
    result = run(
        "amtool",
        "template",
        "render",
        f"--template.glob={TEMPLATES}",
        f'--template.text={{{{ template "connection.{name}" . }}}}',
        f"--template.type={'html' if name.endswith('html') else 'text'}",
        f"--template.data={data}",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.removesuffix("\n") + "\n"


@pytest.mark.parametrize("data", DATA, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", TEXTS)
def test_a_notification_reads_as_agreed(run: Run, name: str, data: Path) -> None:
    """Set REGENERATE=1 to write the golden texts anew, and read what has changed."""
    text = template(run, name, data)
    golden = GOLDEN / f"{data.stem}.{name}.{'html' if name.endswith('html') else 'txt'}"
    if os.environ.get("REGENERATE"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("status", ["firing", "resolved"])
@pytest.mark.parametrize("service", ["database", "x" * 63])
def test_an_sms_has_at_most_160_plain_characters(run: Run, tmp_path: Path, status: str, service: str) -> None:
    """For every alert that can page, with the longest name too; what to do is in it."""
    for rule in [a for a in alerts() if a["severity"] == "critical"]:
        data = json.loads((GOLDEN / "one-firing.json").read_text(encoding="utf-8"))
        alert = data["alerts"][0]
        alert |= {
            "labels": {**rule, **({"name": service} if "name" in rule else {})},
            "status": status,
        }
        if service == "database":
            alert["annotations"] |= {"reason": "refused", "affected": ", ".join(["orders_api"] * 20)}
        data |= {"status": status, "alerts": [alert, alert, alert]}
        path = tmp_path / "data.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        text = template(run, "sms", path).rstrip("\n")
        assert len(text) <= 160
        assert text.isascii()
        assert text.startswith(f"{status.upper()} {service[:40] if 'name' in rule else 'i'}: ")
        assert "+2 more" in text
        if status == "firing":
            assert alert["annotations"]["action"] in text
