"""Regular files of an image. What is mapped of one is kept in frames as long as that is so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.signal import BUS_ADRERR
from sentry.errors import EFAULT, ENODEV, ENOMEM, Errno
from sentry.fs.erofs import layout
from sentry.fs.erofs.inode import ErofsInode
from sentry.mm.errors import BusError
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.regular import RegularFile
from sentry.wait.again import NotNow, again, kept

if TYPE_CHECKING:
    from sentry.fs.erofs.extents import Map
    from sentry.fs.erofs.filesystem import ErofsFs
    from sentry.vfs.file import Caller, Dest, FileDescription
    from sentry.vfs.location import Location

PIECE: Final = 1 << 16
"""Bytes that are read at once."""


class Unreadable(EFAULT, BusError):
    """A page that the image has not: SIGBUS for a program, EFAULT for a call."""

    def __init__(self, why: str) -> None:
        BusError.__init__(self, 0, BUS_ADRERR)
        self.args = (why,)


class ErofsRegular(ErofsInode):
    """A regular file."""

    __slots__ = ("_map", "_opened", "_ram")

    def __init__(self, fs: ErofsFs, node: layout.Node) -> None:
        super().__init__(fs, node)
        self._ram: Any = None
        """The RamFile of what is mapped."""
        self._opened = 0
        self._map: Map | None = None
        """Of what is compressed."""

    def __del__(self) -> None:
        if self._ram is not None:
            self._ram.close()
        super().__del__()

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """open(2)."""
        self._opened += 1
        return ErofsFile(location, flags, self)

    def closed(self) -> None:
        """An open file is gone, and with the last one what was mapped."""
        self._opened -= 1
        if not self._opened and self._ram is not None and not self._ram.mappers:
            self._ram.loader = None
            self._ram.close()
            self._ram = None

    def piece(self, offset: int, size: int) -> bytes | int:
        """Some of these bytes, or how many of them are a hole. Raises: EUCLEAN, NotNow."""
        image, of = self.sb.image, self.sb.super
        if self.node.layout in layout.COMPRESSED_LAYOUTS:
            if self._map is None:
                self._map = self.sb.unpacked.read_map(self.node)
            return self.sb.unpacked.piece(self.node, self._map, offset, min(size, PIECE))
        at, length = layout.extent(image, of, self.node, offset)
        length = min(length, size, PIECE)
        return length if at < 0 else image.data(at, length)

    def backing(self) -> Any:
        """What a mapping shows. Raises: ENODEV."""
        if self._ram is None:
            make = self.sb.ram_file
            if make is None:
                raise ENODEV("cannot be mapped")
            self._ram = make()
            self._ram.truncate(self.node.size)
            self._ram.loader = self._load
        return self._ram

    async def _load(self, index: int, count: int) -> None:
        """Fill pages from `index` on: what a fault waits for. Raises: Unreadable."""
        ram, size = self._ram, self.node.size
        if ram is None:
            return  # who faults finds nothing mapped
        last = min(index + min(count, PIECE // PAGE_SIZE), -(-size // PAGE_SIZE))
        for page in range(index, last):
            if ram.peek(page):
                continue
            at = page * PAGE_SIZE
            try:
                data = await again(self._page, at, min(PAGE_SIZE, size - at))
            except Errno as error:
                if page > index:
                    return
                raise Unreadable(f"{error!r}") from None
            if ram.loader is None:  # nobody maps it any more
                return
            try:
                ram.bring(page, data)
            except ENOMEM:
                if page > index:
                    return
                raise

    def _page(self, at: int, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self.piece(at + len(found), size - len(found))
            found += bytes(piece) if isinstance(piece, int) else piece
        return found


class ErofsFile(RegularFile):
    """An open file."""

    __slots__ = ("_file",)

    def __init__(self, location: Location, flags: int, file: ErofsRegular) -> None:
        super().__init__(location, flags)
        self._file = file

    def pread(self, dest: Dest, offset: int) -> int:
        file, key = self._file, (self, "read", offset)
        done, before = kept(key) or (0, dest)
        if before is not dest:
            dest.skip(done)
        try:
            while dest.count and offset + done < file.node.size:
                piece = file.piece(offset + done, min(dest.count, file.node.size - offset - done))
                done += dest.zero(piece) if isinstance(piece, int) else dest.put(piece)
        except NotNow as need:
            need.call.answers[key] = done, dest
            raise
        return done

    def mmap_backing(self, writable_shared: bool) -> Any:
        return self._file.backing()

    def release(self) -> None:
        self._file.closed()
