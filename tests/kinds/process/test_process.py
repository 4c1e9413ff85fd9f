"""Kind process with real processes: how they are found, measured, and noticed when they end or hang."""

import asyncio
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, LooksOut, Session
from connection_exporter.kinds.process import watch as process_watch
from connection_exporter.kinds.process.config import ProcessConfig
from connection_exporter.kinds.process.facts import METRICS, FactsReader, read_elsewhere
from connection_exporter.kinds.process.pidfile import Pidfile
from connection_exporter.kinds.process.proc import Entry
from connection_exporter.kinds.process.table import oldest_root
from connection_exporter.monitor.attempt import waited_for
from pydantic import ValidationError
from support.processes import SLEEP, Processes, check_of, children, failure_of, probe, wait_until

SEEK_OURSELVES = """
import asyncio, sys
from connection_exporter.kind import Failure
from connection_exporter.kinds.process.check import ProcessCheck
from connection_exporter.kinds.process.config import ProcessConfig
from connection_exporter.net import Network

async def seek():
    config = ProcessConfig.model_validate({"kind": "process", "cmdline": sys.argv[1]})
    async with ProcessCheck(config, Network()).connect():
        print("found")

try:
    asyncio.run(seek())
except Failure as failure:
    print(failure.reason)
"""


async def end_of(session: Session, kill: Callable[[], None]) -> tuple[Failure, float]:
    began = time.monotonic()
    kill()
    failure = await asyncio.wait_for(session.lost, 5)
    return failure, time.monotonic() - began


# --- found and measured


async def test_a_process_is_found_by_its_pidfile_and_measured(processes: Processes) -> None:
    """The details are what the kernel knows about the process."""
    process = processes.start()
    async with asyncio.timeout(30):
        while psutil.Process(process.pid).status() != psutil.STATUS_SLEEPING:  # noqa: ASYNC110 - it reads its program
            await asyncio.sleep(0.01)
    check = check_of(pidfile=str(processes.pidfile(process.pid)))
    observation = await probe(check)
    details = observation.details
    assert observation.reason is None
    assert (details["pid"], details["ppid"], details["threads"]) == (process.pid, os.getpid(), 1)
    assert details["status"] in (psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING)
    assert details["max_open_files"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for key in ("resident_memory_bytes", "open_files", "start_time_seconds"):
        value = details[key]
        assert isinstance(value, int | float)
        assert value > 0


async def test_our_own_reading_of_proc_agrees_with_psutil(processes: Processes) -> None:
    """For a sleeping, a stopped and a zombie process, of which only the changes are parsed."""
    process = processes.start()
    reader, plain = FactsReader(psutil.Process(process.pid)), psutil.Process(process.pid)
    for number, status in (
        (None, psutil.STATUS_SLEEPING),
        (signal.SIGSTOP, psutil.STATUS_STOPPED),
        (signal.SIGKILL, psutil.STATUS_ZOMBIE),
    ):
        if number is not None:
            process.send_signal(number)
        wait_until(lambda status=status: plain.status() == status)  # type: ignore[misc]
        facts = reader.read()
        assert (reader.read() is facts) is (status != psutil.STATUS_ZOMBIE)
        ours, theirs = dict(facts), read_elsewhere(plain)
        assert ours.pop("max_open_files", None) in (None, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        assert ours == theirs
    process.wait()
    with pytest.raises(psutil.NoSuchProcess):
        reader.read()


async def test_each_change_of_a_process_is_shown(processes: Processes) -> None:
    """Of one that opens a file, takes memory, starts a thread, and whose limit is lowered."""
    code = (
        "import os, threading\nkept = []\n"
        "for change in (lambda: os.dup(0), lambda: bytearray(2**24), threading.Thread(target=input).start):\n"
        "    os.read(0, 1)\n    kept.append(change())\n"
        f"{SLEEP}"
    )
    process = processes.start(code=code)
    stdin = process.stdin
    assert stdin is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def lower() -> None:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft - 1, hard))

    def go_on() -> None:
        stdin.write(b"x")
        stdin.flush()

    with closing(FactsReader(psutil.Process(process.pid))) as reader:
        wait_until(lambda: reader.read()["status"] == psutil.STATUS_SLEEPING)
        for change, key in (
            (lower, "max_open_files"),
            (go_on, "open_files"),
            (go_on, "resident_memory_bytes"),
            (go_on, "threads"),
        ):
            before = reader.read()[key]
            change()
            wait_until(lambda key=key, before=before: reader.read()[key] != before)  # type: ignore[misc]


async def test_an_answer_is_repeated_while_nothing_changes(processes: Processes) -> None:
    """As the same object, which counts nothing again; also with a heartbeat, and of a process that is stopped."""
    process = processes.start()
    heartbeat = processes.folder / "beat"
    heartbeat.touch()
    pidfile = str(processes.pidfile(process.pid))
    configs: tuple[dict[str, Any], ...] = ({}, {"heartbeat": {"file": str(heartbeat), "max_age": "1m"}})
    for options in configs:
        async with check_of(pidfile=pidfile, **options).connect() as session:
            assert (await session.probe()).counts == {"restarts": 0}
            while (first := await session.probe()).counts:  # noqa: ASYNC110 - until it has started
                await asyncio.sleep(0.01)
            assert await session.probe() is first
            process.send_signal(signal.SIGSTOP)
            wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
            stopped = await session.probe()
            assert (stopped.reason, list(stopped.counts)) == (Reason.STOPPED, ["cpu_seconds"])
            repeated = await session.probe()
            assert (repeated.reason, repeated.details) == (Reason.STOPPED, stopped.details)
            assert await session.probe() is repeated
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)


async def test_a_pidfile_is_read_again_after_any_change(processes: Processes) -> None:
    """Of a file that is not read again while nothing changes: also in place, with the same size and an old time."""
    first, second = (processes.start().pid for _ in range(2))
    path = processes.folder / "same-size.pid"
    path.write_text(f"{first:010}\n")
    pidfile = Pidfile(path, timeout=5.0)
    await asyncio.sleep(1.1)  # from then on, its time tells whether it has changed
    for _ in range(2):
        assert await pidfile.successor_of(first) is None
    is_local = pidfile.still_names(first)  # depends on the file system
    assert not pidfile.still_names(second)
    before = path.stat()
    path.write_text(f"{second:010}\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not pidfile.still_names(first)
    for _ in range(2):
        assert await pidfile.successor_of(first) == second
    assert not pidfile.still_names(second)  # it was written a moment ago, so its time proves nothing
    await asyncio.sleep(1.1)
    await pidfile.successor_of(second)
    assert pidfile.still_names(second) == is_local
    path.write_text(f"{first:010}\n")
    assert await pidfile.successor_of(second) == first
    path.unlink()
    assert not pidfile.still_names(first)
    with pytest.raises(Failure, match="does not exist"):
        await pidfile.find()


async def test_that_a_pidfile_has_no_process_is_known_without_waiting(processes: Processes) -> None:
    """Of a file that is absent, empty or names a dead process. Where it is known, `find` finds none either."""
    dead, alive = processes.start(), processes.start()
    dead.kill()
    dead.wait()
    path = processes.folder / "program.pid"
    pidfile = Pidfile(path, timeout=5.0)
    assert not pidfile.has_no_process()  # nothing is known yet

    async def is_known() -> bool:
        for _ in range(2):
            with pytest.raises(Failure):
                await pidfile.find()
        return pidfile.has_no_process()

    is_local = await is_known()  # depends on the file system
    for content in (f"{dead.pid}\n", "\n", "no number\n"):
        path.write_text(content)
        assert not pidfile.has_no_process()  # it was written a moment ago, so its time proves nothing
        await asyncio.sleep(1.1)
        assert await is_known() == is_local
    path.write_text(f"{alive.pid}\n")
    await asyncio.sleep(1.1)
    assert await pidfile.find() == alive.pid
    assert not pidfile.has_no_process()
    alive.kill()
    alive.wait()
    assert pidfile.has_no_process() == is_local


async def test_each_metric_has_a_detail_or_a_count_as_its_source(processes: Processes) -> None:
    """Every counter starts at the first or second probe."""
    heartbeat = processes.folder / "beat"
    heartbeat.touch()
    check = check_of(
        pidfile=str(processes.pidfile(processes.start().pid)),
        heartbeat={"file": str(heartbeat), "max_age": "1m"},
    )
    async with check.connect() as session:
        first = await session.probe()
        os.utime(heartbeat, (time.time() - 5,) * 2)
        second = await session.probe()
    for metric in METRICS:
        assert metric.source in {**second.details, **first.counts, **second.counts}


async def test_cpu_time_is_counted_from_probe_to_probe(processes: Processes) -> None:
    """The counter adds up the CPU time of the process, from the first probe on."""
    process = processes.start(code="while True: pass")
    check = check_of(pidfile=str(processes.pidfile(process.pid)))
    async with check.connect() as session:
        first = await session.probe()
        assert "cpu_seconds" not in first.counts
        spent = psutil.Process(process.pid).cpu_times().user
        wait_until(lambda: psutil.Process(process.pid).cpu_times().user >= spent + 0.05)
        second = await session.probe()
    assert second.counts["cpu_seconds"] >= 0.04


async def test_a_process_is_found_by_its_name(processes: Processes) -> None:
    """The name is what ps shows as comm."""
    process = processes.start("rare-bird")
    assert (await probe(check_of(name="rare-bird"))).details["pid"] == process.pid


async def test_a_name_longer_than_the_kernel_keeps_is_compared_in_full(processes: Processes) -> None:
    """Two programs with the same first 15 characters are distinguished."""
    process = processes.start("a-very-long-name-of-a-bird")
    check = check_of(name="a-very-long-name-of-a-bird")
    assert (await probe(check)).details["pid"] == process.pid
    assert (await failure_of(check_of(name="a-very-long-name-of-a-fish"))).reason is Reason.MISSING


async def test_a_process_is_found_by_its_command_line_but_the_exporter_never_finds_itself(
    processes: Processes,
) -> None:
    """The pattern is searched in the arguments joined by spaces."""
    process = processes.start("bird", "--config", "nest.yml")
    assert (await probe(check_of(cmdline=r"bird .*--config nest\.yml$"))).details["pid"] == process.pid
    seeker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SEEK_OURSELVES, f"seeker-{processes.folder}"), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await seeker.communicate()
    assert said.split() == [b"missing"]


async def test_of_a_server_and_its_workers_the_server_is_held(processes: Processes) -> None:
    """It is the oldest match whose parent does not match."""
    code = f"import os; [os.fork() for _ in range(2)]; {SLEEP}"
    process = processes.start("flock", code=code)
    wait_until(lambda: len(children(process.pid)) == 3)
    assert (await probe(check_of(name="flock"))).details["pid"] == process.pid


async def test_of_two_copies_the_older_is_held(processes: Processes) -> None:
    """When it ends, the other one is held, which counts as a restart."""
    old = processes.start("twin")
    await asyncio.sleep(0.03)  # the kernel's clock for this moves in 10 ms
    young = processes.start("twin")
    check = check_of(name="twin")
    assert (await probe(check)).details["pid"] == old.pid
    old.kill()
    old.wait()
    observation = await probe(check)
    assert observation.details["pid"] == young.pid
    assert observation.counts["restarts"] == 1


def entry(pid: int, ppid: int, started: float) -> Entry:
    return Entry(pid, ppid, "bird", b"bird", started, zombie=False)


def test_no_root_or_two_of_the_same_age_are_ambiguous() -> None:
    """The exporter does not guess."""
    assert oldest_root([entry(1, 9, 5.0), entry(2, 9, 5.0)]) is None
    assert oldest_root([entry(1, 2, 5.0), entry(2, 1, 6.0)]) is None
    assert oldest_root([entry(1, 9, 5.0), entry(2, 1, 1.0), entry(3, 9, 4.0)]) == entry(3, 9, 4.0)


# --- not found


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("no number", "contains no process ID, but 'no number'"),
        ("-1", "contains no process ID, but '-1'"),
        ("0", "contains no process ID, but '0'"),
        ("99999999999", "contains no process ID"),
        ("\x00\x01", "contains no process ID"),
    ],
)
async def test_a_pidfile_without_a_process_id_is_missing(tmp_path: Path, content: str, reported: str) -> None:
    """The message shows what the file contains."""
    path = tmp_path / "bot.pid"
    path.write_text(content)
    failure = await failure_of(check_of(pidfile=str(path)))
    assert failure.reason is Reason.MISSING
    assert reported in failure.message


async def test_an_absent_pidfile_a_folder_and_a_pipe_are_missing(tmp_path: Path) -> None:
    """A named pipe without a writer does not block the exporter."""
    for path, reported in ((tmp_path / "absent", "does not exist"), (tmp_path, "Is a directory")):
        failure = await failure_of(check_of(pidfile=str(path)))
        assert (failure.reason, reported in failure.message) == (Reason.MISSING, True)
    os.mkfifo(tmp_path / "pipe")
    assert (await failure_of(check_of(pidfile=str(tmp_path / "pipe")))).reason is Reason.MISSING


async def test_a_pidfile_that_names_no_process_or_only_a_thread_is_missing(processes: Processes) -> None:
    """The id of a thread is not the id of a process."""
    process = processes.start()
    process.kill()
    process.wait()
    failure = await failure_of(check_of(pidfile=str(processes.pidfile(process.pid))))
    assert (failure.reason, "does not exist" in failure.message) == (Reason.MISSING, True)

    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        failure = await failure_of(check_of(pidfile=str(processes.pidfile(thread.native_id))))
    finally:
        done.set()
        thread.join()
    assert failure.reason is Reason.MISSING


async def test_a_process_id_that_was_reused_is_recognised_by_its_age(processes: Processes) -> None:
    """A process that started after the pidfile was written did not write it."""
    process = processes.start()
    check = check_of(pidfile=str(processes.pidfile(process.pid, age=3600)))
    failure = await failure_of(check)
    assert failure.reason is Reason.MISSING
    assert "stale: it was written 60 min before" in failure.message
    assert not await check.present()
    processes.pidfile(process.pid, age=5)  # clocks are set now and then
    assert (await probe(check)).reason is None


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a file system in memory")
async def test_a_pidfile_in_memory_that_is_older_than_the_boot_is_not_stale(
    processes: Processes,
) -> None:
    """On a board without a battery, the clock starts in the past and is set later."""
    process = processes.start()
    path = Path("/dev/shm") / f"connection-exporter-test-{process.pid}.pid"
    try:
        path.write_text(str(process.pid))
        os.utime(path, (1000.0, 1000.0))
        assert (await probe(check_of(pidfile=str(path)))).reason is None
    finally:
        path.unlink()


async def test_a_pidfile_without_read_permission_is_permission(processes: Processes) -> None:
    """It is not `missing`. Root can read everything, so the test runs under another account meanwhile."""
    path = processes.pidfile(1)
    path.chmod(0)
    we = os.geteuid()
    os.seteuid(we or 65534)
    try:
        assert (await failure_of(check_of(pidfile=str(path)))).reason is Reason.PERMISSION
    finally:
        os.seteuid(we)


async def test_a_process_of_another_user_is_held_although_its_files_are_hidden(processes: Processes) -> None:
    """Process 1 belongs to root: details without permission are absent, and the answer is good."""
    observation = await probe(check_of(pidfile=str(processes.pidfile(1))))
    assert observation.reason is None
    assert "resident_memory_bytes" in observation.details
    assert ("open_files" in observation.details) or os.geteuid() != 0


async def test_an_unknown_name_or_command_line_is_missing() -> None:
    """The message says what was looked for."""
    failure = await failure_of(check_of(name="no-such-bird"))
    assert (failure.reason, "'no-such-bird'" in failure.message) == (Reason.MISSING, True)
    assert (await failure_of(check_of(cmdline="^no such (bird|fish)$"))).reason is Reason.MISSING


# --- ends


async def test_a_kill_is_noticed_immediately_and_reported_with_its_signal(processes: Processes) -> None:
    """Whether or not the parent has collected the process."""
    process = processes.start()
    async with check_of(pidfile=str(processes.pidfile(process.pid))).connect() as session:
        await session.probe()
        failure, seconds = await end_of(session, process.kill)
        assert failure.reason is Reason.EXIT
        assert failure.message == f"process {process.pid} was killed by SIGKILL"
        assert seconds < 5, "it was polled"
        with pytest.raises(Failure, match="SIGKILL") as raised:
            await session.probe()
    assert raised.value.reason is Reason.EXIT


async def test_an_exit_is_reported_with_its_status(processes: Processes) -> None:
    """Status 0 is also an exit."""
    for status in (0, 3):
        process = processes.start(code=f"import os; os.read(0, 1); os._exit({status})")
        async with check_of(pidfile=str(processes.pidfile(process.pid))).connect() as session:
            assert process.stdin is not None
            os.write(process.stdin.fileno(), b"x")
            failure = await asyncio.wait_for(session.lost, 5)
        assert failure.reason is Reason.EXIT
        assert failure.message == f"process {process.pid} exited with status {status}"


async def test_how_a_process_ended_is_known_after_its_parent_collected_it(processes: Processes) -> None:
    """From Linux 6.15 on; before, it is only known that the process has ended."""
    child = (
        f"import os, sys, subprocess as s; c = s.Popen([sys.executable, '-c', {SLEEP!r}]); c.wait(); {SLEEP}"
    )
    parent = processes.start(code=child)
    wait_until(lambda: bool(children(parent.pid)))
    (grandchild,) = children(parent.pid)
    watched = process_watch.watch(grandchild.pid)
    grandchild.kill()
    wait_until(lambda: not psutil.pid_exists(grandchild.pid))
    assert watched.ended
    assert watched.how() in ("was killed by SIGKILL", "has ended")
    watched.close()
    watched.close()


def test_an_end_is_noticed_on_uvloop(processes: Processes) -> None:
    """Both event loops can wait for a pidfd."""

    async def scenario() -> tuple[Failure, float]:
        process = processes.start()
        async with check_of(pidfile=str(processes.pidfile(process.pid))).connect() as session:
            await session.probe()
            return await end_of(session, process.kill)

    failure, seconds = uvloop.run(scenario())
    assert failure.reason is Reason.EXIT
    assert seconds < 5, "it was polled"


async def test_a_zombie_has_no_session(processes: Processes) -> None:
    """By pidfile and by name; the message names the parent, which has to collect it."""
    process = processes.start("undead")
    process.kill()
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    for check in (check_of(pidfile=str(processes.pidfile(process.pid))), check_of(name="undead")):
        failure = await failure_of(check)
        assert failure.reason is Reason.ZOMBIE
        assert f"its parent {os.getpid()}" in failure.message
        assert not await check.present()


async def test_the_end_of_a_process_without_its_main_thread_is_noticed(processes: Processes) -> None:
    """/proc shows a zombie while other threads run, but the pidfd is not readable yet."""
    code = f"import ctypes, threading; threading.Thread(target=lambda: exec({SLEEP!r})).start(); "
    process = processes.start(code=code + "ctypes.CDLL(None).syscall(60, 0)")
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    async with check_of(pidfile=str(processes.pidfile(process.pid))).connect() as session:
        assert (await session.probe()).reason is None
        failure, _ = await end_of(session, process.kill)
    assert failure.reason is Reason.EXIT


# --- hangs


async def test_a_stopped_process_is_unhealthy_until_it_continues(processes: Processes) -> None:
    """It exists but does nothing."""
    process = processes.start()
    async with check_of(pidfile=str(processes.pidfile(process.pid))).connect() as session:
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        observation = await session.probe()
        assert (observation.reason, "SIGSTOP" in observation.message) == (Reason.STOPPED, True)
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED)
        assert (await session.probe()).reason is None
        assert not session.lost.done()


async def test_a_heartbeat_that_is_too_old_is_unhealthy(processes: Processes) -> None:
    """A process that has just started has `max_age` for its first beat."""
    heartbeat = processes.folder / "beat"
    process = processes.start()
    check = check_of(
        pidfile=str(processes.pidfile(process.pid)), heartbeat={"file": str(heartbeat), "max_age": "200ms"}
    )
    async with check.connect() as session:
        assert (await session.probe()).reason is None
        await asyncio.sleep(1.3)  # the kernel tells when a process began to the second
        absent = await session.probe()
        assert (absent.reason, "does not exist" in absent.message) == (Reason.HEARTBEAT, True)
        heartbeat.touch()
        assert (await session.probe()).reason is None
        os.utime(heartbeat, (time.time() - 100,) * 2)
        old = await session.probe()
    assert old.reason is Reason.HEARTBEAT
    assert "s ago, more than max_age 0.2 s" in old.message


async def test_a_heartbeat_from_the_future_ages_from_when_it_is_first_seen(processes: Processes) -> None:
    """Neither a file server whose clock is ahead, nor a clock that was set back, hides that a process hangs."""
    heartbeat = processes.folder / "beat"
    process = processes.start()
    heartbeat.touch()
    os.utime(heartbeat, (time.time() + 3600,) * 2)
    check = check_of(
        pidfile=str(processes.pidfile(process.pid)), heartbeat={"file": str(heartbeat), "max_age": "200ms"}
    )
    async with check.connect() as session:
        assert (await session.probe()).reason is None
        await asyncio.sleep(1.3)  # the kernel tells when a process began to the second
        assert (await session.probe()).reason is Reason.HEARTBEAT
        os.utime(heartbeat, (time.time() + 3601,) * 2)
        assert (await session.probe()).reason is None


# --- restarts


async def test_every_new_process_counts_as_one_restart(processes: Processes) -> None:
    """However many probes and sessions one process has."""
    check = check_of(pidfile=str(processes.folder / "program.pid"))
    counted = 0.0
    for _ in range(4):
        process = processes.start()
        processes.pidfile(process.pid)
        for _ in range(2):
            async with check.connect() as session:
                for _ in range(2):
                    counted += (await session.probe()).counts.get("restarts", 0)
        process.kill()
        process.wait()
    assert counted == 3


async def test_a_pidfile_that_names_another_process_ends_the_session(processes: Processes) -> None:
    """A bot that hands over to a new process rewrites the pidfile and may live on for a while."""
    old, new = processes.start(), processes.start()
    async with check_of(pidfile=str(processes.pidfile(old.pid))).connect() as session:
        await session.probe()
        (processes.folder / "program.pid").unlink()
        assert (await session.probe()).reason is None  # alive is alive
        processes.pidfile(new.pid)
        with pytest.raises(Failure, match=f"names process {new.pid} now") as raised:
            await session.probe()
    assert raised.value.reason is Reason.EXIT


async def test_the_exporter_looks_for_an_absent_process_between_attempts(processes: Processes) -> None:
    """By pidfile every 250 ms, by name or command line every `retry_delay`."""
    by_pidfile = check_of(pidfile=str(processes.folder / "program.pid"))
    by_name = check_of(name="late-bird", retry_delay="3s")
    by_command = check_of(cmdline="late-bird", retry_delay="3s")
    checks = (by_pidfile, by_name, by_command)
    assert all(isinstance(check, LooksOut) for check in checks)
    assert [check.look_every for check in checks] == [0.25, 3.0, 3.0]
    assert not any([await check.present() for check in checks])
    process = processes.start("late-bird")
    processes.pidfile(process.pid)
    assert all([await check.present() for check in checks])
    process.kill()
    process.wait()
    assert not any([await check.present() for check in checks])


async def test_an_absent_process_is_looked_for_although_no_descriptor_is_left(processes: Processes) -> None:
    """Nothing is found meanwhile, and the next look finds it."""
    process = processes.start()
    path = processes.pidfile(process.pid)
    check = check_of(pidfile=str(path))
    assert await check.present()
    await asyncio.sleep(1.05)  # until the file is settled, and is not read again
    assert await check.present()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert not await check.present()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await check.present()


# --- units


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put our own `systemctl`, a shell script of one line, first in PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "systemctl"

    def does(line: str) -> None:
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)

    return does


def shown(pid: int, restarts: int, state: str = "active", sub: str = "running") -> str:
    facts = f"MainPID={pid}\\nNRestarts={restarts}\\nLoadState=loaded\\nActiveState={state}\\nSubState={sub}"
    return f"printf '{facts}\\n'"


async def test_restarts_of_a_unit_are_those_that_systemd_counts(
    processes: Processes, systemd: Callable[[str], None]
) -> None:
    """Including those that we did not see, and a manual start, after which systemd counts from 0."""
    check = check_of(unit="bot.service")
    counted = []
    for restarts in (4, 4, 7, 0):
        process = processes.start()
        systemd(shown(process.pid, restarts))
        counted.append((await probe(check)).counts["restarts"])
    assert counted == [0, 1, 3, 1]
    assert check.address == "bot.service"
    assert not await check.present()


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("printf 'LoadState=not-found\\nMainPID=0\\n'", "systemd has no unit bot.service"),
        (shown(0, 2, "failed", "failed"), "is failed (failed) and has no main process"),
        (shown(0, 2, "activating", "auto-restart"), "is activating (auto-restart)"),
        ("echo 'System has not been booted with systemd' >&2; exit 1", "System has not been booted"),
        (shown(2**22 + 5, 0), "there is no process"),
        ("echo rubbish", "has no main process"),
    ],
)
async def test_a_unit_without_a_process_is_missing(
    systemd: Callable[[str], None], line: str, reported: str
) -> None:
    """The message contains what systemd reports."""
    systemd(line)
    failure = await failure_of(check_of(unit="bot.service"))
    assert failure.reason is Reason.MISSING
    assert reported in failure.message


async def test_without_systemd_a_unit_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to use instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    failure = await failure_of(check_of(unit="bot.service"))
    assert failure.reason is Reason.MISSING
    assert "use pidfile, name or cmdline" in failure.message


async def test_a_systemctl_that_hangs_ends_with_the_attempt(systemd: Callable[[str], None]) -> None:
    """The cancellation leaves no process behind, and its cause is the failure."""
    systemd("exec sleep 60")
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0.3):
            await probe(check_of(unit="bot.service"))
    failure = waited_for(raised.value)
    assert failure is not None
    assert failure.reason is Reason.TIMEOUT
    assert not [child for child in children(os.getpid()) if child.name() == "sleep"]


# --- ourselves


async def test_sessions_leave_no_file_descriptor_behind(processes: Processes) -> None:
    """Whether the process is found or not."""
    process = processes.start()
    good, bad = check_of(pidfile=str(processes.pidfile(process.pid))), check_of(name="no-such-bird")
    before = psutil.Process().num_fds()
    for _ in range(50):
        await probe(good)
        await failure_of(bad)
    assert psutil.Process().num_fds() == before


async def test_without_file_descriptors_a_held_process_is_still_monitored(processes: Processes) -> None:
    """The session continues; a new attempt reports the exporter's own problem."""
    process = processes.start()
    check = check_of(pidfile=str(processes.pidfile(process.pid)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with check.connect() as session:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            observation = await session.probe()
            failure = await failure_of(check)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert observation.reason is None
        assert (failure.reason, "file descriptors" in failure.message) == (Reason.INTERNAL, True)
        assert (await end_of(session, process.kill))[0].reason is Reason.EXIT


async def test_files_of_processes_stay_open_only_while_there_are_many_descriptors(
    processes: Processes,
) -> None:
    """They take a third of the limit at most: 10,000 sessions leave room for scrapes. All the same is shown."""
    process = psutil.Process(processes.start().pid)
    process.suspend()  # so that nothing changes
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = psutil.Process().num_fds()
    readers = [FactsReader(process) for _ in range(20)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 * (opened + 20), hard))
    try:
        facts = [reader.read() for reader in readers for _ in range(2)]
        kept = psutil.Process().num_fds() - opened
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for reader in readers:
            reader.close()
    assert 10 <= kept <= 25, "of 40"
    assert facts == [facts[0]] * 40
    assert psutil.Process().num_fds() == opened


async def test_without_pidfds_an_end_is_noticed_by_polling(processes: Processes) -> None:
    """On other systems than Linux, within half a second."""
    process = processes.start()
    watched = process_watch._Polled(process.pid)
    ended = asyncio.Event()
    watched.on_end(ended.set)
    assert not watched.ended
    process.kill()
    await asyncio.wait_for(ended.wait(), 5)
    assert watched.ended
    assert watched.how() == "has ended"
    watched.close()


@pytest.mark.parametrize(
    ("config", "reported"),
    [
        ({}, "exactly one of pidfile, name, cmdline and unit: none is given"),
        ({"name": "a", "unit": "b"}, "name and unit are given"),
        ({"cmdline": "(a"}, "not a valid regular expression"),
        ({"cmdline": "(?=a)"}, "not a valid regular expression"),
        ({"name": "a", "canary": "5m"}, "a process has no canary"),
        ({"name": "a", "heartbeat": {"file": "/x"}}, "max_age"),
    ],
)
def test_errors_in_the_config_are_reported(config: dict[str, Any], reported: str) -> None:
    """Each message says what is wrong."""
    with pytest.raises(ValidationError) as raised:
        ProcessConfig.model_validate({"kind": "process", **config})
    assert reported in str(raised.value)
