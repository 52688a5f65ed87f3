"""System V shared memory: ipc/shm.c, shmget(2).

A segment is a file of the kernel's own tmpfs. An attachment is an open file of it, which the
mappings hold: their number is shm_nattch, whatever fork, mprotect and munmap make of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi.capability import CAP_IPC_LOCK
from sentry.abi.fcntl import O_RDONLY, O_RDWR
from sentry.abi.mman import (
    MAP_FIXED,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    SHM_DEST,
    SHM_EXEC,
    SHM_HUGE_SHIFT,
    SHM_HUGETLB,
    SHM_LOCK,
    SHM_LOCKED,
    SHM_RDONLY,
    SHM_REMAP,
    SHM_RND,
)
from sentry.abi.resource import RLIMIT_MEMLOCK
from sentry.errors import EINVAL, ENOMEM, ENOSPC, EPERM
from sentry.fs.memfd import internal_mount
from sentry.fs.tmpfs.file import TmpFile, TmpOpenFile
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel.sysv_ids import (
    READ,
    WRITE,
    Caller,
    IdTable,
    IpcObject,
    check_permission,
    get,
    now,
)
from sentry.mm.mapping import mmap
from sentry.platform.constants import PAGE_SIZE
from sentry.suppress import suppress
from sentry.vfs.dentry import Dentry
from sentry.vfs.interface import Owner
from sentry.vfs.location import Location

if TYPE_CHECKING:
    from sentry.vfs.file import FileDescription
    from sentry.vfs.vfs import Vfs
    from sentry.wait.steps import Steps

FILL_AT_ONCE: Final = 16 << 20
"""A segment up to this size gets its frames when it is first attached, all of them."""
HUGE_SIZES: Final = (0, 21, 30)
"""What SHM_HUGE_SHIFT may hold on x86-64: the default, 2 MiB, 1 GiB."""


class Segment(IpcObject):
    """struct shmid_kernel."""

    __slots__ = ("atime", "cpid", "creator", "dtime", "inode", "locked_by", "lpid", "nattch",
                 "pages", "size")  # fmt: skip

    def __init__(self, task: Caller, key: int, size: int, flags: int, inode: TmpFile) -> None:
        super().__init__(task.creds, key, flags)
        self.size = size
        self.pages = (size + PAGE_SIZE - 1) // PAGE_SIZE
        self.inode = inode
        self.atime = self.dtime = 0
        self.cpid, self.lpid = task.group.tgid, 0
        self.nattch = 0
        self.creator: Caller | None = task
        """For kernel.shm_rmid_forced; None once it has ended."""
        self.locked_by = 0

    @property
    def resident(self) -> int:
        """Pages with a frame."""
        return self.inode.data.pages if self.inode.data is not None else 0


class ShmFile(TmpOpenFile):
    """One attachment: every mapping of it holds a use."""

    __slots__ = ("_owner", "segment")

    def __init__(self, location: Location, flags: int, owner: Segments, segment: Segment) -> None:
        super().__init__(location, flags)
        self._owner = owner
        self.segment = segment

    def incref(self) -> FileDescription:
        """shm_open(): one mapping more."""
        segment = self.segment
        segment.nattch += 1
        segment.atime = now()
        segment.lpid = self._owner.actor or segment.lpid
        return super().incref()

    def decref(self) -> None:
        """shm_close(): one less; the last one takes a doomed segment with it."""
        segment = self.segment
        segment.nattch -= 1
        segment.dtime = now()
        segment.lpid = self._owner.actor or segment.lpid
        super().decref()
        self._owner.detached(segment)


class Segments:
    """All segments of a namespace."""

    def __init__(self, vfs: Vfs, limit: Callable[[str], int]) -> None:
        self.ids: IdTable[Segment] = IdTable("shm")
        self.total_pages = 0
        self.actor = 0
        """The process on whose behalf mappings come and go."""
        self.limit = limit
        self._vfs = vfs

    # --- shmget

    def get(self, task: Caller, key: int, size: int, flags: int) -> int:
        """shmget(2)."""

        def check(found: Segment) -> None:
            if found.size < size:
                raise EINVAL(f"the segment has {found.size} bytes")

        return get(
            self.ids, task.creds, key, flags, lambda: self._make(task, key, size, flags), check
        )

    def _make(self, task: Caller, key: int, size: int, flags: int) -> int:
        """newseg(). Raises: EINVAL, ENOSPC, ENOMEM, EPERM."""
        if size < 1 or size > self.limit("shmmax"):
            raise EINVAL(f"size {size}")
        pages = (size + PAGE_SIZE - 1) // PAGE_SIZE
        if pages >> 52 or self.total_pages + pages > self.limit("shmall"):
            raise ENOSPC("shmall")
        if flags & SHM_HUGETLB:
            self._refuse_huge(task, flags)
        mount = internal_mount(self._vfs)
        fs = mount.fs
        assert isinstance(fs, TmpFs)
        if size > task.mm.space.ram.limit:
            raise ENOMEM("more than there is memory")
        fs.check_inodes()
        inode = TmpFile(fs, 0o600, Owner(task.creds.euid, task.creds.egid))
        inode.nlink = 0
        inode.bytes().truncate(pages * PAGE_SIZE)
        segment = Segment(task, key, size, flags, inode)
        inode.ino = self.ids.add(segment, self.limit("shmmni"))
        self.total_pages += pages
        return segment.id

    @staticmethod
    def _refuse_huge(task: Caller, flags: int) -> None:
        """hugetlb_file_setup() where no huge page is reserved."""
        if flags >> SHM_HUGE_SHIFT & 63 not in HUGE_SIZES:
            raise EINVAL("no such huge pages")
        if not task.creds.has(CAP_IPC_LOCK):
            raise EPERM("CAP_IPC_LOCK")
        raise ENOMEM("no huge pages are reserved")

    # --- shmat, shmdt

    def attach(self, task: Caller, number: int, addr: int, flags: int) -> Steps[int]:
        """shmat(2): do_shmat(). Raises: EINVAL, EACCES, ENOMEM.

        Preconditions: nobody has the lock of the mappings.
        """
        if number < 0:
            raise EINVAL("negative")
        how = MAP_SHARED
        if addr:
            how |= MAP_FIXED  # also of one that SHM_RND makes 0
            if addr & (PAGE_SIZE - 1):
                if not flags & SHM_RND:
                    raise EINVAL("not aligned")
                addr &= ~(PAGE_SIZE - 1)
                if not addr and flags & SHM_REMAP:
                    raise EINVAL("SHM_REMAP of page 0")
        elif flags & SHM_REMAP:
            raise EINVAL("SHM_REMAP without an address")
        prot, wanted, access = PROT_READ | PROT_WRITE, READ | WRITE, O_RDWR
        if flags & SHM_RDONLY:
            prot, wanted, access = PROT_READ, READ, O_RDONLY
        if flags & SHM_EXEC:
            prot |= PROT_EXEC
            wanted |= 0o111
        segment = self.ids.find(number)
        check_permission(task.creds, segment, wanted)
        mm = task.mm
        end = addr + segment.pages * PAGE_SIZE
        if addr and not flags & SHM_REMAP and (end >> 64 or not mm.map.vmas.free(addr, end)):
            raise EINVAL("something is mapped there")
        self._fill(segment, mm.space.ram.crowded)
        file = self._open(segment, access)
        mapping = mmap.steps(mm.map, addr, segment.size, prot, how, file)
        segment.nattch += 1  # while what is there goes
        try:
            while True:
                self.actor = task.group.tgid
                try:
                    next(mapping)
                except StopIteration as ended:
                    where: int = ended.value
                    return where
                yield
        finally:
            segment.nattch -= 1
            self.detached(segment)

    def _open(self, segment: Segment, access: int) -> ShmFile:
        dentry = Dentry(None, b"/SYSV%08x" % (segment.key & 0xFFFFFFFF), segment.inode)
        dentry.unlinked = True
        return ShmFile(Location(internal_mount(self._vfs), dentry), access, self, segment)

    @staticmethod
    def _fill(segment: Segment, crowded: bool) -> None:
        """Frames ahead of faults: the host gives memory for them only when they are touched."""
        if segment.size > FILL_AT_ONCE or segment.resident or crowded:
            return
        with suppress(ENOMEM):
            segment.inode.data.fill(0, segment.pages)

    def detach(self, task: Caller, addr: int) -> Steps[None]:
        """shmdt(2): the first attachment that starts at `addr`, all of its mappings. EINVAL."""
        if addr & (PAGE_SIZE - 1):
            raise EINVAL("not aligned")
        mm = task.mm
        file: ShmFile | None = None
        end = 1 << 63
        vma = mm.map.vmas.after(addr)
        while vma is not None and vma.end <= end:
            following = mm.map.vmas.after(vma.end)
            mine = vma.file
            if (
                isinstance(mine, ShmFile)
                and vma.start - addr == vma.offset
                and file in (None, mine)
            ):
                if file is None:
                    file, end = mine, addr + mine.segment.pages * PAGE_SIZE
                self.actor = task.group.tgid
                for _ in mm.map.removing(vma.start, vma.end):
                    yield
                    self.actor = task.group.tgid
            else:
                yield
            vma = following
        if file is None:
            raise EINVAL("nothing is attached there")

    # --- the end

    def detached(self, segment: Segment) -> None:
        """A mapping has gone."""
        if segment.nattch or segment.removed:
            return
        if segment.mode & SHM_DEST or self.limit("shm_rmid_forced"):
            self._destroy(segment)

    def _destroy(self, segment: Segment) -> None:
        self.ids.remove(segment)
        self.total_pages -= segment.pages

    def remove(self, segment: Segment) -> None:
        """IPC_RMID: now, or with the last attachment. Its key is free at once."""
        if not segment.nattch:
            self._destroy(segment)
            return
        segment.mode |= SHM_DEST
        self.ids.forget_key(segment)

    def creator_exits(self, task: Caller) -> Steps[None]:
        """exit_shm(): with kernel.shm_rmid_forced nothing outlives its users."""
        mine = [segment for segment in self.ids.objects.values() if segment.creator is task]
        forced = bool(mine) and self.limit("shm_rmid_forced")
        for segment in mine:
            segment.creator = None
            if forced:
                self.detached(segment)
                yield

    # --- shmctl

    def lock(self, task: Caller, segment: Segment, command: int) -> None:
        """SHM_LOCK, SHM_UNLOCK. Nothing is ever swapped: only the mode says so. EPERM, ENOMEM."""
        creds = task.creds
        if not creds.has_in(self.ids.owner, CAP_IPC_LOCK):
            if creds.euid not in (segment.uid, segment.cuid):
                raise EPERM("not the owner")
            if command == SHM_LOCK:
                limit = task.rlimit(RLIMIT_MEMLOCK)
                if not limit:
                    raise EPERM("RLIMIT_MEMLOCK")
                if self._locked_pages(creds.uid) + segment.pages > limit // PAGE_SIZE:
                    raise ENOMEM("RLIMIT_MEMLOCK")
        if command == SHM_LOCK:
            segment.mode |= SHM_LOCKED
            segment.locked_by = creds.uid
        else:
            segment.mode &= ~SHM_LOCKED

    def _locked_pages(self, uid: int) -> int:
        return sum(
            s.pages for s in self.ids.objects.values() if s.mode & SHM_LOCKED and s.locked_by == uid
        )

    def table(self, reader: Caller) -> Iterator[str]:
        """The lines of /proc/sysvipc/shm."""
        of = reader.pids.of
        for s in self.ids.in_order():
            yield (
                f"{s.key:10} {s.id:10}  {s.mode:4o} {s.size:21} {of(s.cpid):5} {of(s.lpid):5}  "
                f"{s.nattch:5} {s.owners(reader.creds)} {s.atime:10} {s.dtime:10} {s.ctime:10} "
                f"{s.resident * PAGE_SIZE:21} {0:21}\n"
            )
