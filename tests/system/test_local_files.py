"""Which files are on a local file system."""

from pathlib import Path

import pytest
from connection_exporter.system import local_files
from connection_exporter.system.local_files import LocalFiles


def test_all_files_have_to_be_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote file system may stop responding at any time."""
    monkeypatch.setattr(local_files, "file_system", lambda path: path.parts[1])
    for paths, are_local in ((("/tmpfs/a", "/ext4/b"), True), (("/tmpfs/a", "/nfs4/b"), False)):
        files = LocalFiles(*map(Path, paths))
        assert not files.are_local
        files.locate()
        assert files.are_local == are_local


def test_files_are_not_local_while_it_is_looked_up_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look waits if something is mounted over them that does not respond. Nobody else must wait for it too."""
    files = LocalFiles(Path("/it"))
    were_local = []

    def look(_: Path) -> str:
        were_local.append(files.are_local)
        return "tmpfs"

    monkeypatch.setattr(local_files, "file_system", look)
    files.locate()
    files.locate()
    assert were_local == [False, False]
    assert files.are_local
