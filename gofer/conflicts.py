"""A record of the journal that finds what the host has done to the same name meanwhile.

What the client has done counts, since it was told to a program already: what was put there by
others gives way, and the log says so. But directories that hold something are never removed, nor
what has become a directory: then the change is refused, like any other that cannot be made.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Protocol

from gofer.native import check_name, stat_block
from gofer.node import mode_of
from gofer.p9.codec import Message
from gofer.p9.constants import NOFID, NOOPEN, SETATTR_GID, SETATTR_MODE, SETATTR_UID
from gofer.p9.extensions import (
    Rmakex,
    Rwalkx,
    Tlinkx,
    Tmakex,
    Trenamex,
    Tsetattrx,
    Twalkx,
)
from gofer.p9.messages import Rlerror, Runlinkat, Tunlinkat

if TYPE_CHECKING:
    from gofer.fid import FidTable
    from gofer.node import Node, NodeTable
    from gofer.replies import Reply


class Session(Protocol):
    """Whose records they are (gofer.connection)."""

    fids: FidTable
    table: NodeTable

    def perform(self, request: Message) -> Reply: ...


def settled(session: Session, request: Message, number: int) -> Reply | None:
    """What comes of a record that was refused with errno `number` in favour of the client; None:
    it stays refused."""
    if number == errno.ENOENT and isinstance(request, Tunlinkat):
        return Runlinkat()
    if number != errno.EEXIST:
        return None
    if isinstance(request, Trenamex):
        return _done(session.perform(_replace(request, 0)))
    if isinstance(request, Tmakex):
        if stat.S_ISDIR(request.mode):
            found = _taken_over(session, request)
            if found is not None:
                return found
        directory, name = session.fids.get(request.fid).node, request.name
    elif isinstance(request, Tlinkx):
        directory, name = session.fids.get(request.newdirfid).node, request.newname
    else:
        return None
    return _done(session.perform(request)) if displaced(session.table, directory, name) else None


def displaced(table: NodeTable, directory: Node, name: bytes) -> bool:
    """Take away what others have put there, unless it is a directory."""
    try:
        table.pin(directory, check_name(name))
        os.unlink(name, dir_fd=table.fd(directory))
    except OSError:
        return False
    gone = directory.children.get(name)
    if gone is not None:
        table.detach(gone)
    return True


def _taken_over(session: Session, request: Tmakex) -> Rmakex | None:
    """A directory of the host stays, with mode and owner as the client has it."""
    directory = session.fids.get(request.fid).node
    block = stat_block(session.table.fd(directory), check_name(request.name))
    if isinstance(block, int) or not stat.S_ISDIR(mode_of(block)):
        return None
    valid = SETATTR_MODE | SETATTR_UID | SETATTR_GID
    owner = request.mode & 0o7777, request.uid, request.gid
    session.perform(Tsetattrx(request.fid, request.name, valid, *owner, 0, 0, 0))
    seen = session.perform(Twalkx(request.fid, NOFID, NOOPEN, 0, [request.name]))
    return Rmakex(seen.blocks[-1]) if isinstance(seen, Rwalkx) and seen.blocks else None


def _replace(request: Trenamex, flags: int) -> Trenamex:
    return Trenamex(
        request.olddirfid, request.oldname, request.newdirfid, request.newname, flags
    )


def _done(reply: Reply) -> Reply | None:
    return None if isinstance(reply, Rlerror) else reply
