"""Commands import what they need and nothing else: imports are most of the time of `validate`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.certificates import issue

CONFIGS: dict[str, dict[str, object]] = {
    "postgresql": {"dsn": "postgresql://user@127.0.0.1:1/app"},
    "redis": {"url": "redis://127.0.0.1:1/0"},
    "process": {"pidfile": "/nonexistent/bot.pid"},
    "http": {"url": "http://127.0.0.1:1/health"},
    "websocket": {"url": "ws://127.0.0.1:1/ws"},
    "tcp": {"host": "127.0.0.1", "port": 1},
    "heartbeat": {"max_age": "1m"},
}

RARELY_NEEDED = {
    "connection_exporter.config.alerting",
    "connection_exporter.config.web_file",
    "connection_exporter.net.server_context",
    "connection_exporter.runtime.history",
    *(
        "html",
        "http.cookiejar",
        "httptools",
        "pydantic.functional_serializers",
        "re2",
        "sqlite3",
        "urllib.request",
    ),
}
"""Modules that only features need which these configs do not use."""


def modules_after(code: str, *arguments: str) -> set[str]:
    """Return the modules that a new interpreter has imported when ``code`` has run."""
    whole = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    command = [sys.executable, "-c", whole, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def after_validate(folder: Path, **services: object) -> set[str]:
    config = folder / "config.yml"
    config.write_text(json.dumps({"services": services}))
    code = "from connection_exporter.cli.main import main\nassert main(sys.argv[1:]) == 0"
    return modules_after(code, "validate", f"--config.file={config}")


NEEDED_TO_CONNECT = {
    "connection_exporter.config.redact",
    "connection_exporter.kind",
    "connection_exporter.net.dial",
    *(f"connection_exporter.kinds.{kind}.check" for kind in CONFIGS),
    *("asyncio", "concurrent.futures", "hiredis", "idna", "logging", "psutil", "ssl", "uvloop", "websockets"),
}
"""What checks import, and an event loop: a third of the time that `validate` took with them."""


@pytest.mark.parametrize("kind", CONFIGS)
def test_validate_imports_the_config_of_no_other_kind(kind: str, tmp_path: Path) -> None:
    """The model and the driver of each kind take up to 10 ms."""
    imported = after_validate(tmp_path, it={"kind": kind, **CONFIGS[kind]})
    folders = {name.split(".")[2] for name in imported if name.startswith("connection_exporter.kinds.")}
    assert folders & CONFIGS.keys() == {kind}


def test_validate_imports_nothing_for_features_that_the_config_does_not_use(tmp_path: Path) -> None:
    """Neither regular expressions nor cookies, tokens, alerting or a web config."""
    services = {kind: {"kind": kind, **config} for kind, config in CONFIGS.items()}
    assert not after_validate(tmp_path, **services) & RARELY_NEEDED


def test_validate_imports_neither_checks_nor_an_event_loop(tmp_path: Path) -> None:
    """It connects to nothing: address and detection bounds are known from the config."""
    services = {kind: {"kind": kind, **config} for kind, config in CONFIGS.items()}
    assert not after_validate(tmp_path, **services) & NEEDED_TO_CONNECT


NEEDED_ON_REQUEST = {
    "connection_exporter.config.alerting",
    "connection_exporter.config.web_file",
    "connection_exporter.kinds.oauth2",
    "connection_exporter.runtime.history",
    "connection_exporter.web.openapi",
    *(
        "bcrypt",
        "difflib",
        "hiredis",
        "http.cookiejar",
        "httpx",
        "idna",
        "psutil",
        "re2",
        "sqlite3",
        "websockets",
    ),
}
"""What `serve` imports for users, alerting, history, and kinds other than http: 6 MiB and 60 ms."""


def test_serve_imports_nothing_for_features_that_the_config_does_not_use() -> None:
    """With one http service, and no flag but the config."""
    code = (
        "import connection_exporter.app, connection_exporter.cli.serve, connection_exporter.kinds.http.check"
    )
    assert not modules_after(code) & NEEDED_ON_REQUEST


def test_validate_imports_ssl_only_to_look_at_files_of_tls(tmp_path: Path) -> None:
    """And still no driver and no event loop."""
    issue("a.test").write(tmp_path / "ca.pem")
    service = {"kind": "http", "url": "https://127.0.0.1:1"}
    assert "ssl" not in after_validate(tmp_path, it=service)
    imported = after_validate(tmp_path, it={**service, "tls": {"ca_file": "ca.pem"}})
    assert imported & NEEDED_TO_CONNECT == {"ssl"}
