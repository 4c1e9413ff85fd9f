"""What ``check`` and ``watch`` show in a real terminal: with rich, without it, without colors, and on a dumb one."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from connection_exporter.cli.check_screen import result
from connection_exporter.demo.ports import free_port
from connection_exporter.demo.servers import HttpApi
from rich.console import Console
from support.live import exporter as serves
from support.terminals import CONTROL, Terminal, terminal

EXPORTER: Final = Path(__file__).resolve().parents[2] / "exporter"
PROGRAM: Final = ("-m", "connection_exporter")
STYLE: Final = re.compile(r"\x1b\[[\d;]*m")
Environ = Mapping[str, str]


@pytest.fixture(scope="module")
def without_rich(tmp_path_factory: pytest.TempPathFactory) -> Environ:
    """Return an environment in which ``python -S`` finds every package that is installed here, but not rich."""
    folder = tmp_path_factory.mktemp("packages")
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not package.name.startswith(("rich", "connection_exporter", "_editable")):
            (folder / package.name).symlink_to(package)
    environ = {"PYTHONPATH": f"{EXPORTER}{os.pathsep}{folder}"}
    code = "import importlib.util as u; print(u.find_spec('httpx') is not None, u.find_spec('rich'))"
    found = subprocess.run(
        (sys.executable, "-S", "-c", code), env={**os.environ, **environ}, capture_output=True, check=True
    )
    assert found.stdout == b"True None\n"
    return environ


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Path]:
    """Return a config with a healthy service and one that is away."""
    async with HttpApi() as api:
        path = tmp_path / "c.yml"
        path.write_text(
            f"services:\n  api: {{kind: http, url: '{api.url}'}}\n"
            f"  cache: {{kind: redis, port: {free_port()}, timeout: 1s}}\n"
        )
        yield path


@asynccontextmanager
async def board() -> AsyncIterator[str]:
    """Run an exporter on a healthy service, and give its address."""
    async with (
        HttpApi() as api,
        serves(f"api: {{kind: http, url: '{api.url}', canary: off}}") as (url, _),
    ):
        yield url


async def finished(shown: Terminal) -> int:
    status = await shown.ended()
    assert "Traceback" not in shown.text
    return status


async def test_check_shows_its_progress_and_then_a_table(services: Path) -> None:
    """Nothing of the progress remains, and the cursor is visible."""
    async with terminal(*PROGRAM, "check", str(services), columns=100) as shown:
        assert await finished(shown) == 3
    assert "checked 0 of 2, waiting for api, cache" in CONTROL.sub("", shown.text)
    lines = shown.frame.splitlines()
    assert lines[0].split() == ["SERVICE", "KIND", "STATUS", "LATENCY", "CANARY", "REASON"]
    assert set(lines[1]) == {"─"}
    assert re.fullmatch(r"api +http +✓ healthy +[0-9.]+ ms +good", lines[2])
    assert re.match(r"cache +redis +✕ disconnected +- +- +refused: ", lines[3])
    assert "✕ partial: 1 healthy, 1 disconnected" in lines
    assert not shown.screen.cursor.hidden


async def test_the_output_of_check_can_be_read_by_a_program_while_its_progress_is_shown(
    services: Path,
) -> None:
    """The pipe gets plain text, and the terminal the progress."""
    reading, writing = os.pipe()
    try:
        async with terminal(*PROGRAM, "check", str(services), stdout=writing) as shown:
            os.close(writing)
            assert await finished(shown) == 3
        output = os.read(reading, 65536).decode()
    finally:
        os.close(reading)
    assert output.splitlines()[-1] == "partial: 1 healthy, 1 disconnected"
    assert output.isascii()
    assert "\x1b" not in output
    assert "waiting for" in CONTROL.sub("", shown.text)
    assert shown.frame.strip() == ""


async def test_ctrl_c_ends_check_and_removes_its_progress(tmp_path: Path) -> None:
    """With 130, as shells expect, and a visible cursor."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        path = tmp_path / "c.yml"
        path.write_text(f"services:\n  mute: {{kind: redis, port: {port}, timeout: 30s}}\n")
        async with terminal(*PROGRAM, "check", str(path)) as shown:
            await shown.until(lambda: "checked 0 of 1, waiting for mute" in shown.frame)
            assert not shown.screen.cursor.hidden
            shown.type(b"\x03")
            assert await finished(shown) == 130
    assert shown.frame.strip().removeprefix("^C") == ""
    assert not shown.screen.cursor.hidden


def _status(message: str) -> dict[str, Any]:
    facts = {"kind": "postgresql", "status": "disconnected", "latency_seconds": None, "canary": {"up": None}}
    database: dict[str, Any] = {**facts, "causes": [], "reason": "refused", "message": message}
    summary = {"total": 1, "healthy": 0, "disconnected": 1}
    return {"services": {"database": database}, "status": "partial", "summary": summary}


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 100, 120, 200])
def test_the_reason_wraps_in_a_narrow_terminal(columns: int) -> None:
    """No word of it is lost, and no line is longer than the terminal."""
    message = "127.0.0.1:5432: refused [red]by[/red] データベース, and some more words about that :smile:"
    console = Console(width=columns, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(result(_status(message), columns))
    lines = captured.get().splitlines()
    assert f"refused: {message}" in " ".join(" ".join(lines).split())
    assert all(console.measure(line).maximum <= columns for line in lines)
    assert "✕ disconnected" in captured.get()


@pytest.mark.parametrize(
    ("flags", "environ"), [(("--no-color",), {}), ((), {"NO_COLOR": "1"}), ((), {"FORCE_COLOR": "1"})]
)
async def test_colors_can_be_turned_off(services: Path, flags: tuple[str, ...], environ: Environ) -> None:
    """Everything is still drawn, and each status has its sign."""
    colored = "FORCE_COLOR" in environ
    async with terminal(*PROGRAM, "check", *flags, str(services), environ=environ) as shown:
        assert await finished(shown) == 3
    assert "✕ disconnected" in shown.frame
    assert bool(STYLE.search(shown.text)) is colored
    async with board() as url, terminal(*PROGRAM, "watch", *flags, url, environ=environ) as shown:
        await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        shown.type(b"q")
        assert await finished(shown) == 0
    assert bool(STYLE.search(shown.text)) is colored


@pytest.mark.parametrize("where", ["no rich", "TERM=dumb", "TERM=unknown", "another encoding"])
async def test_the_output_is_plain_text_where_nothing_can_be_drawn(
    services: Path, without_rich: Environ, where: str
) -> None:
    """Without any escape sequence: a line for each service, and for each transition."""
    program = ("-S", *PROGRAM) if where == "no rich" else PROGRAM
    environ = {
        "no rich": without_rich,
        "TERM=dumb": {"TERM": "dumb"},
        "TERM=unknown": {"TERM": "unknown"},
        "another encoding": {"PYTHONIOENCODING": "latin-1"},
    }[where]
    async with terminal(*program, "check", str(services), columns=60, environ=environ) as shown:
        assert await finished(shown) == 3
    lines = shown.text.splitlines()
    assert lines[0].split() == ["SERVICE", "KIND", "STATUS", "LATENCY", "CANARY", "REASON"]
    assert re.fullmatch(r"cache +redis +disconnected +- +- +refused: .*: connection refused", lines[2])
    assert lines[3:] == ["", "partial: 1 healthy, 1 disconnected"]
    assert "\x1b" not in shown.text
    async with board() as url, terminal(*program, "watch", url, environ=environ) as shown:
        await shown.until(lambda: re.search(r"Z  api  healthy\r\n", shown.text) is not None)
        shown.process.send_signal(signal.SIGINT)
        assert await finished(shown) == 130
    assert "\x1b" not in shown.text
    assert ("pip install 'connection-exporter[terminal]'" in shown.text) is (where == "no rich")


@pytest.mark.parametrize(
    ("command", "loaded"),
    [("serve", False), ("validate", False), ("check", False), ("check in a terminal", True)],
)
async def test_rich_is_loaded_only_to_draw(services: Path, command: str, *, loaded: bool) -> None:
    """No process that runs for long keeps it in memory, and no script waits for it."""
    arguments = [command.split(maxsplit=1)[0], str(services)]
    if command == "serve":
        arguments.append(f"--web.listen-address=127.0.0.1:{free_port()}")
    code = f"""if True:
        import sys
        from connection_exporter.cli.main import main
        status = main({arguments})
        print("rich is loaded:", "rich" in sys.modules, status)
        """
    status = {"serve": 0, "validate": 0}.get(command, 3)
    if loaded:
        async with terminal("-c", code) as shown:
            await finished(shown)
        assert f"rich is loaded: True {status}" in shown.text
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdin=subprocess.DEVNULL, stdout=-1, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    output = b""
    while chunk := await asyncio.wait_for(process.stdout.read(65536), 20):
        output += chunk
        if command == "serve" and b"previous=connecting" in output:
            process.terminate()
    assert await process.wait() == 0
    assert f"rich is loaded: False {status}" in output.decode()
