"""/proc/PID/fd and fdinfo: the open files of a process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import O_CLOEXEC
from sentry.abi.stat import S_IFLNK, S_IFREG
from sentry.errors import EBADF, ENOENT
from sentry.fs.proc.owner import check_read, live_task, owner_of
from sentry.fs.pseudo.files import Pieces
from sentry.fs.pseudo.nodes import Directory, MagicNode, Node, TextNode
from sentry.vfs.interface import ABSENT, Absent, Inode
from sentry.vfs.paths import link_text

if TYPE_CHECKING:
    from sentry.fs.proc.registry import Subject
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location



def open_file(subject: Subject, fd: int) -> FileDescription:
    """The file behind a descriptor now. Raises: ENOENT."""
    try:
        file: FileDescription = live_task(subject).files.get_raw(fd)
    except EBADF:
        raise ENOENT(f"fd {fd}") from None
    return file


def parse_fd(name: bytes) -> int | None:
    """A decimal number without leading zeros."""
    if not name.isdigit() or len(name) > 10 or (len(name) > 1 and name[:1] == b"0"):
        return None
    return int(name)


class _Numbers(Directory):
    """One name for each descriptor."""

    __slots__ = ("_subject",)
    kind_of_child = S_IFLNK

    def __init__(self, fs: TableFs, subject: Subject, mode: int) -> None:
        super().__init__(fs, mode, owner_of(subject))
        self._subject = subject

    def belongs_to(self, caller: Caller) -> bool:
        """A process may look at its own, whoever it has become: proc_fd_permission()."""
        return caller.group is self._subject.task.group

    def names(self) -> Iterable[tuple[bytes, int]]:
        """The descriptors. Raises: ENOENT when the process is gone."""
        return ((b"%d" % fd, self.kind_of_child) for fd in live_task(self._subject).files)

    def size(self) -> int:
        """st_size says how many there are."""
        task = self._subject.task
        return 0 if task.dead else len(task.files)

    def lookup_cached(self, name: bytes) -> Inode | Absent:
        """Only what is open now."""
        fd = parse_fd(name)
        if fd is None or self._subject.task.dead:
            return ABSENT
        try:
            file = open_file(self._subject, fd)
        except ENOENT:
            return ABSENT
        node = super().lookup_cached(name)
        if isinstance(node, FdLink):
            node.refresh(file)
        return node


class FdLink(MagicNode):
    """/proc/PID/fd/N."""

    __slots__ = ("_subject",)

    def __init__(self, fs: TableFs, subject: Subject, fd: int) -> None:
        def target(caller: Any) -> Location:
            check_read(caller, subject)
            return open_file(subject, fd).location

        def text(caller: Any) -> bytes:
            return link_text(target(caller), caller.fs.root)

        super().__init__(fs, text, target, 0o700, owner_of(subject))
        self._subject = subject

    def refresh(self, file: FileDescription) -> None:
        """The mode says how the file was opened."""
        bits = 0o100 | (0o400 if file.readable else 0) | (0o200 if file.writable else 0)
        self.mode = S_IFLNK | bits
        self.uid, self.gid = owner_of(self._subject)

    def size(self) -> int:
        """As Linux says."""
        return 64


class FdDirectory(_Numbers):
    """/proc/PID/fd."""

    __slots__ = ()

    def __init__(self, fs: TableFs, subject: Subject) -> None:
        super().__init__(fs, subject, 0o500)

    def make(self, name: bytes) -> Node | None:
        """A link to an open file."""
        fd = parse_fd(name)
        return FdLink(self.sb, self._subject, fd) if fd is not None else None


class FdInfoDirectory(_Numbers):
    """/proc/PID/fdinfo."""

    __slots__ = ()
    kind_of_child = S_IFREG

    def __init__(self, fs: TableFs, subject: Subject) -> None:
        super().__init__(fs, subject, 0o555)

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:  # type: ignore[override]
        """It depends on who looks."""
        return None

    def lookup_for(self, caller: Caller, name: bytes, opens: bool = False) -> Inode | Absent:
        """For those who may look into the process: proc_fdinfo_permission(). Raises: EACCES."""
        check_read(caller, self._subject)
        return super().lookup_cached(name)

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """Likewise."""
        check_read(caller, self._subject)
        return super().open(location, flags, caller)

    def make(self, name: bytes) -> Node | None:
        """A text about an open file."""
        fd = parse_fd(name)
        if fd is None:
            return None
        subject = self._subject
        return FdInfoNode(self.sb, subject, fd)


class FdInfoNode(TextNode):
    """/proc/PID/fdinfo/N."""

    __slots__ = ("_subject",)

    def __init__(self, fs: TableFs, subject: Subject, fd: int) -> None:
        super().__init__(fs, 0o444, lambda _: fdinfo(subject, fd), None, owner_of(subject))
        self._subject = subject

    def check_open(self, caller: Caller, flags: int) -> None:
        """PTRACE_MODE_READ."""
        check_read(caller, self._subject)


def fdinfo(subject: Subject, fd: int) -> Pieces:
    """seq_show() of fs/proc/fd.c, and what the kind of file adds."""
    file = open_file(subject, fd)
    flags = file.flags
    if live_task(subject).files.close_on_exec_of(fd):
        flags |= O_CLOEXEC
    yield (
        f"pos:\t{file.position}\nflags:\t0{flags:o}\nmnt_id:\t{file.location.mount.id}\n"
        f"ino:\t{file.inode.ino}\n"
    )
    more = file.fdinfo_in(subject.pids)
    yield from (more,) if isinstance(more, str) else more
