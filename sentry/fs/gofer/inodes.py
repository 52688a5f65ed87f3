"""`Inodes`: which inode stands for which file of the host, as long as anybody holds it."""

from __future__ import annotations

import stat as modes
from _weakref import ref
from typing import TYPE_CHECKING

from gofer.p9.attributes import BTIME
from gofer.p9.attributes import Attributes as WireAttributes
from sentry.fs.gofer.directory_cache import DirectoryCache
from sentry.fs.gofer.handles import Keyed
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.known import Key
from sentry.fs.gofer.wire import BORN_HERE, Numbering, from_wire

if TYPE_CHECKING:
    from sentry.fs.gofer.attachment import Attachment


class Inodes:
    """Those of one attachment, whose root lies on the device `dev`."""

    __slots__ = ("_classes", "_dev", "_found", "_numbering")

    def __init__(
        self, dev: int, numbering: Numbering, classes: dict[int, type[GoferInode]]
    ) -> None:
        """`classes`: those of kinds (S_IFMT bits) that have one of their own."""
        self._classes = classes
        self._dev = dev
        self._numbering = numbering
        self._found: dict[Key, ref[GoferInode]] = {}

    def on_own_device(self, inode: Keyed) -> bool:
        """It lies on the file system of the host that the root lies on."""
        return inode.key[0] == self._dev

    def inode_of(
        self, wire: WireAttributes, parent: DirectoryCache, name: bytes
    ) -> GoferInode:
        """The inode whose attributes were just seen as `name` of `parent`."""
        fs, key = parent.sb, (wire.dev, wire.ino)
        inode = self.known(key)
        apart = wire.nlink > 1 and fs.layered and fs.exclusive
        if apart and inode is None and not modes.S_ISDIR(wire.mode):
            inode = self._apart(fs, parent.known(name), wire)
            inode.seen(wire)
        elif inode is None or _is_another(inode, wire):
            inode = self.new(fs, wire, key)
        else:
            if isinstance(inode, DirectoryCache) and (inode.parent, inode.name) != (parent, name):
                fs.fids.moved(inode)
            inode.seen(wire)
        parent.remember(name, inode)
        return inode

    def from_listing(self, block: bytes, parent: DirectoryCache, name: bytes) -> GoferInode:
        """The same for attributes from a listing, which are older than those an inode has."""
        wire = WireAttributes.unpack(block)
        key = (wire.dev, wire.ino)
        inode = self.known(key)
        if inode is None or _is_another(inode, wire):
            inode = self.new(parent.sb, wire, key)
            inode.born_here = wire.flags & BORN_HERE != 0
        parent.remember(name, inode)
        return inode

    def put_in(self, inode: GoferInode) -> None:
        """It was made just now, and stands for its number."""
        known = self.known(inode.key)
        if known is not None:  # others have removed it
            known.doubted()
        self.add(inode)

    def add(self, inode: GoferInode) -> None:
        """It stands for its number."""
        self._found[inode.key] = ref(inode)

    def known(self, key: Key) -> GoferInode | None:
        """Who stands for that."""
        found = self._found.get(key)
        return found() if found is not None else None

    def held(self) -> list[GoferInode]:
        """All of them."""
        found = [known() for known in self._found.values()]
        return [inode for inode in found if inode is not None]

    def new(self, fs: Attachment, wire: WireAttributes, key: Key) -> GoferInode:
        """One of which nothing is known but this."""
        inode = self._made(fs, wire)
        self._found[key] = ref(inode)
        return inode

    def _made(self, fs: Attachment, wire: WireAttributes) -> GoferInode:
        cls = self._classes.get(modes.S_IFMT(wire.mode), GoferInode)
        number = self._numbering.ino(wire.dev, wire.ino)
        inode = cls(fs, (wire.dev, wire.ino), from_wire(wire, number))
        inode.take_lists(wire.flags)
        return inode

    def _apart(
        self, fs: Attachment, known: GoferInode | None, wire: WireAttributes
    ) -> GoferInode:
        """For a name whose number other names have, too: of a lower layer, where each of them is
        copied up for itself, or of the upper one. Nothing is trusted that is known of it."""
        if known is not None and known.apart and known.key == (wire.dev, wire.ino):
            return known
        inode = self._made(fs, wire)
        inode.apart = True
        return inode

    def became(self, inode: GoferInode, key: Key) -> None:
        """What was `apart` is a file of its own."""
        inode.key, inode.ino = key, self._numbering.ino(*key)
        inode.apart = False
        self.add(inode)
        if inode.parent is not None:
            inode.parent.drop_listing()

    def take_out(self, inode: GoferInode) -> None:
        """It does not stand for its number any more, if it did."""
        if self.known(inode.key) is inode:
            del self._found[inode.key]


def _is_another(inode: GoferInode, wire: WireAttributes) -> bool:
    """The host has used the inode number for a new file."""
    if inode.kind != modes.S_IFMT(wire.mode) or inode.gone:
        return True
    if inode.born_here or inode.sb.layered:  # a file is born anew when it is copied up
        return False
    born = inode.attributes.btime_ns
    return born is not None and bool(wire.flags & BTIME) and born != wire.btime_ns
