"""Without a thread to be had (a limit of processes), what can go on goes on, the rest says so, and all recovers."""

import asyncio
import gzip
import socket
import threading

import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.kind import Failure
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Transition
from connection_exporter.monitor.subscribers import Subscribers
from connection_exporter.net import Network, TlsOptions
from connection_exporter.system import threads
from connection_exporter.system.clock import SystemClock
from connection_exporter.system.threads import run_in_pool, run_in_thread
from connection_exporter.web.exposition import Exposition
from connection_exporter.web.own_metrics import OwnMetrics
from support.threads import no_threads


async def test_work_that_finds_no_thread_is_done_all_the_same() -> None:
    """The exporter would end otherwise: it looks at its config every 2 s."""
    with no_threads():
        assert await run_in_thread(threading.current_thread, name="it") is threading.main_thread()
    assert await run_in_thread(threading.current_thread, name="it") is not threading.main_thread()


async def test_work_that_finds_no_thread_in_the_pool_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the caller's thread, and not again by the first thread of the pool."""
    monkeypatch.setattr(threads, "_POOL", threads._Pool(1))
    done: list[threading.Thread] = []

    def work() -> None:
        done.append(threading.current_thread())

    with no_threads():
        await run_in_pool(work)
    await run_in_pool(work)
    assert len(done) == 2
    assert done[0] is threading.main_thread() is not done[1]


async def test_a_pool_that_gets_no_more_threads_uses_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work waits for one of them."""
    monkeypatch.setattr(threads, "_POOL", threads._Pool(4))
    first = await run_in_pool(threading.current_thread)
    with no_threads():
        done = await asyncio.gather(*(run_in_pool(threading.current_thread) for _ in range(10)))
    assert set(done) == {first} != {threading.main_thread()}


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
    """The caller must not fail, and the next transition tries again."""
    subscribers = Subscribers()
    reported: list[float] = []
    both = threading.Event()

    def callback(transition: Transition) -> None:
        reported.append(transition.at)
        if len(reported) == 2:
            both.set()

    subscribers.add(callback)
    with no_threads():
        subscribers.publish(Transition("it", "kind", Status.HEALTHY, Status.CONNECTING, None, "", 1.0))
    subscribers.publish(Transition("it", "kind", Status.CONNECTING, Status.HEALTHY, None, "", 2.0))
    assert await asyncio.to_thread(both.wait, 10)
    assert reported == [1.0, 2.0]
    await subscribers.aclose()


async def test_a_scrape_is_compressed_without_a_thread_too() -> None:
    """Metrics are needed most when something is wrong."""
    board = Board([], SystemClock())
    exposition = Exposition(board, OwnMetrics(board, callbacks_dropped=lambda: 0).registry)
    with no_threads():
        answer = await exposition.answer(None, "gzip")
    assert b"connection_monitor_active" in gzip.decompress(answer.body)
