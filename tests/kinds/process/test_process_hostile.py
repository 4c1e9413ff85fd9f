"""Hostile files, names and command lines: none blocks the event loop, or makes us take another process for ours."""

import asyncio
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kinds import load_text
from connection_exporter.kinds.process import check as process_check
from connection_exporter.kinds.process import facts as process_facts
from connection_exporter.kinds.process import table as process_table
from connection_exporter.kinds.process.files import FileReader
from connection_exporter.kinds.process.proc import LONGEST_COMMAND, TICKS, Entry, read_process
from connection_exporter.kinds.process.table import Criterion, ProcessTable, named, with_command
from connection_exporter.kinds.registry import build
from connection_exporter.net import Network
from support.dead_mount import dead_mount
from support.hostile import assert_iterations_are_short
from support.processes import SLEEP, Processes, check_of, children, failure_of, probe, wait_until

MAIN_THREAD_EXITS = (
    f"import ctypes, threading; threading.Thread(target=lambda: exec({SLEEP!r})).start(); "
    "ctypes.CDLL(None).syscall(60, 0)"
)
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
FORKS = "import os, time\nfor _ in range(300):\n    if os.fork() == 0:\n        break\ntime.sleep(60)"


def file_threads() -> int:
    return sum(thread.name == "read file" for thread in threading.enumerate())


def attack(coroutine: Callable[[], Awaitable[object]]) -> Awaitable[object]:
    return assert_iterations_are_short(coroutine)


# --- files


async def test_a_pidfile_on_a_dead_mount_costs_one_thread_and_no_other_service(
    processes: Processes, tmp_path: Path
) -> None:
    """`timeout`, however often it is tried; meanwhile another process is found and probed."""
    (tmp_path / "mount").mkdir()
    other = check_of(pidfile=str(processes.pidfile(processes.start().pid)))
    with dead_mount(tmp_path / "mount") as mount:
        dead = check_of(pidfile=str(mount / "bot.pid"), timeout="200ms")

        async def several() -> None:
            for _ in range(3):
                failure = await failure_of(dead)
                assert failure.reason is Reason.TIMEOUT
                assert failure.message == f"{mount}/bot.pid cannot be read: the file system does not respond"
                assert not await dead.present()
                assert (await probe(other)).reason is None

        await attack(several)
        assert file_threads() == 1
    await ended()


async def test_a_heartbeat_on_a_dead_mount_is_a_bad_answer_of_a_living_process(
    processes: Processes, tmp_path: Path
) -> None:
    """`heartbeat`: the session stays up, because the pidfd says that the process lives."""
    (tmp_path / "mount").mkdir()
    pidfile = processes.pidfile(processes.start().pid)
    with dead_mount(tmp_path / "mount") as mount:
        check = check_of(
            pidfile=str(pidfile), timeout="200ms", heartbeat={"file": str(mount / "beat"), "max_age": "10ms"}
        )
        async with check.connect() as session:
            await asyncio.sleep(1.1)  # a process that has just started has time for its first beat
            for _ in range(3):
                seen = await session.probe()
                assert seen.reason is Reason.HEARTBEAT
                assert seen.message.endswith("beat cannot be read: the file system does not respond")
            assert not session.lost.done()
        assert file_threads() == 1
    await ended()


async def test_a_mount_that_dies_later_does_not_end_the_session(processes: Processes, tmp_path: Path) -> None:
    """It is noticed before the next read, so a thread hangs. A pidfile that cannot be read proves nothing."""
    folder = tmp_path / "mount"
    folder.mkdir()
    pidfile = folder / "bot.pid"
    pidfile.write_text(f"{processes.start().pid}\n")
    check = check_of(pidfile=str(pidfile), timeout="200ms")
    async with check.connect() as session:
        assert (await session.probe()).reason is None
        with dead_mount(folder):
            assert (await session.probe()).reason is None
            assert not session.lost.done()
            assert file_threads() == 1
        await ended()


async def ended() -> None:
    """Wait until no thread hangs on a file."""
    async with asyncio.timeout(10):
        while file_threads():  # noqa: ASYNC110 - a thread has no event to wait for
            await asyncio.sleep(0.01)


async def test_a_file_on_a_local_file_system_is_read_without_a_thread(tmp_path: Path) -> None:
    """Only the first read, which finds out where the file is, takes one."""
    callers = []

    def read() -> int:
        callers.append(threading.current_thread().name)
        return len(callers)

    reader = FileReader(tmp_path / "file", read, timeout=5)
    assert [await reader.read() for _ in range(3)] == [1, 2, 3]
    assert callers[1:] == ["MainThread"] * 2 or callers == ["read file"] * 3  # which file system is it here?
    assert callers[0] == "read file"


@pytest.mark.parametrize("content", [b"1" * 4 * 2**20, b"\0" * 4 * 2**20, b"1\n" * 2**21, b"\n" * 2**21])
async def test_a_pidfile_of_megabytes_is_read_only_to_4_kib(tmp_path: Path, content: bytes) -> None:
    """`missing`, and a message of one short line; a first line that is a process ID counts."""
    path = tmp_path / "bot.pid"
    path.write_bytes(content)
    os.utime(path, (time.time() - 5,) * 2)
    check = check_of(pidfile=str(path))

    async def find() -> None:
        if content.startswith(b"1\n"):
            assert (await probe(check)).details["pid"] == 1
        else:
            failure = await failure_of(check)
            assert failure.reason is Reason.MISSING
            assert len(failure.message) < 200 + len(str(path))

    await attack(find)


async def test_a_pipe_with_a_silent_writer_and_a_device_are_missing(tmp_path: Path) -> None:
    """They are not read: a pipe could wait, a device never end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        for path in (pipe, Path("/dev/zero")):
            failure = await failure_of(check_of(pidfile=str(path)))
            assert (failure.reason, failure.message) == (
                Reason.MISSING,
                f"{path} cannot be read: Not a regular file",
            )
    finally:
        os.close(writer)


async def test_a_half_written_pidfile_is_not_believed(processes: Processes, tmp_path: Path) -> None:
    """A file that begins with the id of another process is read again when its writer may have finished."""
    path, right = tmp_path / "bot.pid", processes.start().pid
    path.write_text("1")  # process 1 exists, and is older than the file

    async def finish() -> None:
        await asyncio.sleep(0.005)
        path.write_text(f"{right}\n")

    finishing = asyncio.create_task(finish())
    assert (await probe(check_of(pidfile=str(path)))).details["pid"] == right
    await finishing


async def test_a_pidfile_that_never_stops_changing_is_missing(tmp_path: Path) -> None:
    """A writer without rest does not keep the attempt, and nothing half written is believed."""
    path, stop = tmp_path / "bot.pid", threading.Event()

    def rewrite() -> None:
        number = 0
        while not stop.is_set():
            number = number % 9 + 1
            path.write_text(str(number))
            time.sleep(0.001)

    path.write_text("1")
    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(3):
            failure = await failure_of(check_of(pidfile=str(path)))
            assert failure.reason is Reason.MISSING
            assert any(text in failure.message for text in ("keeps changing", "is empty"))
    finally:
        stop.set()
        writer.join()


# --- names and command lines


async def test_a_process_whose_main_thread_has_exited_is_alive_however_it_is_found(
    processes: Processes,
) -> None:
    """/proc shows it as a zombie without command line, memory and files: those belong to its other threads."""
    process = processes.start("headless", "--role=worker", code=MAIN_THREAD_EXITS)
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    for check in (
        check_of(pidfile=str(processes.pidfile(process.pid))),
        check_of(name="headless"),
        check_of(cmdline="headless .*--role=worker$"),
    ):
        assert await check.present()
        observation = await probe(check)
        details = observation.details
        assert (observation.reason, details["pid"]) == (None, process.pid)
        assert details["status"] in (psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING)
        assert isinstance(memory := details["resident_memory_bytes"], int)
        assert memory > 0
        assert details["open_files"]


@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="only root chooses the next process ID")
@pytest.mark.parametrize("stays_open", [True, False])
def test_another_process_with_the_same_id_is_not_read(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, stays_open: bool
) -> None:
    """Neither through files that stay open, which belong to the process that has ended, nor through new ones."""
    monkeypatch.setattr(process_facts, "may_stay_open", lambda _: stays_open)
    first = processes.start()
    with closing(process_facts.FactsReader(psutil.Process(first.pid))) as reader:
        assert reader.read()["pid"] == first.pid
        first.kill()
        first.wait()
        time.sleep(2 / TICKS)  # they are told apart by their start, which the kernel gives in ticks
        for _ in range(100):
            LAST_PID.write_text(str(first.pid - 1))
            if processes.start().pid == first.pid:
                break
        else:
            pytest.skip("other processes start all the time")
        with pytest.raises(psutil.NoSuchProcess):
            reader.read()


async def test_a_dot_matches_line_breaks_and_bytes_that_are_not_utf_8(processes: Processes) -> None:
    """A command line is bytes, and an argument may contain any of them but NUL."""
    process = processes.start("python3-odd", "a\nb", b"\xff\xfe", "worker ü")
    for pattern in ("python3-odd.*worker", "a.b .. worker [üö]$", "worker ü", "(?i)WORKER"):
        assert (await probe(check_of(cmdline=pattern))).details["pid"] == process.pid


@pytest.mark.parametrize("name", [") Z 1 (", "a\nb", "\x1b[31mred", "((((", "x) S 1 1 1 ("])
async def test_a_name_cannot_forge_what_proc_says(processes: Processes, name: str) -> None:
    """Parentheses, line breaks and escape sequences in a name, which every process may give itself."""
    code = f"import ctypes; ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0); {SLEEP}"
    process = processes.start("forger", code=code)
    wait_until(lambda: name.encode() in Path(f"/proc/{process.pid}/stat").read_bytes())
    observation = await probe(check_of(name=name))
    assert (observation.reason, observation.details["pid"]) == (None, process.pid)


async def test_a_command_line_of_megabytes_is_searched_to_64_kib(processes: Processes) -> None:
    """In a thread where the pattern is costly; what is beyond the limit is not found."""
    arguments = [f"{number:02}" + "é" * 60_000 for number in range(15)]
    process = processes.start("talkative", "begin", *arguments, "the-end")
    nasty = check_of(cmdline="talkative.*begin.{0,1000}é{900}")
    assert (await probe(nasty)).details["pid"] == process.pid

    async def search() -> None:
        await probe(nasty)
        assert (await failure_of(check_of(cmdline="talkative.*the-end"))).reason is Reason.MISSING

    await attack(search)


async def test_a_scan_of_hundreds_of_processes_costs_no_iteration_more_than_10_ms(
    processes: Processes,
) -> None:
    """Nor do many services that look for absent processes at the same time."""
    parent = processes.start("crowd", "x" * 50_000, code=FORKS)
    wait_until(lambda: len(children(parent.pid)) >= 300)
    network = Network()
    checks = [check_of(network=network, cmdline=f"no such process [{number}]x") for number in range(20)]

    async def search() -> None:
        await asyncio.gather(*(failure_of(check) for check in checks))
        assert not any(await asyncio.gather(*(check.present() for check in checks)))

    ours = check_of(cmdline=re.escape(f"{processes.folder}/crowd"))
    assert (await probe(ours)).details["pid"] == parent.pid
    await attack(search)


async def test_a_process_is_compared_again_only_after_a_change(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its name, for example. One that has ended is found no more."""
    code = "import ctypes, os\n"
    code += "for name in (b'fickle-fish', b'fickle-bird'):\n"
    code += "    os.read(0, 1)\n    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)\nos.read(0, 1)"
    process = processes.start("fickle-bird", code=code)
    stdin = process.stdin
    assert stdin is not None
    monkeypatch.setattr(process_table, "_YOUNG", 1000.0)
    table, compared = ProcessTable(), []

    def matches(entry: Entry) -> bool:
        compared.append(entry.pid)
        return entry.name == "fickle-bird"

    criterion = Criterion("named fickle-bird", matches)
    for name, expected in (
        ("fickle-bird", [process.pid]),
        ("fickle-fish", []),
        ("fickle-bird", [process.pid]),
    ):
        wait_until(lambda name=name: psutil.Process(process.pid).name() == name)  # type: ignore[misc]
        for search in (table.search, table.search_new, table.search):
            assert [entry.pid for entry in await search(criterion)] == expected
        stdin.write(b"x")
        stdin.flush()
    assert compared.count(process.pid) == 3
    process.wait()
    assert not await table.search_new(criterion)


def test_all_services_share_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if `defaults` limit the addresses of other services."""
    tables: list[object] = []
    monkeypatch.setattr(process_check, "Search", lambda table, _: tables.append(table))
    services = "services: {a: {kind: process, name: a}, b: {kind: process, cmdline: b}}\n"
    network = Network()
    for defaults in ("", "defaults: {ip_version: 4}\n", "defaults: {ip_version: 6}\n"):
        build(load_text(defaults + services).services, network)
    assert len(tables) == 6
    assert all(table is tables[0] for table in tables)
    build(load_text(services).services, Network())
    assert tables[-1] is not tables[0]


async def test_older_processes_are_read_at_most_four_times_a_second(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many services look for absent ones. One that becomes another program is found after that."""
    code = f"import ctypes, os; os.read(0, 1); ctypes.CDLL(None).prctl(15, b'older-bird', 0, 0, 0); {SLEEP}"
    process, read = processes.start("older-fish", code=code), []
    monkeypatch.setattr(process_table, "_YOUNG", 0.0)
    monkeypatch.setattr(process_table, "_SHARED_FOR", 1000.0)

    def noting(pid: int, longest: int) -> Entry:
        read.append(pid)
        return read_process(pid, longest)

    monkeypatch.setattr(process_table, "read_process", noting)
    table = ProcessTable()
    for number in range(20):
        assert not await table.search(named("older-bird"))
        assert not await table.search_new(named(f"older-bird-{number}"))
    assert read.count(process.pid) == 1
    stdin = process.stdin
    assert stdin is not None
    stdin.write(b"x")
    stdin.flush()
    wait_until(lambda: psutil.Process(process.pid).name() == "older-bird")
    monkeypatch.setattr(process_table, "_SHARED_FOR", 0.01)
    await asyncio.sleep(0.02)
    assert [entry.pid for entry in await table.search(named("older-bird"))] == [process.pid]


async def test_a_process_that_has_ended_since_it_was_read_is_not_chosen(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its parent has not collected it: the next copy is held at once, or the zombie is reported."""
    first = processes.start("copy")
    await asyncio.sleep(0.05)  # so that one is older
    second = processes.start("copy")
    monkeypatch.setattr(process_table, "_YOUNG", 0.0)
    monkeypatch.setattr(process_table, "_SHARED_FOR", 1000.0)
    check = check_of(name="copy")
    assert (await probe(check)).details["pid"] == first.pid
    first.kill()
    wait_until(lambda: psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE)
    assert await check.present()
    assert (await probe(check)).details["pid"] == second.pid
    second.kill()
    wait_until(lambda: psutil.Process(second.pid).status() == psutil.STATUS_ZOMBIE)
    assert not await check.present()
    assert (await failure_of(check)).reason is Reason.ZOMBIE


async def test_a_search_that_is_cancelled_goes_on_where_it_was(processes: Processes) -> None:
    """However short the timeout of a service is, it finds its process at last."""
    ours = {processes.start("flock", "x" * 500).pid for _ in range(5)}
    compared: list[int] = []

    def matches(entry: Entry) -> bool:
        if entry.pid in ours:
            compared.append(entry.pid)
            searching.cancel()
            turn_ends = time.thread_time() + 0.002
            while time.thread_time() < turn_ends:
                pass
        return entry.pid in ours

    table, criterion = ProcessTable(), Criterion("of the flock", matches, size=200)
    for number in range(5):
        searching = asyncio.create_task(table.search(criterion))
        await asyncio.wait({searching})
        assert searching.cancelled()
        assert len(compared) == number + 1
    assert {entry.pid for entry in await table.search(criterion)} == set(compared) == ours


async def test_command_lines_are_kept_in_bounded_memory(processes: Processes) -> None:
    """16 MiB for all together; beyond that, the first KiB of each."""
    parent = processes.start("crowd", *["x" * 60_000] * 2, code=FORKS)
    wait_until(lambda: len(children(parent.pid)) >= 300)
    table = ProcessTable()
    found = await table.search(with_command("crowd"))
    assert len(found) >= 300
    assert max(len(entry.command) for entry in found) <= LONGEST_COMMAND
    assert sum(len(entry.command) for entry in found) < 17 * 2**20
