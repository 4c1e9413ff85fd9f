"""The mount table: a change is noticed, once, in a mount namespace of its own."""

import resource
import subprocess
import sys

import pytest
from connection_exporter.system import mounts
from connection_exporter.system.mounts import MountTable

_PROGRAM = """
import resource
import subprocess
from connection_exporter.system.mounts import MountTable
table = MountTable()
versions = [table.version(), table.version()]
for command in ("mount -t tmpfs none /mnt", "umount /mnt"):
    subprocess.run(command.split(), check=True)
    versions += [table.version(), table.version()]
print(*map(int, versions))
"""


def test_a_mount_and_an_unmount_are_each_noticed_once() -> None:
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip(f"no mount namespace can be made here: {done.stderr}")
    assert done.stdout.split() == ["0", "0", "1", "1", "2", "2"], done.stderr


def test_without_a_descriptor_the_table_counts_as_changed_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And as soon as there is one again, the kernel is asked."""
    table = MountTable()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        without = table.version()
        monkeypatch.setattr(mounts, "_RECENT", 1e-9)
        assert table.version() != without
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert table.version() == 0
