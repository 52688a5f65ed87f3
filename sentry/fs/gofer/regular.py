"""`GoferRegular`: regular files, read and written through donated descriptors.

While a writable handle is in use, fstat(2) of it is the truth about size and times: writes and
stores into shared mappings change them without this code being asked.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from gofer.p9.constants import NOFID, OPENED_DONATED
from gofer.p9.extensions import Rwalkx, Twalkx
from sentry.abi.fcntl import O_ACCMODE, O_RDONLY, O_RDWR, O_WRONLY
from sentry.errors import EIO, ENFILE, ENOMEM
from sentry.fs.gofer.file import GoferFile
from sentry.fs.gofer.handles import Handle, Storage, storage_at
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.known import Key, Moment
from sentry.fs.gofer.pages import FidPages
from sentry.fs.gofer.requests import Pending, close_quietly
from sentry.fs.gofer.session import Asked, expect, found_by
from sentry.fs.gofer.wire import from_stat
from sentry.fs.page_cache import ALL
from sentry.platform.host_io import Stat, host_error
from sentry.vfs.interface import Attributes, Changes
from sentry.wait.again import begun, kept
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.fs.gofer.attachment import Attachment
    from sentry.fs.gofer.journal import Journal
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location
    from sentry.wait.steps import WaitingSteps


EMPTIED_BYTES: Final = 1 << 16
"""What goes at once."""
SETTLED_NS: Final = 2_000_000_000
"""A change this long after another has another ctime, however coarsely the host keeps time."""


class GoferRegular(GoferInode):
    """A regular file of the host."""

    __slots__ = (
        "_rests", "_unread", "live", "losing", "mappers", "pages", "read_handle", "timed", "told",
        "write_handle",
    )  # fmt: skip

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        super().__init__(fs, key, attributes)
        self.read_handle: Handle | None = None
        self.write_handle: Handle | None = None
        self.told: Stat | None = None
        """What fstat(2) said last, and as attributes:"""
        self.live: Attributes | None = None
        self.losing: Pending | None = None
        """Of the removal of its name that has begun when nobody had it open."""
        self._rests = False
        """Nobody here has had it open or changed it since, and nothing is recorded."""
        self.timed = -1
        """Where the last one ends that sets its times, unless it is known to be done."""
        self._unread = False
        """Made here, and opened to write alone since."""
        self.mappers = 0
        """Descriptions by which it may be mapped to store into it."""
        self.pages: FidPages | None = None
        """What is mapped of it, where there is no descriptor."""

    def __del__(self) -> None:
        if self.pages is not None:
            self.pages.close()
        for handle in (self.read_handle, self.write_handle):
            if handle is not None:  # the whole sandbox is gone
                self._close(handle)
        super().__del__()

    def is_settled(self) -> bool:
        """Nor may anything be written to it."""
        if self.read_handle is not None or self.write_handle is not None or self.pages is not None:
            return False
        return super().is_settled()

    @property
    def in_use(self) -> bool:
        """Somebody has it open."""
        one, other = self.read_handle, self.write_handle
        return bool((one is not None and one.users) or (other is not None and other.users))

    # --- handles

    def is_idle(self, known: Attributes) -> bool:
        """Nobody has it open or mapped, or waits for what becomes of it, and it is small: it may be
        emptied for another file."""
        handle = self.write_handle
        if handle is None or handle.fd < 0 or handle.remote or handle.is_mapped or handle.changing:
            return False
        if self.read_handle is not None or self.open_count or self.watches is not None:
            return False
        is_small = known.size <= EMPTIED_BYTES and known.blocks <= EMPTIED_BYTES // 512
        return is_small and known.nlink == 1 and not handle.users

    def emptied(self) -> int:
        """Its descriptor, for another file; -1: it cannot be emptied at once."""
        handle = self.write_handle
        assert handle is not None
        self.write_handle = None
        return self.sb.handles.take(handle, bool(self.attributes.size or self.attributes.blocks))

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        if flags & O_ACCMODE != O_WRONLY:
            self._unread = False
        handle = self.acquire(flags & O_ACCMODE != O_RDONLY, caller)
        return GoferFile(location, flags, handle)

    def acquire(self, write: bool, caller: Caller) -> Handle:
        """A handle to read, or to read and write, with one more user. Raises: NotNow."""
        if write:
            self.settle_times()
        self._rests = False
        losing = self.losing
        if losing is not None and losing.done:
            losing = self.losing = None
        handle = self._present(write) if losing is None or self.in_use else None
        if handle is None:
            handle = self._open(write, caller)  # behind a removal: the host has it, or not
        self.sb.handles.use(handle)
        return handle

    def release(self, handle: Handle) -> None:
        """An open file is closed. In exclusive mode the handle stays for the next one."""
        handle.users -= 1
        if handle.users:
            return
        fs = self.sb
        if self.pages is not None and not self.in_use:
            self.pages.close()
            self.pages = None
        if handle.fd >= 0 and not self.gone:
            if fs.exclusive:
                fs.handles.idle(handle)
                return
            if fs.lingering is not None and not handle.writable and not handle.remote:
                fs.lingering.add(handle)
                return
        self.drop_handle(handle)

    def drop_handle(self, handle: Handle) -> None:
        """Close a handle without users."""
        if handle is self.write_handle:
            if self.open_count or self.watches is not None or (self.sb.exclusive and not self.gone):
                self._live()  # else whoever asks next asks the host
            self.write_handle = None
        elif handle is self.read_handle:
            self.read_handle = None
        self._close(handle)

    def created(self, fd: int) -> None:
        """The file was just made and came with its descriptor, unless that got lost (-1)."""
        if fd < 0 or self.write_handle is not None:
            close_quietly(fd)
            return
        self._unread = True
        self.sb.handles.idle(self._install(fd, -1, True))

    @property
    def is_unread(self) -> bool:
        return self._unread

    def looked_up(self, reply: Rwalkx, fd: int) -> None:
        fs = self.sb
        if fd < 0 or self.read_handle is not None:
            close_quietly(fd)
        elif fs.exclusive:
            fs.handles.idle(self._install(fd, -1, False))
        elif fs.lingering is not None:
            fs.lingering.add(self._install(fd, -1, False))
        else:
            close_quietly(fd)

    def current(self) -> bool:
        return self._live() is not None

    def wants_descriptor(self) -> bool:
        if self.read_handle is not None or self.write_handle is not None:
            return False
        return storage_at(self.sb, self) is not Storage.REMOTE and self.sb.keeps_descriptors

    def _present(self, write: bool) -> Handle | None:
        if self.write_handle is not None or write:
            return self.write_handle
        return self.read_handle

    def _open(self, write: bool, caller: Caller) -> Handle:
        session, key = self.sb.session, (self, write)
        asked: Asked | None = kept(key)
        if asked is None:
            fid, name = self.reach()
            bound = NOFID if self.sb.handles.room(caller) else self._new_fid(caller)
            flags, donate = O_RDWR if write else O_RDONLY, int(bound == NOFID)
            request = Twalkx(fid, bound, flags, donate, [name] if name else [])
            journal = self.sb.journal
            position = journal.position if journal is not None else 0
            undo = None if bound == NOFID else partial(session.unwanted, bound)
            asked = Asked(session.send(request), (bound, position, self.moment), undo)
        session.complete(asked, key)
        pending, (bound, position, moment) = asked.pending, asked.extra
        if self.pending is not None and self.pending[1] <= position:
            self.pending = None  # the Gofer has done that before
        reply, donated = expect(pending.result(), Rwalkx), bound == NOFID
        fd = pending.take_fd()
        try:
            if reply.error:
                raise host_error(reply.error)
            self.check_same(found_by(reply))
            if pending.lost:
                raise ENFILE("no room for the descriptor")
            if donated and reply.opened != OPENED_DONATED:
                raise EIO("no descriptor came")
        except BaseException:
            close_quietly(fd)
            if not donated and not reply.error:
                session.clunk(bound)
            elif not donated:
                session.free_fid(bound)
            raise
        self.taken(moment)
        present = self._present(write)
        if present is not None:  # another call was faster
            close_quietly(fd)
            if not donated:
                session.clunk(bound)
            return present
        return self._install(fd, -1 if donated else bound, write)

    def _new_fid(self, caller: Caller) -> int:
        """For an open file without a descriptor here. Raises: ENFILE."""
        self.sb.handles.check(caller)
        return self.sb.session.new_fid()

    def _install(self, fd: int, fid: int, write: bool) -> Handle:
        handle = Handle(self, fd, fid, write)
        self.sb.handles.opened(handle)
        if write:
            self.write_handle = handle
            self.changed()
        else:
            self.read_handle = handle
        return handle

    def _close(self, handle: Handle) -> None:
        if handle.fid >= 0:
            self.sb.session.clunk(handle.fid)
            handle.fid = -1
        self.sb.handles.close(handle)

    # --- mappings without a descriptor

    def mapped(self, stores: bool) -> object:
        """What a mapping shows. Raises: ENOMEM."""
        vfs = self.sb.vfs
        if vfs is None or vfs.ram_file is None:
            raise ENOMEM("no descriptor to map")
        if self.pages is None:
            self.pages = FidPages(self, vfs.ram_file(), vfs)
        if stores:
            self.pages.track()
        return self.pages.ram

    def write_back(self, offset: int = 0, count: int = ALL) -> None:
        """What was stored into mappings of these bytes comes before what is asked next.

        Raises: NotNow, and has to be called again; what the server says.
        """
        pages, writer = self.pages, self.write_handle
        if pages is None or writer is None:
            return
        key = self, "stores", offset
        if kept(key) is not None or pages.has_tracked(offset, count):
            begun(key, lambda: self._written_back(pages, writer, offset, count))

    async def _written_back(
        self, pages: FidPages, writer: Handle, offset: int, count: int
    ) -> None:
        """Others may close the file before the server has all."""
        self.sb.handles.use(writer)
        try:
            await pages.write_back(writer, offset, count)
        finally:
            self.release(writer)

    def written(self, offset: int, count: int) -> None:
        """The server has taken so many bytes from a write(2)."""
        self.changed()
        if offset + count > self.attributes.size:
            self.attributes = self.attributes._replace(size=offset + count)
        if self.pages is not None:
            self.pages.written(offset, count)

    def taken(self, moment: Moment) -> None:
        is_new = moment == self.moment
        super().taken(moment)
        if is_new and self.pages is not None:
            self.pages.seen(self.attributes)

    def lost_name(self) -> None:
        super().lost_name()
        if self.gone:
            for handle in (self.read_handle, self.write_handle):
                if handle is not None and not handle.users:
                    self.drop_handle(handle)

    # --- attributes

    def _live(self) -> Attributes | None:
        """Attributes from a descriptor, where there is one that makes it worth while."""
        handle = self.write_handle
        if handle is None and (not self.sb.exclusive or self._may_be_written()):
            handle = self.read_handle
        if handle is None or handle.fd < 0 or handle.remote:
            return None
        told = self.told
        if told is None:
            told = self.told = Stat()
        if told.changed(handle.fd) or self.attributes is not self.live:
            attributes = from_stat(told.value(), self.ino, self.attributes.btime_ns)
            owners = self.sb.owners
            self.take(self._shown(attributes if owners is None else owners.inside(attributes)))
            self.live = self.attributes
        busy = self.in_use or handle.is_mapped or handle.changing or self.pending is not None
        self._rests = self.sb.exclusive and not busy
        return self.attributes

    def _may_be_written(self) -> bool:
        """Others may be writing to it: what they do is heard of when they close it."""
        handle = self.read_handle
        if handle is None or self.sb.hearing is None:
            return False
        return not self.fresh or handle.users > 0

    def certain(self) -> bool:
        pending = self.pending is not None and not self.pending[0].reached(self.pending[1])
        return pending or super().certain()

    def recorded(self, journal: Journal) -> None:
        super().recorded(journal)
        journal.told(self)

    def _shown(self, attributes: Attributes) -> Attributes:
        """What fstat(2) says, but for what is recorded and perhaps not done."""
        if self.pending is None:
            return attributes
        journal, position = self.pending
        if journal.reached(position):
            self.pending = None
            return attributes
        mine = self.attributes
        atime_ns, mtime_ns = mine.atime_ns, mine.mtime_ns
        if self.timed < 0:
            atime_ns = max(attributes.atime_ns, atime_ns)
            mtime_ns = max(attributes.mtime_ns, mtime_ns)
        # Set-id bits are never recorded, and the host drops them when the file is written.
        mode = attributes.mode if mine.mode & 0o6000 else mine.mode
        ctime_ns = max(attributes.ctime_ns, mine.ctime_ns)
        _, _, _, _, _, rdev, size, blocks, block_size, _, _, _, btime_ns, dev = attributes
        return tuple.__new__(
            Attributes,
            (
                mine.ino, mode, mine.nlink, mine.uid, mine.gid, rdev, size, blocks, block_size,
                atime_ns, mtime_ns, ctime_ns, btime_ns, dev,
            ),
        )  # fmt: skip

    def distrusted(self) -> None:
        super().distrusted()
        self.pending = self.live = None
        self.timed = -1

    def known_attributes(self) -> Attributes | None:
        if self._rests and self.attributes is self.live:
            known = super().known_attributes()
            if known is not None:
                return known
        return self._live() or super().known_attributes()

    def stat_walked(self, asked: bool) -> Attributes:
        if self.attributes is self.live and not self.sb.exclusive:
            return self.live  # `current` has just asked
        return super().stat_walked(asked)

    def xattr_stamp(self) -> int:
        if self.sb.exclusive or storage_at(self.sb, self) is not Storage.DISK:
            return super().xattr_stamp()
        live = self._live()
        if live is None or time.time_ns() - live.ctime_ns < SETTLED_NS:
            return -1
        return live.ctime_ns

    def waits(self) -> bool:
        """Who writes to it waits for times that were recorded: `settle_times`. Not who stores."""
        handle = self.write_handle
        return handle is None or not (self.mappers or handle.fd < 0 or handle.remote)

    def times_recorded(self, journal: Journal) -> None:
        self.timed = journal.position

    def settle_times(self) -> None:
        """Before it is written to: what is written later has the later time. Raises: NotNow."""
        if self.timed >= 0:
            self.sb.settle()
            self.timed = -1

    def setattr(self, changes: Changes) -> None:
        size = changes.size
        if size is None:
            super().setattr(changes)
            return
        if kept((self, "cut")) is None:
            self._resize(size, changes)
        handles = [each for each in (self.read_handle, self.write_handle) if each is not None]
        if any(each.is_mapped for each in handles):
            begun((self, "cut"), lambda: driven(_cutting(handles, size)))
        if self.pages is not None:
            self.pages.resize(size)
        self._live()

    def _resize(self, size: int, changes: Changes) -> None:
        self.settle_times()
        self.write_back()
        handle = self.write_handle
        if handle is not None and handle.fd >= 0:
            handle.truncate(size)
            self.drop_file_caps()
            self.changed()
            changes = Changes(
                changes.mode,
                changes.uid,
                changes.gid,
                None,
                changes.atime_ns,
                changes.mtime_ns,
                changes.times_now,
            )
        super().setattr(changes)


def _cutting(handles: list[Handle], size: int) -> WaitingSteps[None]:
    """Who maps the file loses what lay behind."""
    for handle in handles:
        yield from handle.cutting(size)
