"""Owns taking a changed configuration into force: on SIGHUP, on request, and when a file's content has changed.

All or nothing: a file that is wrong leaves everything as it was, and that is said in the log, in the answer
and in the metrics. Files are looked at by content alone, so neither `touch` nor an atomic rename deceives.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import structlog

from exporter.aside import aside
from exporter.config import Config, ConfigError
from exporter.config.changes import Changes
from exporter.config.web import WebConfig

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the files. A change counts once two looks in a row have seen the same."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settings:
    """All that can be exchanged while the exporter runs. ``files`` are those that it was read from."""

    config: Config
    web: WebConfig = field(default_factory=WebConfig)
    files: tuple[Path, ...] = ()


class BadSettings(Exception):
    """Everything that is wrong in all files together."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


def read_settings(
    read_config: Callable[[], Config], read_web: Callable[[], WebConfig], *, files: tuple[Path, ...] = ()
) -> Settings:
    """Read everything, or raise `BadSettings` with the mistakes of all."""
    mistakes: list[str] = []
    settings = Settings(Config("", {}), files=files)
    try:
        settings = replace(settings, config=read_config())
    except ConfigError as error:
        mistakes.extend(error.lines)
    try:
        web = read_web()
        settings = replace(settings, web=web, files=(*files, *web.files))
    except ConfigError as error:
        mistakes.extend(error.lines)
    if mistakes:
        raise BadSettings(mistakes)
    return settings


class Reloader:
    """Reads the settings again and has them applied; ``noted`` is told whether the last reading was good.

    ``read`` runs in a thread and raises `BadSettings`. ``apply`` must either do everything or, by raising
    `BadSettings`, nothing.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        read: Callable[[], Settings],
        apply: Callable[[Settings], Awaitable[Changes]],
        noted: Callable[[bool], None],
        hangup: asyncio.Event,
    ) -> None:
        self._files = settings.files
        self._read = read
        self._apply = apply
        self._noted = noted
        self._hangup = hangup
        self._one_at_a_time = asyncio.Lock()
        self._seen: bytes | None = None

    async def reload(self, cause: str) -> Changes:
        """Read everything again and put it into force. Raises `BadSettings`; all is then as it was."""
        async with self._one_at_a_time:
            self._seen = await self._digest()
            try:
                settings = await aside(self._read)
                changes = await self._apply(settings)
            except BadSettings as error:
                self._noted(False)
                log.error("reload_refused", cause=cause, mistakes=list(error.mistakes))
                raise
            if settings.files != self._files:
                self._files = settings.files
                self._seen = await self._digest()
            self._noted(True)
            told = {word: names for word, names in asdict(changes).items() if names and word != "unchanged"}
            log.info("reloaded", cause=cause, unchanged=len(changes.unchanged), **told)
            return changes

    async def run(self) -> None:
        """Reload at every SIGHUP and every change of the files' content, for ever."""
        self._seen = before = await self._digest()
        while True:
            cause = "SIGHUP"
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._hangup.wait()
            except TimeoutError:
                now = await self._digest()
                settled, before = now == before, now
                if now == self._seen or not settled:
                    continue
                cause = "a file has changed"
            self._hangup.clear()
            try:
                await self.reload(cause)
            except BadSettings:
                continue  # it has been said; the next change is another chance

    async def _digest(self) -> bytes:
        files = self._files
        return await aside(lambda: _digest(files))


def _digest(files: Iterable[Path]) -> bytes:
    found = hashlib.blake2b()
    for path in files:
        try:
            content = path.read_bytes()
        except OSError as error:
            content = str(error.errno).encode()
        found.update(len(content).to_bytes(8, "big") + content)
    return found.digest()
