"""Password checks: wrong ones delay nobody, cost a fixed amount, and do not pile up."""

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import bcrypt
import httpx
import pytest
from connection_exporter.web import authentication
from connection_exporter.web.authentication import QUEUE
from support.web_clients import get, listening

CHEAP, COSTLY = (bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode() for cost in (4, 12))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "web.yml"


def request(user: str, password: str) -> bytes:
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    return f"GET /health HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\n\r\n".encode()


class Checks:
    """Counts password checks, which are made as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[bytes] = []
        self._verify: Callable[[bytes, bytes], bool] = authentication._verify
        monkeypatch.setattr(authentication, "_verify", self._counting)

    def _counting(self, password: bytes, hashed: bytes) -> bool:
        self.made.append(password)
        return self._verify(password, hashed)


async def test_logins_whose_clients_have_gone_are_not_checked(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 wrong passwords, each connection closed immediately, cost few checks; a valid login is not delayed."""
    file.write_text(f"basic_auth_users: {{alice: {COSTLY}}}\n")
    checks = Checks(monkeypatch)
    async with listening(file) as port:
        for number in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("alice", f"wrong{number}"))
            writer.close()
        answers: list[httpx.Response] = []
        async with asyncio.timeout(30):
            while not answers or answers[-1].status_code == 429:
                answers.append(await get(port, auth=("alice", "right"), timeout=30))
                await asyncio.sleep(0.1)
    assert answers[-1].status_code == 503, "the overall status, to one who is logged in"
    assert len(checks.made) < 100


async def test_logins_beyond_the_queue_are_asked_to_retry(file: Path) -> None:
    """429 with Retry-After; a login that is remembered passes all the same."""
    file.write_text(f"basic_auth_users: {{alice: {COSTLY}, bob: {CHEAP}}}\n")
    async with listening(file) as port, AsyncExitStack() as stack:
        assert (await get(port, auth=("alice", "right"), timeout=30)).status_code == 503
        for number in range(QUEUE):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(request("alice", f"wrong{number}"))
        await asyncio.sleep(0.1)
        refused = await get(port, auth=("alice", "another"), timeout=30)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "5"
        assert (await get(port, auth=("alice", "right"), timeout=30)).status_code == 503
        assert (await get(port, auth=("bob", "right"), timeout=30)).status_code == 503, (
            "has a queue of his own"
        )


async def test_an_unknown_user_costs_the_same_however_costly_the_hashes_are(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hash of cost 18 takes 20 s to check; it is not checked for a name that does not exist."""
    file.write_text(f"basic_auth_users: {{alice: $2b$18${COSTLY[7:]}}}\n")
    checks = Checks(monkeypatch)
    async with listening(file) as port:
        began = time.thread_time()
        assert (await get(port, auth=("nobody", "x"), timeout=15)).status_code == 401
        assert time.thread_time() - began < 1
    assert checks.made == [b"x"]


async def test_a_wrong_login_is_remembered_for_a_while(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scraper with an old password costs one check in 30 s; many who ask at once cost one together."""
    monkeypatch.setattr(authentication, "WRONG_FOR", 1.0)
    file.write_text(f"basic_auth_users: {{alice: {CHEAP}}}\n")
    checks = Checks(monkeypatch)
    async with listening(file) as port:
        together = (get(port, auth=("alice", "wrong")) for _ in range(QUEUE))
        assert {answer.status_code for answer in await asyncio.gather(*together)} == {401}
        assert (await get(port, auth=("alice", "wrong"))).status_code == 401
        assert len(checks.made) == 1
        await asyncio.sleep(1.2)
        assert (await get(port, auth=("alice", "wrong"))).status_code == 401
        assert len(checks.made) == 2


async def test_what_is_remembered_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first."""
    monkeypatch.setattr(authentication, "_WRONG_REMEMBERED", 3)
    file.write_text(f"basic_auth_users: {{alice: {CHEAP}}}\n")
    checks = Checks(monkeypatch)
    async with listening(file) as port:
        for number in (1, 2, 3, 4, 4, 3, 2, 1):
            assert (await get(port, auth=("alice", f"wrong{number}"))).status_code == 401
    assert [password[-1:] for password in checks.made] == [b"1", b"2", b"3", b"4", b"1"]
