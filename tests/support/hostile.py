"""A server that floods its clients from threads of its own, and what this costs the event loop and the process."""

import asyncio
import gc
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

import psutil

T = TypeVar("T")

ITERATION_LIMIT: Final = 0.010
"""Seconds of CPU that one iteration of the event loop may take, whatever a service sends."""

_MOST: Final = 64 * 1024 * 1024
"""Bytes that a server sends over one connection, so that no test runs without end."""


@dataclass
class LoopCost:
    """What the event loop's thread and the process did while they were measured."""

    iterations: list[float] = field(default_factory=list)
    """CPU seconds of each iteration of the event loop."""
    memory: int = 0
    """Bytes by which resident memory grew at its peak."""

    @property
    def longest(self) -> float:
        return max(self.iterations, default=0.0)


@asynccontextmanager
async def loop_cost() -> AsyncIterator[LoopCost]:
    """Measure the CPU seconds of each iteration of the event loop, and the growth of memory.

    The garbage collector rests meanwhile: what it would look through is left over from other tests.
    """
    measured, stop, process = LoopCost(), asyncio.Event(), psutil.Process()

    async def measure() -> None:
        before = time.thread_time()
        while not stop.is_set():
            await asyncio.sleep(0)
            now = time.thread_time()
            measured.iterations.append(now - before)
            if len(measured.iterations) % 8 == 0:
                measured.memory = max(measured.memory, process.memory_info().rss - resident)
                now = time.thread_time()
            before = now

    gc.collect()
    gc.disable()
    resident = process.memory_info().rss
    task = asyncio.create_task(measure())
    try:
        yield measured
    finally:
        stop.set()
        await task
        measured.memory = max(measured.memory, process.memory_info().rss - resident)
        gc.enable()


async def assert_iterations_are_short(
    attack: Callable[[], Awaitable[T]], *, limit: float = ITERATION_LIMIT, memory: float = math.inf
) -> T:
    """Run ``attack`` until it costs little, five times at most, and return its last result.

    Fail if each time an iteration of the event loop exceeds ``limit`` seconds, or resident memory grows by more than
    ``memory`` bytes. An input that costs too much does so every time; a neighbour on the machine does not, or not for
    long.
    """
    costs: list[str] = []
    for pause in (0.0, 0.0, 0.5, 1.0, 2.0):
        await asyncio.sleep(pause)
        async with loop_cost() as measured:
            result = await attack()
        if measured.longest < limit and measured.memory < memory:
            return result
        costs.append(f"{measured.longest * 1e3:.1f} ms, {measured.memory / 2**20:.0f} MiB")
    raise AssertionError(f"longest iteration and growth of memory, each time: {'; '.join(costs)}")


@dataclass(frozen=True, slots=True)
class _Flood:
    """What every client gets."""

    head: bytes
    piece: bytes
    waits_for_request: bool
    at_a_time: int | None
    request_end: bytes
    over: threading.Event = field(default_factory=threading.Event)

    def serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(10)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            received = b""
            while self.waits_for_request and self.request_end not in received:
                if not (data := client.recv(65536)):
                    return
                received += data
            step = self.at_a_time or max(len(self.head), 1)
            for start in range(0, len(self.head), step):
                client.sendall(self.head[start : start + step])
            sent = 0
            while self.piece and sent < _MOST and not self.over.is_set():
                client.sendall(self.piece)
                sent += len(self.piece)
            while client.recv(65536):
                pass


@contextmanager
def flooding(
    head: bytes,
    piece: bytes = b"",
    *,
    waits_for_request: bool = True,
    at_a_time: int | None = None,
    request_end: bytes = b"\r\n\r\n",
) -> Iterator[int]:
    """Send ``head`` to every client, then ``piece`` again and again; yield the port.

    ``at_a_time`` cuts the head into writes of so many bytes. Without a piece, the connection stays open and silent.
    """
    flood = _Flood(head, piece, waits_for_request, at_a_time, request_end)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=flood.serve, args=(client,), name="flood", daemon=True)
            threads.append(thread)
            thread.start()

    listener = socket.create_server(("127.0.0.1", 0))
    accepting = threading.Thread(target=accept, name="accept", daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        flood.over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join()
