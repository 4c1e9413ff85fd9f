"""The private names of uvicorn that web/connection.py uses: a release that changes one fails here, in one line."""

import inspect
import re
from pathlib import Path

import pytest
import uvicorn
from connection_exporter.web.connection import ClientConnection, HttpServer
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

PACKAGE = Path(inspect.getfile(ClientConnection)).parents[1]


@pytest.mark.parametrize(
    "name",
    [
        *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
        *("on_message_begin", "on_header", "on_headers_complete", "on_message_complete"),
        *("on_response_complete", "send_400_response"),
    ],
)
def test_the_protocol_still_has_the_method_that_we_override(name: str) -> None:
    """With the same parameters."""
    theirs, ours = (
        inspect.signature(getattr(HttpToolsProtocol, name)),
        inspect.signature(getattr(ClientConnection, name)),
    )
    assert list(theirs.parameters) == list(ours.parameters), f"HttpToolsProtocol.{name} has changed"


@pytest.mark.parametrize("name", ["loop", "transport", "parser", "pipeline", "cycle", "headers"])
def test_the_protocol_still_has_the_attribute_that_we_read(name: str) -> None:
    """It is set in the constructor."""
    source = inspect.getsource(HttpToolsProtocol.__init__)
    assert re.search(rf"self\.{name}\b", source), f"HttpToolsProtocol.{name} is gone"


def test_the_cycle_still_has_what_we_set() -> None:
    """To end a connection after its response, and a response after its connection."""
    source = inspect.getsource(RequestResponseCycle.__init__)
    for name in ("keep_alive", "response_complete", "disconnected", "message_event"):
        assert f"self.{name} = " in source, f"RequestResponseCycle.{name} is gone"


@pytest.mark.parametrize("name", ["main_loop", "capture_signals", "startup", "on_tick"])
def test_the_server_still_has_the_method_that_we_override_or_call(name: str) -> None:
    """With the same parameters."""
    theirs = inspect.signature(getattr(uvicorn.Server, name))
    ours = inspect.signature(getattr(HttpServer, name))
    assert list(theirs.parameters) == list(ours.parameters), f"uvicorn.Server.{name} has changed"


def test_uvicorn_passes_the_state_of_the_app_to_each_request() -> None:
    """A request finds its connection there."""
    assert "self.app_state.copy()" in inspect.getsource(HttpToolsProtocol.on_message_begin)


def test_only_one_file_uses_private_names_of_uvicorn() -> None:
    """Others may use `uvicorn.Config` and no more."""
    users = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r"uvicorn\.(protocols|server|_)|uvicorn\.Server", path.read_text())
    }
    assert users == {"connection.py"}
