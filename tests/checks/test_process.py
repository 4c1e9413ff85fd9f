"""Processes come, hang, die, stay behind as zombies and come again, and the check tells which."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from pydantic import ValidationError

from exporter.attempt import waited_for
from exporter.check import Failure, LooksOut, Observation, Session
from exporter.checks import process_end
from exporter.checks.process import ProcessCheck
from exporter.checks.process_facts import METRICS
from exporter.checks.process_table import Entry, oldest_root
from exporter.config.kinds.process import ProcessConfig
from exporter.core.health import Reason
from exporter.net import Network

SLEEP = "import time; time.sleep(60)"
SEEK_OURSELVES = """
import asyncio, sys
from exporter.check import Failure
from exporter.checks.process import ProcessCheck
from exporter.config.kinds.process import ProcessConfig
from exporter.net import Network

async def seek():
    config = ProcessConfig.model_validate({"kind": "process", "cmdline": sys.argv[1]})
    async with ProcessCheck(config, Network()).connect():
        print("found")

try:
    asyncio.run(seek())
except Failure as failure:
    print(failure.reason)
"""


class Zoo:
    """Keeps processes under chosen names, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, name: str = "animal", *arguments: str, code: str = SLEEP) -> subprocess.Popen[bytes]:
        program = self.folder / name
        if not program.exists():
            program.symlink_to(sys.executable)
        process = subprocess.Popen([program, "-I", "-S", "-c", code, *arguments], stdin=subprocess.PIPE)
        self._all.append(process)
        wait_until(lambda: runs(program, process.pid))
        return process

    def pidfile(self, pid: int, *, age: float = 0.0) -> Path:
        path = self.folder / "animal.pid"
        path.write_text(f"{pid}\n")
        os.utime(path, (time.time() - age,) * 2)
        return path

    def close(self) -> None:
        for process in self._all:
            for child in children(process.pid):
                child.kill()
            process.kill()
            process.communicate()


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Zoo]:
    zoo = Zoo(tmp_path)
    yield zoo
    zoo.close()


def runs(program: Path, pid: int) -> bool:
    """Whether exec is over: until then a new process looks like us, and for a moment like nothing."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(os.fsencode(program))


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_until(condition: Callable[[], bool], *, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)


def check_of(**config: Any) -> ProcessCheck:
    return ProcessCheck(ProcessConfig.model_validate({"kind": "process", **config}), Network())


async def probe(check: ProcessCheck) -> Observation:
    async with check.connect() as session:
        return await session.probe()


async def failure_of(check: ProcessCheck) -> Failure:
    with pytest.raises(Failure) as raised:
        await probe(check)
    return raised.value


async def death_of(session: Session, kill: Callable[[], None]) -> tuple[Failure, float]:
    began = time.monotonic()
    kill()
    failure = await asyncio.wait_for(session.lost, 5)
    return failure, time.monotonic() - began


# --- found, and measured


async def test_a_process_is_found_by_its_pidfile_and_measured(zoo: Zoo) -> None:
    """A good answer holds what the kernel knows of the process."""
    process = zoo.start()
    check = check_of(pidfile=str(zoo.pidfile(process.pid)))
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


async def test_each_metric_shows_a_detail_or_a_count_that_there_is(zoo: Zoo) -> None:
    """No metric without a source, and every counter begins at the first or second probe."""
    heartbeat = zoo.folder / "beat"
    heartbeat.touch()
    check = check_of(
        pidfile=str(zoo.pidfile(zoo.start().pid)), heartbeat={"file": str(heartbeat), "max_age": "1m"}
    )
    async with check.connect() as session:
        await session.probe()
        observation = await session.probe()
    for metric in METRICS:
        assert metric.source in {**observation.details, **observation.counts}


async def test_cpu_time_is_counted_from_probe_to_probe(zoo: Zoo) -> None:
    """The counter moves with the process' own clock, from the first look at it."""
    process = zoo.start(code="while True: pass")
    check = check_of(pidfile=str(zoo.pidfile(process.pid)))
    async with check.connect() as session:
        first = await session.probe()
        assert "cpu_seconds" not in first.counts
        spent = psutil.Process(process.pid).cpu_times().user
        wait_until(lambda: psutil.Process(process.pid).cpu_times().user >= spent + 0.05)
        second = await session.probe()
    assert second.counts["cpu_seconds"] >= 0.04


async def test_a_process_is_found_by_its_name(zoo: Zoo) -> None:
    """The name is what ps shows as comm."""
    process = zoo.start("rare-bird")
    assert (await probe(check_of(name="rare-bird"))).details["pid"] == process.pid


async def test_a_name_longer_than_the_kernel_keeps_is_compared_in_full(zoo: Zoo) -> None:
    """Two programs with the same first 15 characters are told apart."""
    process = zoo.start("a-very-long-name-of-a-bird")
    check = check_of(name="a-very-long-name-of-a-bird")
    assert (await probe(check)).details["pid"] == process.pid
    assert (await failure_of(check_of(name="a-very-long-name-of-a-fish"))).reason is Reason.MISSING


async def test_a_process_is_found_by_its_command_line_but_never_we_ourselves(zoo: Zoo) -> None:
    """The pattern is searched for in the words joined by spaces; our own command line is left out."""
    process = zoo.start("bird", "--config", "nest.yml")
    assert (await probe(check_of(cmdline=r"bird .*--config nest\.yml$"))).details["pid"] == process.pid
    seeker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SEEK_OURSELVES, f"seeker-{zoo.folder}"), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await seeker.communicate()
    assert said.split() == [b"missing"]


async def test_of_a_server_and_its_workers_the_server_is_held(zoo: Zoo) -> None:
    """The oldest match whose parent is no match."""
    code = f"import os; [os.fork() for _ in range(2)]; {SLEEP}"
    process = zoo.start("flock", code=code)
    wait_until(lambda: len(children(process.pid)) == 3)
    assert (await probe(check_of(name="flock"))).details["pid"] == process.pid


async def test_of_two_copies_the_older_is_held(zoo: Zoo) -> None:
    """And when it ends, the other one, which counts as a restart."""
    old = zoo.start("twin")
    await asyncio.sleep(0.03)  # the kernel's clock for this moves in 10 ms
    young = zoo.start("twin")
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
    """There is no guessing between equals."""
    assert oldest_root([entry(1, 9, 5.0), entry(2, 9, 5.0)]) is None
    assert oldest_root([entry(1, 2, 5.0), entry(2, 1, 6.0)]) is None
    assert oldest_root([entry(1, 9, 5.0), entry(2, 1, 1.0), entry(3, 9, 4.0)]) == entry(3, 9, 4.0)


# --- not found


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("no number", "holds no process id, but 'no number'"),
        ("-1", "holds no process id, but '-1'"),
        ("0", "holds no process id, but '0'"),
        ("99999999999", "holds no process id"),
        ("\x00\x01", "holds no process id"),
    ],
)
async def test_a_pidfile_without_a_process_id_is_missing(tmp_path: Path, content: str, told: str) -> None:
    """The message says what stands there."""
    path = tmp_path / "bot.pid"
    path.write_text(content)
    failure = await failure_of(check_of(pidfile=str(path)))
    assert failure.reason is Reason.MISSING
    assert told in failure.message


async def test_an_absent_pidfile_a_folder_and_a_pipe_are_missing(tmp_path: Path) -> None:
    """A named pipe without a writer does not hold us up."""
    for path, told in ((tmp_path / "absent", "is not there"), (tmp_path, "Is a directory")):
        failure = await failure_of(check_of(pidfile=str(path)))
        assert (failure.reason, told in failure.message) == (Reason.MISSING, True)
    os.mkfifo(tmp_path / "pipe")
    assert (await failure_of(check_of(pidfile=str(tmp_path / "pipe")))).reason is Reason.MISSING


async def test_a_pidfile_that_names_no_process_or_a_mere_thread_is_missing(zoo: Zoo) -> None:
    """The number of a thread is not that of a process."""
    process = zoo.start()
    process.kill()
    process.wait()
    failure = await failure_of(check_of(pidfile=str(zoo.pidfile(process.pid))))
    assert (failure.reason, "not there" in failure.message) == (Reason.MISSING, True)

    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        failure = await failure_of(check_of(pidfile=str(zoo.pidfile(thread.native_id))))
    finally:
        done.set()
        thread.join()
    assert failure.reason is Reason.MISSING


async def test_a_number_that_went_to_another_program_is_told_by_its_age(zoo: Zoo) -> None:
    """A process that began after its pidfile was written did not write it."""
    process = zoo.start()
    check = check_of(pidfile=str(zoo.pidfile(process.pid, age=3600)))
    failure = await failure_of(check)
    assert failure.reason is Reason.MISSING
    assert "stale: it was written 60 min before" in failure.message
    assert not check.present()
    zoo.pidfile(process.pid, age=5)  # clocks are set now and then
    assert (await probe(check)).reason is None


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a file system in memory")
async def test_a_file_in_memory_that_is_older_than_the_boot_shows_that_the_clock_was_set(zoo: Zoo) -> None:
    """A board without a clock begins each boot in the past; its pidfile is believed."""
    process = zoo.start()
    path = Path("/dev/shm") / f"connection-exporter-test-{process.pid}.pid"
    try:
        path.write_text(str(process.pid))
        os.utime(path, (1000.0, 1000.0))
        assert (await probe(check_of(pidfile=str(path)))).reason is None
    finally:
        path.unlink()


async def test_a_pidfile_that_may_not_be_read_is_a_matter_of_permission(zoo: Zoo) -> None:
    """Not the same as missing. Root may read everything, and so is somebody else meanwhile."""
    path = zoo.pidfile(1)
    path.chmod(0)
    we = os.geteuid()
    os.seteuid(we or 65534)
    try:
        assert (await failure_of(check_of(pidfile=str(path)))).reason is Reason.PERMISSION
    finally:
        os.seteuid(we)


async def test_a_process_of_another_user_is_held_though_its_files_are_hidden(zoo: Zoo) -> None:
    """Process 1 is root's: what may not be read is absent, and the answer is good."""
    observation = await probe(check_of(pidfile=str(zoo.pidfile(1))))
    assert observation.reason is None
    assert "resident_memory_bytes" in observation.details
    assert ("open_files" in observation.details) or os.geteuid() != 0


async def test_a_name_and_a_command_line_that_nobody_has_are_missing() -> None:
    """The message says what was looked for."""
    failure = await failure_of(check_of(name="no-such-bird"))
    assert (failure.reason, "'no-such-bird'" in failure.message) == (Reason.MISSING, True)
    assert (await failure_of(check_of(cmdline="^no such (bird|fish)$"))).reason is Reason.MISSING


# --- dies


async def test_a_kill_is_noticed_at_once_and_told_with_its_signal(zoo: Zoo) -> None:
    """Milliseconds, whoever the parent is and whether it has collected the process or not."""
    process = zoo.start()
    async with check_of(pidfile=str(zoo.pidfile(process.pid))).connect() as session:
        await session.probe()
        failure, seconds = await death_of(session, process.kill)
        assert failure.reason is Reason.EXIT
        assert failure.message == f"process {process.pid} was killed by SIGKILL"
        assert seconds < 0.05
        with pytest.raises(Failure, match="SIGKILL") as raised:
            await session.probe()
    assert raised.value.reason is Reason.EXIT


async def test_an_exit_is_told_with_its_status(zoo: Zoo) -> None:
    """Exit 0 is an end like any other."""
    for status in (0, 3):
        process = zoo.start(code=f"import os; os.read(0, 1); os._exit({status})")
        async with check_of(pidfile=str(zoo.pidfile(process.pid))).connect() as session:
            assert process.stdin is not None
            os.write(process.stdin.fileno(), b"x")
            failure = await asyncio.wait_for(session.lost, 5)
        assert failure.reason is Reason.EXIT
        assert failure.message == f"process {process.pid} exited with status {status}"


async def test_what_became_of_a_process_is_known_after_its_parent_collected_it(zoo: Zoo) -> None:
    """From Linux 6.15 on; before that, only that it has ended."""
    child = (
        f"import os, sys, subprocess as s; c = s.Popen([sys.executable, '-c', {SLEEP!r}]); c.wait(); {SLEEP}"
    )
    parent = zoo.start(code=child)
    wait_until(lambda: bool(children(parent.pid)))
    (grandchild,) = children(parent.pid)
    watched = process_end.watch(grandchild.pid)
    grandchild.kill()
    wait_until(lambda: not psutil.pid_exists(grandchild.pid))
    assert watched.ended
    assert watched.how() in ("was killed by SIGKILL", "has ended")
    watched.close()
    watched.close()


def test_a_death_is_noticed_on_uvloop_too(zoo: Zoo) -> None:
    """A pidfd is a file descriptor like any other to both loops."""

    async def scenario() -> tuple[Failure, float]:
        process = zoo.start()
        async with check_of(pidfile=str(zoo.pidfile(process.pid))).connect() as session:
            await session.probe()
            return await death_of(session, process.kill)

    failure, seconds = uvloop.run(scenario())
    assert failure.reason is Reason.EXIT
    assert seconds < 0.05


async def test_a_zombie_is_no_session(zoo: Zoo) -> None:
    """By pidfile and by name; the message names the parent, whose fault it is."""
    process = zoo.start("undead")
    process.kill()
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    for check in (check_of(pidfile=str(zoo.pidfile(process.pid))), check_of(name="undead")):
        failure = await failure_of(check)
        assert failure.reason is Reason.ZOMBIE
        assert f"its parent {os.getpid()}" in failure.message
        assert not check.present()


async def test_a_process_whose_first_thread_has_ended_is_alive(zoo: Zoo) -> None:
    """/proc calls it a zombie while its other threads work; the pidfd knows better."""
    code = f"import ctypes, threading; threading.Thread(target=lambda: exec({SLEEP!r})).start(); "
    process = zoo.start(code=code + "ctypes.CDLL(None).syscall(60, 0)")
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    async with check_of(pidfile=str(zoo.pidfile(process.pid))).connect() as session:
        assert (await session.probe()).reason is None
        failure, _ = await death_of(session, process.kill)
    assert failure.reason is Reason.EXIT


# --- hangs


async def test_a_stopped_process_is_unhealthy_until_it_goes_on(zoo: Zoo) -> None:
    """It is there, and does nothing."""
    process = zoo.start()
    async with check_of(pidfile=str(zoo.pidfile(process.pid))).connect() as session:
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        observation = await session.probe()
        assert (observation.reason, "SIGSTOP" in observation.message) == (Reason.STOPPED, True)
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED)
        assert (await session.probe()).reason is None
        assert not session.lost.done()


async def test_a_heartbeat_that_is_too_old_is_unhealthy(zoo: Zoo) -> None:
    """A process that has just begun has max_age for its first beat."""
    heartbeat = zoo.folder / "beat"
    process = zoo.start()
    check = check_of(
        pidfile=str(zoo.pidfile(process.pid)), heartbeat={"file": str(heartbeat), "max_age": "200ms"}
    )
    async with check.connect() as session:
        assert (await session.probe()).reason is None
        await asyncio.sleep(1.3)  # the kernel tells when a process began to the second
        absent = await session.probe()
        assert (absent.reason, "is not there" in absent.message) == (Reason.HEARTBEAT, True)
        heartbeat.touch()
        assert (await session.probe()).reason is None
        os.utime(heartbeat, (time.time() - 100,) * 2)
        old = await session.probe()
    assert old.reason is Reason.HEARTBEAT
    assert "s ago, more than max_age 0.2 s" in old.message


# --- comes again


async def test_every_new_process_counts_as_a_restart_once(zoo: Zoo) -> None:
    """However often it is probed, and however many sessions there are with one process."""
    check = check_of(pidfile=str(zoo.folder / "animal.pid"))
    counted = 0.0
    for _ in range(4):
        process = zoo.start()
        zoo.pidfile(process.pid)
        for _ in range(2):
            async with check.connect() as session:
                for _ in range(2):
                    counted += (await session.probe()).counts["restarts"]
        process.kill()
        process.wait()
    assert counted == 3


async def test_a_pidfile_that_names_another_process_ends_the_session(zoo: Zoo) -> None:
    """A bot that hands over to a new process writes the pidfile anew, and may live on for a while."""
    old, new = zoo.start(), zoo.start()
    async with check_of(pidfile=str(zoo.pidfile(old.pid))).connect() as session:
        await session.probe()
        (zoo.folder / "animal.pid").unlink()
        assert (await session.probe()).reason is None  # alive is alive
        zoo.pidfile(new.pid)
        with pytest.raises(Failure, match=f"names process {new.pid} now") as raised:
            await session.probe()
    assert raised.value.reason is Reason.EXIT


async def test_an_absent_process_is_looked_out_for(zoo: Zoo) -> None:
    """By pidfile every 250 ms, by name or command line every retry_delay."""
    by_pidfile = check_of(pidfile=str(zoo.folder / "animal.pid"))
    by_name = check_of(name="late-bird", retry_delay="3s")
    by_command = check_of(cmdline="late-bird", retry_delay="3s")
    checks = (by_pidfile, by_name, by_command)
    assert all(isinstance(check, LooksOut) for check in checks)
    assert [check.look_every for check in checks] == [0.25, 3.0, 3.0]
    assert not any(check.present() for check in checks)
    process = zoo.start("late-bird")
    zoo.pidfile(process.pid)
    assert all(check.present() for check in checks)
    process.kill()
    process.wait()
    assert not any(check.present() for check in checks)


# --- units


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a systemctl of our own first in PATH: what it does is a line of shell."""
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
    zoo: Zoo, systemd: Callable[[str], None]
) -> None:
    """Also those that we did not see; and a start by hand, after which systemd counts from 0."""
    check = check_of(unit="bot.service")
    counted = []
    for restarts in (4, 4, 7, 0):
        process = zoo.start()
        systemd(shown(process.pid, restarts))
        counted.append((await probe(check)).counts["restarts"])
    assert counted == [0, 1, 3, 1]
    assert check.address == "bot.service"
    assert not check.present()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("printf 'LoadState=not-found\\nMainPID=0\\n'", "systemd knows no unit bot.service"),
        (shown(0, 2, "failed", "failed"), "is failed (failed) and has no main process"),
        (shown(0, 2, "activating", "auto-restart"), "is activating (auto-restart)"),
        ("echo 'System has not been booted with systemd' >&2; exit 1", "System has not been booted"),
        (shown(2**22 + 5, 0), "there is no process"),
        ("echo rubbish", "has no main process"),
    ],
)
async def test_a_unit_without_a_process_is_missing(
    systemd: Callable[[str], None], line: str, told: str
) -> None:
    """The message says what systemd says."""
    systemd(line)
    failure = await failure_of(check_of(unit="bot.service"))
    assert failure.reason is Reason.MISSING
    assert told in failure.message


async def test_where_there_is_no_systemd_a_unit_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names what to use instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    failure = await failure_of(check_of(unit="bot.service"))
    assert failure.reason is Reason.MISSING
    assert "use pidfile, name or cmdline" in failure.message


async def test_a_systemctl_that_hangs_is_ended_with_the_attempt(systemd: Callable[[str], None]) -> None:
    """The deadline's cancellation leaves no process, and the reason in its chain of causes."""
    systemd("exec sleep 60")
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0.3):
            await probe(check_of(unit="bot.service"))
    failure = waited_for(raised.value)
    assert failure is not None
    assert failure.reason is Reason.TIMEOUT
    assert not [child for child in children(os.getpid()) if child.name() == "sleep"]


# --- ourselves


async def test_sessions_leave_no_file_descriptor_behind(zoo: Zoo) -> None:
    """Whether they come to be or not."""
    process = zoo.start()
    good, bad = check_of(pidfile=str(zoo.pidfile(process.pid))), check_of(name="no-such-bird")
    before = psutil.Process().num_fds()
    for _ in range(50):
        await probe(good)
        await failure_of(bad)
    assert psutil.Process().num_fds() == before


async def test_without_file_descriptors_a_held_process_is_still_watched(zoo: Zoo) -> None:
    """What worked goes on working; a new attempt says what is wrong with us."""
    process = zoo.start()
    check = check_of(pidfile=str(zoo.pidfile(process.pid)))
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
        assert (await death_of(session, process.kill))[0].reason is Reason.EXIT


async def test_without_pidfds_a_death_is_noticed_by_looking(zoo: Zoo) -> None:
    """Elsewhere than on Linux, within half a second."""
    process = zoo.start()
    watched = process_end._Polled(process.pid)
    ended = asyncio.Event()
    watched.tell(ended.set)
    assert not watched.ended
    process.kill()
    await asyncio.wait_for(ended.wait(), 5)
    assert watched.ended
    assert watched.how() == "has ended"
    watched.close()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "exactly one of pidfile, name, cmdline and unit: none is given"),
        ({"name": "a", "unit": "b"}, "name and unit are given"),
        ({"cmdline": "(a"}, "not a regular expression"),
        ({"cmdline": "(?=a)"}, "not a regular expression"),
        ({"name": "a", "canary": "5m"}, "a process has no canary"),
        ({"name": "a", "heartbeat": {"file": "/x"}}, "max_age"),
    ],
)
def test_mistakes_in_the_config_are_told(config: dict[str, Any], told: str) -> None:
    """Each with what is wrong."""
    with pytest.raises(ValidationError) as raised:
        ProcessConfig.model_validate({"kind": "process", **config})
    assert told in str(raised.value)
