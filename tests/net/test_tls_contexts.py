"""TLS contexts: shared, renewed when a file changes, bounded in number, and read without blocking the event loop."""

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net import tls, tls_context
from connection_exporter.net.tls import TlsContexts
from connection_exporter.net.tls_options import TlsOptions
from connection_exporter.system import files, local_files
from connection_exporter.system.files import read_regular_file


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(trustme.CA().cert_pem.bytes())
    return file


async def test_equal_options_share_one_context(ca_file: Path) -> None:
    contexts = TlsContexts()
    first, second = await asyncio.gather(*(contexts.get(TlsOptions(ca_file=ca_file)) for _ in range(2)))
    assert first is second
    assert await contexts.get(TlsOptions(ca_file=ca_file)) is first
    assert await contexts.get(TlsOptions(verify=False)) is not first


async def test_a_file_with_other_content_gives_another_context(ca_file: Path) -> None:
    """A mere touch does not."""
    contexts = TlsContexts()
    first = await contexts.get(TlsOptions(ca_file=ca_file))
    ca_file.touch()
    assert await contexts.get(TlsOptions(ca_file=ca_file)) is first
    ca_file.write_bytes(trustme.CA().cert_pem.bytes())
    assert await contexts.get(TlsOptions(ca_file=ca_file)) is not first


@pytest.mark.parametrize(("file_system", "threads"), [("tmpfs", 1), ("nfs4", 3)])
async def test_only_files_on_a_remote_file_system_are_read_each_time(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch, file_system: str, threads: int
) -> None:
    """On a local one, times, size and inode are compared instead, without a thread. A change is noticed at once."""
    readers: list[str] = []

    def counted(path: Path, *, most: int) -> bytes:
        readers.append(threading.current_thread().name)
        return read_regular_file(path, most=most)

    monkeypatch.setattr(tls_context, "read_regular_file", counted)
    monkeypatch.setattr(local_files, "file_system", lambda _: file_system)
    monkeypatch.setattr(files, "_TICK", 0)
    contexts, options = TlsContexts(), TlsOptions(ca_file=ca_file)
    first = await contexts.get(options)
    assert [await contexts.get(options) for _ in range(2)] == [first] * 2
    assert readers == ["tls context"] * threads
    await asyncio.sleep(0.05)  # until the clock of the file system has ticked
    ca_file.write_bytes(trustme.CA().cert_pem.bytes())
    assert await contexts.get(options) is not first
    ca_file.unlink()
    with pytest.raises(Failure):
        await contexts.get(options)


async def test_a_change_in_the_tick_of_the_one_before_is_noticed_though_reading_takes_long(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the stamp as it is, so only the age that this has before the file is read says that it may come."""
    tick = 200_000_000
    stamp = (time.time_ns(),) * 5
    changes = [trustme.CA().cert_pem.bytes()]

    def slow(path: Path, *, most: int) -> bytes:
        content = read_regular_file(path, most=most)
        if changes:
            path.write_bytes(changes.pop())
            time.sleep(1.5 * tick / 1e9)
        return content

    monkeypatch.setattr(files, "_TICK", tick)
    monkeypatch.setattr(local_files, "file_system", lambda _: "tmpfs")
    monkeypatch.setattr(tls, "make_context", lambda _: object())
    monkeypatch.setattr(tls, "stamp_of", lambda _: stamp)
    monkeypatch.setattr(tls_context, "read_regular_file", slow)
    contexts, options = TlsContexts(), TlsOptions(ca_file=ca_file)
    assert await contexts.get(options) is not await contexts.get(options)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"not PEM", b"\xff" * 100, b"x" * (5 << 20)],
    ids=["missing", "empty", "text", "binary", "huge"],
)
async def test_a_file_that_cannot_be_used_is_a_failure_and_the_next_attempt_reads_it_again(
    ca_file: Path, content: bytes | None
) -> None:
    contexts, good = TlsContexts(), ca_file.read_bytes()
    ca_file.unlink() if content is None else ca_file.write_bytes(content)
    with pytest.raises(Failure) as caught:
        await contexts.get(TlsOptions(ca_file=ca_file))
    assert caught.value.reason is Reason.TLS
    assert str(ca_file) in caught.value.message
    ca_file.write_bytes(good)
    await contexts.get(TlsOptions(ca_file=ca_file))


async def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "ca.pem"
    os.mkfifo(pipe)
    async with asyncio.timeout(20):
        with pytest.raises(Failure, match="Not a regular file"):
            await TlsContexts().get(TlsOptions(ca_file=pipe))


async def test_files_are_read_outside_the_event_loop(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that does not respond costs one thread, and the attempts that wait for it are cancelled in time."""
    go_on = threading.Event()

    def slow(path: Path, *, most: int) -> bytes:
        assert threading.current_thread() is not threading.main_thread()
        go_on.wait(20)
        return read_regular_file(path, most=most)

    monkeypatch.setattr(tls_context, "read_regular_file", slow)
    contexts = TlsContexts()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await contexts.get(TlsOptions(ca_file=ca_file))
    assert sum(thread.name == "tls context" for thread in threading.enumerate()) == 1
    go_on.set()
    await contexts.get(TlsOptions(ca_file=ca_file))


async def test_the_least_recently_used_contexts_are_dropped(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that exchanges all services for others, again and again, does not fill the memory."""
    monkeypatch.setattr(tls, "MOST_CONTEXTS", 2)
    contexts = TlsContexts()
    options = [
        TlsOptions(ca_file=ca_file, check_hostname=number == 0, verify=number < 2) for number in range(3)
    ]
    first, second = [await contexts.get(one) for one in options[:2]]
    assert await contexts.get(options[0]) is first
    await contexts.get(options[2])
    assert await contexts.get(options[0]) is first
    assert await contexts.get(options[1]) is not second
