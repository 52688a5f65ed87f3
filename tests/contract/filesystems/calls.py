"""The system calls of files, with their structures packed and unpacked."""

from __future__ import annotations

import struct
from typing import Any

from sentry.abi.fcntl import (
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    F_SETLK,
    FLOCK,
    O_CREAT,
    O_DIRECTORY,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
)
from sentry.abi.stat import STAT, Stat
from tests.caller import Caller


class Files:
    """A program, and what it does with files. Errors are results: -errno."""

    def __init__(self, program: Any) -> None:
        self.program: Caller = program
        self.call = program.call
        self.ok = program.ok
        self.place = program.place
        self.begin = program.begin

    def sibling(self, uid: int | None = None, gid: int = 0) -> Files:
        """Another process on the same tree."""
        program: Any = self.program
        return Files(program.sibling(uid, gid))

    def grow(self) -> None:
        """What `conftest.grow` makes, by system calls."""
        self.fill(b"/old", b"contents of old")
        self.ok("symlink", b"old", b"/link")
        for path in (b"/dir", b"/dir/sub", b"/empty"):
            self.ok("mkdir", path, 0o755)
        self.fill(b"/dir/inner", b"inner")

    # --- files

    def open(self, path: bytes, flags: int = O_RDONLY, mode: int = 0o644) -> int:
        return self.call("openat", AT_FDCWD, path, flags, mode)

    def opened(self, path: bytes, flags: int = O_RDONLY, mode: int = 0o644) -> int:
        return self.ok("openat", AT_FDCWD, path, flags, mode)

    def fill(self, path: bytes, data: bytes = b"", mode: int = 0o644) -> None:
        fd = self.opened(path, O_CREAT | O_WRONLY, mode)
        assert self.write(fd, data) == len(data)
        self.ok("close", fd)

    def contents(self, path: bytes) -> bytes:
        fd = self.opened(path)
        data = self.read(fd, 1 << 16)
        self.ok("close", fd)
        return data

    def read(self, fd: int, count: int, offset: int | None = None) -> bytes:
        buffer = self.program.buffer(count)
        where = () if offset is None else (offset,)
        got = self.ok("read" if offset is None else "pread64", fd, buffer, count, *where)
        return self.program.read(buffer, got)

    def write(self, fd: int, data: bytes, offset: int | None = None) -> int:
        where = () if offset is None else (offset,)
        name = "write" if offset is None else "pwrite64"
        return self.call(name, fd, self.place(data), len(data), *where)

    # --- what is said about them

    def stat(self, path: bytes, flags: int = 0) -> Stat:
        buffer = self.program.buffer(STAT.size)
        self.ok("newfstatat", AT_FDCWD, path, buffer, flags)
        return STAT.unpack(self.program.read(buffer, STAT.size))

    def lstat(self, path: bytes) -> Stat:
        return self.stat(path, AT_SYMLINK_NOFOLLOW)

    def fstat(self, fd: int) -> Stat:
        buffer = self.program.buffer(STAT.size)
        self.ok("fstat", fd, buffer)
        return STAT.unpack(self.program.read(buffer, STAT.size))

    def missing(self, path: bytes) -> int:
        """What stat(2) fails with."""
        return self.call("newfstatat", AT_FDCWD, path, self.program.buffer(STAT.size), 0)

    def is_same(self, one: bytes, other: bytes) -> bool:
        return self.stat(one).st_ino == self.stat(other).st_ino

    def target(self, path: bytes) -> bytes:
        buffer = self.program.buffer(4096)
        return self.program.read(buffer, self.ok("readlink", path, buffer, 4096))

    def modified_ns(self, path: bytes) -> int:
        found = self.stat(path)
        return int(found.st_mtime * 10**9 + found.st_mtime_nsec)

    def changed_ns(self, path: bytes) -> int:
        found = self.stat(path)
        return int(found.st_ctime * 10**9 + found.st_ctime_nsec)

    def set_times(self, path: bytes, seconds: int) -> None:
        """Access and modification."""
        times = struct.pack("<4q", seconds, 0, seconds, 0)
        self.ok("utimensat", AT_FDCWD, path, self.place(times), 0)

    # --- directories

    def entries(self, fd: int, room: int = 4096) -> list[tuple[bytes, int]]:
        """The next names of a directory and their types: one getdents64(2)."""
        buffer, found = self.program.buffer(room), []
        raw = self.program.read(buffer, self.ok("getdents64", fd, buffer, room))
        while raw:
            size, kind = struct.unpack_from("<HB", raw, 16)
            found.append((raw[19:size].split(b"\0")[0], kind))
            raw = raw[size:]
        return found

    def rest(self, fd: int, room: int = 4096) -> list[bytes]:
        """All names to come."""
        found = []
        while part := self.entries(fd, room):
            found += [name for name, _ in part]
        return found

    def names(self, path: bytes) -> list[bytes]:
        """Sorted, without the dots."""
        fd = self.opened(path, O_RDONLY | O_DIRECTORY)
        found = self.rest(fd)
        self.ok("close", fd)
        return sorted(set(found) - {b".", b".."})

    # --- locks

    def lock(
        self, fd: int, kind: int, start: int = 0, length: int = 0, command: int = F_SETLK
    ) -> int:
        where = self.place(FLOCK.pack(kind, 0, start, length, 0))
        return self.call("fcntl", fd, command, where)


READ_WRITE = O_RDWR | O_CREAT
