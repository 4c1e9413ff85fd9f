"""The command line as a user types it, in processes of their own."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from connection_exporter import __version__
from connection_exporter.cli.main import allows_color, main
from connection_exporter.cli.parser import build_parser
from connection_exporter.demo.servers import HttpApi, Redis, free_port
from connection_exporter.runtime.history import FILE
from connection_exporter.web.openapi import openapi
from support.certificates import issue

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("serve", "check", "watch", "validate", "demo", "assets", "schema", "completion")
VARIABLES = ("DATABASE_URL", "REDIS_URL", "BOT_PROCESS", "API_URL", "WEBSOCKET_URL")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return ours without the five variables, so that no test depends on where it runs."""
    kept = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(extra or {})}


def start(
    *arguments: str | Path, folder: Path, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "connection_exporter", *map(str, arguments)],
        cwd=folder,
        env=environment(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    *arguments: str | Path, folder: Path, environ: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run to the end, which has to come by itself."""
    with start(*arguments, folder=folder, environ=environ) as process:
        try:
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert "Traceback" not in out + errors
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@contextmanager
def served(
    *arguments: str | Path, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Serve until the block ends; yield the process, which is ready, and its URL."""
    port = free_port()
    process = start(*arguments, f"--web.listen-address=127.0.0.1:{port}", folder=folder, environ=environ)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while not answers(f"{url}/-/ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"it did not serve: {process.communicate()}")
            time.sleep(0.02)
        yield process, url
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())


def config(folder: Path, text: str) -> Path:
    path = folder / "c.yml"
    path.write_text(text)
    return path


def absent(folder: Path, keys: str = "") -> Path:
    """Return a config with one service where nothing listens."""
    return config(folder, f"services:\n  redis: {{kind: redis, port: {free_port()}{keys}}}\n")


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Redis() as server:
        yield server


@pytest.mark.parametrize(
    "arguments", [("--version",), ("serve", "--version"), ("--log.level=debug", "--version")]
)
def test_it_tells_its_version(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """As a flag of the program and of serve, which is the default."""
    result = run(*arguments, folder=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"connection-exporter {__version__}\n")


def test_the_help_names_every_command(tmp_path: Path) -> None:
    """And that serve is the default."""
    result = run("--help", folder=tmp_path)
    assert result.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\s", result.stdout, re.MULTILINE), command
    assert "Without a command, `serve` is run" in result.stdout


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (
            "serve",
            [
                *("--config.file", "--web.listen-address", "--web.telemetry-path", "--web.cors.origin"),
                *("--log.level", "--log.format", "--version"),
            ],
        ),
        ("check", ["--config.file", "--format", "0 healthy, 1 degraded, 2 bad config, 3 partial or unknown"]),
        ("validate", ["--config.file"]),
        ("watch", ["URL"]),
        ("demo", ["--chaos", "--web.listen-address"]),
    ],
)
def test_each_command_has_its_own_help(tmp_path: Path, command: str, flags: list[str]) -> None:
    """With its flags."""
    result = run(command, "--help", folder=tmp_path)
    assert result.returncode == 0
    for flag in flags:
        assert flag in result.stdout


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (("chekc",), "invalid choice: 'chekc'"),
        (("valdate",), "did you mean validate?"),
        (
            ("--web.listen-adress=:1",),
            "serve: error: unrecognized arguments: --web.listen-adress=:1: did you mean --web.listen-address?",
        ),
        (
            ("check", "--formt=json"),
            "check: error: unrecognized arguments: --formt=json: did you mean --format?",
        ),
        (("--web.listen-addres=:1",), "did you mean --web.listen-address?"),
        (("check", "--form=json"), "did you mean --format?"),
        (("validate", "c.yml", "other.yml"), "validate: error: unrecognized arguments: other.yml"),
        *(
            (
                (*command, f"--web.listen-address={address}"),
                f"{address!r} is not an address to listen on: write host:port",
            )
            for command in ((), ("validate",), ("demo",))
            for address in ("8000", "localhost", "localhost:http", "localhost:70000", "http://localhost:8000")
        ),
        *(
            (
                (f"--web.listen-address={address}",),
                f"{address!r} is not an address to listen on: write host:port",
            )
            for address in ("[::1", "[::1]", "/run/exporter.sock", "me@localhost:8000", "")
        ),
        (("--log.level=WARN",), "did you mean warning?"),
        (("assets", ""), "argument FOLDER: is empty: name a folder, or write . for the current one"),
        (("--no.such.flag",), "unrecognized arguments: --no.such.flag"),
        (("--log.level=loud",), "invalid choice: 'loud'"),
        (("--web.telemetry-path=metrics",), "'metrics' does not begin with /"),
        (("--web.telemetry-path=/{all:path}",), "contains a brace"),
        *(
            ((f"--web.cors.origin={origin}",), f"'{origin}' is not an origin: write it as browsers do")
            for origin in (
                "https://g.example/",
                "https://G.example",
                "https://g:443",
                "http://g:80",
                "g",
                "*",
                "null",
            )
        ),
        *(
            ((f"--web.telemetry-path={path}",), f"'{path}' is the path of another route")
            for path in ("/", "/health", "/health/", "/health/service/x", "/events", "/config", "/-/reload")
        ),
    ],
)
def test_a_wrong_argument_is_reported_on_one_line(
    tmp_path: Path, arguments: tuple[str, ...], reported: str
) -> None:
    """Exit status 2, as for a bad config, and where the help is."""
    result = run(*arguments, folder=tmp_path)
    assert result.returncode == 2
    error, hint = result.stderr.splitlines()
    assert reported in error
    assert re.fullmatch("See connection-exporter( serve| check| validate| demo| assets)? --help", hint)


def test_a_config_may_be_called_like_a_command(tmp_path: Path) -> None:
    """Only the first word is a command."""
    (tmp_path / "check").write_text("services: 5\n")
    result = run("--config.file", "check", folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("check:1: services: expected a mapping")


@pytest.mark.parametrize("command", [(), ("serve",), ("check",), ("validate",)])
def test_a_missing_config_is_reported_with_an_example(tmp_path: Path, command: tuple[str, ...]) -> None:
    """What a newcomer sees first: exit status 2, what was looked for, and what to write."""
    result = run(*command, folder=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    for word in ("connection-exporter.yml", "--config.file", *VARIABLES, "services:", "kind: postgresql"):
        assert word in result.stderr


@pytest.mark.parametrize("command", [(), ("check",), ("validate",)])
def test_a_bad_config_exits_2_with_every_mistake_and_no_traceback(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Nothing is served or checked."""
    path = config(tmp_path, "services:\n  a: {kind: redis, intervall: 5s}\n  b: {kind: redi}\n")
    result = run(*command, f"--config.file={path}", folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"{path}:2: services.a.intervall: unknown key; did you mean 'interval'?",
        f"{path}:3: services.b.kind: unknown kind 'redi': did you mean 'redis'?",
    ]


def test_no_route_of_ours_can_be_taken_by_the_metrics(tmp_path: Path) -> None:
    """Each that the description of the API knows: otherwise /metrics would be nowhere, without an error."""
    for path in openapi("/metrics")["paths"]:
        if path != "/metrics":
            with pytest.raises(SystemExit) as exited:
                main([f"--web.telemetry-path={path}", "--config.file=absent.yml"])
            assert exited.value.code == 2, path


@pytest.mark.parametrize("command", [(), ("check",), ("validate",)])
def test_secret_files_that_cannot_be_read_are_mistakes_of_the_config(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Absent, a folder or a pipe, at any depth: all named at once, and exit status 2."""
    os.mkfifo(tmp_path / "pipe")
    services = (
        "services:\n  a: {kind: redis, password_file: nowhere/secret}\n"
        f"  b: {{kind: http, url: 'https://h/', bearer_token_file: {tmp_path}, tls: {{ca_file: no.pem}}}}\n"
        "  c: {kind: process, pidfile: nowhere/bot.pid}\n"
        "  d: {kind: redis, password_file: pipe}\n"
        "  e: {kind: websocket, url: 'ws://h/', on_connect: [{send_file: hello}]}\n"
        "  f:\n    kind: http\n    url: http://h/\n    body_file: order\n    headers:\n      X-Key: {file: key}\n"
    )
    result = run(*command, f"--config.file={config(tmp_path, services)}", folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    path = tmp_path / "c.yml"
    assert sorted(result.stderr.splitlines()) == [
        f"{path}:10: services.f.body_file: {tmp_path}/order cannot be read: no such file or directory",
        f"{path}:12: services.f.headers.X-Key: {tmp_path}/key cannot be read: no such file or directory",
        f"{path}:2: services.a.password_file: {tmp_path}/nowhere/secret cannot be read: no such file or directory",
        f"{path}:3: services.b.bearer_token_file: {tmp_path} cannot be read: is a directory",
        f"{path}:3: services.b.tls.ca_file: {tmp_path}/no.pem cannot be read: no such file or directory",
        f"{path}:5: services.d.password_file: {tmp_path}/pipe cannot be read: not a regular file",
        f"{path}:6: services.e.on_connect[0].send_file: {tmp_path}/hello cannot be read: no such file or directory",
    ]


@pytest.mark.parametrize("command", [(), ("check",), ("validate",)])
def test_files_of_tls_that_cannot_be_used_are_mistakes_of_the_config(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """What is not PEM, empty, or does not fit together: all at once, in every kind, at any depth."""
    own, other = issue("a.test"), issue("b.test")
    own.write(tmp_path / "c.pem")
    for name, content in (
        ("c.key", own.key_pem()),
        ("other.key", other.key_pem()),
        ("rsa.key", trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes()),
        ("locked.key", own.key_pem(b"s3cret")),
        ("wrong", b"s4cret"),
        ("empty", b"\n"),
        ("text", b"no PEM"),
        ("damaged.pem", own.pem.replace(b"MII", b"AAA")),
    ):
        (tmp_path / name).write_bytes(content)
    services = """\
services:
  a: {kind: http, url: 'https://h/', tls: {ca_file: empty}}
  b: {kind: http, url: 'https://h/', tls: {ca_file: text, cert_file: c.pem, key_file: other.key}}
  c: {kind: redis, url: 'rediss://h/', tls: {cert_file: c.pem}}
  d: {kind: postgresql, dsn: 'host=h sslmode=verify-full sslrootcert=c.key sslcert=c.pem sslkey=text'}
  e: {kind: websocket, url: 'wss://h/', tls: {ca_file: damaged.pem, cert_file: c.key, key_file: c.key}}
  f: {kind: tcp, url: 'tls://h:1', tls: {cert_file: c.pem, key_file: rsa.key}}
  g: {kind: tcp, url: 'tls://h:1', tls: {cert_file: c.pem, key_file: locked.key}}
  h: {kind: tcp, url: 'tls://h:1', tls: {cert_file: c.pem, key_file: locked.key, key_password_file: wrong}}
  i: {kind: redis, sentinel: {master: m, nodes: [s], tls: {ca_file: text}}}
  j: {kind: http, url: 'http://h/', proxy: {url: 'https://p:1', tls: {ca_file: text}}}
  k: {kind: http, url: 'https://h/', tls: {ca_file: c.pem, cert_file: c.pem, key_file: c.key}}
alerting: {alertmanagers: ['https://h'], tls: {ca_file: text}}
"""
    result = run(*command, f"--config.file={config(tmp_path, services)}", folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    no_certificate = "contains no certificate: expected PEM, with -----BEGIN CERTIFICATE-----"
    no_key = "contains no private key: expected PEM, with -----BEGIN PRIVATE KEY-----"
    assert result.stderr.replace(f"{tmp_path}/", "").splitlines() == [
        "c.yml:2: services.a.tls.ca_file: empty is empty: expected a certificate (PEM)",
        f"c.yml:3: services.b.tls.ca_file: text {no_certificate}",
        "c.yml:3: services.b.tls.key_file: other.key does not belong to cert_file c.pem",
        f"c.yml:4: services.c.tls.cert_file: c.pem {no_key}, or key_file",
        f"c.yml:5: services.d.tls.ca_file: c.key {no_certificate}",
        f"c.yml:5: services.d.tls.key_file: text {no_key}",
        "c.yml:6: services.e.tls.ca_file: damaged.pem cannot be used: damaged",
        f"c.yml:6: services.e.tls.cert_file: c.key {no_certificate}",
        "c.yml:7: services.f.tls.key_file: rsa.key does not belong to cert_file c.pem",
        "c.yml:8: services.g.tls.key_file: locked.key has a passphrase: add tls.key_password_file",
        "c.yml:9: services.h.tls.key_file: locked.key cannot be decrypted with the passphrase in wrong",
        f"c.yml:10: services.i.sentinel.tls.ca_file: text {no_certificate}",
        f"c.yml:11: services.j.proxy.tls.ca_file: text {no_certificate}",
        f"c.yml:13: alerting.tls.ca_file: text {no_certificate}",
    ]


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """Variables do not take its place."""
    environ = {"REDIS_URL": "redis://localhost"}
    result = run("--config.file=absent.yml", folder=tmp_path, environ=environ)
    assert (result.returncode, result.stderr) == (
        2,
        "absent.yml: cannot be read: no such file or directory\n",
    )


def test_a_bad_variable_exits_2(tmp_path: Path) -> None:
    """Named, and not repeated."""
    result = run("validate", folder=tmp_path, environ={"REDIS_URL": "http://:s3cret@cache"})
    assert result.returncode == 2
    assert result.stderr.startswith(
        "environment: REDIS_URL: expected redis://host:port/database, rediss:// for TLS"
    )
    assert "s3cret" not in result.stderr


def test_serve_is_the_default_and_the_usual_file_is_found(tmp_path: Path) -> None:
    """connection-exporter.yml in the working directory."""
    absent(tmp_path).rename(tmp_path / "connection-exporter.yml")
    with served(folder=tmp_path) as (_, url):
        assert list(json.loads(fetch(f"{url}/health/detailed"))["services"]) == ["redis"]


def test_variables_make_a_config_where_there_is_no_file(tmp_path: Path) -> None:
    """Those that are set."""
    environ = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}", "BOT_PROCESS": "/nowhere/bot.pid"}
    with served("--web.telemetry-path=/m", folder=tmp_path, environ=environ) as (_, url):
        assert list(json.loads(fetch(f"{url}/health/detailed"))["services"]) == ["redis", "bot_process"]
        assert 'connection_info{address="/nowhere/bot.pid"' in fetch(f"{url}/m")


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("c.yml", "file exists"),
        ("c.yml/below", "not a directory"),
        ("x" * 300, "file name too long"),
    ],
)
def test_a_folder_that_cannot_store_transitions_is_one_clear_line(
    tmp_path: Path, folder: str, problem: str
) -> None:
    """At the start, and not only in the log."""
    result = run(absent(tmp_path), f"--storage.path={folder}", folder=tmp_path)
    said = f"connection-exporter: --storage.path={folder}: cannot be used as a folder: {problem}\n"
    assert (result.returncode, result.stderr) == (1, said)


def test_the_folder_for_transitions_is_made_with_its_parents(tmp_path: Path) -> None:
    """As for every folder that a flag names."""
    with served(absent(tmp_path), "--storage.path=a/b", folder=tmp_path):
        assert (tmp_path / "a" / "b" / FILE).exists()


def test_a_folder_with_transitions_is_used_though_its_disk_is_read_only_now(tmp_path: Path) -> None:
    """What was right once is no mistake: monitoring goes on without history, as after any fault of the disk."""
    (tmp_path / FILE).mkdir()
    with served(absent(tmp_path), f"--storage.path={tmp_path}", folder=tmp_path) as (process, _):
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert "history_not_kept" in log


def test_an_empty_path_for_transitions_means_none(tmp_path: Path) -> None:
    """As of a unit file whose variable is not set; the working directory stays as it is."""
    file = absent(tmp_path)
    with served(file, "--storage.path=", folder=tmp_path):
        assert list(tmp_path.iterdir()) == [file]


def test_a_busy_port_is_one_clear_line(tmp_path: Path) -> None:
    """Exit status 1, and nothing was watched."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = (f"--config.file={absent(tmp_path)}", f"--web.listen-address={address}")
        result = run(*arguments, folder=tmp_path)
    reported = f"connection-exporter: cannot listen on {address}: address already in use; choose another by"
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"{reported} --web.listen-address\n"


def test_a_host_that_does_not_exist_is_one_clear_line(tmp_path: Path) -> None:
    """The address is well-formed, so the exit status is 1, as for a busy port."""
    address = "no.such.host.invalid:1"
    arguments = (f"--config.file={absent(tmp_path)}", f"--web.listen-address={address}")
    result = run(*arguments, folder=tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert address in result.stderr


def test_it_listens_on_every_address_that_is_named(tmp_path: Path) -> None:
    """The flag can be repeated; IPv6 too where the machine has it."""
    second = free_port()
    arguments = (f"--config.file={absent(tmp_path)}", f"--web.listen-address=127.0.0.1:{second}")
    with served(*arguments, folder=tmp_path) as (_, url):
        assert answers(f"{url}/-/healthy")
        assert answers(f"http://127.0.0.1:{second}/-/healthy")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quickly_and_with_0(tmp_path: Path, number: signal.Signals) -> None:
    """As systemd and Ctrl-C expect."""
    with served(f"--config.file={absent(tmp_path)}", folder=tmp_path) as (process, _):
        asked = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
        took = time.monotonic() - asked
    assert process.returncode == 0, errors
    assert took < 5
    assert "event=stopping" in errors
    assert "Traceback" not in errors


def test_a_forced_check_that_a_signal_overtakes_is_answered(tmp_path: Path) -> None:
    """By 409, as after a stop, and without an error in the log."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = f"services:\n  it: {{kind: redis, port: {silent.getsockname()[1]}, host: 127.0.0.1}}\n"
        with served(f"--config.file={config(tmp_path, text)}", folder=tmp_path) as (process, url):
            with asking(url, "POST /health/force-check") as client:
                while "connection_forced_checks_total 1.0" not in fetch(f"{url}/metrics"):
                    time.sleep(0.01)
                process.send_signal(signal.SIGTERM)
                answer = client.makefile("rb").read()
            _, errors = process.communicate(timeout=10)
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert (process.returncode, "level=error" in errors) == (0, False), errors


def test_clients_that_do_not_finish_are_cut_off_by_a_signal(tmp_path: Path) -> None:
    """One that reads nothing, and one that has sent half a request. The log has no error, for none was made."""
    with (
        served(f"--config.file={absent(tmp_path)}", folder=tmp_path) as (process, url),
        asking(url, *["GET /"] * 10),
        asking(url, "POST /heartbeat/x", headers="Content-Length: 9\r\n"),
    ):
        fetch(f"{url}/metrics")  # it has read what came before
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, "level=error" in errors) == (0, False), errors


@contextmanager
def asking(url: str, *requests: str, headers: str = "") -> Iterator[socket.socket]:
    """Send requests over one connection with little room for the responses, which are not read."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        for request in requests:
            client.sendall(f"{request} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        yield client


def test_a_signal_ends_it_with_0_while_it_is_still_reading(tmp_path: Path) -> None:
    """A config that does not come to an end, here; it may as well be the imports of a slow machine."""
    config = tmp_path / "config.yml"
    os.mkfifo(config)
    with start("serve", f"--config.file={config}", folder=tmp_path) as process:
        try:
            deadline = time.monotonic() + 10
            while not heeds_sigterm(process.pid):
                assert time.monotonic() < deadline, "it has not reloaded"
                time.sleep(0.01)
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def heeds_sigterm(pid: int) -> bool:
    """Tell whether a process has a handler for SIGTERM (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_a_second_signal_changes_nothing(tmp_path: Path) -> None:
    """However often it is sent, to the very end."""
    with served(f"--config.file={absent(tmp_path)}", folder=tmp_path) as (process, _):
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.002)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@contextmanager
def mute_server() -> Iterator[int]:
    """Accept everything and answer nothing; yield the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


@contextmanager
def full_backlog() -> Iterator[int]:
    """Listen and never accept, with the queue full, so that Linux drops every further SYN: a black hole."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers: list[socket.socket] = []
        try:
            for _ in range(8):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
                fillers.append(filler)
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


def test_sigterm_in_the_middle_of_a_connect_exits_0_within_2_seconds(tmp_path: Path) -> None:
    """To servers that accept and stay silent, and to a port that drops every packet."""
    with mute_server() as mute, full_backlog() as hole:
        lines = [
            f"  {kind}_{name}: {{kind: {kind}, host: 127.0.0.1, port: {port}, timeout: 30s}}"
            for kind in ("postgresql", "redis", "http", "websocket")
            for name, port in (("mute", mute), ("hole", hole))
        ]
        path = config(tmp_path, "services:\n" + "\n".join(lines) + "\n")
        with served(f"--config.file={path}", folder=tmp_path) as (process, url):
            deadline = time.monotonic() + 20
            while '"unknown": 0' not in (board := fetch(f"{url}/health/detailed")):
                assert time.monotonic() < deadline, board
                time.sleep(0.05)
            assert json.loads(board)["summary"]["connecting"] == 8, "all are in the middle of it"
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)
            took = time.monotonic() - asked
    assert process.returncode == 0, errors
    assert took < 9, "it waited for the checks"
    assert "Traceback" not in errors


async def test_logs_are_logfmt_unless_json_is_asked_for(tmp_path: Path, redis: Redis) -> None:
    """One line per event on standard error, with the same words in both."""
    path = config(tmp_path, f"services:\n  redis: {{kind: redis, url: '{redis.url}'}}\n")
    reported = {}
    for style in ("logfmt", "json"):
        with served(f"--config.file={path}", f"--log.format={style}", folder=tmp_path) as (process, url):
            deadline = time.monotonic() + 10
            while '"healthy": 1' not in fetch(f"{url}/health/detailed"):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            out, reported[style] = process.communicate(timeout=10)
            assert out == ""
    records = [json.loads(line) for line in reported["json"].splitlines()]
    assert next(record["event"] for record in records) == "listening"
    healthy = next(record for record in records if record.get("status") == "healthy")
    assert (healthy["event"], healthy["name"], healthy["previous"]) == ("transition", "redis", "connecting")
    assert healthy["level"] == "info"
    assert "timestamp" in healthy
    for line in reported["logfmt"].splitlines():
        assert re.match(r'timestamp=\S+Z level=\w+ event=\S+( \w+=("[^"]*"|\S+))*$', line), line
    assert "event=transition" in reported["logfmt"]
    assert "status=healthy" in reported["logfmt"]


def test_the_log_level_holds(tmp_path: Path) -> None:
    """Errors only: a stop is none, nor is a service that is away."""
    arguments = (f"--config.file={absent(tmp_path)}", "--log.level=error")
    with served(*arguments, folder=tmp_path) as (process, _):
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=10)
    assert (process.returncode, out, errors) == (0, "", "")


async def test_check_prints_a_table_and_exits_0_when_all_is_well(tmp_path: Path, redis: Redis) -> None:
    """A row for each service, one attempt and one canary each; no control characters in a pipe."""
    path = config(tmp_path, f"services:\n  cache: {{kind: redis, url: '{redis.url}'}}\n")
    result = run("check", f"--config.file={path}", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["SERVICE", "KIND", "STATUS", "LATENCY", "CANARY", "REASON"]
    assert re.fullmatch(r"cache +redis +healthy +[0-9.]+ ms +good", lines[1])
    assert lines[-1] == "healthy: 1 healthy"
    assert "\x1b" not in result.stdout + result.stderr
    assert result.stderr == ""


async def test_check_exits_1_when_something_is_not_well_but_serves(tmp_path: Path) -> None:
    """A bad answer, or the loss of what is not critical."""
    async with HttpApi() as api:
        await api.sick()
        path = config(
            tmp_path,
            f"services:\n  api: {{kind: http, url: '{api.url}'}}\n"
            f"  extra: {{kind: redis, port: {free_port()}, critical: false}}\n",
        )
        result = run("check", f"--config.file={path}", folder=tmp_path)
    assert result.returncode == 1
    assert re.search(r"^api +http +unhealthy .*expect: ", result.stdout, re.MULTILINE), result.stdout
    assert re.search(r"^extra +redis +disconnected +- +- +refused: ", result.stdout, re.MULTILINE), (
        result.stdout
    )
    assert result.stdout.splitlines()[-1] == "degraded: 1 unhealthy, 1 disconnected"


def test_check_exits_3_when_something_critical_is_away(tmp_path: Path) -> None:
    """After one attempt, whatever `retries` says."""
    result = run("check", f"--config.file={absent(tmp_path, ', retries: 50')}", folder=tmp_path)
    assert result.returncode == 3
    assert "disconnected" in result.stdout
    assert "refused" in result.stdout
    assert result.stdout.splitlines()[-1] == "partial: 1 disconnected"


def test_check_ends_in_time_when_nothing_answers(tmp_path: Path) -> None:
    """One attempt is bounded by its timeout."""
    with mute_server() as port:
        path = config(tmp_path, f"services:\n  mute: {{kind: redis, port: {port}, timeout: 300ms}}\n")
        began = time.monotonic()
        result = run("check", f"--config.file={path}", folder=tmp_path)
    assert result.returncode == 3
    assert "timeout" in result.stdout
    assert time.monotonic() - began < 15


async def test_check_prints_json_for_scripts(tmp_path: Path, redis: Redis) -> None:
    """The shape of /health/detailed, and nothing else on standard output."""
    path = config(
        tmp_path,
        f"services:\n  cache: {{kind: redis, url: '{redis.url}'}}\n  away: {{kind: redis, port: {free_port()}}}\n",
    )
    result = run("check", "--format=json", f"--config.file={path}", folder=tmp_path)
    assert result.returncode == 3
    body = json.loads(result.stdout)
    assert body["status"] == "partial"
    assert body["summary"]["total"] == 2
    assert body["services"]["cache"]["canary"]["up"] is True
    assert (body["services"]["away"]["status"], body["services"]["away"]["retries"]) == ("disconnected", 1)


def test_validate_prints_the_detection_bounds(tmp_path: Path) -> None:
    """Of each service, for closed, vanished and frozen; a process has no packets to vanish."""
    path = config(
        tmp_path,
        "defaults: {interval: 10s, timeout: 3s}\nservices:\n"
        "  cache: {kind: redis, host: cache}\n"
        "  api: {kind: http, url: 'https://u:s3cret@api.example.com/x?y'}\n"
        "  slow: {kind: postgresql, interval: 1m, canary: off}\n"
        "  bot: {kind: process, name: bot}\n",
    )
    result = run("validate", f"--config.file={path}", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
    assert rows["SERVICE"] == ["KIND", "ADDRESS", "CLOSED", "VANISHED", "FROZEN"]
    assert rows["cache"] == ["redis", "cache:6379", "50ms", "11s", "13s"]
    assert rows["api"] == ["http", "api.example.com:443", "13s", "13s", "13s"]
    assert rows["slow"] == ["postgresql", "localhost:5432", "50ms", "11s", "1m3s"]
    assert rows["bot"][0] == "process"
    assert rows["bot"][-3:] == ["50ms", "-", "13s"]
    assert f"{path}: 4 services, valid" in result.stdout
    assert "s3cret" not in result.stdout + result.stderr


def test_validate_lists_the_files_that_are_included(tmp_path: Path) -> None:
    """And checks them, secrets included."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "main.yml").write_text("include: [conf.d/*.yml]\n")
    included = tmp_path / "conf.d" / "a.yml"
    included.write_text("services:\n  a: {kind: process, name: x}\n")
    done = run("validate", "main.yml", folder=tmp_path)
    assert (done.returncode, "included: conf.d/a.yml\nmain.yml: 1 service, valid" in done.stdout) == (0, True)
    included.write_text("services:\n\n  a: {kind: redis, password_file: none}\n")
    done = run("validate", "main.yml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("conf.d/a.yml:3: services.a.password_file: conf.d/none cannot be read")


def test_validate_warns_of_a_pattern_that_matches_no_file(tmp_path: Path) -> None:
    """It may be misspelled, and then services are missing without an error."""
    path = config(tmp_path, "include: [conf.d/*.yml, '*.yml']\nservices: {a: {kind: redis}}\n")
    result = run("validate", path, folder=tmp_path)
    assert result.returncode == 0
    warnings = [line for line in result.stdout.splitlines() if line.startswith("warning: include")]
    assert warnings == [f"warning: include: no file matches {tmp_path}/conf.d/*.yml"]


def test_validate_warns_of_what_will_not_work(tmp_path: Path) -> None:
    """Our own listener as a service, a latency that nothing can exceed, too few file descriptors; it still exits 0."""
    path = config(tmp_path, "services:\n  itself: {kind: http, url: 'http://localhost:9100/health'}\n")
    result = run("validate", f"--config.file={path}", "--web.listen-address=:9100", folder=tmp_path)
    assert result.returncode == 0
    assert "warning: itself: localhost:9100 is the exporter's own listener" in result.stdout
    path = config(tmp_path, "services:\n  cache: {kind: redis, url: 'cache:6379?protocol=3&s3cret=1'}\n")
    result = run("validate", f"--config.file={path}", folder=tmp_path)
    assert "warning: cache: url: ignored, because the exporter does not need it: protocol" in result.stdout
    assert "warning: cache: url: 1 unknown parameter ignored: check the spelling" in result.stdout
    assert "s3cret" not in result.stdout + result.stderr
    path = config(tmp_path, "services:\n  cache: {kind: redis, timeout: 2s, max_latency: 2s}\n")
    result = run("validate", f"--config.file={path}", folder=tmp_path)
    assert (
        "warning: cache: max_latency 2s is not below timeout 2s: no answer would ever be slow"
        in result.stdout
    )
    many = "".join(f"  s{index}: {{kind: redis}}\n" for index in range(600))
    path = config(tmp_path, f"services:\n{many}")
    limited = subprocess.run(
        [
            "/bin/sh",
            "-c",
            'ulimit -n 256; exec "$@"',
            "sh",
            sys.executable,
            "-m",
            "connection_exporter",
            "validate",
            f"--config.file={path}",
        ],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert limited.returncode == 0, limited.stderr
    assert "600 services may need 1264 file descriptors, the limit is 256" in limited.stdout


def test_validate_warns_about_processes_of_other_containers_only(tmp_path: Path) -> None:
    """In a container, it looks whether the process is visible: the namespace may be shared."""
    (tmp_path / "ours.pid").write_text(str(os.getpid()))
    path = config(
        tmp_path,
        "services:\n  ours: {kind: process, pidfile: ours.pid}\n  other: {kind: process, pidfile: other.pid}\n",
    )
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}  # what every container of Kubernetes has
    result = run("validate", str(path), folder=tmp_path, environ=environ)
    assert result.returncode == 0, result.stderr
    assert "warning: other: inside a container only its own processes can be seen" in result.stdout
    assert "warning: ours" not in result.stdout


def test_serve_is_the_default_for_a_config_too(tmp_path: Path) -> None:
    """`connection-exporter my.yml` serves; the errors of a file are reported with its name."""
    with served(str(absent(tmp_path)), folder=tmp_path) as (_, url):
        assert list(json.loads(fetch(f"{url}/health/detailed"))["services"]) == ["redis"]
    result = run("absent.yml", folder=tmp_path)
    assert (result.returncode, result.stderr) == (
        2,
        "absent.yml: cannot be read: no such file or directory\n",
    )


@pytest.mark.parametrize("command", ["serve", "check", "validate"])
def test_no_file_is_needed_twice(tmp_path: Path, command: str) -> None:
    """The last of flag and argument counts, as with any flag."""
    result = run(command, "--config.file=one.yml", "two.yml", folder=tmp_path)
    assert (result.returncode, result.stderr[:8]) == (2, "two.yml:")


@pytest.mark.parametrize("command", ["check", "validate"])
def test_the_config_can_be_a_positional_argument(tmp_path: Path, command: str) -> None:
    """`check file.yml` is what one types first."""
    file = absent(tmp_path)
    as_argument = run(command, str(file), folder=tmp_path)
    as_flag = run(command, f"--config.file={file}", folder=tmp_path)
    assert (as_argument.returncode, as_argument.stdout) == (as_flag.returncode, as_flag.stdout)
    assert "redis" in as_argument.stdout


@pytest.mark.parametrize(
    ("environ", "allowed"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colors_need_a_terminal_that_allows_them(environ: dict[str, str], *, allowed: bool) -> None:
    """NO_COLOR, TERM=dumb and --no-color turn them off."""
    for command in ("check", "watch"):
        assert allows_color(build_parser().parse_args([command]), environ) is allowed
        assert allows_color(build_parser().parse_args([command, "--no-color"]), environ) is False


EXITING_TASKS = """
import asyncio, signal, sys
from connection_exporter.cli.event_loop import run_until_done
async def exits(error):
    raise error
async def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks = [asyncio.create_task(exits(error)) for error in (SystemExit(3), KeyboardInterrupt())]
    asyncio.get_running_loop().call_soon(sys.exit, 5)
    await asyncio.sleep(0.05)
    print([type(task.exception()).__name__ for task in tasks])
run_until_done(main())
"""


def test_a_task_of_a_plug_in_that_exits_does_not_end_the_process() -> None:
    """Event loops stop for SystemExit and KeyboardInterrupt, wherever they are raised; ours goes on."""
    done = subprocess.run(
        (sys.executable, "-c", EXITING_TASKS), capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (0, "['SystemExit', 'KeyboardInterrupt']\n")
    assert "exit_ignored" in done.stderr


STUCK = """
import asyncio, threading
from contextlib import asynccontextmanager
from typing import Literal
from connection_exporter.config.service import ServiceConfig
from connection_exporter.core.health import Reason
from connection_exporter.kind import Observation, Traits
from connection_exporter.kinds.registry import Kind

class StuckConfig(ServiceConfig):
    kind: Literal["stuck"]
    in_thread: bool = False

class Session:
    peer, addresses = None, frozenset()
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()
    async def probe(self):
        return Observation()

class Check:
    address, traits = "nowhere", Traits(frozenset(Reason))
    def __init__(self, config, network):
        self.in_thread = config.in_thread
    @asynccontextmanager
    async def connect(self):
        if self.in_thread:
            asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
        try:
            yield Session()
        finally:
            while not self.in_thread:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass

KIND = Kind(config=StuckConfig, check="stuck:Check")
"""


@pytest.mark.parametrize("in_thread", ["true", "false"])
def test_a_plug_in_that_does_not_end_does_not_keep_the_process(tmp_path: Path, in_thread: str) -> None:
    """Neither its task, which ignores its cancellation, nor a thread of asyncio, which the interpreter waits for."""
    (tmp_path / "stuck.py").write_text(STUCK)
    installed = tmp_path / "stuck-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[connection_exporter.kinds]\nstuck = stuck:KIND\n")
    file = config(tmp_path, f"services:\n  it: {{kind: stuck, in_thread: {in_thread}, canary: off}}\n")
    environ = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = run("check", file, folder=tmp_path, environ=environ)
    assert (done.returncode, "healthy: 1 healthy" in done.stdout) == (0, True)
    with served(file, folder=tmp_path, environ=environ) as (process, url):
        while json.loads(fetch(f"{url}/health/detailed"))["services"]["it"]["status"] != "healthy":
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "destroyed" not in errors


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    """As with `| head -1`."""
    path = config(tmp_path, "services:\n" + "".join(f"  s{index}: {{kind: redis}}\n" for index in range(600)))
    process = start("validate", f"--config.file={path}", folder=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=30)
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


def test_check_leaves_out_services_that_report_to_a_running_exporter(tmp_path: Path) -> None:
    """A heartbeat cannot arrive where nothing listens; the others decide the exit status."""
    config = "services:\n  backup: {kind: heartbeat, max_age: 1h}\n"
    (tmp_path / "alone.yml").write_text(config)
    done = run("check", "alone.yml", folder=tmp_path)
    assert (done.returncode, "not checked" in done.stderr, "backup" in done.stderr) == (0, True, True)
    assert done.stdout == "no service was checked\n", "which is not the same as healthy"
    pidfile = tmp_path / "pid"
    pidfile.write_text(str(os.getpid()))
    dependent = "  us: {kind: process, pidfile: pid, depends_on: [backup]}\n"
    (tmp_path / "both.yml").write_text(config + dependent)
    done = run("check", "both.yml", folder=tmp_path)
    assert (done.returncode, "healthy" in done.stdout) == (0, True)
    assert "backup" not in done.stdout
