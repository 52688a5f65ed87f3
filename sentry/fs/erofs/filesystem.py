"""`ErofsFs`: an image that is mounted. fs/erofs/super.c."""

from __future__ import annotations

import stat as modes
from _weakref import ref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import AT_FDCWD, O_RDONLY
from sentry.abi.stat import EROFS_SUPER_MAGIC_V1
from sentry.errors import EINVAL, ENOTBLK, ENXIO, EUCLEAN
from sentry.fs.erofs import layout
from sentry.fs.erofs.file import ErofsRegular
from sentry.fs.erofs.image import Image
from sentry.fs.erofs.inode import ErofsDirectory, ErofsInode
from sentry.fs.erofs.unpacked import Kept, Unpacked
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Inode, StatFs
from sentry.vfs.open import OpenHow, open_location
from sentry.vfs.walk import resolve
from sentry.wait.again import again, begun

if TYPE_CHECKING:
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import Vfs

MAX_DEPTH: Final = 2
"""Images, and overlays, in one another: FILESYSTEM_MAX_STACK_DEPTH."""
OPTIONS: Final = ("acl", "noacl", "user_xattr", "nouser_xattr")


def check_option(option: str) -> None:
    """Raises: EINVAL."""
    if option not in OPTIONS and not option.startswith("cache_strategy="):
        raise EINVAL(f"erofs: {option}")


def mount_erofs(caller: Caller, source: bytes, flags: int, data: bytes) -> ErofsFs:
    """mount(2) of type erofs: erofs_fc_get_tree(). Raises: EINVAL, ENOTBLK, NotNow."""
    for option in filter(None, data.decode(errors="replace").split(",")):
        check_option(option)
    return begun((mount_erofs, source), lambda: _mounted(caller, source))


async def _mounted(caller: Caller, source: bytes) -> ErofsFs:
    location = await again(resolve, caller, AT_FDCWD, source)
    inode = location.dentry.inode
    if inode.kind == modes.S_IFBLK:
        raise ENXIO("no block devices")
    if not inode.is_regular:
        raise ENOTBLK("neither a device nor a regular file")
    below = inode.fs
    depth = below.stack_depth + 1
    if depth > MAX_DEPTH:
        raise EINVAL("an image in an image in an image")
    file = await again(open_location, caller, location, OpenHow.old(O_RDONLY, 0))
    fs = await _read(caller.kernel.vfs, file)
    fs.stack_depth = depth
    fs.source = source.decode(errors="replace")
    return fs


async def image_at(vfs: Vfs, location: Location) -> ErofsFs:
    """The image in a file, for the sandbox itself. Raises: EINVAL, EUCLEAN, EIO."""
    nobody: Any = None
    if not location.inode.is_regular:
        raise EINVAL("not a regular file")
    return await _read(vfs, await again(location.inode.open, location, O_RDONLY, nobody))


async def image_of(vfs: Vfs, file: FileDescription) -> ErofsFs:
    """The image that an open file holds, for the sandbox itself. Raises: EINVAL, EUCLEAN, EIO."""
    return await _read(vfs, file)


async def _read(vfs: Vfs, file: FileDescription) -> ErofsFs:
    """What an open file holds, which is closed in the end, or if it is no image."""
    file.incref()
    try:
        image = Image(file, (await again(file.stat)).size)
        found = await again(layout.read_super, image)
        top = await again(layout.read_node, image, found, found.root)
        return ErofsFs.of(vfs, image, (found, top))
    except BaseException:
        file.decref()
        raise


class ErofsFs(FileSystem):
    """One image."""

    name = "erofs"
    magic = EROFS_SUPER_MAGIC_V1
    read_only = True
    only_read = True
    has_handles = True
    xattr_user = True
    posix_acls = True

    def __init__(
        self, dev: int, image: Image, of: layout.Super, kept: Kept,
        ram_file: Callable[[], Any] | None, now_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        super().__init__(dev, now_ns)
        self.image = image
        self.super = of
        self.unpacked = Unpacked(image, of, kept)
        self.ram_file = ram_file
        """Makes a RamFile, for what is mapped."""
        self._inodes: dict[int, ref[ErofsInode]] = {}
        self._top: ErofsDirectory | None = None
        """The root, for who mounts it: it holds all of this."""

    @classmethod
    def of(cls, vfs: Vfs, image: Image, what: tuple[layout.Super, layout.Node]) -> ErofsFs:
        """What an image holds: its superblock and its root. Raises: EUCLEAN."""
        found, top = what
        if not modes.S_ISDIR(top.mode):
            raise EUCLEAN("the root is no directory")
        if vfs.images is None:
            vfs.images = Kept()
        fs = cls(vfs.new_dev(), image, found, vfs.images, vfs.ram_file, vfs.now_ns)
        fs._top = ErofsDirectory(fs, top)
        fs._inodes[top.number] = ref(fs._top)
        return fs

    def __del__(self) -> None:
        self.unpacked.close()
        self.image.file.decref()

    @property
    def root(self) -> Inode:
        """The top."""
        top, self._top = self._top, None
        return top if top is not None else self.inode(self.super.root)

    @property
    def uuid(self) -> bytes:  # type: ignore[override]
        """As the image says."""
        return self.super.uuid

    def known(self, number: int) -> ErofsInode | None:
        """The inode of a number, if somebody has it."""
        known = self._inodes.get(number)
        return known() if known is not None else None

    def inode(self, number: int) -> ErofsInode:
        """The inode of a number. Raises: EUCLEAN, NotNow."""
        found = self.known(number)
        if found is None:
            node = layout.read_node(self.image, self.super, number)
            found = _CLASSES.get(modes.S_IFMT(node.mode), ErofsInode)(self, node)
            self._inodes[number] = ref(found)
        return found

    def forget(self, inode: ErofsInode) -> None:
        """Nobody uses it any more."""
        known = self._inodes.get(inode.ino)
        if known is not None and known() in (None, inode):
            del self._inodes[inode.ino]

    def statfs(self) -> StatFs:
        """erofs_statfs()."""
        of = self.super
        return StatFs(self.magic, of.block_size, of.blocks, 0, of.inodes, 0)

    def show_options(self) -> str:
        """erofs_show_options()."""
        return ",user_xattr,acl"


_CLASSES: Final[dict[int, type[ErofsInode]]] = {
    modes.S_IFDIR: ErofsDirectory,
    modes.S_IFREG: ErofsRegular,
}
