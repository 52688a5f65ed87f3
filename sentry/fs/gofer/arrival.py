"""A Gofer that comes to a running kernel: what boot asks of one in place, without waiting in place.

It may be slow to start, and its file systems slow to answer; programs go on meanwhile.
"""

from __future__ import annotations

import os
from fcntl import fcntl

from gofer.p9.attributes import Attributes
from gofer.p9.constants import MSIZE_MAX, NOFID, NONUNAME, NOOPEN, VERSION_EXTENDED
from gofer.p9.extensions import Rwalkx, Tjournalx, Tnotifyx, Twalkx
from gofer.p9.messages import Rstatfs, Rversion, Tattach, Tstatfs, Tversion
from gofer.p9.room import room_for
from sentry.abi.fcntl import F_GETFL, O_NONBLOCK
from sentry.abi.layout import Record
from sentry.errors import EIO, Errno
from sentry.fs.gofer.changes import HostChanges
from sentry.fs.gofer.hearing import listen
from sentry.fs.gofer.session import Asked, Session, expect
from sentry.platform.host_io import host_error
from sentry.wait.again import again, kept


class Attached(Record):
    """The root of an attachment."""

    fid: int
    attributes: Attributes
    fs_type: int
    """statfs(2) f_type of where it lies."""
    ring: int = -1
    """Memory for a journal, if there is some."""
    room: int = 0
    """For so many changes."""
    ears: Session | None = None
    """What others change in an exclusive one is heard of by this."""


async def negotiate(session: Session) -> None:
    """Agree on version and message size. Raises: EPROTO, EIO."""
    reply = await again(session.reply, "version", Tversion(MSIZE_MAX, VERSION_EXTENDED), slow=True)
    session.agreed(expect(reply, Rversion), MSIZE_MAX)


async def attach(session: Session, name: bytes, ours: bool, behind: bool) -> Attached:
    """Bind a fid to the root of an attachment; `ours`: it is trusted to be, so one hears of who
    changes it all the same; `behind`: it may be written by a journal.

    Raises: the server's Errno, EIO.
    """
    fid = session.new_fid()
    await again(session.reply, "attach", Tattach(fid, NOFID, b"", name, NONUNAME), slow=True)
    asked = Twalkx(fid, NOFID, NOOPEN, 0, [])
    reply = expect(await again(session.reply, "walk", asked, slow=True), Rwalkx)
    found = root_of(reply)
    told = expect(await again(session.reply, "statfs", Tstatfs(fid), slow=True), Rstatfs)
    ring = -1
    ears = await listen(session, fid) if ours else None
    if behind:
        try:
            ring = await again(_ring, session)
        except Errno:
            ring = -1
    return Attached(fid, found, told.fs_type, ring, room_in(told), ears)


def room_in(told: Rstatfs) -> int:
    """For so many changes."""
    return room_for(told.blocks, told.bavail, told.files, told.ffree)


def _ring(session: Session) -> int:
    asked: Asked = kept(_ring) or Asked(session.send(Tjournalx()))
    session.complete(asked, _ring, slow=True)
    asked.pending.result()
    return asked.pending.take_fd()


def root_of(reply: Rwalkx) -> Attributes:
    """The attributes of the root. Raises: what the host says, EIO."""
    if reply.error or not reply.blocks:
        raise host_error(reply.error) if reply.error else EIO("no attributes of the root")
    return Attributes.unpack(reply.blocks[0])


async def changes(session: Session) -> HostChanges | None:
    """The queue of what the host changes; None if there is none to be had."""
    try:
        fd = await again(_queue, session)
    except Errno:
        return None
    if not fcntl(fd, F_GETFL) & O_NONBLOCK:  # no queue: a look at it could wait
        os.close(fd)
        return None
    return HostChanges(session, fd)


def _queue(session: Session) -> int:
    asked: Asked = kept(_queue) or Asked(session.send(Tnotifyx()))
    session.complete(asked, _queue, slow=True)
    asked.pending.result()
    return asked.pending.take_fd()
