"""tmpfs through system calls."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from sentry.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    O_APPEND,
    O_CREAT,
    O_EXCL,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
from sentry.abi.resource import RLIMIT_FSIZE
from sentry.abi.signal import SIGXFSZ
from sentry.abi.stat import STAT, STATFS, Stat
from sentry.fs.tmpfs.filesystem import TmpFs, parse_options


def stat(task: Any, path: bytes) -> Stat:
    buf = task.buffer(STAT.size)
    task.ok("lstat", path, buf)
    return STAT.unpack(task.read(buf, STAT.size))


def write_file(task: Any, path: bytes, data: bytes, mode: int = 0o644) -> None:
    fd = task.ok("open", path, O_CREAT | O_TRUNC | O_WRONLY, mode)
    assert task.ok("write", fd, task.place(data), len(data)) == len(data)
    task.ok("close", fd)


def read_file(task: Any, path: bytes) -> bytes:
    fd = task.ok("open", path, O_RDONLY, 0)
    buf = task.buffer(8192)
    n = task.ok("read", fd, buf, 8192)
    task.ok("close", fd)
    return bytes(task.read(buf, n))


def names(task: Any, path: bytes) -> list[bytes]:
    fd = task.ok("open", path, O_RDONLY, 0)
    buf, found = task.buffer(4096), []
    while n := task.ok("getdents64", fd, buf, 4096):
        raw = task.read(buf, n)
        while raw:
            size = struct.unpack_from("<H", raw, 16)[0]
            found.append(raw[19:size].split(b"\0")[0])
            raw = raw[size:]
    task.ok("close", fd)
    return found


def test_what_is_written_is_read(task: Any) -> None:
    write_file(task, b"/f", b"hello world")
    assert read_file(task, b"/f") == b"hello world"
    assert stat(task, b"/f").st_size == 11
    assert stat(task, b"/f").st_mode == 0o100644


def test_umask_takes_bits(task: Any) -> None:
    task.ok("umask", 0o077)
    write_file(task, b"/f", b"", 0o666)
    assert stat(task, b"/f").st_mode & 0o777 == 0o600


def test_append_goes_to_the_end(task: Any) -> None:
    write_file(task, b"/f", b"12345")
    fd = task.ok("open", b"/f", O_RDWR | O_APPEND, 0)
    task.ok("lseek", fd, 0, SEEK_SET)
    task.ok("write", fd, task.place(b"67"), 2)
    task.ok("pwrite64", fd, task.place(b"8"), 1, 0)
    assert read_file(task, b"/f") == b"12345678"


def test_holes_read_as_zero_and_are_found(task: Any) -> None:
    fd = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
    task.ok("pwrite64", fd, task.place(b"x"), 1, 3 * 4096)
    assert task.ok("lseek", fd, 0, SEEK_DATA) == 3 * 4096
    assert task.ok("lseek", fd, 3 * 4096, SEEK_HOLE) == 3 * 4096 + 1
    assert task.ok("lseek", fd, 0, SEEK_HOLE) == 0
    assert task.ok("lseek", fd, 0, SEEK_END) == 3 * 4096 + 1
    assert task.call("lseek", fd, 4 * 4096, SEEK_DATA) == -errno.ENXIO
    task.ok("fallocate", fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * 4096, 4096)
    assert task.call("lseek", fd, 0, SEEK_DATA) == -errno.ENXIO


def test_unlinked_file_lives_while_open_and_is_freed_then(task: Any) -> None:
    fs = task.task.mounts.root.fs
    fd = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
    task.ok("write", fd, task.place(bytes(5000)), 5000)
    task.ok("unlink", b"/f")
    assert fs.pages == 2
    assert task.ok("lseek", fd, 0, SEEK_END) == 5000
    task.ok("close", fd)
    assert fs.pages == 0


def test_full_file_system_takes_what_fits(task: Any, kernel: Any) -> None:
    fs = task.task.mounts.root.fs
    fs.max_pages = 2
    fd = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
    assert task.ok("write", fd, task.place(bytes(3 * 4096)), 3 * 4096) == 2 * 4096
    assert task.call("write", fd, task.place(b"x"), 1) == -errno.ENOSPC
    task.ok("pwrite64", fd, task.place(b"x"), 1, 4096)


def test_file_size_limit_cuts_then_signals(task: Any) -> None:
    task.task.group.limits.set(RLIMIT_FSIZE, 10, 10)
    task.block(SIGXFSZ)
    fd = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
    assert task.ok("write", fd, task.place(bytes(16)), 16) == 10
    assert task.call("write", fd, task.place(b"x"), 1) == -errno.EFBIG
    assert task.take_signals() == [SIGXFSZ]
    assert task.call("ftruncate", fd, 11) == -errno.EFBIG
    assert task.take_signals() == [SIGXFSZ]


def test_hard_links_share_an_inode(task: Any) -> None:
    write_file(task, b"/f", b"1")
    task.ok("link", b"/f", b"/g")
    assert stat(task, b"/f").st_ino == stat(task, b"/g").st_ino
    assert stat(task, b"/f").st_nlink == 2
    task.ok("unlink", b"/f")
    assert stat(task, b"/g").st_nlink == 1
    task.ok("mkdir", b"/d", 0o755)
    assert task.call("link", b"/d", b"/e") == -errno.EPERM
    assert task.call("link", b"/g", b"/d") == -errno.EEXIST


def test_rename_replaces_and_refuses(task: Any) -> None:
    write_file(task, b"/f", b"f")
    write_file(task, b"/g", b"g")
    task.ok("mkdir", b"/d", 0o755)
    task.ok("mkdir", b"/d/sub", 0o755)
    args = (AT_FDCWD, b"/f", AT_FDCWD, b"/g")
    assert task.call("renameat2", *args, RENAME_NOREPLACE) == -errno.EEXIST
    task.ok("renameat2", *args, RENAME_EXCHANGE)
    assert read_file(task, b"/f") == b"g"
    task.ok("rename", b"/f", b"/g")
    assert read_file(task, b"/g") == b"g"
    assert task.call("rename", b"/g", b"/d") == -errno.EISDIR
    assert task.call("rename", b"/d", b"/g") == -errno.ENOTDIR
    assert task.call("rename", b"/d", b"/d/sub/x") == -errno.EINVAL
    assert task.call("rename", b"/d/sub", b"/d") == -errno.ENOTEMPTY
    assert task.call("rename", b"/none", b"/x") == -errno.ENOENT
    task.ok("rename", b"/d/sub", b"/sub")
    assert stat(task, b"/d").st_nlink == 2
    assert sorted(names(task, b"/")) == [b".", b"..", b"d", b"g", b"sub"]


def test_renames_below_deep_directories_let_others_run_and_make_no_circle(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    monkeypatch.setattr("sentry.vfs.names.CLIMB", 4)
    ends = []
    for top in (b"/a", b"/b"):
        for depth in range(10):
            task.ok("mkdir", top + b"/d" * depth, 0o755)
        ends.append(top + b"/d" * 9 + b"/new")
    calls = [
        program.begin("rename", old, new)
        for program, old, new in ((task, b"/a", ends[1]), (task.thread(), b"/b", ends[0]))
    ]
    assert not any(call.done for call in calls)
    assert sorted(call.wait() for call in calls) == [-errno.EINVAL, 0]
    assert sorted(names(task, b"/"))[2:] in ([b"a"], [b"b"])


def test_directories_are_removed_only_empty(task: Any) -> None:
    task.ok("mkdir", b"/d", 0o755)
    write_file(task, b"/d/f", b"")
    assert task.call("rmdir", b"/d") == -errno.ENOTEMPTY
    assert task.call("unlink", b"/d") == -errno.EISDIR
    assert task.call("unlinkat", AT_FDCWD, b"/d/f", AT_REMOVEDIR) == -errno.ENOTDIR
    assert task.call("rmdir", b"/d/.") == -errno.EINVAL
    task.ok("unlink", b"/d/f")
    task.ok("rmdir", b"/d/")
    assert task.call("rmdir", b"/") == -errno.EBUSY


def test_listing_survives_removal_of_what_was_listed(task: Any) -> None:
    for n in range(300):
        write_file(task, b"/f%03d" % n, b"")
    fd = task.ok("open", b"/", O_RDONLY, 0)
    buf, removed = task.buffer(512), 0
    while n := task.ok("getdents64", fd, buf, 512):
        raw = task.read(buf, n)
        while raw:
            size = struct.unpack_from("<H", raw, 16)[0]
            name = raw[19:size].split(b"\0")[0]
            if name.startswith(b"f"):
                task.ok("unlink", b"/" + name)
                removed += 1
            raw = raw[size:]
    assert removed == 300
    assert names(task, b"/") == [b".", b".."]
    assert task.call("getdents64", fd, buf, 10) == 0
    task.ok("lseek", fd, 0, SEEK_SET)
    assert task.call("getdents64", fd, buf, 10) == -errno.EINVAL


def test_tmpfile_gets_a_name_by_link(task: Any) -> None:
    fd = task.ok("open", b"/", O_TMPFILE | O_RDWR, 0o600)
    task.ok("write", fd, task.place(b"data"), 4)
    assert names(task, b"/") == [b".", b".."]
    task.ok("linkat", fd, b"", AT_FDCWD, b"/named", AT_EMPTY_PATH)
    assert read_file(task, b"/named") == b"data"
    assert stat(task, b"/named").st_nlink == 1


def test_open_exclusive_and_truncate(task: Any) -> None:
    write_file(task, b"/f", b"old")
    assert task.call("open", b"/f", O_CREAT | O_EXCL, 0o644) == -errno.EEXIST
    assert task.call("open", b"/", O_CREAT | O_WRONLY, 0o644) == -errno.EISDIR
    assert task.call("open", b"/new/", O_CREAT | O_WRONLY, 0o644) == -errno.EISDIR
    task.ok("open", b"/f", O_WRONLY | O_TRUNC, 0)
    assert stat(task, b"/f").st_size == 0


def test_write_by_others_takes_set_id_bits_away(task: Any) -> None:
    write_file(task, b"/f", b"", 0o666)
    task.ok("chmod", b"/f", 0o6777)
    user = task.sibling(1000, 1000)
    fd = user.ok("open", b"/f", O_WRONLY, 0)
    user.ok("write", fd, user.place(b"x"), 1)
    assert stat(task, b"/f").st_mode & 0o7777 == 0o777


def test_set_group_id_directory_gives_its_group(task: Any) -> None:
    task.ok("mkdir", b"/d", 0o777)
    task.ok("chown", b"/d", 0, 50)
    task.ok("chmod", b"/d", 0o2777)
    task.ok("mkdir", b"/d/sub", 0o755)
    write_file(task, b"/d/f", b"")
    assert stat(task, b"/d/f").st_gid == 50
    assert stat(task, b"/d/sub").st_mode & 0o7777 == 0o2755


def test_options_of_mount(task: Any) -> None:
    options = parse_options("size=50%,mode=0700,uid=5,nr_inodes=10", 1000)
    assert (options.max_pages, options.mode, options.uid, options.max_inodes) == (500, 0o700, 5, 10)
    assert parse_options("size=64m", 1000).max_pages == 16384
    fs = TmpFs.make(task.world.vfs, "size=8k")
    assert fs.max_pages == 2


@pytest.mark.parametrize(
    "option",
    [b"uid=4294967295", b"gid=99999999999", b"uid=-1", b"size=-5%", b"nr_blocks=1" + b"0" * 19],
)
@pytest.mark.parametrize("kind", [b"tmpfs", b"devpts"])
def test_numbers_of_options_that_cannot_be_are_refused(
    task: Any, kind: bytes, option: bytes
) -> None:
    task.ok("mkdir", b"/m", 0o755)
    assert task.call("mount", b"x", b"/m", kind, 0, option) == -errno.EINVAL


@pytest.mark.parametrize("option", [b"size=99999999999999999g", b"size=99999999999999999999%"])
def test_size_that_is_too_large_can_be_asked_for(task: Any, option: bytes) -> None:
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"x", b"/m", b"tmpfs", 0, option)
    task.ok("statfs", b"/m", task.buffer(STATFS.size))


def test_inodes_have_a_ceiling(task: Any) -> None:
    task.task.mounts.root.fs.options.max_inodes = 3
    write_file(task, b"/1", b"")
    write_file(task, b"/2", b"")
    assert task.call("mkdir", b"/3", 0o755) == -errno.ENOSPC
    task.ok("unlink", b"/1")
    task.ok("mkdir", b"/3", 0o755)


def test_hard_link_counts_as_an_inode(task: Any) -> None:
    fs = task.task.mounts.root.fs
    fs.options.max_inodes = 4
    write_file(task, b"/1", b"")
    task.ok("link", b"/1", b"/2")
    assert fs.statfs().files_free == 1
    fd = task.ok("open", b"/", O_TMPFILE | O_RDWR, 0o600)
    assert task.call("link", b"/1", b"/3") == -errno.ENOSPC
    task.ok("linkat", fd, b"", AT_FDCWD, b"/t", AT_EMPTY_PATH)
    task.ok("rename", b"/t", b"/2")
    task.ok("close", fd)
    assert fs.statfs().files_free == 1
    task.ok("unlink", b"/1")
    assert fs.statfs().files_free == 2


LARGE = 40 << 20
HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


def test_others_run_while_room_is_made_and_wait_with_writes(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o600)
    other = task.thread()
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    for mode, name in ((0, b"allocated"), (HOLE, b"punched"), (None, b"truncated")):
        call = ("ftruncate", fd, 5) if mode is None else ("fallocate", fd, mode, 0, LARGE)
        changing = task.begin(*call)
        assert not changing.done
        writing = other.begin("pwrite64", fd, name, len(name), 0)
        assert not writing.done
        writing.wait()
        assert changing.done
        assert changing.result == 0
        room = task.buffer(16)
        assert task.ok("pread64", fd, room, len(name), 0) == len(name)
        assert task.read(room, len(name)) == name
        assert stat(task, b"/f").st_size == (len(name) if mode is None else LARGE)
        assert stat(task, b"/f").st_blocks == (LARGE // 512 if mode == 0 else 8)


def test_fallocate_makes_no_more_room_than_the_file_system_has(task: Any) -> None:
    """Also where it would be more than is looked at together."""
    fs = TmpFs.make(task.world.vfs, "size=258m")
    task.world.attach(fs, b"/m")
    fd = task.ok("open", b"/m/f", O_CREAT | O_RDWR, 0o600)
    assert task.call("fallocate", fd, 0, 0, 300 << 20) == -errno.ENOSPC
    assert fs.pages == 0
    task.ok("pwrite64", fd, b"x", 1, 5 << 20)
    assert task.call("fallocate", fd, 0, 0, (258 << 20) + 4096) == -errno.ENOSPC
    task.ok("fallocate", fd, 0, 2 << 20, 6 << 20)
    assert fs.pages == (6 << 20) // 4096


def test_two_fallocates_at_once_make_no_more_room_than_there_is(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = TmpFs.make(task.world.vfs, "size=48m")
    task.world.attach(fs, b"/m")
    one, two = (task.ok("open", name, O_CREAT | O_RDWR, 0o600) for name in (b"/m/1", b"/m/2"))
    other = task.thread()
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    calls = [task.begin("fallocate", one, 0, 0, LARGE), other.begin("fallocate", two, 0, 0, LARGE)]
    assert not any(call.done for call in calls)
    assert -errno.ENOSPC in [call.wait() for call in calls]
    assert fs.pages <= (48 << 20) // 4096


def test_open_truncates_in_steps(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o600)
    task.ok("fallocate", fd, 0, 0, LARGE)
    other = task.thread()
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    opening = task.begin("open", b"/f", O_WRONLY | O_TRUNC)
    assert not opening.done
    other.ok("close", other.ok("open", b"/f", O_RDONLY))
    assert not opening.done
    assert opening.wait() > 0
    assert stat(task, b"/f").st_size == stat(task, b"/f").st_blocks == 0
