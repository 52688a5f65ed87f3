"""Regular files in memory: bytes in a RamFile, counted against the size of the file system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi.fcntl import (
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
)
from sentry.ahead import mypyc_attr
from sentry.errors import ENOMEM, ENOSPC, ENXIO, EOPNOTSUPP, EPERM
from sentry.fs.tmpfs.inode import TmpInode, check_size
from sentry.mm.buffers import UserDest, UserSource
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.attributes import check_size_limit
from sentry.vfs.file import Caller, Dest, Source
from sentry.vfs.interface import Owner
from sentry.vfs.regular import RegularFile
from sentry.wait.again import begun
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.fs.tmpfs.filesystem import TmpFs
    from sentry.vfs.location import Location

PIECE: Final = 1 << 20
"""Bytes copied at once."""
WRITE_SEALS: Final = F_SEAL_WRITE | F_SEAL_FUTURE_WRITE


@mypyc_attr(allow_interpreted_subclasses=True)
class TmpFile(TmpInode):
    """A regular file. Its frames go back when nobody holds the inode any more."""

    __slots__ = ("data", "seals")
    can_seal: ClassVar = True

    def __init__(self, fs: TmpFs, mode: int, owner: Owner) -> None:
        super().__init__(fs, 0o100000 | mode, owner)
        self.data: Any = None
        """The RamFile, made when first written or mapped."""
        self.seals = F_SEAL_SEAL  # type: ignore[misc]
        """F_ADD_SEALS: a plain file cannot be sealed."""

    def __del__(self) -> None:
        if self.data is not None:
            self.data.close()
        super().__del__()

    def bytes(self) -> Any:
        """The RamFile."""
        if self.data is None:
            self.data = self.sb.ram_file()
            self.data.quota = self.fs
        return self.data

    def size_of(self) -> tuple[int, int]:
        """The file's size and its frames."""
        return (self.data.size, self.data.pages * 8) if self.data is not None else (0, 0)

    def resize(self, size: int) -> None:
        """truncate(2), ftruncate(2). Raises: EPERM for a sealed file."""
        check_size(size)
        self.drop_file_caps()
        old = self.size_of()[0]
        if (size < old and self.seals & F_SEAL_SHRINK) or (size > old and self.seals & F_SEAL_GROW):
            raise EPERM("sealed")
        data = self.bytes()
        begun((self, "truncate"), lambda: driven(data.truncating(size)))
        self.mtime_ns = self.fs.now_ns()

    def room(self, offset: int, count: int) -> int:
        """How many bytes of a write the file system has room for. Raises: ENOSPC if none."""
        limit = self.sb.max_pages
        if limit is None:
            return count
        first, last = offset // PAGE_SIZE, (offset + count - 1) // PAGE_SIZE
        if self.sb.pages + last - first + 1 <= limit:
            return count
        free = limit - self.sb.pages
        for at, frame in enumerate(self.bytes().frames(first, min(last - first + 1, 1 << 16))):
            if not frame:
                free -= 1
                if free < 0:
                    fits = (first + at) * PAGE_SIZE - offset
                    if fits <= 0:
                        raise ENOSPC("the file system is full")
                    return min(count, fits)
        return count

    def open(self, location: Location, flags: int, caller: Caller) -> TmpOpenFile:
        """open(2)."""
        return TmpOpenFile(location, flags)

@mypyc_attr(allow_interpreted_subclasses=True)
class TmpOpenFile(RegularFile):
    """An open file of a file system in memory."""

    __slots__ = ()
    nowait: ClassVar = False

    @property
    def file(self) -> TmpFile:
        """The inode."""
        inode = self.location.dentry.inode
        assert isinstance(inode, TmpFile)
        return inode

    @property
    def write_sealed(self) -> bool:  # type: ignore[override]
        """The inode's seals."""
        return bool(self.file.seals & WRITE_SEALS)

    def size_now(self) -> int:
        """The size."""
        return self.file.size_of()[0]

    def pread(self, dest: Dest, offset: int) -> int:
        """Copy out of the frames."""
        data = self.location.dentry.inode.data  # type: ignore[attr-defined]
        if data is None:
            return 0
        if isinstance(dest, UserDest):
            got: int = data.read_to(dest, offset)
            return got
        done = 0
        while dest.count and (piece := data.read(offset + done, min(dest.count, PIECE))):
            done += dest.put(piece)
        return done

    def pwrite(self, source: Source, offset: int) -> int:
        """Copy into frames. Raises: EPERM for a sealed file, ENOSPC."""
        inode: TmpFile = self.location.dentry.inode  # type: ignore[assignment]
        data, count = inode.bytes(), source.count
        if inode.xattrs:
            inode.drop_file_caps()
        if inode.seals & (WRITE_SEALS | F_SEAL_GROW):
            count = self._unsealed(inode, offset, count)
        done = 0
        try:
            while done < count:
                some = inode.room(offset + done, min(count - done, PIECE))
                if isinstance(source, UserSource):
                    wrote = data.write_from(source, offset + done, some)
                else:
                    wrote = data.write(offset + done, source.get(some))
                done += wrote
                if wrote < some:
                    break
        except (ENOSPC, ENOMEM) as error:
            if not done:
                raise ENOSPC(str(error)) from error
        inode.touched()
        return done

    @staticmethod
    def _unsealed(inode: TmpFile, offset: int, count: int) -> int:
        if inode.seals & WRITE_SEALS:
            raise EPERM("sealed against writing")
        size = inode.size_of()[0]
        if offset + count > size:  # page by page, and not the one that would grow the file
            whole = size // PAGE_SIZE * PAGE_SIZE
            if offset >= whole:
                raise EPERM("sealed against growing")
            count = whole - offset
        return count

    def find(self, offset: int, data: bool, size: int) -> int:
        """SEEK_DATA and SEEK_HOLE over the frames."""
        held = self.file.bytes()
        if not data:
            return int(held.next_hole(offset))
        found = held.next_data(offset)
        if found is None:
            raise ENXIO("no data from there on")
        return int(found)

    def allocate(self, caller: Caller, mode: int, offset: int, length: int) -> None:
        """fallocate(2): room, or a hole."""
        if mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
            raise EOPNOTSUPP(f"mode {mode:#x}")
        inode = self.file
        inode.drop_file_caps()
        data, end = inode.bytes(), offset + length
        if mode & FALLOC_FL_PUNCH_HOLE:
            if inode.seals & WRITE_SEALS:
                raise EPERM("sealed against writing")
            last = (data.size + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
            length = max(0, min(length, last - offset))
            begun((self, "punch"), lambda: driven(data.punching(offset, length)))
            inode.touched()
            return
        if end > data.size:  # even where the size is kept
            check_size_limit(caller, end)
            if inode.seals & F_SEAL_GROW:
                raise EPERM("sealed against growing")
        first, last = offset // PAGE_SIZE, (end + PAGE_SIZE - 1) // PAGE_SIZE
        data.check_room(data.holes(first, last))
        if last - first > self.file.sb.memory_pages:
            raise ENOSPC("more than there is")
        begun((self, "fill"), lambda: driven(data.filling(first, last - first)))
        if end > data.size and not mode & FALLOC_FL_KEEP_SIZE:
            data.truncate(end)
        inode.touched()

    def mmap_backing(self, writable_shared: bool) -> Any:
        """The frames themselves."""
        inode = self.file
        if writable_shared and inode.seals & WRITE_SEALS:
            raise EPERM("sealed against writing")
        return inode.bytes()
