"""`FdTable`: the descriptors of a process (struct files_struct; CLONE_FILES shares it)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from typing import Any, Final

from sentry.abi.fcntl import O_PATH
from sentry.errors import EBADF, EMFILE, Errno
from sentry.vfs.budget import NR_OPEN, DescriptorLimit
from sentry.vfs.file import Caller, FileDescription
from sentry.wait.steps import Steps

BLOCK: Final = 64
"""BITS_PER_LONG: tables grow by so many descriptors."""


QUIET_ONES: Final = 64
"""Descriptors between two looks at the time, where uses are given back."""
PIECE: Final = 4096
"""Descriptors that are looked at together for an open one."""


class FdTable:
    """Numbers to descriptions. A descriptor holds one use of its description."""

    __slots__ = (
        "_cloexec", "_copies", "_files", "_limit", "_lowest", "_open", "_uncounted", "polls",
        "users",
    )  # fmt: skip

    def __init__(self, limit: DescriptorLimit | None = None) -> None:
        self._limit = limit if limit is not None else DescriptorLimit()
        self._files: list[FileDescription | None] = []
        self._open = bytearray()
        """1 where a descriptor is open: to look among a million costs no time."""
        self._cloexec = bytearray()
        """1 where it is, and execve(2) closes it."""
        self._copies: list[FdTable] = []
        """Those that are being made of this one."""
        self._uncounted = bytearray()
        """1 where a copy that is being made has no use of its own yet."""
        self._lowest = 0
        """No descriptor below it is free."""
        self.polls: Any = None
        """What is polled again and again (sentry.syscalls.files.poll_set); it hears before one of
        its descriptors changes."""
        self.users = 1
        """Tasks that share it."""

    def __iter__(self) -> Iterator[int]:
        for low in range(0, len(self._open), PIECE):
            piece = self._open[low : low + PIECE]
            if 1 in piece:
                yield from compress(range(low, low + PIECE), piece)

    def __len__(self) -> int:
        return self._open.count(1)

    def highest(self) -> int:
        """The highest descriptor that is open; 0 if none is."""
        return max(self._open.rfind(1), 0)

    # --- looking up

    def get(self, fd: int) -> FileDescription:
        """The open file of `fd`. Raises: EBADF, also for O_PATH ones."""
        file = self._files[fd] if 0 <= fd < len(self._files) else None
        if file is None or file.flags & O_PATH:
            raise EBADF(f"fd {fd}")
        return file

    def get_raw(self, fd: int) -> FileDescription:
        """The open file of `fd`, O_PATH or not. Raises: EBADF."""
        file = self._files[fd] if 0 <= fd < len(self._files) else None
        if file is None:
            raise EBADF(f"fd {fd}")
        return file

    def readable(self, fd: int) -> FileDescription:
        """The open file of `fd`, opened for reading. Raises: EBADF."""
        file = self._files[fd] if 0 <= fd < len(self._files) else None
        if file is None or not file.readable or file.flags & O_PATH:
            raise EBADF(f"fd {fd} is not open for reading")
        return file

    def writable(self, fd: int) -> FileDescription:
        """The open file of `fd`, opened for writing. Raises: EBADF."""
        file = self._files[fd] if 0 <= fd < len(self._files) else None
        if file is None or not file.writable or file.flags & O_PATH:
            raise EBADF(f"fd {fd} is not open for writing")
        return file

    def close_on_exec_of(self, fd: int) -> bool:
        """FD_CLOEXEC of an open descriptor."""
        return bool(self._cloexec[fd])

    def set_close_on_exec(self, fd: int, on: bool) -> None:
        """fcntl(F_SETFD) of an open descriptor."""
        self._cloexec[fd] = self._open[fd] if on else 0

    # --- making

    def install(
        self, file: FileDescription, limit: int, *, cloexec: bool = False, lowest: int = 0
    ) -> int:
        """Give `file` the lowest free number from `lowest` on, below `limit` (RLIMIT_NOFILE).

        Raises: EMFILE; the file is not touched then.
        """
        fd = self.free_from(lowest, limit)
        self._put(fd, file, cloexec)
        return fd

    def free_from(self, lowest: int, limit: int) -> int:
        """The lowest free number. Raises: EMFILE."""
        fd = max(lowest, self._lowest)
        if fd < len(self._open):
            free = self._open.find(0, fd)
            fd = free if free >= 0 else len(self._open)
        if lowest <= self._lowest:
            self._lowest = fd
        if fd >= min(limit, self._limit.nr_open, NR_OPEN):
            raise EMFILE(f"limit {limit}")
        return fd

    def _put(self, fd: int, file: FileDescription, cloexec: bool) -> None:
        if self.polls is not None:
            self.polls.changes(fd)
        files = self._files
        if fd >= len(files):
            more = fd + 1 - len(files)
            files.extend([None] * more)
            self._open.extend(bytes(more))
            self._cloexec.extend(bytes(more))
        files[fd] = file
        self._open[fd] = 1
        file.refs += 1
        self.set_close_on_exec(fd, cloexec)

    def replace(
        self, caller: Caller, fd: int, file: FileDescription, limit: int, *, cloexec: bool = False
    ) -> None:
        """dup2(2): `fd` becomes `file`, what was there is closed. EBADF beyond the limit."""
        if not 0 <= fd < min(limit, self._limit.nr_open, NR_OPEN):
            raise EBADF(f"fd {fd}")
        old = self._files[fd] if fd < len(self._files) else None
        if old is not None:
            self._leaves(fd, old)
        self._put(fd, file, cloexec)
        if old is not None:
            self._closed(caller, old)

    # --- closing

    def close(self, caller: Caller, fd: int) -> FileDescription:
        """close(2): what it was. Raises: EBADF, what `flush` does."""
        file = self._taken_out(fd)
        failed = self._closed(caller, file)
        try:
            if failed is not None:
                raise failed
        finally:
            del failed  # which has this frame: a circle
        return file

    def _taken_out(self, fd: int) -> FileDescription:
        file = self.get_raw(fd)
        if self.polls is not None:
            self.polls.changes(fd)
        self._leaves(fd, file)
        self._files[fd] = None
        self._open[fd] = self._cloexec[fd] = 0
        self._lowest = min(self._lowest, fd)
        return file

    def _leaves(self, fd: int, file: FileDescription) -> None:
        """`fd` will be something else: a copy that is being made has its use before."""
        for copy in self._copies:
            if fd < len(copy._uncounted) and copy._uncounted[fd]:
                copy._uncounted[fd] = 0
                file.refs += 1

    def _closed(self, caller: Caller, file: FileDescription) -> Errno | None:
        failed = None
        locks = file.inode.locks
        if locks is not None and not file.flags & O_PATH:
            locks.release_owner(self)
        if not file.flags & O_PATH:
            try:
                file.flush(caller)
            except Errno as error:
                failed = error
            if file.dnotify is not None and file.dnotify.table is self:
                file.dnotify.removed()
        file.decref()
        return failed

    def close_range(self, caller: Caller, first: int, last: int) -> Steps[None]:
        """close_range(2): close all open ones in the range."""
        return self._closing(caller, self._open, first, last)

    def mark_range(self, first: int, last: int) -> None:
        """CLOSE_RANGE_CLOEXEC: the same are closed by execve(2) from now on."""
        end = min(last + 1, len(self._open))
        self._cloexec[first:end] = self._open[first:end]

    def close_on_exec(self, caller: Caller) -> Steps[None]:
        """execve(2): close those marked."""
        return self._closing(caller, self._cloexec, 0, NR_OPEN)

    def _closing(self, caller: Caller, marks: bytearray, first: int, last: int) -> Steps[None]:
        """Close what is marked when it is its turn: others see, and change, what is left."""
        fd = marks.find(1, first, last + 1)
        while fd >= 0:
            self._closed(caller, self._taken_out(fd))
            yield
            fd = marks.find(1, fd + 1, last + 1)

    def left(self, caller: Caller) -> Steps[None]:
        """One user less; with the last one it ends: put_files_struct()."""
        self.users -= 1
        if not self.users:
            yield from self.ending(caller)

    def ending(self, caller: Caller) -> Steps[None]:
        """The last task has left: close all. Most files are open elsewhere, too, and know nothing
        of whose descriptors those are: such a use is only counted."""
        if self.polls is not None:
            self.polls.forget()
        files, self._files = self._files, []
        self._open, self._cloexec = bytearray(), bytearray()
        files.reverse()
        for number in range(1, len(files) + 1):
            file = files.pop()  # so that none is there longer than it is open
            if file is not None:
                if (
                    file.refs == 1
                    or file.flushes
                    or file.dnotify is not None
                    or (file.inode.locks is not None and not file.flags & O_PATH)
                ):
                    self._closed(caller, file)
                    yield
                    continue
                file.refs -= 1
            if not number % QUIET_ONES:  # also where none is open: there may be a million
                yield

    def check_copy(self) -> None:
        """alloc_fdtable(): fs.nr_open may have become lower than what is open. Raises: EMFILE."""
        if self.highest() >= -(-self._limit.nr_open // BLOCK) * BLOCK:
            raise EMFILE("fs.nr_open")

    def copying(self) -> Steps[FdTable]:
        """fork(2) without CLONE_FILES: a table with the descriptions of now. What changes in this
        one while the uses are counted changes nothing in the new one."""
        new = FdTable(self._limit)
        new._files, new._open, new._cloexec = self._files[:], self._open[:], self._cloexec[:]
        new._uncounted = self._open[:]
        new._lowest = self._lowest
        self._copies.append(new)
        try:
            for low in range(0, len(new._open), PIECE):
                if low:
                    yield
                new._count_uses(low, low + PIECE)
        finally:
            self._copies.remove(new)
        return new

    def _count_uses(self, low: int, high: int) -> None:
        piece = self._uncounted[low:high]
        if 1 in piece:
            for file in compress(self._files[low:high], piece):
                if file is not None:
                    file.refs += 1
            self._uncounted[low:high] = bytes(len(piece))
