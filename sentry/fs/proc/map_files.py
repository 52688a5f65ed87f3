"""/proc/PID/map_files: the files behind the mappings of a process, by their addresses.

Linux shows memory that is shared without a name as a file, too; here it is none.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN
from sentry.abi.stat import S_IFLNK
from sentry.errors import ENOENT, EPERM
from sentry.fs.proc.owner import check_read, may_read, owner_of
from sentry.fs.pseudo.nodes import Directory, GeneratedDirectoryFile, MagicNode, Node
from sentry.vfs.dirents import FIRST, Dirents, DirentSink
from sentry.vfs.interface import Absent, Inode
from sentry.vfs.paths import link_text
from sentry.wait.again import begun
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from sentry.fs.proc.registry import Subject
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.file import Caller
    from sentry.vfs.location import Location

SOME_MAPPINGS: Final = 256
"""So many are looked at in one go."""
_NAME: Final = re.compile(rb"(0|[1-9a-fA-F][0-9a-fA-F]{0,15})-(0|[1-9a-fA-F][0-9a-fA-F]{0,15})")


def _file(subject: Subject, start: int, end: int) -> Any:
    """What is mapped exactly there, or None: find_exact_vma()."""
    mm = subject.mm
    vma = mm.map.vmas.find(start) if mm is not None else None
    if vma is None or (vma.start, vma.end) != (start, end):
        return None
    return vma.file


class MapFileLink(MagicNode):
    """/proc/PID/map_files/START-END. It is followed by whoever may restore processes only."""

    __slots__ = ("_end", "_start", "_subject")

    def __init__(self, fs: TableFs, subject: Subject, start: int, end: int) -> None:
        def place(caller: Any) -> Location:
            check_read(caller, subject)
            if (file := _file(subject, start, end)) is None:
                raise ENOENT(f"nothing is mapped at {start:#x}")
            location: Location = file.location
            return location

        def target(caller: Any) -> Location:
            if not any(caller.creds.has(cap) for cap in (CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN)):
                raise EPERM("CAP_CHECKPOINT_RESTORE")
            return place(caller)

        def text(caller: Any) -> bytes:
            return link_text(place(caller), caller.fs.root)

        super().__init__(fs, text, target, 0, owner_of(subject))
        self._subject, self._start, self._end = subject, start, end

    def refresh(self) -> bool:
        """The mode says how the file was opened. False: it is not mapped there any more."""
        file = _file(self._subject, self._start, self._end)
        if file is None:
            return False
        self.mode = S_IFLNK | (0o400 if file.readable else 0) | (0o200 if file.writable else 0)
        self.uid, self.gid = owner_of(self._subject)
        return True

    def size(self) -> int:
        """As Linux says."""
        return 64


class MapFilesDirectory(Directory):
    """The directory."""

    __slots__ = ("subject",)

    def __init__(self, fs: TableFs, subject: Subject) -> None:
        super().__init__(fs, 0o500, owner_of(subject))
        self.subject = subject

    def belongs_to(self, caller: Caller) -> bool:
        """A process may look at its own, whoever it has become: proc_fd_permission()."""
        return caller.group is self.subject.task.group

    def ranges(self) -> Steps[array[int]]:
        """Start and end of each mapping of a file."""
        found = array("Q")
        mm, at, seen = self.subject.mm, 0, 0
        while mm is not None and (vma := mm.map.vmas.after(at)) is not None:
            if vma.file is not None:
                found.extend((vma.start, vma.end))
            at, seen = vma.end, seen + 1
            if not seen % SOME_MAPPINGS:
                yield
        return found

    def listing(self) -> Dirents:
        """Those names. Raises: NotNow."""
        ranges = begun((self, "ranges"), lambda: driven(self.ranges()))
        number = self.sb.child_ino
        names = (b"%x-%x" % (ranges[at], ranges[at + 1]) for at in range(0, len(ranges), 2))
        return Dirents((name, number(self.ino, name), S_IFLNK) for name in names)

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:  # type: ignore[override]
        """It depends on who looks."""
        return None

    def lookup_for(self, caller: Caller, name: bytes, opens: bool = False) -> Inode | Absent:
        """For those who may look into the process. Raises: EACCES."""
        check_read(caller, self.subject)
        return super().lookup_cached(name)

    def names(self) -> Iterable[tuple[bytes, int]]:
        """They are listed by `MapFilesFile`."""
        return ()

    def open(self, location: Location, flags: int, caller: Caller) -> MapFilesFile:
        """For getdents."""
        return MapFilesFile(location, flags)

    def stale(self, node: Node) -> bool:
        """Something else is mapped there."""
        return isinstance(node, MapFileLink) and not node.refresh()

    def make(self, name: bytes) -> Node | None:
        """A link to a file that is mapped."""
        if (found := _NAME.fullmatch(name)) is None:
            return None
        node = MapFileLink(self.sb, self.subject, int(found[1], 16), int(found[2], 16))
        return node if node.refresh() else None


class MapFilesFile(GeneratedDirectoryFile):
    """The directory, open."""

    __slots__ = ()

    def entries(self, caller: Caller, dest: DirentSink) -> int:
        """getdents64(2): all but `.` and `..` for who may look into the process by now.

        Raises: EACCES.
        """
        if self.position >= FIRST:
            check_read(caller, self._directory.subject)
        return super().entries(caller, dest)

    @property
    def _directory(self) -> MapFilesDirectory:
        inode = self.inode
        assert isinstance(inode, MapFilesDirectory)
        return inode

    def _list(self, caller: Caller) -> Dirents:
        directory = self._directory
        return directory.listing() if may_read(caller, directory.subject) else Dirents(())
