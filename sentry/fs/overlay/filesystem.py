"""`OverlayFs`: the instance, and which overlay inode stands for which lower one."""

from __future__ import annotations

import itertools
from _weakref import ref
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi.mount import MS_NOATIME
from sentry.abi.stat import OVERLAYFS_SUPER_MAGIC
from sentry.fs.overlay.inode import OverlayInode
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Inode, StatFs

if TYPE_CHECKING:
    from sentry.vfs.mount import Mount
    from sentry.vfs.vfs import Vfs

FIRST_INO: Final = 1 << 32
"""Inode numbers of files that are only in memory."""


class OverlayFs(FileSystem):
    """One overlay."""

    has_flags: ClassVar = True
    has_handles: ClassVar = True
    name = "overlay"
    magic = OVERLAYFS_SUPER_MAGIC
    xattr_user = True
    posix_acls = True

    def __init__(self, dev: int, upper: TmpFs, lower: Mount) -> None:
        super().__init__(dev, upper.now_ns)
        self.upper = upper
        self.lower = lower
        self._inos = itertools.count(FIRST_INO)
        self._wrapped: dict[Inode, ref[OverlayInode]] = {}
        self._kept: set[OverlayInode] = set()
        self._root = self.wrap(lower.root.inode)

    @classmethod
    def over(
        cls, vfs: Vfs, lower: FileSystem, kind: str = "memory", size: int = 0
    ) -> OverlayFs:
        """An empty layer over a file system: `RootConfig.overlay`, and `overlay_size`."""
        upper = TmpFs.make(vfs, "mode=0755", max_pages=-(-size // PAGE_SIZE) or None)
        if kind == "disk" and vfs.disk_file is not None:
            upper.lie_on(vfs.disk_file)
        return cls(vfs.new_dev(), upper, vfs.new_mount(lower, MS_NOATIME))

    @property
    def root(self) -> OverlayInode:
        """The top."""
        return self._root

    def new_ino(self) -> int:
        """A number for a file that is only in memory."""
        return next(self._inos)

    def wrap(
        self, lower: Inode, above: OverlayInode | None = None, called: bytes = b""
    ) -> OverlayInode:
        """The overlay inode of a lower one, which has been found there by this name."""
        known = self._wrapped.get(lower)
        inode = known() if known is not None else None
        if inode is None:
            inode = OverlayInode(self, None, lower)
            inode.above, inode.called = above, called
            self._wrapped[lower] = ref(inode)
        return inode

    def unwrap(self, lower: Inode) -> None:
        """Nobody uses its overlay inode any more."""
        del self._wrapped[lower]

    def keep(self, inode: OverlayInode) -> None:
        """It differs from the lower tree: nobody may forget it."""
        if inode.lower is not None:
            self._kept.add(inode)

    @property
    def kept(self) -> list[OverlayInode]:
        """Those that have something below and differ from it."""
        return list(self._kept)

    def drop(self, inode: OverlayInode) -> None:
        """Its last name is gone: it lives as long as it is open."""
        self._kept.discard(inode)

    def statfs(self) -> StatFs:
        """The room is the upper layer's; what the lower tree takes counts as used."""
        upper, lower = self.upper.statfs(), self.lower.fs.statfs()
        used = (lower.blocks - lower.blocks_free) * lower.block_size // upper.block_size
        return upper._replace(magic=self.magic, blocks=upper.blocks + max(0, used))

    def sync(self) -> None:
        """Everything that was written is in memory."""

    def show_options(self) -> str:
        """Neither layer has a name inside."""
        return ""
