"""Makes TLS contexts for connections to services: once per content, in a thread, shared by all with equal options.

A context costs 25 ms and nearly a megabyte, so one per service would stall the event loop and fill the memory.
"""

import asyncio
import hashlib
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.failures import NO_THREADS
from connection_exporter.net.tls_context import make_context, read_tls_file
from connection_exporter.net.tls_options import TlsOptions
from connection_exporter.system.files import NO_RESPONSE, Stamp, is_recent, stamp_of
from connection_exporter.system.local_files import LocalFiles
from connection_exporter.system.threads import NoThread, SharedWork, WorkDied

MOST_CONTEXTS: Final = 128
"""Contexts that are kept. Of one more, the least recently used is dropped: it may belong to a removed service."""


@dataclass(slots=True, eq=False)
class _Made:
    """A context, and the files that it is made from.

    ``stamps`` is ``None`` if the files may change and keep their stamps. ``used`` is when the context was last used.
    """

    context: ssl.SSLContext
    digest: bytes
    files: tuple[Path, ...]
    places: LocalFiles
    stamps: tuple[Stamp, ...] | None
    used: float = 0.0

    @property
    def is_current(self) -> bool:
        """Whether the files are known not to have changed. Never blocks, so it is false on a remote file system."""
        return not self.files or (
            self.stamps is not None
            and self.places.are_local
            and self.stamps == tuple([stamp_of(path) for path in self.files])
        )


class TlsContexts:
    """The current context for each set of options. Belongs to one event loop."""

    def __init__(self) -> None:
        self._made: dict[TlsOptions, _Made] = {}
        self._work: SharedWork[TlsOptions, _Made] = SharedWork()

    async def get(self, options: TlsOptions) -> ssl.SSLContext:
        """Return the shared context for ``options``; a new one if the content of its files has changed.

        Raises `Failure`: tls if a file cannot be used, internal where no thread can be started.
        """
        made = known = self._made.get(options)
        if made is None or not made.is_current:
            try:
                made = await self._work.run(options, lambda: _current(options, known), name="tls context")
            except NoThread as error:
                raise Failure(Reason.INTERNAL, NO_THREADS) from error
            except WorkDied as error:
                raise Failure(Reason.INTERNAL, f"no TLS context: {error}") from error
            except asyncio.CancelledError as cancelled:
                if options.files:
                    names = " or ".join(map(str, options.files))
                    raise cancelled from Failure(Reason.TLS, f"{names} cannot be read: {NO_RESPONSE}")
                raise
            self._made[options] = made
        made.used = time.monotonic()
        if len(self._made) > MOST_CONTEXTS:
            del self._made[min(self._made, key=lambda key: self._made[key].used)]
        return made.context


def _current(options: TlsOptions, known: _Made | None) -> _Made:
    """Return the context of ``known`` if it was made from what the files contain now, otherwise a new one. Blocks."""
    files = options.files
    places = known.places if known is not None else LocalFiles(*files)
    places.locate()
    stamps = tuple([stamp_of(path) for path in files])  # before the look, so that no change is missed
    is_settled = all(stamp and not is_recent(stamp) for stamp in stamps)  # now: the look may take long
    digest = hashlib.blake2b(
        b"".join(hashlib.blake2b(read_tls_file(path)).digest() for path in files)
    ).digest()
    context = known.context if known is not None and known.digest == digest else make_context(options)
    return _Made(context, digest, files, places, stamps if is_settled else None)
