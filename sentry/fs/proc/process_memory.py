"""/proc/PID/maps, smaps, numa_maps, cmdline, environ, auxv, mem."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.stat import S_IFREG
from sentry.auth.ptrace import may_attach
from sentry.errors import EACCES, EFAULT, EINVAL, EIO, ESRCH, Errno
from sentry.fs.proc.owner import owner_of
from sentry.fs.proc.registry import Subject, View, pid_file
from sentry.fs.pseudo.files import Pieces, Text
from sentry.fs.pseudo.nodes import Node
from sentry.mm import forced, report
from sentry.mm.errors import NeedsFault
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.file import Caller, Dest, FileDescription, Result, Source
from sentry.vfs.paths import shown_path
from sentry.vfs.regular import RegularFile
from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.location import Location

MAX_TEXT: Final = 8 << 20
"""Arguments or environment shown at most: more than execve takes."""
READ_AT_ONCE: Final = 1 << 18
MAX_COPY: Final = 1 << 20
"""Bytes that one call on /proc/PID/mem moves, so that others get their turn."""


def describe(view: View) -> Any:
    """How maps shows the open file behind a mapping."""
    root = view.caller.fs.root

    def of(file: Any) -> tuple[int, int, int, bytes]:
        inode = file.inode
        return os.major(inode.fs.dev), os.minor(inode.fs.dev), inode.ino, shown_path(
            file.location, root
        )

    return of


def of_all(mm: Any, text: Iterable[bytes]) -> Pieces:
    """What is told of all mappings, with others in between, but none who change them.

    Raises: NotNow, while somebody does.
    """
    mm.map.lock.check()
    return locked(mm, text)


def locked(mm: Any, text: Iterable[bytes]) -> Pieces:
    """The text, with the lock of the mappings."""
    mm.share()
    mm.map.lock.take()
    rest = mm.releasing()
    try:
        try:
            yield from text
        finally:
            mm.map.lock.let_go()
        for _ in rest:
            yield b""
    finally:
        at_once(rest)  # where nobody reads on: then nothing may be yielded


def space(view: View) -> Any:
    """The address space of the time of the open: proc_mem_open()."""
    return view.subject.mm


def space_in_use(view: View) -> Any:
    """That one, or None once nobody has it any more: who was looked into may be another now."""
    mm = view.pinned
    return mm if mm is not None and mm.users else None


def mapped(view: View) -> Any:
    """The same, of a process that is there. Raises: ESRCH."""
    if not view.subject.exists:
        raise ESRCH(f"process {view.subject.id}")
    return space_in_use(view)


@pid_file("maps", private=True, pin=space)
def maps(view: View) -> Text:
    """One line for each mapping."""
    mm = mapped(view)
    return of_all(mm, report.maps(mm.map, describe(view))) if mm is not None else b""


@pid_file("smaps", private=True, pin=space)
def smaps(view: View) -> Text:
    """maps, with what of each is in memory."""
    mm = mapped(view)
    return of_all(mm, report.smaps(mm.map, describe(view))) if mm is not None else b""


@pid_file("numa_maps", private=True, pin=space)
def where_memory_lies(view: View) -> Text:
    """What is in memory of each mapping, and where it is to be."""
    from sentry.mm.numa_report import numa_maps  # noqa: PLC0415  few programs look

    mm = mapped(view)
    if mm is None:
        return b""
    return of_all(mm, numa_maps(mm.map, view.subject.task.policy, describe(view)))


@pid_file("smaps_rollup", private=True, pin=space)
def smaps_rollup(view: View) -> Text:
    """The sum of smaps. Raises: ESRCH."""
    mm = mapped(view)
    if mm is None:
        raise ESRCH(f"process {view.subject.id} has ended")
    return of_all(mm, report.smaps_rollup(mm.map))


def read_range(mm: Any, start: int, end: int) -> bytes:
    """Bytes of a process up to the first that cannot be read."""
    end = min(end, start + MAX_TEXT)
    data = bytearray()
    size = READ_AT_ONCE
    while start < end:
        part = min(end - start, size - start % size)
        try:
            data += mm.read(start, part)
        except EFAULT:
            if size == PAGE_SIZE:
                break
            size = PAGE_SIZE
            continue
        start += part
    return bytes(data)


@pid_file("cmdline")
def cmdline(view: View) -> bytes:
    """The arguments; and what setproctitle(3) wrote over them into the environment."""
    mm = view.subject.mm
    if mm is None:
        return b""
    layout = mm.map.layout
    if not layout.arg_start < layout.arg_end:
        return b""
    data = read_range(mm, layout.arg_start, layout.arg_end)
    if data[-1:] == b"\0" or not data or layout.env_start != layout.arg_end:
        return data
    title = data + read_range(mm, layout.env_start, min(layout.env_end, layout.env_start + 4096))
    return title.split(b"\0", 1)[0] + b"\0"


@pid_file("environ", 0o400, private=True, pin=space)
def environ(view: View) -> bytes:
    """The environment that the program was started with."""
    mm = space_in_use(view)
    if mm is None:
        return b""
    return read_range(mm, mm.map.layout.env_start, mm.map.layout.env_end)


@pid_file("auxv", 0o400, private=True, pin=space)
def auxv(view: View) -> bytes:
    """The auxiliary vector."""
    mm = view.pinned
    return mm.map.layout.auxv if mm is not None else b""


class MemNode(Node):
    """/proc/PID/mem."""

    __slots__ = ("_subject",)

    opens_itself = True

    def __init__(self, fs: TableFs, subject: Subject) -> None:
        super().__init__(fs, S_IFREG | 0o600, owner_of(subject))
        self._subject = subject

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """Whoever may attach to the process may read and write its memory."""
        subject = self._subject
        mm = subject.held_mm
        if not may_attach(caller, subject.task, real=False):
            raise EACCES(f"memory of {subject.id}")
        return MemFile(location, flags, mm)


class MmFile(RegularFile):
    """A file that is about an address space: the one of the time of the open."""

    __slots__ = ("_mm",)
    can_direct = False
    read_flags = False
    write_flags = False
    splice_read = False
    splice_write = False

    def __init__(self, location: Location, flags: int, mm: Any) -> None:
        super().__init__(location, flags)
        self._mm = mm.share()

    def release(self) -> None:
        """Let go of the address space: nobody may have it any more."""
        fs: Any = self.inode.fs
        fs.kernel.vfs.leftovers.add(self._mm.releasing())
        super().release()

    def _alive(self) -> bool:
        return bool(self._mm.users > 1)

    def sync(self, data_only: bool) -> None:
        """Raises: EINVAL."""
        raise EINVAL("nothing to sync")

    def size_now(self) -> int:
        """There is no end."""
        raise EINVAL("no end")


class MemFile(MmFile):
    """Offsets are addresses.

    What a mapping forbids is done all the same, as for ptrace(2): FOLL_FORCE, mem_rw().
    """

    __slots__ = ()

    def pread(self, dest: Dest, offset: int) -> int:
        """Page by page; EIO when not even the first byte can be read."""
        if not self._alive():
            return 0
        done = 0
        while dest.count and done < MAX_COPY:
            at = offset + done
            part = min(dest.count, PAGE_SIZE - (at & (PAGE_SIZE - 1)))
            try:
                data = forced.peek(self._mm, at, part)
            except NeedsFault as need:
                if done:
                    break
                raise NeedsFault(partial(_page, need)) from None
            except EFAULT:
                if done:
                    break
                raise EIO(f"{at:#x}") from None
            done += dest.put(data)
        return done

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """At the position."""
        n = self._store(source, self.position)
        self.position += n
        return n

    def write_at(self, caller: Caller, source: Source, offset: int, rwf: int = 0) -> Result:
        """At an address."""
        return self._store(source, offset)

    def _store(self, source: Source, offset: int) -> int:
        if not self._alive() or not source.count:
            return 0
        done = 0
        while source.count and done < MAX_COPY:
            at = offset + done
            part = bytes(source.get(min(source.count, PAGE_SIZE - (at & (PAGE_SIZE - 1)))))
            try:
                forced.poke(self._mm, at, part)
            except NeedsFault:
                if done:
                    break
                raise
            except EFAULT:
                break
            done += len(part)
        if not done:
            raise EIO(f"{offset:#x}")
        return done


async def _page(need: NeedsFault) -> None:
    try:
        await need.wait()
    except Errno:
        raise EIO("page") from None
