"""Owns noticing that a `*_file` of a service has changed, so that it is tried at once and not when it is next needed.

Whoever connects reads such a file anew in any case. What is added here is when: a new password that the server
does not take shows within seconds, and one that it does take ends the wait of a service that was locked out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import BaseModel

from exporter.aside import aside
from exporter.config import Config
from exporter.config.secret import Stamp, stamp_of

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the files. A change counts once two looks in a row have seen the same."""

log = structlog.get_logger()


class Rotation:
    """Calls ``try_anew`` with the names of the services of ``config()`` one of whose files has changed."""

    def __init__(
        self, config: Callable[[], Config], try_anew: Callable[[Sequence[str]], Awaitable[None]]
    ) -> None:
        self._config = config
        self._try_anew = try_anew
        self._tried: dict[Path, Stamp | None] = {}
        self._before: dict[Path, Stamp | None] = {}

    async def run(self) -> None:
        """Look for ever."""
        config, users = None, dict[Path, list[str]]()
        while True:
            if (current := self._config()) is not config:
                config, users = current, await aside(partial(users_of_files, current))
            changed = await self._changed(tuple(users)) if users else []
            names = list(dict.fromkeys(name for path in changed for name in users[path]))
            if names:
                log.info("secret_changed", files=[str(path) for path in changed], services=len(names))
                await self._try_anew(names)
            await asyncio.sleep(LOOK_EVERY)

    async def _changed(self, paths: tuple[Path, ...]) -> list[Path]:
        now = await aside(lambda: {path: _stamp(path) for path in paths})
        settled = {path: stamp for path, stamp in now.items() if stamp == self._before.get(path, stamp)}
        changed = [path for path, stamp in settled.items() if stamp != self._tried.get(path, stamp)]
        self._tried = {**now, **self._tried, **settled}
        self._before = now
        return changed


def users_of_files(config: Config) -> dict[Path, list[str]]:
    """Return the files that services name in keys ending in `_file`, each with the names of its services."""
    users: dict[Path, list[str]] = {}
    for name, service in config.services.items():
        for path in dict.fromkeys(_files(service)):
            users.setdefault(path, []).append(name)
    return users


def _files(value: Any) -> Iterator[Path]:
    if isinstance(value, BaseModel):
        for key in value.model_fields_set:
            inside = getattr(value, key)
            if isinstance(inside, Path):
                if key.endswith("_file"):
                    yield inside
            else:
                yield from _files(inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _files(inside)


def _stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file; ``None`` where there is none."""
    try:
        return stamp_of(path)
    except (OSError, ValueError):
        return None
