"""A root file system in a folder of the host, for root.

Contents come into files that are called by numbers. Names come when the tree is finished, one
component at a time, in folders that were made just now by the same process: no link is there that
could be followed, whatever an image has tried.
"""

from __future__ import annotations

import os
from stat import S_IFBLK, S_IFCHR, S_IFLNK, S_IFMT, S_IFREG, S_IMODE
from typing import Final

from runsc.errors import why
from runsc.images.errors import ImageError, shown
from runsc.images.layer import Pieces
from runsc.images.sparse import Spans
from runsc.images.streams import write_all
from runsc.images.tree import Content, Node, Tree

FILES: Final = "files"
"""The folder of numbers, beside the root."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """A store that makes a folder. Preconditions: root's rights, also to devices and owners."""

    def __init__(self, place: str, name: str) -> None:
        """`place`: an empty folder that nobody else changes; the root is made there as `name`."""
        self._root = os.path.join(place, name)
        self._numbers = os.path.join(place, FILES)
        os.mkdir(self._numbers, 0o700)
        self._files = os.open(self._numbers, _DIRECTORY)
        self._count = 0

    def keep(self, size: int, spans: Spans, pieces: Pieces) -> Content:
        number = self._next()
        fd = os.open(b"%d" % number, _NEW, 0o600, dir_fd=self._files)
        try:
            for offset, piece in pieces:
                write_all(fd, piece, offset)
            os.ftruncate(fd, size)
        finally:
            os.close(fd)
        return Content(number)

    def read(self, content: Content, size: int) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(b"%d" % content.where, flags, dir_fd=self._files)
        try:
            return os.pread(fd, size, 0)
        finally:
            os.close(fd)

    def finish(self, tree: Tree) -> None:
        os.mkdir(self._root, 0o700)
        self._fill(os.open(self._root, _DIRECTORY), tree.root)
        for name in os.listdir(self._numbers):
            os.unlink(name, dir_fd=self._files)
        os.rmdir(self._numbers)

    def close(self) -> None:
        os.close(self._files)

    def _fill(self, fd: int, folder: Node) -> None:
        """Make what is in a folder, and describe it in the end. Closes its descriptor."""
        try:
            for name, node in (folder.children or {}).items():
                try:
                    self._put(fd, name, node)
                except OSError as error:
                    text = f"has {shown(name)}, which cannot be made: {why(error)}"
                    raise ImageError(text) from None
            os.fchown(fd, folder.uid, folder.gid)
            os.fchmod(fd, S_IMODE(folder.mode))
            for attribute, value in folder.xattrs.items():
                os.setxattr(fd, attribute, value)
            os.utime(fd, ns=(folder.mtime_ns, folder.mtime_ns))
        finally:
            os.close(fd)

    def _put(self, fd: int, name: bytes, node: Node) -> None:
        """Make a file, and all that is in it, in a folder."""
        if node.children is not None:
            os.mkdir(name, 0o700, dir_fd=fd)
            self._fill(os.open(name, _DIRECTORY, dir_fd=fd), node)
            return
        if node.place < 0:
            node.place = self._made(node)
        os.link(
            b"%d" % node.place, name, src_dir_fd=self._files, dst_dir_fd=fd, follow_symlinks=False
        )

    def _made(self, node: Node) -> int:
        """The number of a file that is all but named."""
        kind = S_IFMT(node.mode)
        number = node.content.where if node.content is not None else self._next()
        name = b"%d" % number
        if kind == S_IFLNK:
            os.symlink(node.target, name, dir_fd=self._files)
        elif kind == S_IFREG:
            if node.content is None:
                os.close(os.open(name, _NEW, 0o600, dir_fd=self._files))
        else:
            device = os.makedev(*node.device) if kind in (S_IFCHR, S_IFBLK) else 0
            os.mknod(name, kind | 0o600, device, dir_fd=self._files)
        self._describe(name, node)
        return number

    def _describe(self, name: bytes, node: Node) -> None:
        """Owner first, which clears set-user bits and capabilities; times last."""
        os.chown(name, node.uid, node.gid, dir_fd=self._files, follow_symlinks=False)
        if S_IFMT(node.mode) != S_IFLNK:
            os.chmod(name, S_IMODE(node.mode), dir_fd=self._files)
        for attribute, value in node.xattrs.items():
            path = b"/proc/self/fd/%d/%b" % (self._files, name)
            os.setxattr(path, attribute, value, follow_symlinks=False)
        times = node.mtime_ns, node.mtime_ns
        os.utime(name, ns=times, dir_fd=self._files, follow_symlinks=False)

    def _next(self) -> int:
        self._count += 1
        return self._count
