"""What stands in a `*_file` is read in the event loop, so nothing that is written there may hold that up."""

import os
from pathlib import Path

import pytest

from exporter.check import Failure
from exporter.checks.secret_file import reading
from exporter.config.secret import read_secret
from exporter.core.health import Reason


@pytest.mark.parametrize("ends", ["", "\n", "\r\n", "\n\n"])
def test_the_line_breaks_at_the_end_are_no_part_of_it(tmp_path: Path, ends: str) -> None:
    """Editors and `echo` put them there; what is within stays."""
    file = tmp_path / "secret"
    file.write_bytes(f" two\r\nlines {ends}".encode())
    assert read_secret(file) == " two\r\nlines "


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """Kubernetes rotates secrets by such links."""
    (tmp_path / "data").write_text("secret")
    (tmp_path / "secret").symlink_to("data")
    assert read_secret(tmp_path / "secret") == "secret"


def test_a_named_pipe_is_told_and_not_waited_for(tmp_path: Path) -> None:
    """Nobody will ever write into it."""
    os.mkfifo(tmp_path / "secret")
    with pytest.raises(Failure) as raised, reading("password_file"):
        read_secret(tmp_path / "secret")
    assert raised.value.reason is Reason.AUTH
    assert raised.value.message == "password_file cannot be read: Not a regular file"


def test_what_has_no_end_is_not_read_to_it(tmp_path: Path) -> None:
    """A device, and a file of more than a megabyte."""
    with pytest.raises(OSError, match="Not a regular file"):
        read_secret(Path("/dev/zero"))
    (tmp_path / "secret").write_bytes(b"x" * 2_000_000)
    with pytest.raises(OSError, match="Larger than"):
        read_secret(tmp_path / "secret")
