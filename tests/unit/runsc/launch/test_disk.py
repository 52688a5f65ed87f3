"""The file of --overlay2=root:self: it has no name, also where O_TMPFILE is not to be had."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from runsc.errors import RuntimeFailure
from runsc.launch import disk


def test_file_is_empty_and_has_no_name(tmp_path: Path) -> None:
    fd = disk.open_in(str(tmp_path), "c")

    status = os.fstat(fd)
    assert (status.st_size, status.st_nlink, status.st_mode & 0o777) == (0, 0, 0o600)
    assert list(tmp_path.iterdir()) == []
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR])
def test_file_system_without_such_files_has_one_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real, opened = os.open, []

    def without(path: str, flags: int, *more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        opened.append(path)
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", without)
    fd = disk.open_in(str(tmp_path), "c")

    assert opened == [f"{tmp_path}/.runsc.filestore.c"]
    assert os.fstat(fd).st_nlink == 0
    assert list(tmp_path.iterdir()) == []
    os.close(fd)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure) as told:
        disk.open_in(f"{tmp_path}/missing", "c")

    assert str(told.value) == f"--overlay2: a file in {tmp_path}/missing: no such file or directory"
