"""A standby of a PostgreSQL server, and psql: both from the wheel that the server comes from."""

import asyncio
import os
from collections.abc import Sequence

from connection_exporter.demo.postgresql import PostgreSQL, postgresql_root


class Standby(PostgreSQL):
    """A copy of ``primary`` that follows it; ``hot`` is whether it lets anybody in."""

    def __init__(self, primary: PostgreSQL) -> None:
        super().__init__()
        self._primary = primary
        self.hot = True

    def command(self) -> Sequence[str]:
        return [*super().command(), "-c", f"hot_standby={'on' if self.hot else 'off'}"]

    async def prepare(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        self.give(self.folder)
        self._root = self._primary._root
        copy = [
            str(self._root / "bin" / "pg_basebackup"),
            "--pgdata",
            str(self.data),
            "--write-recovery-conf",
        ]
        await self.run_tool(*copy, "--checkpoint=fast", "--no-sync", "--dbname", self._primary.dsn())

    async def ready(self) -> bool:
        return await super().ready() if self.hot else await self._accepts()


async def psql(dsn: str, sql: str) -> tuple[str, str]:
    """Execute ``sql`` by psql, without any setting of this account, and return its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        *(str(postgresql_root() / "bin" / "psql"), "--no-psqlrc", "--no-password", "-Atc", sql, dsn),
        env={"HOME": "/nonexistent", "PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode().strip(), errors.decode().strip()
