"""One list of routes: the application, its description, the documentation and the command line agree with it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from connection_exporter.web.routes import HEALTH_PATHS, ROUTES, is_taken
from support.web_clients import get, listening

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text()


def test_the_documentation_lists_exactly_these_routes() -> None:
    """In one table, with their methods."""
    rows = re.findall(r"^\| ((?:`[A-Z]+ /[^`]*`(?:, )?)+) \|", DOCS, re.MULTILINE)
    documented = {tuple(one.split(" ", 1)) for row in rows for one in re.findall(r"`([^`]+)`", row)}
    assert documented == {(method, route.path) for route in ROUTES for method in route.methods}


async def test_the_exporter_serves_every_route() -> None:
    """None is missing from the composition."""
    async with listening() as port:
        for route in ROUTES:
            if route.name != "events":
                path = route.path.replace("{name}", "nobody")
                assert (await get(port, path)).status_code in (200, 405, 503), route
        assert set(json.loads((await get(port, "/openapi.json")).text)["paths"]) == {r.path for r in ROUTES}


def test_the_health_routes_are_those_of_probes() -> None:
    """Connections are reserved for them."""
    assert {"/health", "/-/healthy", "/-/ready"} == HEALTH_PATHS


@pytest.mark.parametrize(
    ("path", "taken"),
    [("/", True), ("/health/", True), ("/health/service/x", True), ("/metrics", False), ("/probe", False)],
)
def test_the_metrics_must_not_take_the_path_of_another_route(path: str, taken: bool) -> None:
    """With a slash at its end or without."""
    assert is_taken(path) is taken


def test_the_list_imports_no_web_framework() -> None:
    """`--help` reads it, and has to be quick."""
    code = "import sys, connection_exporter.web.routes; print({'starlette', 'uvicorn', 'pydantic'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
