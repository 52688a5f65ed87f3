"""`GoferDirectory`: making, moving and removing names; opening directories.

What is known of the names is in `directory_cache`; every change here is told to it.
"""

from __future__ import annotations

import stat as modes
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from gofer.p9.attributes import Attributes as WireAttributes
from gofer.p9.constants import AT_REMOVEDIR, NOFID, NOOPEN, OPENED_DONATED
from gofer.p9.extensions import (
    Rbindx,
    Rcreatex,
    Rlinkx,
    Rmakex,
    Rwalkx,
    Tbindx,
    Tcreatex,
    Tlinkx,
    Tmakex,
    Trenamex,
    Twalkx,
)
from gofer.p9.messages import Tunlinkat
from sentry.abi.fcntl import O_EXCL, O_RDWR, RENAME_EXCHANGE, RENAME_NOREPLACE
from sentry.abi.inotify import IN_CREATE
from sentry.errors import EEXIST, EINVAL, EOPNOTSUPP, EXDEV, Errno
from sentry.fs.gofer import behind, behind_made
from sentry.fs.gofer.changes import OwnChange, made, removed
from sentry.fs.gofer.directory_cache import DirectoryCache
from sentry.fs.gofer.host_socket import GoferSocket, Served
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.regular import GoferRegular
from sentry.fs.gofer.requests import Pending, close_quietly
from sentry.fs.gofer.session import Asked, Exchangeable, expect
from sentry.platform import exchange
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.interface import Inode, Owner
from sentry.wait.again import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from gofer.p9.codec import Message
    from sentry.fs.gofer.session import Session
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location


def keep(
    session: Session, pending: Pending, child: GoferRegular | GoferDirectory, fid: int
) -> None:
    """The walk that binds `fid` to a file that is about to lose its name is answered."""
    pending.heard = None  # which holds the file, and through it what the host keeps of it
    try:
        reply = expect(pending.result(), Rwalkx)
    except Errno:
        session.free_fid(fid)
        return
    if reply.error or not reply.blocks:
        session.free_fid(fid)
        return
    wire = WireAttributes.unpack(reply.blocks[-1])
    if (wire.dev, wire.ino) != child.key or child.fid >= 0:
        session.clunk(fid)
    else:
        child.fid = fid


def _loses(victim: Inode | None, pending: Pending) -> None:
    """A name is asked to be taken from it. Without a fid an open file of it could do nothing."""
    if isinstance(victim, GoferRegular) and victim.fid < 0 and not victim.in_use:
        victim.losing = None if pending.done else pending


def _creation(
    fid: int, name: bytes, _length: int, flags: int, mode: int, uid: int, gid: int
) -> Tcreatex:
    return Tcreatex(fid, NOFID, name, flags, 1, mode, uid, gid)


def _removal(fid: int, name: bytes, _length: int, flags: int) -> Tunlinkat:
    return Tunlinkat(fid, name, flags)


CREATION: Final = Exchangeable(exchange.CREATION, _creation)
REMOVAL: Final = Exchangeable(exchange.REMOVAL, _removal)


class Change:
    """A name that is being made or removed: `with` gives the request once it is answered."""

    __slots__ = ("_asked", "_key", "_session")

    def __init__(self, session: Session, asked: Asked, key: Hashable) -> None:
        self._session = session
        self._asked = asked
        self._key = key

    def __enter__(self) -> Asked:
        asked = self._asked
        self._session.complete(asked, self._key)
        return asked

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        own: OwnChange = self._asked.extra[0]
        if error is not None:
            own.failed()
        else:
            own.done()


class GoferDirectory(DirectoryCache):
    """A directory of the host."""

    __slots__ = ()

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        return GoferDirectoryFile(location, flags)

    # --- names

    def check_room(self, caller: Caller) -> None:
        handles = self.sb.handles
        if not handles.room(caller):
            handles.check(caller)

    def create(self, name: bytes, mode: int, owner: Owner) -> Inode:
        if self.sb.journal is not None and kept((self, IN_CREATE, name)) is None:
            made = behind.create(self, name, mode, owner)
            if made is not None:
                return made
        fid = self._fid_for(IN_CREATE, name)
        fields = fid, name, len(name), O_RDWR | O_EXCL, mode, owner.uid, owner.gid
        ask = partial(self.sb.session.exchange, CREATION, fields)
        with self._change(IN_CREATE, name, ask) as asked:
            inode = self._created(name, asked.pending)
        if self.sb.journal is not None:
            self.sb.journal.accepted(owner.uid, owner.gid)
        return inode

    def _fid_for(self, event: int, name: bytes) -> int:
        """Its fid for a request that is not under way; one that is needs none any more."""
        return NOFID if kept((self, event, name)) is not None else self.directory_fid()

    def _change(
        self, event: int, name: bytes, ask: Callable[[], Pending], victim: Inode | None = None,
        undo: Callable[[Message], None] | None = None,
    ) -> Change:  # fmt: skip
        """Make or remove a name, once for this call; `victim` is what loses it; `undo`: if the
        call has ended before the reply."""
        key = self, event, name
        asked: Asked | None = kept(key)
        if asked is None:
            self._keep(name, victim)
            own = self.changing(event, name)
            try:
                asked = Asked(ask(), (own,), undo)
            except BaseException:
                own.failed()
                raise
            _loses(victim, asked.pending)
        return Change(self.sb.session, asked, key)

    def _created(self, name: bytes, pending: Pending) -> Inode:
        """The inode of a file that was made. Raises: why it was not."""
        try:
            pending.check()
        except EEXIST:
            self.heard(name, True)
            raise
        fd, block = pending.take_fd(), pending.block
        opened = OPENED_DONATED
        if block is None:
            reply = expect(pending.result(), Rcreatex)
            opened, block = reply.opened, reply.block
        try:
            inode = self.sb.inodes.inode_of(WireAttributes.unpack(block), self, name)
            self.added(name, inode)
        except BaseException:
            close_quietly(fd)
            raise
        if isinstance(inode, GoferRegular) and opened == OPENED_DONATED:
            inode.created(fd)
        else:
            close_quietly(fd)
        return inode

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        inode = self._make(name, b"", modes.S_IFDIR | mode & 0o7777, owner)
        if self.sb.journal is not None and isinstance(inode, DirectoryCache):
            inode.made_here(self)
        inode.asked += 1  # something is made in it next
        return inode

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> Inode:
        return self._make(name, b"", mode, owner)

    def bind(self, name: bytes, kind: int, mode: int, owner: Owner) -> Inode:
        """Where the host may connect to programs, which the Gofer decides, one of its sockets."""
        if not self.sb.binds:
            return self.mknod(name, mode, 0, owner)
        session, key = self.sb.session, (self, Tbindx, name)
        asked: Asked | None = kept(key)
        if asked is None:
            self.sb.handles.budget.check_host_descriptor()
            fid, bound = self.directory_fid(), session.new_fid()
            request = Tbindx(fid, bound, name, kind, mode, owner.uid, owner.gid)
            own = self.changing(made(mode), name)
            try:
                pending = session.send(request)
            except BaseException:
                own.failed()
                raise
            asked = Asked(pending, (own, bound), lambda _: session.clunk(bound))
        bound = asked.extra[1]
        try:
            with Change(session, asked, key):
                reply = expect(asked.pending.result(), Rbindx)
                inode = self.sb.inodes.inode_of(WireAttributes.unpack(reply.block), self, name)
                self.added(name, inode)
        except EOPNOTSUPP:
            session.free_fid(bound)
            self.sb.binds = False
            return self.mknod(name, mode, 0, owner)
        except Errno:
            session.free_fid(bound)
            raise
        served = Served(session, bound, asked.pending.take_fd())
        if isinstance(inode, GoferSocket):
            inode.served = served
        return inode

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> Inode:
        inode = self._make(name, target, modes.S_IFLNK | 0o777, owner)
        inode.target = target
        return inode

    def _make(self, name: bytes, target: bytes, mode: int, owner: Owner) -> GoferInode:
        journal = self.sb.journal
        if journal is not None and kept((self, made(mode), name)) is None:
            found = behind_made.make(self, name, target, mode, owner)
            if found is not None:
                return found
        fid = self._fid_for(made(mode), name)
        request = Tmakex(fid, name, target, mode, owner.uid, owner.gid, 0)
        ask = partial(self.sb.session.send, request)
        with self._change(made(mode), name, ask) as asked:
            wire = WireAttributes.unpack(expect(asked.pending.result(), Rmakex).block)
            inode = self.sb.inodes.inode_of(wire, self, name)
            self.added(name, inode)
        if journal is not None and self.sb.inodes.on_own_device(self):
            journal.accepted(owner.uid, owner.gid)
            if len(target) <= behind_made.SHORT and self.sb.inodes.on_own_device(inode):
                self.sb.samples.setdefault(inode.kind, wire)
        return inode

    def link(self, name: bytes, target: Inode) -> None:
        if not isinstance(target, GoferInode) or target.fs is not self.sb:
            raise EXDEV("a file of another file system")

        def ask() -> Pending:
            return self.sb.session.send(Tlinkx(*reached, to, name))

        if kept((self, IN_CREATE, name)) is None:
            if behind.link(self, name, target):
                return
            to, reached = self.directory_fid(), target.reach()
            target.changed()
        with self._change(IN_CREATE, name, ask) as asked:
            reply = expect(asked.pending.result(), Rlinkx)
            target.check_same(reply.block)
            self.added(name, target)

    def unlink(self, name: bytes, child: Inode) -> None:
        if kept((self, removed(child.mode), name)) is None and behind.unlink(self, name, child):
            return
        self._remove(name, child, 0)

    def rmdir(self, name: bytes, child: Inode) -> None:
        if kept((self, removed(child.mode), name)) is None and behind.rmdir(self, name, child):
            return
        self._remove(name, child, AT_REMOVEDIR)

    def _remove(self, name: bytes, child: Inode, flags: int) -> None:
        fid = self._fid_for(removed(child.mode), name)
        ask = partial(self.sb.session.exchange, REMOVAL, (fid, name, len(name), flags))

        def done(_: Message | None = None) -> None:
            self.removed(name)
            if isinstance(child, GoferInode):
                child.lost_name()

        with self._change(removed(child.mode), name, ask, child, done) as asked:
            asked.pending.check()
            done()

    def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        if not isinstance(new_dir, GoferDirectory) or not isinstance(child, GoferInode):
            raise EXDEV("a directory of another file system")
        if flags & ~(RENAME_EXCHANGE | RENAME_NOREPLACE):
            raise EINVAL("no whiteouts here")
        asked: Asked | None = kept((self, Trenamex))
        session, names = self.sb.session, (name, new_name)
        if asked is None:
            other = new_dir.known(new_name)
            inodes = child, other
            if behind.rename(self, names, new_dir, inodes, flags):
                return
            fid, to = self.directory_fid(), new_dir.directory_fid()
            new_dir._keep(new_name, None if flags else other)
            sent = session.send(Trenamex(fid, name, to, new_name, flags))
            _loses(None if flags else other, sent)
            asked = Asked(sent, inodes, lambda _: self.renamed(names, new_dir, inodes, flags))
        session.complete(asked, (self, Trenamex))
        asked.pending.result()
        self.renamed(names, new_dir, asked.extra, flags)

    def renamed(
        self, names: tuple[bytes, bytes], new_dir: GoferDirectory,
        inodes: tuple[GoferInode, GoferInode | None], flags: int,
    ) -> None:  # fmt: skip
        """The first of `inodes` had the first of `names` here, and has the second in `new_dir`."""
        (name, new_name), (child, other) = names, inodes
        if other is child:  # two names of one file: rename(2) does nothing
            return
        if flags & RENAME_EXCHANGE:
            self.removed(name)
            if other is not None:
                self.added(name, other)
                other.changed()
            else:
                self.names.pop(name, None)
                self.drop_listing()
        else:
            self.removed(name)
            if other is not None:
                other.lost_name()
        new_dir.added(new_name, child)
        child.changed()

    def _keep(self, name: bytes, child: Inode | None) -> None:
        """Bind a fid to a directory or an open file that is about to lose this name: its reply
        comes first. Of a directory nobody knows who is in it."""
        if not isinstance(child, GoferRegular | GoferDirectory) or child.fid >= 0:
            return
        if isinstance(child, GoferRegular) and not child.in_use:
            return
        session = self.sb.session
        bound = session.new_fid()
        pending = session.send(Twalkx(self.fid, bound, NOOPEN, 0, [name]))
        bind = partial(keep, session, pending, child, bound)
        if pending.done:
            bind()
        else:
            pending.heard = bind


class GoferDirectoryFile(DirectoryFile):
    """An open directory."""

    __slots__ = ("_listener",)
    flushes: ClassVar = True

    def __init__(self, location: Location, flags: int) -> None:
        super().__init__(location, flags)
        self._listener = self._directory.listener()

    @property
    def _directory(self) -> GoferInode:
        inode = self.inode
        assert isinstance(inode, GoferInode)
        return inode

    def sync(self, data_only: bool) -> None:
        self._directory.sync(data_only, self._listener)

    def flush(self, caller: Caller) -> None:
        if self._listener is not None:
            self._listener.hear()

    def tell_refused(self) -> None:
        if self._listener is not None:
            self._listener.hear_all()
