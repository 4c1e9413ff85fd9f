"""Finds files whose content has changed: the config, the web config, certificates and secrets alike.

Only the content counts, so that neither `touch` nor an atomic rename is mistaken for a change or missed. A file is read
again only if its times, size or inode differ, which makes a look at thousands of unchanged secrets cheap. The last
change of the inode (ctime) is among these, because a copy can preserve the time of modification and the size.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from connection_exporter.config import Config
from connection_exporter.config.secret import files_of
from connection_exporter.system.files import Stamp, is_recent, read_regular_file, stamp_of
from connection_exporter.system.threads import start_in_thread

LOOK_EVERY: Final = 2.0
"""Seconds between two looks. A change counts when two looks in a row have found the same content."""

STUCK_AFTER: Final = 1.0
"""Seconds after which a file that cannot be read counts as one that does not respond, for now."""

MOST_STUCK: Final = 64
"""Files that do not respond, each of which keeps a thread, and after which no more files are looked at."""

_LARGEST: Final = 16 * 1024 * 1024
_T = TypeVar("_T")


class FileWatcher:
    """Compares files with what they contained before.

    One thread looks at all of them. Where it gets stuck at a file, on a mount that does not respond, it is left behind
    with that file, and another one looks at the rest.
    """

    def __init__(self) -> None:
        self._known: dict[Path, bytes] = {}
        self._last: dict[Path, bytes] = {}
        self._digests: dict[Path, tuple[Stamp, bytes]] = {}
        self._stuck: set[Path] = set()

    async def changed(self, files: Iterable[Path]) -> list[Path]:
        """Return the files whose content differs from what it was at an earlier call, and has settled.

        The first look at a file is never a change, and a file that does not respond has not changed. Raises NoThread.
        """
        files = tuple(dict.fromkeys(files))
        now = await self._look(files)
        settled = {path: digest for path, digest in now.items() if digest == self._last.get(path, digest)}
        changed = [path for path, digest in settled.items() if digest != self._known.get(path, digest)]
        known = {path: settled.get(path, self._known.get(path, digest)) for path, digest in now.items()}
        self._known = _only(files, self._known | known)
        self._last = _only(files, self._last | now)
        self._digests = _only(files, self._digests)
        return changed

    async def accept(self, files: Iterable[Path]) -> None:
        """Take the present content as known: it is about to be read."""
        now = await self._look(tuple(dict.fromkeys(files)))
        self._known |= now
        self._last |= now

    async def _look(self, files: tuple[Path, ...]) -> dict[Path, bytes]:
        """Return the digests of all files that respond."""
        found: dict[Path, bytes] = {}
        left = [path for path in files if path not in self._stuck]
        while left and len(self._stuck) < MOST_STUCK:
            look = _Look(left)
            done = start_in_thread(partial(self._digest_all, look), name="look at files")
            try:
                await look.until_stuck(done)
            finally:
                found |= look.found
                if not done.done():
                    self._leave(look, done)
            left = look.paths[look.begun :]
        return found

    def _leave(self, look: "_Look", done: "asyncio.Future[None]") -> None:
        """Have the thread end as soon as its present file responds, and look at that file again only then."""
        look.abandoned = True
        path = look.paths[look.begun - 1]
        self._stuck.add(path)
        done.add_done_callback(lambda _: self._stuck.discard(path))

    def _digest_all(self, look: "_Look") -> None:
        for path in look.paths:
            if look.abandoned:
                return
            look.begun += 1
            stamp = stamp_of(path)
            old_stamp, digest = self._digests.get(path, (None, b""))
            if stamp != old_stamp:
                digest = _digest(path)
            if look.abandoned:
                return
            if is_recent(stamp):
                self._digests.pop(path, None)
            else:
                self._digests[path] = stamp, digest
            look.found[path] = digest


class _Look:
    """The progress of one thread. ``begun`` counts the paths that it has looked at, the present one included."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.begun = 0
        self.found: dict[Path, bytes] = {}
        self.abandoned = False

    async def until_stuck(self, done: "asyncio.Future[None]") -> None:
        """Wait for the end of the look, or until the thread has been at one file for `STUCK_AFTER`."""
        before = -1
        while not done.done() and (not self.begun or self.begun != before):
            before = self.begun
            await asyncio.wait({done}, timeout=STUCK_AFTER)
        if done.done():
            done.result()


def _only(files: Iterable[Path], values: Mapping[Path, _T]) -> dict[Path, _T]:
    return {path: values[path] for path in files if path in values}


def users_of_files(config: Config) -> dict[Path, list[str]]:
    """Return the files that services name in keys ending in `_file`, each with the names of its services."""
    users: dict[Path, list[str]] = {}
    for name, service in config.services.items():
        for path in dict.fromkeys(path for _, path in files_of(service)):
            users.setdefault(path, []).append(name)
    return users


def _digest(path: Path) -> bytes:
    try:
        return hashlib.blake2b(read_regular_file(path, most=_LARGEST)).digest()
    except (OSError, ValueError) as error:
        return f"{getattr(error, 'errno', None)}".encode()
