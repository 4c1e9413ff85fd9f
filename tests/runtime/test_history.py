"""Transitions outlive a restart, and nothing that befalls their file is fatal."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from connection_exporter.app import serving
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import Redis
from connection_exporter.kinds import load_text
from connection_exporter.monitor.record import TRANSITIONS_KEPT, Transition
from connection_exporter.runtime.history import FILE, MOST, OLDEST, Store
from connection_exporter.web.server import bind
from support.logs import captured_logs

NOW = 1_767_268_800.0
ENDLESS = """
DROP TABLE transitions;
CREATE VIEW transitions AS
    WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n)
    SELECT id, 1e9 AS at, 'cache' AS name, 'redis' AS kind, 'healthy' AS previous, 'unknown' AS status,
        NULL AS reason, '' AS message FROM n;
"""


def change(at: float = NOW, name: str = "cache", message: str = "") -> Transition:
    return Transition(name, "redis", Status.HEALTHY, Status.CONNECTING, Reason.EOF, message, at)


def store(folder: Path, now: float = NOW) -> Store:
    return Store(folder, wall=lambda: now)


def rows(folder: Path) -> int:
    connection = sqlite3.connect(folder / FILE)
    try:
        (count,) = connection.execute("SELECT count(*) FROM transitions").fetchone()
        return int(count)
    finally:
        connection.close()


async def test_the_transitions_of_before_are_there_after_a_restart_and_the_counters_are_not(
    tmp_path: Path,
) -> None:
    """Newest first, the stop of the first run among them."""
    redis = Redis(tmp_path / "redis")
    await redis.start()
    config = load_text(f'services: {{cache: {{kind: redis, url: "{redis.url}", interval: 1s}}}}')
    reported: list[list[tuple[str, str]]] = []
    try:
        for _ in range(2):
            async with serving(config, bind(["127.0.0.1:0"]), storage=tmp_path / "store") as monitor:
                record = monitor.board.record("cache")
                reported.append([(t.previous.value, t.status.value) for t in record.transitions])
                assert (record.checks, record.sessions, sum(record.transitions_to.values())) == (0, 0, 0)
                async with asyncio.timeout(10):
                    while monitor.board.record("cache").status is not Status.HEALTHY:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
    finally:
        await redis.close()
    assert reported == [[], [("healthy", "unknown"), ("connecting", "healthy"), ("unknown", "connecting")]]


def test_what_is_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    """With every field, for each name its own, and no more than the board keeps."""
    first = store(tmp_path)
    for n in range(TRANSITIONS_KEPT + 10):
        first.write(change(NOW + n, message=f"turn {n}"))
    first.write(change(name="other"))
    first.close()
    with closing(store(tmp_path)) as again:
        found = again.newest(["cache", "nobody"])
    assert found["cache"][0] == change(NOW + TRANSITIONS_KEPT + 9, message=f"turn {TRANSITIONS_KEPT + 9}")
    assert len(found["cache"]) == TRANSITIONS_KEPT
    assert found["nobody"] == []


def test_the_file_is_bounded_in_size_and_age(tmp_path: Path) -> None:
    """The oldest go, now and then; a long message is cut."""
    first = store(tmp_path)
    first.write(change(NOW - OLDEST - 1))
    connection = sqlite3.connect(tmp_path / FILE)
    connection.executemany(
        "INSERT INTO transitions (id, at, name, kind, previous, status, message) VALUES (?, ?, '', '', '', '', '')",
        ((n, NOW) for n in range(10, 20)),
    )
    connection.execute(f"UPDATE transitions SET id = {MOST * 2} WHERE id = 19")
    connection.commit()
    connection.close()
    first.close()
    again = store(tmp_path)
    again.write(change(message="x" * 10_000))
    (kept,) = again.newest(["cache"])["cache"]
    assert len(kept.message) < 1000
    again.close()
    assert rows(tmp_path) == 2


@pytest.mark.parametrize("kind", ["garbage", "truncated", "overwritten", "foreign", "endless"])
def test_a_corrupt_file_is_set_aside_and_said(tmp_path: Path, kind: str) -> None:
    """It can be looked at; a new one takes its place, and monitoring goes on."""
    first = store(tmp_path)
    for n in range(500):
        first.write(change(NOW + n, message="x" * 200))
    first.close()
    file = tmp_path / FILE
    content = file.read_bytes()
    match kind:
        case "garbage":
            file.write_bytes(b"not a database at all" * 100)
        case "truncated":
            file.write_bytes(content[: len(content) // 2 + 7])
        case "overwritten":
            file.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        case "foreign":
            connection = sqlite3.connect(file)
            connection.execute("PRAGMA user_version = 99")
            connection.close()
        case "endless":
            connection = sqlite3.connect(file)
            connection.executescript(ENDLESS)
            connection.close()
    with captured_logs() as said:
        second = store(tmp_path)
        second.newest(["cache"])
        second.write(change(NOW + 1000))
        assert second.newest(["cache"])["cache"][0] == change(NOW + 1000)
        second.close()
    assert [line["event"] for line in said] == ["history_set_aside"]
    assert len(list(tmp_path.glob(f"{FILE}.corrupt-*"))) == 1


def test_a_file_that_becomes_corrupt_meanwhile_is_set_aside_too(tmp_path: Path) -> None:
    """Found out by the write that fails."""
    first = store(tmp_path)
    first.write(change())
    first.close()
    (tmp_path / FILE).write_bytes(b"\0" * 20_000)
    first.write(change(NOW + 1))
    assert [t.at for t in first.newest(["cache"])["cache"]] == [NOW + 1]
    first.close()


def test_rows_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    """Somebody may have written into the file."""
    first = store(tmp_path)
    first.write(change())
    first.close()
    connection = sqlite3.connect(tmp_path / FILE)
    for at, status, reason in (
        (1e300, "healthy", None),
        ("soon", "healthy", None),
        (NOW, "ill", None),
        (NOW, "healthy", "x"),
    ):
        connection.execute(
            "INSERT INTO transitions (at, name, kind, previous, status, reason, message)"
            " VALUES (?, 'cache', 'redis', 'healthy', ?, ?, '')",
            (at, status, reason),
        )
    connection.commit()
    connection.close()
    again = store(tmp_path)
    assert again.newest(["cache"])["cache"] == [change()]
    again.close()


def test_a_full_disk_is_said_once_and_what_comes_later_is_kept(tmp_path: Path) -> None:
    """SQLite itself reports that no page is left."""
    it = store(tmp_path)
    it.write(change())
    with captured_logs() as said:
        for n in range(50):
            connection = it._connection or it._open()
            it._connection = connection
            connection.execute("PRAGMA max_page_count = 4")
            it.write(change(NOW + n, message="x" * 300))
        full = [line["event"] for line in said]
        it.write(change(NOW + 100))
    assert full[0] == "history_not_kept"
    assert "full" in str(said[0]["error"])
    assert said[-1]["event"] == "history_kept_again"
    assert it.newest(["cache"])["cache"][0].at == NOW + 100
    it.close()


async def test_a_folder_that_cannot_be_written_to_is_said_and_monitoring_goes_on(tmp_path: Path) -> None:
    """A plain file is where the folder should be."""
    blocked = tmp_path / "file"
    _touch(blocked)
    config = load_text("services: {bot: {kind: process, name: nothing_of_this_name}}")
    with captured_logs() as said:
        async with serving(config, bind(["127.0.0.1:0"]), storage=blocked) as monitor:
            async with asyncio.timeout(10):
                while monitor.board.record("bot").status is Status.UNKNOWN:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    assert "history_not_kept" in [line["event"] for line in said]


def _touch(file: Path) -> None:
    file.touch()


async def test_writing_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """A file that somebody else has locked delays nobody but the history."""
    config = load_text("services: {bot: {kind: process, name: nothing_of_this_name}}")
    async with serving(config, bind(["127.0.0.1:0"]), storage=tmp_path) as monitor:
        other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        loop, late = asyncio.get_running_loop(), 0.0
        for _ in range(50):
            monitor.subscribers.publish(change())
            before = loop.time()
            await asyncio.sleep(0.01)
            late = max(late, loop.time() - before - 0.01)
        other.execute("ROLLBACK")
        other.close()
    assert late < 4, "the loop waited for the lock, which takes SQLite 5 s"
