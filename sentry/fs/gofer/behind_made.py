"""Directories, links, FIFOs and sockets that are made by records of the journal: see `behind`.

The host has no inode for them yet, so what stat(2) tells is what it has made of the same kind
before, with a number of the Sentry's (`Numbering.give`).
"""

from __future__ import annotations

import stat as modes
from typing import TYPE_CHECKING, Final

from gofer.p9.extensions import Tmakex
from sentry.fs.gofer.behind import LINKS_MAX, makes_in
from sentry.fs.gofer.layers import copied
from sentry.fs.gofer.told import Told

if TYPE_CHECKING:
    from sentry.fs.gofer.directory import GoferDirectory
    from sentry.fs.gofer.inode import GoferInode
    from sentry.vfs.interface import Owner

SHORT = 59
"""The text of a link that takes no block on any file system."""
MAKES: Final = 4096
"""What the Gofer may have left to make, all of which it may tell at once."""


def make(
    directory: GoferDirectory, name: bytes, target: bytes, mode: int, owner: Owner
) -> GoferInode | None:
    """Not for an owner whom the host may refuse, nor with set-id bits, which it may drop, nor
    before it has made one of the kind."""
    journal = makes_in(directory)
    fs = directory.sb
    sample = fs.samples.get(modes.S_IFMT(mode))
    if journal is None or sample is None or mode & 0o6000 or len(target) > SHORT:
        return None
    if journal.makes >= MAKES:
        return None
    if not journal.accepts(owner.uid, owner.gid) or directory.attributes.nlink >= LINKS_MAX:
        return None
    fid = directory.directory_fid()
    ino = fs.numbering.give() if journal.open else 0
    if not ino:
        return None
    now, position = fs.now_ns(), journal.position
    request = Tmakex(fid, name, target, mode, owner.uid, owner.gid, now)
    if not journal.record(request, copied=copied(directory)):
        fs.numbering.settle(ino, 0)
        return None
    shown = sample._replace(
        mode=mode, uid=owner.uid, gid=owner.gid, ino=ino, size=len(target) or sample.size,
        atime_ns=now, mtime_ns=now, ctime_ns=now, btime_ns=now,
    )  # fmt: skip
    inode = fs.inodes.inode_of(shown, directory, name)
    inode.born_here = True
    journal.made(position, inode)
    told = Told(journal, directory, inode)
    directory.added(name, inode)
    told.stays({directory: int(inode.is_dir)})
    if journal.makes > MAKES // 4:
        journal.hurry()
    return inode
