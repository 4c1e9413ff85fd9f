"""Keeps transitions over a restart, in an SQLite file of bounded size and age.

They are for people, at /health/service/{name} and on the status page. Counters are never restored, because one that
jumps corrupts `increase()`. No fault of the file is fatal: a corrupt file is renamed, and a full disk costs the
transitions that could not be written. The log reports each once.
"""

import errno
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, closing, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Final

from connection_exporter.core.health import Reason, Status
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import TRANSITIONS_KEPT, Transition
from connection_exporter.system.log import get_logger
from connection_exporter.system.threads import run_in_thread

FILE: Final = "transitions.sqlite3"
MOST: Final = 100_000
OLDEST: Final = 90 * 86400.0
"""Seconds."""

_VERSION: Final = 1
_PRUNE_EVERY: Final = 256
_LONGEST_MESSAGE: Final = 300
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAULTS: Final = (errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.ESTALE)
_YEAR_2100: Final = 4.1e9
_CREATE: Final = f"""
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    previous TEXT NOT NULL, status TEXT NOT NULL, reason TEXT, message TEXT NOT NULL
);
CREATE INDEX by_name ON transitions (name, id);
PRAGMA user_version = {_VERSION};
"""
_SCHEMA: Final = (
    "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
)

Past = dict[str, list[Transition]]
"""By name, the newest first."""

Row = tuple[float, str, str, str, str, str | None, str]
log = get_logger(__name__)


@asynccontextmanager
async def history(
    folder: Path, board: Board, subscribe: Callable[[Callable[[Transition], None]], object]
) -> AsyncIterator[Callable[[Iterable[str]], Awaitable[Past]]]:
    """Restore the transitions of ``board``, and store new ones while the block runs.

    ``subscribe`` calls a plain function in a thread of its own, behind a bounded queue. The value is a function that
    reads the transitions of services which are not on the board yet.
    """
    store = Store(folder)

    async def past(names: Iterable[str]) -> Past:
        wanted = tuple(names)
        return await run_in_thread(lambda: store.newest(wanted), name="history read") if wanted else {}

    board.recall(await past(board.names))
    subscribe(store.write)
    try:
        yield past
    finally:
        await run_in_thread(store.close, name="history close")


def make_folder(folder: Path) -> None:
    """Make a folder for the file, with its parents. Raises OSError or ValueError if none can be there. Blocks.

    A fault of the disk passes, and is no reason not to start. Nor is anything else if there is a file already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / FILE).exists():
            with TemporaryFile(dir=folder):
                pass
    except OSError as error:
        if error.errno not in _FAULTS:
            raise


class Store:
    """The file. Its methods block, so call them in a thread; they wait for each other. Never raises."""

    def __init__(self, folder: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.path = folder / FILE
        self._wall = wall
        self._connection: sqlite3.Connection | None = None
        self._writes = 0
        self._failing = False
        self._one_at_a_time = Lock()

    def newest(self, names: Iterable[str]) -> Past:
        """Return the last transitions of each of ``names``."""
        found: Past = {}

        def read(connection: sqlite3.Connection) -> None:
            for name in names:
                rows = connection.execute(
                    "SELECT at, name, kind, previous, status, reason, message FROM transitions"
                    " WHERE name = ? ORDER BY id DESC LIMIT ?",
                    (name, TRANSITIONS_KEPT),
                )
                found[name] = [t for row in rows if (t := _transition(row)) is not None]

        with self._one_at_a_time:
            self._do(read)
        return found

    def write(self, transition: Transition) -> None:
        """Store a transition; from time to time, delete the oldest."""
        t = transition
        reason, message = t.reason.value if t.reason else None, t.message[:_LONGEST_MESSAGE]
        row: Row = (t.at, t.name, t.kind, t.previous.value, t.status.value, reason, message)

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO transitions (at, name, kind, previous, status, reason, message)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            if self._writes % _PRUNE_EVERY == 0:
                newest = "(SELECT max(id) FROM transitions)"
                connection.execute(f"DELETE FROM transitions WHERE id <= {newest} - ?", (MOST,))  # noqa: S608
                connection.execute("DELETE FROM transitions WHERE at < ?", (self._wall() - OLDEST,))
            self._writes += 1

        with self._one_at_a_time:
            self._do(insert)

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._one_at_a_time:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _do(self, work: Callable[[sqlite3.Connection], None], *, again: bool = True) -> None:
        """Do ``work`` in one transaction; if the file is corrupt, on a new one."""
        try:
            if self._connection is None:
                self._connection = self._open()
            with self._connection:
                work(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._close()
            if _is_corrupt(error) and again and self._set_aside(error):
                self._do(work, again=False)
            elif not self._failing:
                self._failing = True
                log.error("history_not_kept", file=str(self.path), error=str(error))
            return
        if self._failing:
            self._failing = False
            log.info("history_kept_again", file=str(self.path))

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=1.0, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # a write is then 30 us, and survives kill -9
            connection.execute("PRAGMA synchronous = NORMAL")
            with closing(connection.execute("PRAGMA user_version")) as found:
                (version,) = found.fetchone()
            if version == 0:
                connection.executescript(_CREATE)
            elif version != _VERSION:
                raise _Foreign(f"written by another version of the exporter ({version})")
            if connection.execute(_SCHEMA).fetchall() != _ours():
                raise _Foreign("not the table that the exporter makes")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, error: Exception) -> bool:
        """Rename the file, so that somebody can inspect it; return whether that succeeded."""
        target = self.path.with_name(f"{FILE}.corrupt-{self._wall():.0f}")
        try:
            self.path.rename(target)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(FILE + suffix).unlink(missing_ok=True)
        except OSError:
            return False
        log.error("history_set_aside", file=str(self.path), renamed=str(target), error=str(error))
        return True


@cache
def _ours() -> list[tuple[str, str, str]]:
    """Return the schema of our own files. A view or a trigger in place of the table could do anything."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_CREATE)
        return connection.execute(_SCHEMA).fetchall()


class _Foreign(sqlite3.Error):
    """The schema of the file is not ours."""


def _is_corrupt(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, _Foreign) or code in _CORRUPT


def _transition(row: tuple[object, ...]) -> Transition | None:
    """Return the row as a value, or None if we cannot have written it."""
    at, name, kind, previous, status, reason, message = row
    try:
        if not isinstance(at, float) or not 0 < at < _YEAR_2100:
            return None
        return Transition(
            str(name),
            str(kind),
            Status(str(previous)),
            Status(str(status)),
            Reason(str(reason)) if reason else None,
            str(message),
            at,
        )
    except ValueError:
        return None
