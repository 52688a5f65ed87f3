"""File systems whose names the kernel makes: what they refuse, and with which errno.

On Linux /proc, /sys and cgroup2 are one and the same wherever they are mounted: nothing is tried
there that Linux would do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sentry.abi.fcntl import O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TMPFILE, O_WRONLY
from tests.contract.filesystems.calls import Files
from tests.linux import NativeProgram
from tests.world import World

AT = b"/mnt"
FILES = {
    "proc": b"/mnt/version", "sysfs": b"/mnt/kernel/mm/transparent_hugepage/enabled",
    "devpts": b"/mnt/ptmx", "cgroup2": b"/mnt/cgroup.procs", "mqueue": b"/mnt/queue",
}  # fmt: skip
NO_NEW_NAME = {"proc": errno.ENOENT}
"""The root of /proc looks every name up, and finds no process (proc_root_lookup)."""
NO_NEW_FILE = {"proc": errno.ENOENT, "sysfs": errno.EACCES, "devpts": errno.EACCES,
               "cgroup2": errno.EACCES}  # fmt: skip


@pytest.fixture(params=["linux", "sandbox"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    """A program with every right, and a directory to mount on."""
    with ExitStack() as ends:
        if request.param == "linux":
            if os.geteuid():
                pytest.skip("needs root to mount")
            (tmp_path / "mnt").mkdir()
            yield Files(NativeProgram(tmp_path, ends))
            return
        program = Files(ends.enter_context(World()).program())
        program.ok("mkdir", AT, 0o755)
        yield program


@pytest.fixture(params=sorted(FILES))
def kind(request: pytest.FixtureRequest, files: Files) -> str:
    """Its type, once it is mounted."""
    made = files.call("mount", b"none", AT, request.param.encode(), 0, 0)
    if made in (-errno.ENODEV, -errno.EPERM):
        pytest.skip("not here")
    assert made == 0
    if request.param == "mqueue":
        files.ok("close", files.opened(FILES["mqueue"], O_CREAT | O_RDWR))
    if files.missing(FILES[request.param]):
        pytest.skip("this host does not have the file")
    return str(request.param)


def test_nobody_makes_names(files: Files, kind: str) -> None:
    wanted = NO_NEW_NAME.get(kind, errno.EPERM)
    for name, values in (
        ("symlink", (b"x", b"/mnt/new")),
        ("mknod", (b"/mnt/new", 0o010600, 0)),
        ("link", (FILES[kind], b"/mnt/new")),
        *((("mkdir", (b"/mnt/new", 0o755)),) if kind != "cgroup2" else ()),
    ):
        assert files.call(name, *values) == -wanted, name
    if kind != "mqueue":
        assert files.open(b"/mnt/new", O_CREAT | O_WRONLY) == -NO_NEW_FILE[kind]
    assert files.open(FILES[kind], O_CREAT | O_EXCL | O_WRONLY) == -errno.EEXIST
    assert b"new" not in files.names(AT)


def test_nobody_moves_or_removes_them(files: Files, kind: str) -> None:
    wanted = NO_NEW_NAME.get(kind, errno.EPERM)
    assert files.call("rename", FILES[kind], b"/mnt/new") == -wanted
    assert files.call("rename", b"/mnt/none", b"/mnt/new") == -errno.ENOENT
    assert files.call("rmdir", FILES[kind]) == -errno.ENOTDIR
    assert files.call("unlink", b"/mnt/none") == -errno.ENOENT
    assert files.call("rmdir", AT) == -errno.EBUSY
    assert files.call("unlink", FILES[kind]) == (0 if kind == "mqueue" else -errno.EPERM)


def test_files_are_files_and_directories_are_directories(files: Files, kind: str) -> None:
    assert files.open(AT, O_TMPFILE | O_RDWR) == -errno.EOPNOTSUPP
    assert files.open(AT, O_WRONLY) == -errno.EISDIR
    assert files.open(b"/mnt/none") == -errno.ENOENT
    assert files.missing(FILES[kind] + b"/x") == -errno.ENOTDIR
    fd = files.opened(FILES[kind], O_RDONLY)
    assert files.write(fd, b"x") == -errno.EBADF
    assert files.call("ftruncate", fd, 0) == -errno.EINVAL
    assert files.call("fallocate", fd, 0, 0, 10) == -errno.EBADF
    assert files.ok("flock", fd, 2) == 0
