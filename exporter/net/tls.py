"""Owns TLS contexts: made once per content, off the event loop, and shared by all that ask for the same.

A context costs 25 ms and nearly a megabyte, so one per service would stall the loop and fill the memory.
"""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from exporter.check import Failure
from exporter.core.health import Reason
from exporter.net.failures import NO_THREADS


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """What a service asks of TLS. Paths are read again at each connect, so that renewed files count."""

    verify: bool = True
    check_hostname: bool = True
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class TlsContexts:
    """Contexts by options and content of the files they name. Belongs to one event loop."""

    def __init__(self) -> None:
        self._made: dict[object, asyncio.Future[ssl.SSLContext]] = {}

    async def get(self, options: TlsOptions) -> ssl.SSLContext:
        """Return the shared context for ``options``.

        Raises `Failure`: tls when a file does not serve, internal where no thread can be had.
        """
        key = (options, *(_content(p) for p in (options.ca_file, options.cert_file, options.key_file)))
        context = self._made.get(key)
        if context is None:
            for old in [k for k in self._made if isinstance(k, tuple) and k[0] == options]:
                del self._made[old]
            context = asyncio.get_running_loop().create_future()
            try:
                Thread(target=_make, args=(options, context), name="tls context", daemon=True).start()
            except RuntimeError as error:
                raise Failure(Reason.INTERNAL, NO_THREADS) from error
            self._made[key] = context
        try:
            return await asyncio.shield(context)
        except Failure:
            self._made.pop(key, None)
            raise


def _content(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(Reason.TLS, f"{path} cannot be read: {error.strerror}") from error


def _make(options: TlsOptions, result: "asyncio.Future[ssl.SSLContext]") -> None:
    made: ssl.SSLContext | Failure
    try:
        made = _context(options)
    except (OSError, ValueError) as error:
        files = ", ".join(str(p) for p in (options.ca_file, options.cert_file, options.key_file) if p)
        made = Failure(Reason.TLS, f"no TLS context from {files or 'the system'}: {error}")
    with suppress(RuntimeError):  # the loop has ended meanwhile
        result.get_loop().call_soon_threadsafe(_settle, result, made)


def _settle(result: "asyncio.Future[ssl.SSLContext]", made: ssl.SSLContext | Failure) -> None:
    if result.done():
        return
    if isinstance(made, Failure):
        result.set_exception(made)
        result.exception()
    else:
        result.set_result(made)


def _context(options: TlsOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca_file)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not options.check_hostname:
        context.check_hostname = False
    if options.cert_file is not None:
        context.load_cert_chain(options.cert_file, options.key_file)
    return context
