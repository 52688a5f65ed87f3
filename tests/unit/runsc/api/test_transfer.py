"""The host's side of files that are copied."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from runsc.api.transfer import Entry, Source, Target


def test_a_tree_is_told_folders_first(tmp_path: Path) -> None:
    (tmp_path / "t" / "b").mkdir(parents=True)
    (tmp_path / "t" / "a").write_bytes(b"x")
    (tmp_path / "t" / "a").chmod(0o4750)
    (tmp_path / "t" / "b" / "c").write_bytes(b"y")
    (tmp_path / "t" / "link").symlink_to("/etc")
    source = Source(str(tmp_path / "t"))
    found = [(entry.below, entry.is_dir) for entry in source]
    source.close()

    assert found == [(b"", True), (b"/a", False), (b"/b", True), (b"/b/c", False)]
    source = Source(str(tmp_path / "t" / "a"))
    (only,) = source
    assert (only.below, only.mode, only.is_dir) == (b"", 0o750, False)
    with source.opened(only) as file:
        assert file.read() == b"x"
    source.close()


def test_a_tree_that_changes_while_it_is_copied_leads_nowhere_else(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "secret" / name).mkdir(parents=True)
        (tmp_path / "secret" / name / "f").write_bytes(b"secret")
        (tmp_path / "t" / name).mkdir(parents=True)
        (tmp_path / "t" / name / "f").write_bytes(b"public")
    (tmp_path / "t" / "c").write_bytes(b"public")
    before = len(os.listdir("/proc/self/fd"))
    source = Source(str(tmp_path / "t"))
    entries = iter(source)
    assert [next(entries).below for _ in range(4)] == [b"", b"/a", b"/b", b"/c"]
    (tmp_path / "t" / "c").unlink()
    (tmp_path / "t" / "c").symlink_to(tmp_path / "secret" / "a" / "f")
    file = next(entries)
    assert file.below == b"/b/f"
    for name in ("a", "b"):
        (tmp_path / "t" / name).rename(tmp_path / name)
        (tmp_path / "t" / name).symlink_to(tmp_path / "secret" / name)

    for entry in (file, Entry(b"/c", 0o644, False)):
        with pytest.raises(OSError) as raised:
            source.opened(entry)
        assert raised.value.errno in (errno.ENOTDIR, errno.ELOOP)
    with pytest.raises(NotADirectoryError):
        next(entries)
    source.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_file_and_no_folder_is_not_copied(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError) as raised:
        Source(str(tmp_path / "fifo"))
    assert (raised.value.errno, raised.value.filename) == (errno.EINVAL, str(tmp_path / "fifo"))


def test_what_is_there_is_named_whole(tmp_path: Path) -> None:
    target = Target(str(tmp_path), 100)
    with pytest.raises(FileExistsError) as raised:
        target.folder(b"", 0o755)
    assert raised.value.filename == str(tmp_path)
    target.close()


def test_what_comes_is_made_below_one_place(tmp_path: Path) -> None:
    target = Target(str(tmp_path / "t"), 100)
    target.folder(b"", 0o755)
    target.folder(b"/in", 0o500)
    with target.file(b"/in/f", 0o4777) as file:
        file.write(b"x")
    with target.file(b"/f", 0o600) as file, pytest.raises(OSError) as raised:
        file.write(bytes(100))
    target.close()
    target.close()

    assert (tmp_path / "t" / "in" / "f").read_bytes() == b"x"
    assert (tmp_path / "t" / "in" / "f").stat().st_mode & 0o7000 == 0
    assert raised.value.errno == errno.EFBIG


@pytest.mark.parametrize("below", [b"x", b"/", b"/..", b"/a/../b", b"/./a", b"/a//b", b"/a\0"])
def test_what_is_no_name_is_refused(tmp_path: Path, below: bytes) -> None:
    target = Target(str(tmp_path / "t"), 100)
    target.folder(b"", 0o755)
    with pytest.raises(ValueError, match="no name"):
        target.file(below, 0o644)
    target.close()


def test_a_link_leads_nowhere(tmp_path: Path) -> None:
    target = Target(str(tmp_path / "t"), 100)
    target.folder(b"", 0o755)
    (tmp_path / "t" / "link").symlink_to(tmp_path)
    (tmp_path / "t" / "file").symlink_to(tmp_path / "made")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        target.file(b"/link/made", 0o644)
    with pytest.raises(OSError):
        target.folder(b"/link/made", 0o755)
    with pytest.raises(FileExistsError):
        target.file(b"/file", 0o644)

    assert not (tmp_path / "made").exists()
    assert len(os.listdir("/proc/self/fd")) == before
    target.close()
