"""`MemoryFileSystem`: files in the memory of the program that serves them."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import time_ns
from typing import Final

from runsc.fs.filesystem import FileSystem, Stat, folder, regular

FILE_COST: Final = 1024
"""Bytes that a file counts for beside its contents, its path and where it leads to."""


@dataclass(slots=True)
class _File:
    stat: Stat
    data: bytearray = field(default_factory=bytearray)
    target: str = ""
    names: dict[str, None] = field(default_factory=dict)
    """What is in a folder."""

    def cost(self, path: str) -> int:
        """Bytes of the capacity."""
        return FILE_COST + len(path) + len(self.data) + len(self.target)


class MemoryFileSystem(FileSystem):
    """Made of `{"/path": b"contents"}`; folders are made as they are needed. It can be written.

    `files` are what is in it, for whoever serves it; subclasses see each call first. `capacity` is
    for all that programs make in it, in bytes; a file counts for some, whatever is in it.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None, capacity: int = 1 << 30) -> None:
        self._lock = threading.RLock()
        self._files: dict[str, _File] = {"/": _File(folder())}
        self._capacity = capacity
        self._used = 0
        for path, data in (files or {}).items():
            self.put(path, data)

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Have a file with these contents."""
        with self._lock:
            above = ""
            for name in path.strip("/").split("/")[:-1]:
                above = f"{above}/{name}"
                if above not in self._files:
                    self._add(above, _File(folder()))
            self._add(
                f"/{path.strip('/')}", _File(regular(len(data), mode), bytearray(data))
            )

    def get(self, path: str) -> bytes:
        """The contents of a file. Raises: FileNotFoundError."""
        with self._lock:
            return bytes(self._file(path).data)

    def _add(self, path: str, made: _File) -> None:
        if path in self._files:
            self._take(path)
        self._files[path] = made
        above, _, name = path.rpartition("/")
        self._files[above or "/"].names[name] = None
        self._used += made.cost(path)

    def _take(self, path: str) -> _File:
        taken = self._files.pop(path)
        above, _, name = path.rpartition("/")
        del self._files[above or "/"].names[name]
        self._used -= taken.cost(path)
        return taken

    def _below(self, path: str) -> list[str]:
        found = [path]
        for each in found:  # it grows meanwhile
            found += [f"{each}/{name}" for name in self._files[each].names]
        return found[1:]

    def _file(self, path: str) -> _File:
        found = self._files.get(path)
        if found is None:
            raise _failed(errno.ENOENT, path)
        return found

    def stat(self, path: str) -> Stat:
        with self._lock:
            found = self._file(path)
            if stat.S_ISREG(found.stat.mode):
                return replace(found.stat, size=len(found.data))
            return found.stat

    def list(self, path: str) -> list[str]:
        with self._lock:
            return list(self._file(path).names)

    def read(self, path: str, offset: int, size: int) -> bytes:
        with self._lock:
            return bytes(self._file(path).data[offset : offset + size])

    def read_link(self, path: str) -> str:
        return self._file(path).target

    def write(self, path: str, offset: int, data: bytes) -> int:
        with self._lock:
            found = self._file(path)
            before = len(found.data)
            self._check_room(offset + len(data) - before)
            if len(found.data) < offset:
                found.data.extend(bytes(offset - len(found.data)))
            found.data[offset : offset + len(data)] = data
            self._used += len(found.data) - before
            self._changed(found)
            return len(data)

    def _check_room(self, more: int) -> None:
        if more > 0 and self._used + more > self._capacity:
            raise _failed(errno.ENOSPC, "/")

    def _changed(self, found: _File) -> None:
        found.stat = replace(found.stat, mtime_ns=time_ns(), ctime_ns=0)

    def _make(self, path: str, made: _File) -> None:
        with self._lock:
            if path in self._files:
                raise _failed(errno.EEXIST, path)
            self._file(os.path.dirname(path))
            self._check_room(made.cost(path))
            self._add(path, made)

    def create(self, path: str, mode: int, uid: int, gid: int) -> None:
        self._make(path, _File(regular(0, mode, uid=uid, gid=gid)))

    def make_folder(self, path: str, mode: int, uid: int, gid: int) -> None:
        self._make(path, _File(folder(mode, uid=uid, gid=gid)))

    def make_link(self, path: str, target: str, uid: int, gid: int) -> None:
        size = len(os.fsencode(target))
        self._make(path, _File(Stat(stat.S_IFLNK | 0o777, size, uid, gid), target=target))

    def remove(self, path: str) -> None:
        with self._lock:
            self._file(path)
            self._take(path)

    def remove_folder(self, path: str) -> None:
        with self._lock:
            if self.list(path):
                raise _failed(errno.ENOTEMPTY, path)
            self.remove(path)

    def rename(self, old: str, new: str) -> None:
        with self._lock:
            self._file(old)
            self._file(os.path.dirname(new))
            there = self._files.get(new)
            if old == new:
                return
            if there is not None and stat.S_ISDIR(there.stat.mode):
                self.remove_folder(new)
            below = self._below(old)
            more = len(new) - len(old)
            self._check_room(more * (1 + len(below)))
            self._add(new, self._take(old))
            for path in below:
                self._files[new + path[len(old) :]] = self._files.pop(path)
            self._used += more * len(below)

    def truncate(self, path: str, size: int) -> None:
        with self._lock:
            found = self._file(path)
            before = len(found.data)
            self._check_room(size - before)
            del found.data[size:]
            found.data.extend(bytes(size - len(found.data)))
            self._used += size - before
            self._changed(found)

    def set_mode(self, path: str, mode: int) -> None:
        with self._lock:
            found = self._file(path)
            found.stat = replace(found.stat, mode=stat.S_IFMT(found.stat.mode) | mode)

    def set_owner(self, path: str, uid: int | None, gid: int | None) -> None:
        with self._lock:
            found = self._file(path)
            was = found.stat
            uid, gid = was.uid if uid is None else uid, was.gid if gid is None else gid
            found.stat = replace(was, uid=uid, gid=gid)

    def set_times(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        with self._lock:
            found = self._file(path)
            was = found.stat
            found.stat = replace(
                was,
                atime_ns=was.atime_ns if atime_ns is None else atime_ns or time_ns(),
                mtime_ns=was.mtime_ns if mtime_ns is None else mtime_ns or time_ns(),
            )

    def room(self) -> tuple[int, int]:
        with self._lock:
            return self._capacity, max(0, self._capacity - self._used)


def _failed(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
