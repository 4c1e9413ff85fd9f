"""Replaces the settings while the exporter runs: on SIGHUP, on request, and when a file's content has changed.

All or nothing: a file with a mistake changes nothing, which the log, the answer and the metrics report. Nothing that is
wrong with a file may end the process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from connection_exporter.config import Config
from connection_exporter.config.changes import Changes
from connection_exporter.runtime.file_watcher import LOOK_EVERY, FileWatcher, users_of_files
from connection_exporter.runtime.settings import BadSettings, Settings
from connection_exporter.system.log import get_logger
from connection_exporter.system.threads import NoThread, SharedWork
from connection_exporter.system.wakeup import Wakeup, until_next

READ_WITHIN: Final = 30.0
"""Seconds in which all files have to be read: a mount that does not respond must not block reloads forever."""

_LOOK_WITHIN: Final = 10.0

log = get_logger(__name__)


class Reloader:
    """Reads the settings again and has them applied, one reload at a time.

    ``read`` runs in a thread and raises `BadSettings`. ``apply`` must do everything, or raise `BadSettings` and do
    nothing. ``noted`` receives whether the last reload was successful. ``hangup`` asks for a reload. ``config`` returns
    the config in force, and ``retry`` checks the services of the given names, one of whose secrets has changed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        read: Callable[[], Settings],
        apply: Callable[[Settings], Awaitable[Changes]],
        noted: Callable[[bool], None],
        hangup: Wakeup,
        config: Callable[[], Config],
        retry: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        self._files = settings.files
        self._included = settings.config.files  # that matched `include` at the last reload, successful or not
        self._matching = self._included  # that matched at the last look
        self._wrong: tuple[Path, ...] = ()  # included or named by a config that was refused, and at fault
        self._read = read
        self._apply = apply
        self._noted = noted
        self._wakeup = hangup
        self._config = config
        self._retry = retry
        self._watcher = FileWatcher()
        self._reading: SharedWork[None, Settings] = SharedWork()
        self._listing: SharedWork[None, tuple[Path, ...]] = SharedWork()
        self._requests: list[asyncio.Future[Changes]] = []
        self._users: tuple[Config, dict[Path, list[str]]] | None = None

    async def reload(self) -> Changes:
        """Have `run` reload the settings; return what has changed. Raises `BadSettings`: everything is as before.

        A caller that is cancelled does not stop the reload. Requests that come during one share the next.
        """
        request: asyncio.Future[Changes] = asyncio.get_running_loop().create_future()
        self._requests.append(request)
        self._wakeup.set()
        return await request

    async def run(self) -> None:
        """Reload at each request, each SIGHUP and each change of a file; retry services whose secrets change."""
        await self._look()
        while True:
            if await self._wakeup.wait(until_next(LOOK_EVERY)):
                await self._answer("request" if self._requests else "SIGHUP")
                continue
            changed = await self._look()
            if any(path in (*self._files, *self._matching, *self._wrong) for path in changed):
                await self._answer("a file has changed")
            elif await self._include_has_changed():
                await self._answer("include matches other files")
            users = self._users_of_files()
            names = list(dict.fromkeys(name for path in changed for name in users.get(path, ())))
            if names:
                secrets = [str(path) for path in changed if path in users]
                log.info("secret_changed", files=secrets, services=len(names))
                await self._retry(names)

    async def _answer(self, cause: str) -> None:
        """Reload, and pass the outcome to everybody who has asked for it."""
        requests, self._requests = self._requests, []
        outcome: Changes | BadSettings = BadSettings(["the exporter is stopping"])
        try:
            outcome = await self._reload(cause)
        finally:
            for request in requests:
                if request.done():
                    continue  # its caller has been cancelled
                if isinstance(outcome, BadSettings):
                    request.set_exception(outcome)
                else:
                    request.set_result(outcome)

    async def _reload(self, cause: str) -> Changes | BadSettings:
        try:
            async with asyncio.timeout(READ_WITHIN) as deadline:
                # Before they are read: a change meanwhile is another change.
                await self._watcher.accept(self._files)
                settings = await self._reading.run(None, self._read, name="reload")
            changes = await self._apply(settings)
        except Exception as error:
            problem = _problem(error, timed_out=deadline.expired())
            await self._watch_wrong(problem.files)
            self._noted(False)
            known = isinstance(error, BadSettings | NoThread) or deadline.expired()
            log.error(
                "reload_refused",
                cause=cause,
                mistakes=list(problem.mistakes),
                exc_info=None if known else error,
            )
            return problem
        self._files, self._wrong = settings.files, ()
        self._included = self._matching = settings.config.files
        self._noted(True)
        names = {word: names for word, names in changes._asdict().items() if names and word != "unchanged"}
        log.info("reloaded", cause=cause, unchanged=len(changes.unchanged), **names)
        return changes

    async def _watch_wrong(self, files: tuple[Path, ...]) -> None:
        """Watch the files that are at fault: the config in force need not include them."""
        self._wrong = files
        with suppress(TimeoutError, NoThread):
            async with asyncio.timeout(_LOOK_WITHIN):
                await self._watcher.accept(files)

    async def _look(self) -> list[Path]:
        """Return the files that have changed, or none if many of them do not respond."""
        try:
            async with asyncio.timeout(_LOOK_WITHIN):
                return await self._watcher.changed(
                    (*self._files, *self._matching, *self._wrong, *self._users_of_files())
                )
        except (TimeoutError, NoThread):
            return []

    async def _include_has_changed(self) -> bool:
        """Return, once for each change, whether `include` matches other files than before, at two looks in a row."""
        if (list_files := self._config().list_files) is None:
            return False
        before = self._matching
        try:
            async with asyncio.timeout(_LOOK_WITHIN):
                self._matching = await self._listing.run(None, list_files, name="include")
        except (TimeoutError, NoThread):
            return False
        if self._matching != before or self._matching == self._included:
            return False
        self._included = self._matching
        return True

    def _users_of_files(self) -> dict[Path, list[str]]:
        config = self._config()
        if self._users is None or self._users[0] is not config:
            self._users = config, users_of_files(config)
        return self._users[1]


def _problem(error: Exception, *, timed_out: bool) -> BadSettings:
    if isinstance(error, BadSettings):
        return error
    if timed_out:
        return BadSettings([f"the files could not be read within {READ_WITHIN:g} s"])
    if isinstance(error, NoThread):
        return BadSettings(
            ["no thread can be started to read the files: raise the limit (ulimit -u, TasksMax=)"]
        )
    return BadSettings([f"unexpected {type(error).__name__}; the exporter's log has more"])
