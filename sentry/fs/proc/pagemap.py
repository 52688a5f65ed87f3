"""/proc/PID/pagemap: eight bytes for each page of an address space. fs/proc/task_mmu.c.

Frame numbers are shown to nobody, as Linux keeps them from those without CAP_SYS_ADMIN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.stat import S_IFREG
from sentry.errors import EINVAL
from sentry.fs.proc.owner import check_read, owner_of
from sentry.fs.proc.process_memory import MmFile
from sentry.fs.pseudo.nodes import Node
from sentry.mm import report
from sentry.mm.layout import LINUX_TASK_END
from sentry.vfs.file import Caller, Dest, FileDescription

if TYPE_CHECKING:
    from sentry.fs.proc.registry import Subject
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.location import Location

ENTRY: Final = 8
END: Final = (LINUX_TASK_END >> 12) * ENTRY
MAX_PAGES: Final = 4096
"""Pages that one call tells of, so that others get their turn."""


class PagemapNode(Node):
    """/proc/PID/pagemap."""

    __slots__ = ("_subject",)

    opens_itself = True

    def __init__(self, fs: TableFs, subject: Subject) -> None:
        super().__init__(fs, S_IFREG | 0o400, owner_of(subject))
        self._subject = subject

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """For those who may look into the process."""
        mm = self._subject.held_mm
        check_read(caller, self._subject)
        return PagemapFile(location, flags, mm)


class PagemapFile(MmFile):
    """Offsets are numbers of pages, times eight."""

    __slots__ = ()

    def pread(self, dest: Dest, offset: int) -> int:
        """Whole entries only; 0 past the end of user space. Raises: EINVAL."""
        if not self._alive():
            return 0
        if offset % ENTRY or dest.count % ENTRY:
            raise EINVAL("part of an entry")
        size = min(dest.count, END - offset, MAX_PAGES * ENTRY)
        if size <= 0:
            return 0
        start = offset // ENTRY << 12
        return dest.put(report.pagemap(self._mm.map, start, start + (size // ENTRY << 12)))
