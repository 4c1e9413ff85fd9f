"""POST /heartbeat/{name}, on a real exporter: who may send a beat, and what it says."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import bcrypt
import httpx
import pytest
from connection_exporter.kind import Service
from connection_exporter.kinds import load_text
from connection_exporter.kinds.heartbeat.check import HeartbeatCheck
from connection_exporter.kinds.heartbeat.config import HeartbeatConfig
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.web import beats
from connection_exporter.web.beats import GUESSES, Beats
from starlette.requests import Request
from support.dead_mount import dead_mount
from support.web_clients import listening

TOKEN = "a-token-of-some-length"
SERVICES = f"""\
services:
  nightly_backup: {{kind: heartbeat, max_age: 1h}}
  report: {{kind: heartbeat, max_age: 1h, token: {TOKEN}}}
  bot: {{kind: process, pidfile: /nonexistent/bot.pid, retries: 1000}}
"""
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)


async def test_a_beat_shows_before_it_is_answered() -> None:
    """Good, bad with a message, and good again."""
    async with listening(config=SERVICES) as port, client(port) as to:
        shown = (await to.get("/health/service/nightly_backup")).json()
        assert (shown["session"]["up"], shown["reason"] in (None, "stale")) == (False, True)
        answer = await to.post("/heartbeat/nightly_backup")
        assert (answer.status_code, answer.content) == (200, b"")
        shown = (await to.get("/health/service/nightly_backup")).json()
        assert (shown["status"], shown["session"]["up"], shown["canary"]["up"]) == ("healthy", True, None)
        await to.post("/heartbeat/nightly_backup", params={"status": "fail", "message": "no space\x07 left"})
        shown = (await to.get("/health/service/nightly_backup")).json()
        assert (shown["status"], shown["reason"]) == ("unhealthy", "heartbeat")
        assert shown["message"].startswith("the service reports a failure: no space")
        assert "\x07" not in shown["message"]
        await to.post("/heartbeat/nightly_backup", params={"status": "ok"})
        shown = (await to.get("/health/service/nightly_backup")).json()
        assert (shown["status"], shown["message"]) == ("healthy", None)
        metrics = (await to.get("/metrics")).text
        assert re.search(
            r'^connection_heartbeat_beats_total{.*name="nightly_backup".*} 3', metrics, re.MULTILINE
        )


async def test_a_beat_that_comes_during_a_reload_is_not_lost() -> None:
    """The service is replaced while the token is read from its file."""
    before, after = (
        load_text(f"services: {{it: {{kind: heartbeat, max_age: {n}h}}}}").services for n in (1, 2)
    )
    (replacement,) = build(after, Network())

    class ReplacedMeanwhile(HeartbeatCheck):
        async def token(self) -> str | None:
            board.replace(replacement)
            return await super().token()

    config = before["it"]
    assert isinstance(config, HeartbeatConfig)
    service = Service("it", "heartbeat", ReplacedMeanwhile(config, Network()), config.policy)
    board = Board([service], SystemClock())
    board.active = True
    checked: list[str] = []

    async def check_now(names: Sequence[str]) -> None:
        checked.extend(names)

    scope = {"type": "http", "headers": [], "query_string": b"", "path_params": {"name": "it"}}
    answer = await Beats(board, check_now, ()).take(Request(scope))
    assert (answer.status_code, checked) == (200, ["it"])
    assert isinstance(replacement.check, HeartbeatCheck)
    assert replacement.check.observe().reason is None, "the beat went to the check that was replaced"


async def test_an_unknown_name_lists_those_of_the_kind() -> None:
    """A service of another kind takes no beats."""
    async with listening(config=SERVICES) as port, client(port) as to:
        for name in ("bot", "nobody"):
            answer = await to.post(f"/heartbeat/{name}")
            assert answer.status_code == 404
            assert answer.json()["detail"].endswith("there are: nightly_backup, report")


async def test_only_post_is_a_beat() -> None:
    """A link that somebody opens or previews must not count."""
    async with listening(config=SERVICES) as port, client(port) as to:
        for method in ("GET", "HEAD", "PUT"):
            answer = await to.request(method, "/heartbeat/nightly_backup")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_what_is_not_understood_is_no_beat() -> None:
    """Another status or parameter, a page of another site, and a body that is too long."""
    async with listening(config=SERVICES) as port, client(port) as to:
        answer = await to.post("/heartbeat/nightly_backup", params={"status": "bad"})
        assert (answer.status_code, answer.json()["detail"]) == (
            400,
            "unknown status 'bad': write ok or fail",
        )
        for query, said in (
            ("staus=fail", "unknown parameter 'staus'; known: status, message"),
            ("status=ok&status=fail", "the parameter status is given more than once: keep one"),
        ):
            answer = await to.post(f"/heartbeat/nightly_backup?{query}")
            assert (answer.status_code, answer.json()["detail"]) == (400, said)
        page = {"Origin": "https://elsewhere.example.com", "Sec-Fetch-Site": "cross-site"}
        assert (await to.post("/heartbeat/nightly_backup", headers=page)).status_code == 403
        assert (await to.post("/heartbeat/nightly_backup", content=b"x" * 65536)).status_code == 413
        shown = (await to.get("/health/service/nightly_backup")).json()
        assert shown["session"]["up"] is False
        assert (await to.post("/heartbeat/nightly_backup", content=b"x" * 60000)).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        f"Basic {base64.b64encode(f':{TOKEN}'.encode()).decode()}",
    ],
)
async def test_a_token_that_is_missing_or_wrong_is_refused(authorization: str | None) -> None:
    """It is not looked for in the URL either, which ends up in logs."""
    async with listening(config=SERVICES) as port, client(port) as to:
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = await to.post("/heartbeat/report", params={"token": TOKEN}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in answer.text
        assert (await to.get("/health/service/report")).json()["session"]["up"] is False


async def test_the_right_token_is_accepted() -> None:
    """The scheme in any case."""
    async with listening(config=SERVICES) as port, client(port) as to:
        for scheme in ("Bearer", "bearer"):
            answer = await to.post("/heartbeat/report", headers={"Authorization": f"{scheme} {TOKEN}"})
            assert answer.status_code == 200
        assert TOKEN not in (await to.get("/config")).text


async def test_guessing_is_slow_and_does_not_shut_out_the_service() -> None:
    """What was right before is right, however many wrong tokens come; a token not seen before has to wait."""
    async with listening(config=SERVICES) as port, client(port) as to:
        assert (await to.post("/heartbeat/report", headers=BEARER)).status_code == 200
        wrong = {"Authorization": "Bearer wrong"}
        answers = [
            (await to.post("/heartbeat/report", headers=wrong)).status_code for _ in range(GUESSES + 5)
        ]
        assert answers[:GUESSES] == [401] * GUESSES
        assert answers[-1] == 429
        assert (await to.post("/heartbeat/report", headers=BEARER)).status_code == 200
        assert (await to.post("/heartbeat/nightly_backup")).status_code == 200


async def test_a_token_file_is_read_at_each_beat(tmp_path: Path) -> None:
    """A rotated token is the token from then on; an unreadable file is our fault, not the client's."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    text = f"services: {{report: {{kind: heartbeat, max_age: 1h, token_file: {file}}}}}"
    async with listening(config=text) as port, client(port) as to:
        assert (await to.post("/heartbeat/report", headers=BEARER)).status_code == 200
        file.write_text("another\n")
        assert (await to.post("/heartbeat/report", headers=BEARER)).status_code == 401
        assert (
            await to.post("/heartbeat/report", headers={"Authorization": "Bearer another"})
        ).status_code == 200
        file.unlink()
        answer = await to.post("/heartbeat/report", headers=BEARER)
        assert (answer.status_code, "token_file cannot be read" in answer.text) == (503, True)
        file.write_text("\n")
        assert (await to.post("/heartbeat/report", headers={"Authorization": "Bearer"})).status_code == 401


async def test_a_token_may_have_any_characters(tmp_path: Path) -> None:
    """They are sent as UTF-8, as curl does; spaces around a token are no part of a header's value."""
    file = tmp_path / "token"
    file.write_text(" tökén of 12 €  \n")
    text = f"services: {{report: {{kind: heartbeat, max_age: 1h, token_file: {file}}}}}"
    async with listening(config=text) as port, client(port) as to:
        for token, status in (("tökén of 12 €", 200), ("tökén of 12", 401), ("token of 12 €", 401)):
            headers = {b"Authorization": f"Bearer {token}".encode()}
            assert (await to.post("/heartbeat/report", headers=headers)).status_code == status


async def test_with_users_a_token_replaces_the_login_and_only_where_there_is_one(tmp_path: Path) -> None:
    """A job needs no password for everything; and a bearer token opens no other door."""
    hashed = bcrypt.hashpw(b"word", bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yml"
    web.write_text(f"basic_auth_users: {{me: '{hashed}'}}\n")
    async with listening(web, config=SERVICES) as port, client(port) as to:
        assert (await to.post("/heartbeat/report", headers=BEARER)).status_code == 200
        assert (await to.post("/heartbeat/report", auth=("me", "word"))).status_code == 401
        assert (await to.post("/heartbeat/nightly_backup", headers=BEARER)).status_code == 401
        assert (await to.post("/heartbeat/nightly_backup")).status_code == 401
        assert (await to.post("/heartbeat/nightly_backup", auth=("me", "wrong"))).status_code == 401
        assert (await to.post("/heartbeat/nightly_backup", auth=("me", "word"))).status_code == 200
        for path in ("/health", "/heartbeat", "/config", "/health/service/report"):
            assert (await to.get(path, headers=BEARER)).status_code == 401


async def test_a_beat_whose_token_cannot_be_read_in_time_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, its sender would wait without end, and each request would take a connection."""
    monkeypatch.setattr(beats, "TOKEN_WITHIN", 0.2)
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "token").write_text("content")
    text = f"services: {{job: {{kind: heartbeat, max_age: 1h, token_file: {mount}/token}}}}"
    with dead_mount(mount):
        async with listening(config=text) as port, client(port) as to:
            answer = await to.post("/heartbeat/job", headers={"Authorization": "Bearer content"})
    assert answer.status_code == 503
    assert answer.json()["detail"] == "job: the token cannot be read: the file system does not respond"
