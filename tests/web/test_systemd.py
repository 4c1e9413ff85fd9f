"""``--web.systemd-socket``: the exporter takes over sockets that its parent has opened, as systemd passes them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]

PARENT = """\
import os, sys
given, count, pid, *command = sys.argv[1:]
high = [os.dup2(int(one), 100 + at) for at, one in enumerate(given.split())]  # first out of the way
for at, one in enumerate(high):
    os.dup2(one, 3 + at)
    os.close(one)
os.environ["LISTEN_FDS"] = count
os.environ["LISTEN_PID"] = pid if pid else str(os.getpid())
os.environ["LISTEN_FDNAMES"] = "a:b:c"
os.execv(sys.executable, [sys.executable, "-m", "connection_exporter", *command])
"""
"""Becomes the exporter, as systemd's child does after it has set the variables."""


def start(
    folder: Path, sockets: list[socket.socket], *flags: str, count: str | None = None, pid: str = ""
) -> "subprocess.Popen[str]":
    """Start the exporter with ``sockets`` as its descriptors from 3 on."""
    (folder / "main.yml").write_text("services:\n  us: {kind: process, pidfile: pid}\n")
    (folder / "pid").write_text(str(os.getpid()))
    given = [listener.fileno() for listener in sockets]
    flags = flags or ("--web.systemd-socket",)
    shown = " ".join(map(str, given))
    command = [sys.executable, "-c", PARENT, shown, str(len(given)) if count is None else count, pid]
    return subprocess.Popen(
        [*command, "serve", "main.yml", *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=given,
    )


@contextmanager
def running(folder: Path, sockets: list[socket.socket], *flags: str) -> Iterator["subprocess.Popen[str]"]:
    process = start(folder, sockets, *flags)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def is_ready(url: str, *, path: str | None = None, within: float = 20) -> bool:
    """Ask until the exporter is ready; the kernel takes connections before."""
    deadline = time.monotonic() + within
    transport = httpx.HTTPTransport(uds=path)
    with httpx.Client(transport=transport, timeout=within) as client:
        while time.monotonic() < deadline:
            try:
                if client.get(f"{url}/-/ready").status_code == 200:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    return False


def url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_several_sockets_are_taken_over(tmp_path: Path) -> None:
    """Two ports and a Unix socket; they outlive the exporter, so that a restart refuses nobody."""
    path = str(tmp_path / "it.sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
        socket.socket(socket.AF_UNIX) as third,
    ):
        third.bind(path)
        third.listen()
        for _ in range(2):  # and a restart
            with running(tmp_path, [first, second, third]) as process:
                assert is_ready(url(first))
                assert is_ready(url(second))
                assert is_ready("http://it", path=path)
                waiting = socket.create_connection(first.getsockname())
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=20)
                assert process.returncode == 0
                waiting.close()
            assert Path(path).exists()
            for shown in (f"127.0.0.1:{first.getsockname()[1]}", path):
                assert shown in output


def test_they_replace_the_addresses_to_listen_on(tmp_path: Path) -> None:
    """As in exporter-toolkit."""
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with running(tmp_path, [ours], "--web.systemd-socket", f"--web.listen-address={address}"):
            assert is_ready(url(ours))


def refusal(process: "subprocess.Popen[str]") -> str:
    try:
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "Traceback" not in output
    return output


@pytest.mark.parametrize("count", ["", "0", "x", "-1"])
def test_no_socket_is_an_error(tmp_path: Path, count: str) -> None:
    """Started by hand, or by the .service unit alone."""
    reported = refusal(start(tmp_path, [], count=count))
    assert "systemd has passed no socket: start the service by its .socket unit" in reported


def test_sockets_of_another_process_are_not_taken(tmp_path: Path) -> None:
    """The variables of a parent that has started a shell in between."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reported = refusal(start(tmp_path, [listener], pid="1"))
    assert "the sockets are for process 1, and this is" in reported


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_does_not_listen_is_refused(tmp_path: Path, kind: socket.SocketKind) -> None:
    """Of Accept=yes, or of ListenDatagram=."""
    with socket.socket(type=kind) as other:
        other.bind(("127.0.0.1", 0))
        reported = refusal(start(tmp_path, [other]))
    assert "descriptor 3 is not a listening stream socket" in reported


def test_more_sockets_than_there_are_is_an_error(tmp_path: Path) -> None:
    """A descriptor that is not open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reported = refusal(start(tmp_path, [listener], count="90"))
    assert "--web.systemd-socket: descriptor" in reported


def test_without_the_flag_they_are_left_alone(tmp_path: Path) -> None:
    """And our own address is listened on."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        with running(tmp_path, [listener], f"--web.listen-address=127.0.0.1:{port}"):
            assert is_ready(f"http://127.0.0.1:{port}")
