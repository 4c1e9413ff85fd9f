"""Without a thread to be had (a limit of processes), what can go on goes on, the rest says so, and all recovers."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exporter.aside import aside
from exporter.board import Board
from exporter.check import Failure
from exporter.clock import SystemClock
from exporter.core.health import Reason, Status
from exporter.listeners import Listeners
from exporter.net import Network, TlsOptions
from exporter.publish.exposition import Exposition
from exporter.publish.own_metrics import OwnMetrics
from exporter.record import Transition


@contextmanager
def no_threads() -> Iterator[None]:
    """Have the kernel refuse every new thread: there is no room for a stack of 64 TiB."""
    before = threading.stack_size(1 << 46)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threading.Thread(target=int).start()
        yield
    finally:
        threading.stack_size(before)


async def test_work_that_finds_no_thread_is_done_all_the_same() -> None:
    """The exporter would end otherwise: it looks at its config every 2 s."""
    with no_threads():
        assert await aside(threading.current_thread) is threading.main_thread()
    assert await aside(threading.current_thread) is not threading.main_thread()


async def test_a_look_up_without_a_thread_is_our_own_fault_and_recovers() -> None:
    """It says so at once, and the next attempt does not wait for a thread that never was."""
    network = Network()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with no_threads(), pytest.raises(Failure) as caught:
            await network.dial("localhost", port)
        assert caught.value.reason is Reason.INTERNAL
        assert "ulimit -u" in caught.value.message
        async with asyncio.timeout(20):
            link = await network.dial("localhost", port)
        link.sock.close()


async def test_a_tls_context_without_a_thread_is_our_own_fault_and_recovers() -> None:
    """As a look-up."""
    network = Network()
    with no_threads(), pytest.raises(Failure) as caught:
        await network.tls_context(TlsOptions())
    assert caught.value.reason is Reason.INTERNAL
    async with asyncio.timeout(20):
        assert (await network.tls_context(TlsOptions())).check_hostname


async def test_a_callback_gets_what_came_while_there_was_no_thread() -> None:
    """Whoever tells of a transition must not be hurt, and the next one is another chance."""
    listeners = Listeners()
    told: list[float] = []
    both = threading.Event()

    def callback(transition: Transition) -> None:
        told.append(transition.at)
        if len(told) == 2:
            both.set()

    listeners.add(callback)
    with no_threads():
        listeners.tell(Transition("it", "kind", Status.HEALTHY, Status.CONNECTING, None, "", 1.0))
    listeners.tell(Transition("it", "kind", Status.CONNECTING, Status.HEALTHY, None, "", 2.0))
    assert await asyncio.to_thread(both.wait, 10)
    assert told == [1.0, 2.0]
    await listeners.aclose()


async def test_a_scrape_without_a_thread_to_compress_it_is_plain() -> None:
    """Metrics are needed most when something is amiss."""
    board = Board([], SystemClock())
    exposition = Exposition(board, OwnMetrics(board, dropped=lambda: 0).registry)
    with no_threads():
        plain = await exposition.answer(None, "gzip")
    assert not plain.gzipped
    assert b"connection_monitor_active" in b"".join(plain.parts)
    assert (await exposition.answer(None, "gzip")).gzipped
