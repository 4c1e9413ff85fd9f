"""The JSON Schema accepts what the exporter accepts, and finds the errors that an editor can find."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from connection_exporter.cli.schema import schema_text
from connection_exporter.config.document import parse
from connection_exporter.config.reader import _TOP_KEYS, EXAMPLE
from connection_exporter.kinds.registry import KINDS
from jsonschema import Draft7Validator

ROOT = Path(__file__).resolve().parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "schema.json").read_text())
VALIDATOR = Draft7Validator(SCHEMA)


def errors(text: str) -> list[str]:
    """Return what an editor would mark, read with the YAML 1.2 rules that the exporter has."""
    found = VALIDATOR.iter_errors(parse(text).value)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def configs() -> Iterator[tuple[str, str]]:
    """Yield every config of the docs and of the deployments."""
    yield "EXAMPLE", EXAMPLE
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        for number, block in enumerate(re.findall(r"```ya?ml\n(.*?)```", page.read_text(), re.DOTALL)):
            content = yaml.safe_load(block)
            services = content.get("services") if isinstance(content, dict) else None
            if isinstance(services, dict) and any("kind" in service for service in services.values()):
                yield f"{page.name}-{number}", block
    for path in sorted((ROOT / "deploy").rglob("connection-exporter.yml")):
        yield str(path.relative_to(ROOT)), path.read_text()


def test_the_schema_is_valid_itself() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("name", "text"), [pytest.param(*one, id=one[0]) for one in configs()])
def test_every_config_that_is_shown_fits_the_schema(name: str, text: str) -> None:
    assert errors(text) == []


def services(text: str) -> str:
    return f"services:\n  a: {text}\n"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("service: {}\n", ": Additional properties"),
        ("services: {}\n", "services: {} "),
        (services("{url: 'redis://h'}"), "services.a: 'kind' is a required property"),
        (services("{kind: mysql}"), "services.a.kind: 'mysql' is not one of"),
        (services("{kind: redis, intervall: 5s}"), "services.a: Additional properties"),
        (services("{kind: redis, interval: 5}"), "services.a.interval: 5 is not valid"),
        (services("{kind: redis, retries: 0}"), "services.a.retries: 0 is not valid"),
        (services("{kind: redis, tls: }"), "services.a.tls: None is not"),
        (services("{kind: heartbeat, max_age: 1h, token: }"), "services.a.token: None is not"),
        (services("{kind: process, pidfile: p, heartbeat: p}"), "services.a.heartbeat: 'p' is not of type"),
        (services("{kind: http, url: 'http://h', method: FETCH}"), "services.a.method: 'FETCH' is not"),
        (services("{kind: http, url: 'http://h', expect: {status: 99}}"), "services.a.expect.status: 99"),
        ("services:\n  a.b: {kind: redis}\n", "services: 'a.b' does not match"),
        ("defaults: {timeout: soon}\nservices:\n  a: {kind: redis}\n", "defaults.timeout: 'soon' is not"),
        ("alerting: {}\nservices:\n  a: {kind: redis}\n", "alerting: 'alertmanagers' is a required property"),
    ],
)
def test_an_editor_marks_an_error(text: str, at: str) -> None:
    """At its place."""
    assert any(error.startswith(at) for error in errors(text)), errors(text)


@pytest.mark.parametrize(
    "text",
    [
        "{kind: redis, port: '${PORT}', interval: '${EVERY:-5s}', critical: '${CRITICAL}', canary: off}",
        "{kind: http, url: 'http://h', expect: {status: 200}, body_limit: 1MiB}",
        "{kind: http, url: 'http://h', expect: {status: [2xx, 404]}}",
        "{kind: websocket, url: 'ws://h', on_connect: {send: hello}, max_gap: 1m30s}",
    ],
)
def test_what_is_short_for_something_else_is_accepted(text: str) -> None:
    """Variables in place of numbers, one value in place of a list, durations and sizes."""
    assert errors(services(text)) == []


def test_the_schema_knows_every_key_and_describes_it() -> None:
    """Of the file, and of each kind."""
    assert set(SCHEMA["properties"]) == set(_TOP_KEYS)
    described = {name: definition.get("properties", {}) for name, definition in SCHEMA["$defs"].items()}
    for kind in KINDS.values():
        keys = {field.alias or name for name, field in kind.config.model_fields.items()}
        assert set(described[kind.config.__name__]) == keys
    missing = [
        f"{name}.{key}"
        for name, keys in described.items()
        for key, value in keys.items()
        if key != "kind" and not value.get("description")
    ]
    assert missing == []


def test_the_defaults_are_written_as_people_write_them() -> None:
    policy = SCHEMA["$defs"]["PolicyConfig"]["properties"]
    shown = {key: policy[key]["default"] for key in ("interval", "timeout", "retries", "canary", "critical")}
    assert shown == {"interval": "30s", "timeout": "5s", "retries": 3, "canary": "5m", "critical": True}


def test_the_command_prints_the_schema(tmp_path: Path) -> None:
    """That of the docs, with the kinds that other packages have installed here."""
    done = subprocess.run(
        [sys.executable, "-m", "connection_exporter", "schema"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=tmp_path,
    )
    printed = json.loads(done.stdout)
    assert printed["$defs"].items() >= json.loads(schema_text(KINDS))["$defs"].items()
    assert printed["properties"].keys() == SCHEMA["properties"].keys()
