"""Runs a real server of the demo for the tests of a module, whose event loops are shorter-lived than it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class _Server(Protocol):
    async def start(self) -> None: ...
    async def close(self) -> None: ...


_S = TypeVar("_S", bound=_Server)


@contextmanager
def started(server: _S) -> Iterator[_S]:
    """Start ``server``, and stop it at the end of the block."""
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.close())
