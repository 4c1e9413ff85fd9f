"""The commands of the how-to pages are run, one after the other, with the files that the pages show.

Docker, a cluster and the services of other companies are not available here. Commands that need them are listed below.
"""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from connection_exporter.demo.ports import free_port
from connection_exporter.demo.postgresql import PostgreSQL
from stack_servers import Alertmanager
from support.live import Web, exporter, web

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "how-to"
NOT_HERE = ("docker ", "kubectl apply", "python3 -m venv", "new/bin/pip")
"""How the commands begin that are not run."""

_BLOCK = re.compile(
    r"^ *```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: str) -> list[tuple[str, str | None, str]]:
    """Return language, title and text, without its indent, of each code block."""
    found = []
    for match in _BLOCK.finditer((PAGES / f"{page}.md").read_text()):
        lines = match["text"].splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        found.append((match["language"], match["title"], "\n".join(line[indent:] for line in lines) + "\n"))
    return found


def commands(page: str) -> list[str]:
    lines = [
        line for language, _, text in blocks(page) if language == "console" for line in text.splitlines()
    ]
    assert all(line.startswith("$ ") for line in lines), lines
    return [line[2:] for line in lines]


async def run(page: str, folder: Path, replaced: Mapping[str, str], **variables: str) -> str:
    """Run the commands of a page in a copy of what it needs of the repository, and return what they print."""
    for name in ("alertmanager", "deploy", "grafana", "prometheus", "scripts"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    script = "\n".join(line for line in commands(page) if not line.startswith(NOT_HERE))
    assert script, "no command of this page is run"
    for _, title, text in blocks(page):
        if title is not None:
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(text)
    for old, new in replaced.items():
        assert old in script, f"{old} is no longer on the page"
        script = script.replace(old, new)
    tools = [str(Path(sys.executable).parent), str(ROOT / ".tools" / "bin"), os.environ["PATH"]]
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script.replace("curl -s", "curl --fail -sS")),
        cwd=folder,
        env={"PATH": os.pathsep.join(tools), "HOME": str(folder), "LANG": "C.UTF-8", **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, output.decode()
    return output.decode()


def address(api: Web) -> str:
    return f"http://127.0.0.1:{api.port}/"


def secrets(folder: Path, *names: str) -> None:
    (folder / "secrets").mkdir()
    for name in names:
        (folder / "secrets" / name).write_text("https://example.com/secret" if name == "slack" else "0" * 32)


def test_every_page_is_tested_here() -> None:
    """A page without a test would not be run."""
    text = Path(__file__).read_text()
    assert [page.stem for page in PAGES.glob("*.md") if f'"{page.stem}"' not in text] == []


async def test_two_databases(tmp_path: Path) -> None:
    """With two real ones."""
    async with PostgreSQL() as orders, PostgreSQL() as reports:
        replaced = {
            "postgresql://monitor:secret@orders-db:5432/orders": orders.dsn(),
            "postgresql://monitor:secret@reports-db:5432/reports": reports.dsn(),
        }
        output = await run("two-databases", tmp_path, replaced)
    assert len(re.findall(r"^(?:orders|reports)_db +postgresql +healthy", output, re.MULTILINE)) == 2


async def test_an_own_compose_app(tmp_path: Path) -> None:
    """The config is that of the page; the exporter runs here, not in a container."""
    async with web() as api, exporter(f"api_on_the_host: {{kind: http, url: {address(api)}}}") as (url, _):
        output = await run("with-your-compose-app", tmp_path, {"localhost:8000": url})
    assert '"api_on_the_host"' in output


async def test_a_bot_in_another_container(tmp_path: Path) -> None:
    """Both configs are valid."""
    output = await run("bot-in-another-container", tmp_path, {})
    assert output.count("1 service, valid") == 2


@pytest.mark.parametrize(
    ("page", "files"), [("page-for-prod-only", ("telegram", "pagerduty", "slack")), ("telegram", ())]
)
async def test_receivers_are_rendered_and_alertmanager_reads_them(
    tmp_path: Path, page: str, files: tuple[str, ...]
) -> None:
    """Alertmanager runs with another config here: it would call Telegram."""
    if files:
        secrets(tmp_path, *files)
    async with Alertmanager(variables={}) as alertmanager:
        await run(page, tmp_path, {"localhost:9093": f"localhost:{alertmanager.port}"})
    rendered = (tmp_path / "alertmanager" / "alertmanager.yml").read_text()
    assert "chat_id: -1001234567890" in rendered
    assert ("pagerduty_configs" in rendered) == bool(files)


async def test_an_upgrade(tmp_path: Path) -> None:
    """The new version is the one that is tested."""
    programs = tmp_path / "new" / "bin"
    programs.mkdir(parents=True)
    (programs / "connection-exporter").symlink_to(Path(sys.executable).with_name("connection-exporter"))
    async with web() as api, exporter(f"api: {{kind: http, url: {address(api)}}}") as (url, _):
        output = await run("upgrading", tmp_path, {"localhost:8000": url.removeprefix("http://")})
    assert "connection-exporter.yml: 1 service, valid" in output
    assert "connection_exporter_build_info{" in output


@asynccontextmanager
async def nginx(folder: Path, config: str, port: int) -> AsyncIterator[None]:
    """Run nginx on a config, with all of its files in ``folder``."""
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    inside = "".join(f"{place}_temp_path {folder / place};\n" for place in places) + "access_log off;\n"
    (folder / "nginx.conf").write_text(config.replace("http {", "http {\n" + inside))
    flags = f"daemon off; master_process off; pid {folder / 'nginx.pid'};"
    program = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}{ROOT / '.tools' / 'bin'}")
    assert program is not None, "nginx is neither on PATH nor in .tools/bin: run `make programs`"
    log = folder / "error.log"
    process = await asyncio.create_subprocess_exec(
        *(program, "-p", str(folder), "-e", str(log), "-c", str(folder / "nginx.conf"), "-g", flags)
    )
    try:
        async with asyncio.timeout(30):
            while True:
                assert process.returncode is None, log.read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_behind_a_reverse_proxy(tmp_path: Path) -> None:
    """The API, a forced check from the page's origin, the page's own files, and events as they happen."""
    (config,) = [text for _, title, text in blocks("behind-a-reverse-proxy") if title == "nginx.conf"]
    port = free_port()
    async with web() as api, exporter(f"api: {{kind: http, url: {address(api)}, interval: 1s}}") as (url, _):
        config = config.replace("127.0.0.1:8000", url.removeprefix("http://")).replace("8080", str(port))
        async with nginx(tmp_path, config, port):
            output = await run("behind-a-reverse-proxy", tmp_path, {"localhost:8080": f"127.0.0.1:{port}"})
            assert '"services"' in output
            base = f"http://127.0.0.1:{port}/connections/"
            async with httpx.AsyncClient(base_url=base, timeout=20) as client:
                page = (await client.get("")).text
                for file in re.findall(r'(?:src|href)="([^":#?]+\.(?:js|css|svg))"', page):
                    assert (await client.get(file)).status_code == 200, file
                async with client.stream("GET", "events") as events:
                    lines = events.aiter_lines()
                    while await anext(lines) != "event: board":
                        pass
                    await api.stop()
                    while await anext(lines) != "event: transition":
                        pass


async def test_kube_prometheus_stack(tmp_path: Path) -> None:
    """Everything but the cluster."""
    output = await run("kube-prometheus-stack", tmp_path, {})
    assert "kind: ServiceMonitor" in output
    assert "https://wiki.example.com/runbooks/" in output
    assert "inhibit_rules:" in (tmp_path / "alertmanager" / "alertmanager.yml").read_text()


async def test_grafana_cloud_or_mimir(tmp_path: Path) -> None:
    """promtool reads the config with our rules."""
    secrets(tmp_path, "grafana-cloud")
    shutil.copytree(ROOT / "prometheus" / "rules", tmp_path / "rules")
    output = await run("grafana-cloud-or-mimir", tmp_path, {})
    assert "is valid prometheus config file syntax" in output
