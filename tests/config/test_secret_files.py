"""Reading a `*_file`: in a thread, bounded, and without what editors add to a secret."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from connection_exporter.config.secret import SecretFile, files_of, read_secret
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds import load


@pytest.mark.parametrize("ends", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("begins", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_the_line_breaks_at_the_end_are_removed(
    tmp_path: Path, begins: bytes, ends: str
) -> None:
    """Editors and `echo` add them; everything else stays."""
    file = tmp_path / "secret"
    file.write_bytes(begins + f" two\r\nlines {ends}".encode())
    assert read_secret(file) == " two\r\nlines "


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """Kubernetes rotates secrets by such links."""
    (tmp_path / "data").write_text("secret")
    (tmp_path / "secret").symlink_to("data")
    assert read_secret(tmp_path / "secret") == "secret"


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file or directory"), ("pipe", "Not a regular file"), (b"\xff\xfe", "not UTF-8")],
)
async def test_an_unreadable_file_is_a_failure_that_names_the_key(
    tmp_path: Path, content: bytes | str | None, problem: str
) -> None:
    """A pipe that nobody writes to is not waited for."""
    if content == "pipe":
        os.mkfifo(tmp_path / "secret")
    elif isinstance(content, bytes):
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(Failure) as raised:
        await SecretFile(tmp_path / "secret").read("password_file")
    assert raised.value.reason is Reason.AUTH
    assert raised.value.message == f"password_file cannot be read: {problem}"


def test_a_device_and_a_file_of_megabytes_are_refused(tmp_path: Path) -> None:
    """The limit is 1 MiB."""
    with pytest.raises(OSError, match="Not a regular file"):
        read_secret(Path("/dev/zero"))
    (tmp_path / "secret").write_bytes(b"x" * 2_000_000)
    with pytest.raises(OSError, match="Larger than"):
        read_secret(tmp_path / "secret")


async def test_a_file_is_read_again_each_time_and_the_previous_value_is_remembered(tmp_path: Path) -> None:
    """A server may still echo the previous password after a rotation."""
    file = SecretFile(tmp_path / "secret")
    for value in ("one", "one", "two", "three"):
        file.path.write_text(value + "\n")
        assert await file.read("password_file") == value
    assert file.values == ("three", "two")


async def test_concurrent_reads_of_a_file_that_does_not_respond_share_one_thread(tmp_path: Path) -> None:
    """Each attempt on a dead mount would otherwise leave a thread behind."""
    (tmp_path / "secret").write_text("x")
    release = threading.Event()
    readers: set[int] = set()

    class SlowPath(type(tmp_path)):  # type: ignore[misc]
        def __fspath__(self) -> str:
            readers.add(threading.get_ident())
            release.wait(20)
            return super().__fspath__()  # type: ignore[no-any-return]

    file = SecretFile(SlowPath(tmp_path / "secret"))
    reads = [asyncio.create_task(file.read("password_file")) for _ in range(20)]
    while not readers:  # noqa: ASYNC110 - a thread adds them
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    reads[0].cancel()
    assert len(readers) == 1
    release.set()
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["x"] * 19


def test_every_file_is_found_and_is_relative_to_the_config_file(tmp_path: Path) -> None:
    """In a section, in a list, and under its full name."""
    (tmp_path / "c.yml").write_text(
        "services:\n"
        "  cache: {kind: redis, password_file: secrets/redis, tls: {ca_file: ../ca.pem}}\n"
        '  feed: {kind: websocket, url: "ws://x", on_connect: [{expect: a}, {send_file: /s/hello}]}\n'
        "  bot: {kind: process, pidfile: bot.pid}\n"
    )
    services = load(tmp_path / "c.yml").services
    assert dict(files_of(services["cache"])) == {
        ("password_file",): tmp_path / "secrets/redis",
        ("tls", "ca_file"): tmp_path / "../ca.pem",
    }
    assert dict(files_of(services["feed"])) == {("on_connect", 1, "send_file"): Path("/s/hello")}
    assert services["bot"].address == str(tmp_path / "bot.pid")  # type: ignore[attr-defined]
