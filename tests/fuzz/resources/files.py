"""Descriptors, names, mounts, locks, watches, mappings."""

from __future__ import annotations

import os
import struct

from sentry.abi.fanotify import (
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MARK_FLUSH,
    FAN_MARK_REMOVE,
    FAN_MODIFY,
    FAN_REPORT_FID,
    FAN_UNLIMITED_QUEUE,
)
from sentry.abi.fcntl import (
    AT_FDCWD,
    F_DUPFD,
    F_GETLK,
    F_OFD_SETLK,
    F_RDLCK,
    F_SETLK,
    F_SETLKW,
    F_SETOWN,
    F_SETPIPE_SZ,
    F_UNLCK,
    F_WRLCK,
    SEEK_DATA,
)  # fmt: skip
from sentry.abi.inotify import IN_MODIFY
from sentry.abi.ioctl import FIONREAD
from sentry.abi.mount import FSCONFIG_CMD_CREATE, FSCONFIG_SET_STRING
from sentry.abi.poll import EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
from tests.fuzz.scaling import Bench, Resource

CREATE = os.O_CREAT | os.O_RDWR
PAGE = 4096


def descriptors(b: Bench) -> None:
    """Of one process."""
    reader, writer = b.pair("pipe2", 0)
    made = b.each("dup", lambda _: b.ok("dup", reader))
    b.each("close and open the lowest", lambda _: (b.ok("close", made[0]), b.ok("dup", reader)))
    b.ok("write", writer, b"x", 1)
    polled = b.program.place(b"".join(struct.pack("<iHH", fd, 1, 0) for fd in made))
    with b.measure("poll"):
        assert b.ok("poll", polled, len(made), 0) == b.n
    b.list_all("list /proc/self/fd", b"/proc/self/fd")
    b.each("stat /proc/self/fd/N", lambda i: b.ok("readlink", b"/proc/self/fd/%d" % made[i],
                                                  b.program.buffer(64), 64))  # fmt: skip
    with b.measure("fork"):
        child = b.program.fork()
    with b.measure("exit"):
        child.begin("exit_group", 0)
        b.world.settle()
    b.each("dup to the other end", lambda i: b.ok("fcntl", reader, F_DUPFD, 10_000 + i))
    with b.measure("close_range"):
        b.ok("close_range", made[0], 20_000, 0)


def names(b: Bench) -> None:
    """Files of a directory."""
    b.ok("mkdir", b"/tmp/d", 0o700)
    b.each("create", lambda i: b.ok("close", b.ok("open", b"/tmp/d/f%d" % i, CREATE, 0o600)))
    room = b.program.buffer(256)
    b.each("stat", lambda i: b.ok("stat", b"/tmp/d/f%d" % i, room))
    b.each("look for what is absent", lambda i: b.program.call("stat", b"/tmp/d/n%d" % i, room))
    b.list_all("list", b"/tmp/d")
    b.each("rename", lambda i: b.ok("rename", b"/tmp/d/f%d" % i, b"/tmp/d/g%d" % i))
    b.each("link", lambda i: b.ok("link", b"/tmp/d/g0", b"/tmp/d/l%d" % i))
    b.each("unlink", lambda i: b.ok("unlink", b"/tmp/d/g%d" % i))
    b.each("unlink the links", lambda i: b.ok("unlink", b"/tmp/d/l%d" % i))
    b.ok("rmdir", b"/tmp/d")


def folders(b: Bench) -> None:
    """Each in the one before."""
    b.ok("chdir", b"/tmp")
    b.each("mkdir and chdir", lambda _: (b.ok("mkdir", b"d", 0o700), b.ok("chdir", b"d")))
    with b.measure("getcwd"):
        b.program.call("getcwd", b.program.buffer(4096), 4096)
    b.each("chdir up and rmdir", lambda _: (b.ok("chdir", b".."), b.ok("rmdir", b"d")))


def xattrs(b: Bench) -> None:
    """Of one file."""
    b.ok("close", b.ok("open", b"/tmp/f", CREATE, 0o600))
    room = b.program.buffer(65536)
    b.each("set", lambda i: b.ok("setxattr", b"/tmp/f", b"user.n%d" % i, b"v", 1, 0))
    b.each("get", lambda i: b.ok("getxattr", b"/tmp/f", b"user.n%d" % i, room, 8))
    with b.measure("list"):
        b.ok("listxattr", b"/tmp/f", room, 65536)
    b.each("remove", lambda i: b.ok("removexattr", b"/tmp/f", b"user.n%d" % i))


def extents(b: Bench) -> None:
    """Of a file with holes."""
    fd = b.ok("open", b"/tmp/f", CREATE, 0o600)
    b.each("write", lambda i: b.ok("pwrite64", fd, b"x", 1, 2 * i * PAGE))
    b.each("seek", lambda i: b.ok("lseek", fd, (2 * i + 1) * PAGE if i + 1 < b.n else 0, SEEK_DATA))
    b.each("punch", lambda i: b.ok("fallocate", fd, 3, 2 * i * PAGE, PAGE))
    with b.measure("truncate"):
        b.ok("ftruncate", fd, 0)


def mounts(b: Bench) -> None:
    """Beside each other."""
    for i in range(b.n):
        b.ok("mkdir", b"/tmp/m%d" % i, 0o700)
    b.each("mount", lambda i: b.ok("mount", b"none", b"/tmp/m%d" % i, b"tmpfs", 0, 0))
    room = b.program.buffer(256)
    b.each("statfs", lambda i: b.ok("statfs", b"/tmp/m%d" % i, room))
    b.read_all("read mountinfo", b"/proc/self/mountinfo")
    b.each("umount", lambda i: b.ok("umount2", b"/tmp/m%d" % i, 0))


def stacked_mounts(b: Bench) -> None:
    """All in one place."""
    b.ok("mkdir", b"/tmp/m", 0o700)
    b.each("mount", lambda _: b.ok("mount", b"none", b"/tmp/m", b"tmpfs", 0, 0))
    room = b.program.buffer(256)
    b.each("statfs", lambda _: b.ok("statfs", b"/tmp/m", room))
    b.read_all("read mountinfo", b"/proc/self/mountinfo")
    b.each("umount", lambda _: b.ok("umount2", b"/tmp/m", 0))


def layers(b: Bench) -> None:
    """Files of an overlay."""
    for name in (b"one", b"up", b"work", b"m"):
        b.ok("mkdir", b"/tmp/" + name, 0o700)
    for i in range(b.n):
        b.ok("close", b.ok("open", b"/tmp/one/f%d" % i, CREATE, 0o600))
    options = b"lowerdir=/tmp/one,upperdir=/tmp/up,workdir=/tmp/work"
    b.ok("mount", b"none", b"/tmp/m", b"overlay", 0, options)
    room = b.program.buffer(256)
    b.each("stat", lambda i: b.ok("stat", b"/tmp/m/f%d" % i, room))
    b.list_all("list", b"/tmp/m")
    b.each("copy up", lambda i: b.ok("chmod", b"/tmp/m/f%d" % i, 0o644))
    b.list_all("list both layers", b"/tmp/m")
    b.each("rename", lambda i: b.ok("rename", b"/tmp/m/f%d" % i, b"/tmp/m/g%d" % i))
    b.each("unlink", lambda i: b.ok("unlink", b"/tmp/m/g%d" % i))
    b.list_all("list whiteouts", b"/tmp/m")
    b.each("create over whiteouts",
           lambda i: b.ok("close", b.ok("open", b"/tmp/m/f%d" % i, CREATE, 0o600)))  # fmt: skip
    b.ok("umount2", b"/tmp/m", 0)


def overlays(b: Bench) -> None:
    """Of one directory."""
    for name in (b"one", b"two", b"m"):
        b.ok("mkdir", b"/tmp/" + name, 0o700)
    options = b"lowerdir=/tmp/one:/tmp/two"
    for i in range(b.n):
        b.ok("mkdir", b"/tmp/m/%d" % i, 0o700)
    b.each("mount", lambda i: b.ok("mount", b"none", b"/tmp/m/%d" % i, b"overlay", 0, options))
    b.each("umount", lambda i: b.ok("umount2", b"/tmp/m/%d" % i, 0))

    def leave(_: int) -> None:
        fd = b.ok("fsopen", b"overlay", 0)
        b.ok("fsconfig", fd, FSCONFIG_SET_STRING, b"lowerdir", b"/tmp/one:/tmp/two", 0)
        b.ok("fsconfig", fd, FSCONFIG_CMD_CREATE, 0, 0, 0)
        b.ok("close", fd)

    b.each("make one that nobody mounts", leave)


def binds(b: Bench) -> None:
    """Of one directory into a shared tree, then copied with its namespace."""
    b.ok("mount", 0, b"/tmp", 0, 1 << 20 | 1 << 14, 0)
    for i in range(b.n):
        b.ok("mkdir", b"/tmp/m%d" % i, 0o700)
    b.each("bind", lambda i: b.ok("mount", b"/proc", b"/tmp/m%d" % i, 0, 4096, 0))
    with b.measure("unshare"):
        b.ok("unshare", 0x20000)
    with b.measure("bind all"):
        b.ok("mount", b"/tmp", b"/tmp/m0", 0, 4096 | 16384, 0)
    with b.measure("detach"):
        b.ok("umount2", b"/tmp/m0", 2)


def _lock(b: Bench, kind: int, start: int, length: int = 1) -> int:
    return b.program.place(struct.pack("<hhxxxxqqixxxx", kind, 0, start, length, 0))


def peers(b: Bench) -> None:
    """Mounts that share what is mounted on them."""
    b.ok("mkdir", b"/tmp/s", 0o700)
    b.ok("mount", b"none", b"/tmp/s", b"tmpfs", 0, 0)
    b.ok("mkdir", b"/tmp/s/sub", 0o700)
    b.ok("mount", 0, b"/tmp/s", 0, 1 << 20, 0)
    for i in range(b.n):
        b.ok("mkdir", b"/tmp/p%d" % i, 0o700)
    b.each("bind", lambda i: b.ok("mount", b"/tmp/s", b"/tmp/p%d" % i, 0, 4096, 0))
    with b.measure("mount"):
        b.ok("mount", b"none", b"/tmp/s/sub", b"tmpfs", 0, 0)
    with b.measure("umount"):
        b.ok("umount2", b"/tmp/s/sub", 0)


def record_locks(b: Bench) -> None:
    """Of one process on one file."""
    fd = b.ok("open", b"/tmp/f", CREATE, 0o600)
    other = b.program.fork()
    b.each("lock", lambda i: b.ok("fcntl", fd, F_SETLK, _lock(b, F_WRLCK, 2 * i)))
    b.each("test", lambda i: other.ok("fcntl", fd, F_GETLK, _lock_of(other, 2 * i)))
    b.read_all("read /proc/locks", b"/proc/locks")
    b.each("unlock", lambda i: b.ok("fcntl", fd, F_SETLK, _lock(b, F_UNLCK, 2 * i)))
    b.each("lock again", lambda i: b.ok("fcntl", fd, F_SETLK, _lock(b, F_RDLCK, 2 * i)))
    with b.measure("close"):
        b.ok("close", fd)


def _lock_of(program: object, start: int) -> int:
    place = getattr(program, "place")  # noqa: B009  any caller
    return int(place(struct.pack("<hhxxxxqqixxxx", F_WRLCK, 0, start, 1, 0)))


def lock_waiters(b: Bench) -> None:
    """Who waits for one range, each in a process of its own."""
    fd = b.ok("open", b"/tmp/f", CREATE, 0o600)
    b.ok("fcntl", fd, F_SETLK, _lock(b, F_WRLCK, 0))
    made = [b.program.fork() for _ in range(b.n)]
    places = [_lock_of(each, 0) for each in made]
    b.each("wait", lambda i: made[i].begin("fcntl", fd, F_SETLKW, places[i]))
    b.read_all("read /proc/locks", b"/proc/locks")
    with b.measure("unlock"):
        b.ok("fcntl", fd, F_SETLK, _lock(b, F_UNLCK, 0))


def locks_of_many(b: Bench) -> None:
    """One range, read-locked by many open files."""
    made = [b.ok("open", b"/tmp/f", CREATE, 0o600) for _ in range(b.n)]
    b.each("lock", lambda i: b.ok("fcntl", made[i], F_OFD_SETLK, _lock(b, F_RDLCK, 0)))
    b.each("unlock", lambda i: b.ok("fcntl", made[i], F_OFD_SETLK, _lock(b, F_UNLCK, 0)))
    b.each("flock", lambda i: b.ok("flock", made[i], 1))
    b.each("close", lambda i: b.ok("close", made[i]))


def watches(b: Bench) -> None:
    """Of one inotify instance, on many files."""
    fd, room = b.ok("inotify_init"), b.program.buffer(4096)
    files = [b.ok("open", b"/tmp/f%d" % i, CREATE, 0o600) for i in range(b.n)]
    made = b.each("add", lambda i: b.ok("inotify_add_watch", fd, b"/tmp/f%d" % i, IN_MODIFY))
    b.each("write", lambda i: b.ok("write", files[i], b"x", 1))
    b.each("read", lambda _: b.ok("read", fd, room, 16))
    b.read_all("read fdinfo", b"/proc/self/fdinfo/%d" % fd)
    b.each("remove", lambda i: b.ok("inotify_rm_watch", fd, made[i]))


def instances(b: Bench) -> None:
    """Of inotify, that all watch one file."""
    file = b.ok("open", b"/tmp/f", CREATE, 0o600)
    made = b.each("create", lambda _: b.ok("inotify_init") if _ < 120 else -1)
    b.each("add", lambda i: made[i] < 0
           or b.ok("inotify_add_watch", made[i], b"/tmp/f", IN_MODIFY))  # fmt: skip
    with b.measure("write"):
        b.ok("write", file, b"x", 1)
    b.each("close", lambda i: made[i] < 0 or b.ok("close", made[i]))


def marks(b: Bench) -> None:
    """Of one fanotify group, on many files."""
    fd, room = b.ok("fanotify_init", FAN_REPORT_FID | FAN_UNLIMITED_QUEUE, 0), b.program.buffer(64)
    files = [b.ok("open", b"/tmp/f%d" % i, CREATE, 0o600) for i in range(b.n)]
    add, remove = (FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD), (FAN_MARK_REMOVE, FAN_MODIFY, AT_FDCWD)
    b.each("add", lambda i: b.ok("fanotify_mark", fd, *add, b"/tmp/f%d" % i))
    b.each("write", lambda i: b.ok("write", files[i], b"x", 1))
    b.each("write again", lambda i: b.ok("write", files[i], b"x", 1))
    b.each("read", lambda _: b.ok("read", fd, room, 64))
    b.read_all("read fdinfo", b"/proc/self/fdinfo/%d" % fd)
    b.each("remove", lambda i: i % 2 and b.ok("fanotify_mark", fd, *remove, b"/tmp/f%d" % i))
    with b.measure("flush"):
        b.ok("fanotify_mark", fd, FAN_MARK_FLUSH, 0, AT_FDCWD, 0)
    b.each("add again", lambda i: b.ok("fanotify_mark", fd, *add, b"/tmp/f%d" % i))
    with b.measure("close"):
        b.ok("close", fd)


def groups(b: Bench) -> None:
    """Of fanotify, that all have marked one file system."""
    file = b.ok("open", b"/tmp/f", CREATE, 0o600)
    made = b.each("create", lambda i: b.ok("fanotify_init", FAN_REPORT_FID, 0) if i < 120 else -1)
    how = FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_MODIFY, AT_FDCWD, b"/tmp"
    b.each("add", lambda i: made[i] < 0 or b.ok("fanotify_mark", made[i], *how))
    with b.measure("write"):
        b.ok("write", file, b"x", 1)
    b.each("close", lambda i: made[i] < 0 or b.ok("close", made[i]))


def _event(b: Bench, events: int, data: int) -> int:
    return b.program.place(struct.pack("<IQ", events, data))


def epoll_entries(b: Bench) -> None:
    """Of one epoll."""
    ends = [b.pair("pipe2", 0) for _ in range(b.n)]
    ep, room = b.ok("epoll_create1", 0), b.program.buffer(12 * 64)
    add = EPOLL_CTL_ADD
    b.each("add", lambda i: b.ok("epoll_ctl", ep, add, ends[i][0], _event(b, 1, i)))
    b.each("write and wait", lambda i: (b.ok("write", ends[0][1], b"x", 1),
                                        b.ok("epoll_wait", ep, room, 8, 0)))  # fmt: skip
    b.each("make ready", lambda i: b.ok("write", ends[i][1], b"x", 1))
    b.each("wait for many", lambda _: b.ok("epoll_wait", ep, room, 8, 0))
    b.each("modify", lambda i: b.ok("epoll_ctl", ep, EPOLL_CTL_MOD, ends[i][0], _event(b, 4, i)))
    b.read_all("read fdinfo", b"/proc/self/fdinfo/%d" % ep)
    b.each("delete", lambda i: b.ok("epoll_ctl", ep, EPOLL_CTL_DEL, ends[i][0], 0))
    b.each("add again", lambda i: b.ok("epoll_ctl", ep, add, ends[i][0], _event(b, 1, i)))
    with b.measure("close"):
        b.ok("close", ep)


def epolls(b: Bench) -> None:
    """Many, on one pipe."""
    reader, writer = b.pair("pipe2", 0)
    made = [b.ok("epoll_create1", 0) for _ in range(b.n)]
    b.each("add", lambda i: b.ok("epoll_ctl", made[i], 1, reader, _event(b, 1, i)))
    with b.measure("write"):
        b.ok("write", writer, b"x", 1)
    b.each("close", lambda i: b.ok("close", made[i]))


def signal_driven(b: Bench) -> None:
    """O_ASYNC on many descriptions of one FIFO."""
    b.program.block(29)
    b.ok("mknod", b"/tmp/p", 0o10600, 0)
    made = [b.ok("open", b"/tmp/p", os.O_RDWR | os.O_NONBLOCK) for _ in range(b.n)]
    b.each("set", lambda i: (b.ok("fcntl", made[i], F_SETOWN, b.program.task.tid),
                             b.ok("fcntl", made[i], 4, os.O_ASYNC | os.O_NONBLOCK)))  # fmt: skip
    with b.measure("write"):
        b.ok("write", made[0], b"x", 1)
    b.each("close", lambda i: b.ok("close", made[i]))


def pipe_pieces(b: Bench) -> None:
    """Packets in one pipe."""
    reader, writer = b.pair("pipe2", os.O_DIRECT)
    most = b.ok("fcntl", writer, F_SETPIPE_SZ, 1 << 20) // PAGE
    room = b.program.buffer(8)
    b.each("write", lambda i: i >= most or b.ok("write", writer, b"x", 1))
    with b.measure("FIONREAD"):
        b.ok("ioctl", reader, FIONREAD, room)
    b.each("read", lambda i: i >= most or b.ok("read", reader, room, 8))


def mappings(b: Bench) -> None:
    """Of one address space."""
    at = 0x10000000
    b.each("mmap", lambda i: b.ok("mmap", at + i * 2 * PAGE, PAGE, 3, 0x32, -1, 0))
    b.each("mprotect", lambda i: b.ok("mprotect", at + i * 2 * PAGE, PAGE, 1))
    b.read_all("read maps", b"/proc/self/maps")
    with b.measure("fork"):
        child = b.program.fork()
    with b.measure("exit"):
        child.begin("exit_group", 0)
        b.world.settle()
    b.each("munmap", lambda i: b.ok("munmap", at + i * 2 * PAGE, PAGE))
    b.each("mmap where there is room", lambda _: b.ok("mmap", 0, PAGE, 1 + _ % 2, 0x22, -1, 0))


def mappings_of_a_file(b: Bench) -> None:
    """Shared ones, of one page of a file that is truncated then."""
    fd = b.ok("open", b"/tmp/f", CREATE, 0o600)
    b.ok("ftruncate", fd, PAGE)
    made = b.each("mmap", lambda i: b.ok("mmap", 0x10000000 + 2 * PAGE * i, PAGE, 1, 0x11, fd, 0))
    b.each("touch", lambda i: b.program.read(made[i], 1))
    with b.measure("truncate"):
        b.ok("ftruncate", fd, 0)
    b.each("munmap", lambda i: b.ok("munmap", made[i], PAGE))


RESOURCES: tuple[Resource, ...] = (
    descriptors, names, folders, xattrs, extents, mounts, stacked_mounts, layers, overlays, binds,
    peers, record_locks, lock_waiters, locks_of_many, watches, instances, marks, groups,
    epoll_entries, epolls, signal_driven, pipe_pieces, mappings, mappings_of_a_file,
)  # fmt: skip
