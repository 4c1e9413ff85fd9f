"""Reads a small file that the config names, without letting its file system stop the event loop."""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from connection_exporter.system.files import NO_RESPONSE
from connection_exporter.system.local_files import LocalFiles
from connection_exporter.system.threads import NoThread, SharedWork

_T = TypeVar("_T")


class FileReader(Generic[_T]):
    """Calls ``read``, which must be quick on a local file system, and in a thread on any other.

    A thread costs 60 us, half as much as a whole probe, and a pidfile is looked at four times a second. Of one file,
    at most one call is in flight, so a mount that does not respond costs one thread. Belongs to one event loop.
    """

    def __init__(self, path: Path, read: Callable[[], _T], *, timeout: float) -> None:
        self._path = path
        self._call = read
        self._timeout = timeout
        self._in_thread: SharedWork[Path, _T] = SharedWork()
        self.place = LocalFiles(path)

    async def read(self) -> _T:
        """Return what ``read`` returns, or raise what it raises. Raises TimeoutError after ``timeout`` seconds."""
        if self.place.are_local:
            return self._call()
        try:
            async with asyncio.timeout(self._timeout):
                return await self._in_thread.run(self._path, self._locate_and_read, name="read file")
        except NoThread:
            return self._call()  # a pause of the event loop is better than a wrong answer
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, NO_RESPONSE) from error

    def _locate_and_read(self) -> _T:
        self.place.locate()
        return self._call()
