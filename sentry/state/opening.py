"""Open files from their records: see open_files.py."""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_ACCMODE, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_WRONLY
from sentry.abi.stat import S_IFIFO, S_IFMT, S_IFREG
from sentry.auth.credentials import Credentials
from sentry.clock import MAX_NS
from sentry.errors import Errno
from sentry.fs.epoll.file import EpollFile
from sentry.fs.eventfd import EventFile
from sentry.fs.host.file import donated
from sentry.fs.inotify import KEPT, MAX_QUEUED, InotifyFile, most_queued
from sentry.fs.memfd import MemFdFile, internal_mount
from sentry.fs.pidfd import PidFile
from sentry.fs.pipe.buffer import LARGEST, SLACK, Pipe
from sentry.fs.pipe.file import PipeFile, PipeInode
from sentry.fs.proc.namespaces import NamespaceFile, place_of
from sentry.fs.pseudo.files import TextFile
from sentry.fs.pseudo.nodes import TextNode
from sentry.fs.signalfd import SignalFile
from sentry.fs.timerfd import CLOCKS, WALL_CLOCKS, TimerFile
from sentry.fs.tmpfs.file import TmpFile
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel.clocks import wall_deadline
from sentry.kernel.task_signals import take_for
from sentry.state import growing, records
from sentry.state.loader import Opener, at
from sentry.state.pages import Damaged
from sentry.vfs.dentry import Dentry
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.file import FileDescription
from sentry.vfs.interface import Owner
from sentry.vfs.location import Location
from sentry.vfs.locks import FileLocks, Request
from sentry.vfs.notices import AsyncNotice, DirectoryNotice
from sentry.vfs.open import OPEN_ONLY, PATH_FLAGS, VALID_FLAGS, _open_kind
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.state.loader import Loader
    from sentry.state.sockets import Tying
    from sentry.state.sysv import Objects
    from sentry.state.terminals import Terminals
    from sentry.vfs.fd_table import FdTable

Load = Callable[["Files", Any], Coroutine[Any, Any, FileDescription]]
ENDS: Final = (O_RDONLY, O_WRONLY, O_RDWR)


class Files:
    """The open files of a snapshot. `stdio` are the descriptors of the host that are there."""

    def __init__(self, loader: Loader, stdio: tuple[int, int, int], owner: Owner) -> None:
        self.loader = loader
        self.kernel = loader.kernel
        self.vfs = loader.kernel.vfs
        self.stdio = stdio
        self.owner = owner
        self.made: list[FileDescription] = []
        """Each with a use, until `let_go`."""
        self._pipes: dict[int, tuple[Pipe, PipeInode | None]] = {}
        self._caller: Any = None
        self._keeper: Any = None
        """The caller with the credentials that the file is to have."""
        self.ipc: dict[int | None, Objects] = {}
        """System V objects, by the places of their namespaces; None: the first."""
        self.terminals: Terminals | None = None
        self._tying: Tying | None = None
        self._memory: dict[int, tuple[TmpFile, records.MemoryFile]] = {}

    async def load(self, owners: dict[int, Task]) -> None:
        """All of them; `owners`: tasks that have them, by their places.

        Raises: Damaged, and what file systems say.
        """
        snapshot = self.loader.snapshot
        init = self.loader.container.init
        assert init is not None
        for place, record in enumerate(snapshot.files):
            self.vfs.budget.check_files()
            task, creds = owners.get(place, init.tasks[0]), self.loader.rights.creds
            if record.creds is not None:
                creds = at(self.loader.creds, record.creds, "user")
            self._caller, self._keeper = Opener(task), Opener(task, creds)
            try:
                file = await LOADS[type(record)](self, record)
            except Errno as error:
                raise Damaged(f"{_named(record)} cannot be opened: {error}") from error
            is_open = not isinstance(record, records.AnySocket) or record.is_open
            self.made.append(file.incref() if is_open else file)
            kept = record.flags & VALID_FLAGS & ~OPEN_ONLY & ~(O_ACCMODE | O_PATH)
            file.flags = file.flags & (O_ACCMODE | O_PATH) | kept
            file.position = record.position
            kind, number = record.owner
            file.owner, file.owner_ids = (kind, self.numbered(number)), record.owner_ids
            file.owner_signal = record.owner_signal
            if record.owner[1]:
                self.loader.rights.check_user(*record.owner_ids)
            if record.creds is not None:
                file.creds = creds
        if snapshot.remains:
            self._tied()
        for file, record in zip(self.made, snapshot.files, strict=True):
            if isinstance(record, records.AnySocket):
                self._tie(file, record)
        for file, record in zip(self.made, snapshot.files, strict=True):
            if isinstance(file, EpollFile) and isinstance(record, records.EpollSet):
                self._watch(file, record)

    def numbered(self, number: int) -> int:
        """Of a process, a group or a session; 0: it is not there."""
        return self.loader.numbers.of(number)

    def tell(self, tables: list[FdTable]) -> None:
        """Who hears of what happens to files, by poll(2) and signals. Raises: Damaged."""
        for file, record in zip(self.made, self.loader.snapshot.files, strict=True):
            if isinstance(file, TextFile) and isinstance(record, records.NamedFile):
                file.seen_but(record.changed)
            if (notice := record.async_notice) is not None:
                if not file.can_async:
                    raise Damaged("O_ASYNC on a file that cannot")
                made = file.async_notice = AsyncNotice(self.vfs, file, notice.fd)
                made.wants_room = notice.wants_room
            if (told := record.dnotify) is not None:
                if not file.inode.is_dir:
                    raise Damaged("F_NOTIFY on a file that is no directory")
                table = at(tables, told.table, "table of descriptors")
                file.dnotify = DirectoryNotice(self.vfs, file, table)
                file.dnotify.hook()
                file.dnotify.want(told.fd, told.wanted)

    def lock(self, tables: list[FdTable]) -> None:
        """Locks of tables and open files. Raises: Damaged, ENOLCK."""
        for record in self.loader.snapshot.locks:
            inode = at(self.made, record.file, "open file").inode
            if inode.locks is not None:
                raise Damaged("locks of a file that are there twice")
            locks = inode.locks = FileLocks(self.vfs.budget, inode.fs.dev, inode.ino)
            for held in record.held:
                owner: object = None
                if held.table is not None:
                    owner = at(tables, held.table, "table of descriptors")
                elif held.file is not None:
                    owner = at(self.made, held.file, "open file")
                if owner is None or not 0 <= held.start <= held.end:
                    raise Damaged("a lock that is none")
                pid = self.numbered(held.pid)
                locks.set(Request(owner, pid, held.exclusive, held.start, held.end))
            for flock in record.flocks:
                whose = at(self.made, flock.file, "open file")
                if whose.inode is not inode:
                    raise Damaged("a lock of another file")
                locks.flock(whose, flock.exclusive, self.numbered(flock.pid))

    async def terminal(self, record: records.Master | records.Slave) -> FileDescription:
        """A side of a pseudoterminal."""
        if self.terminals is None or record.place is None:
            raise Damaged("there is no pseudoterminal")
        location = await self.loader.place(record.place)
        file: FileDescription
        if isinstance(record, records.Master):
            file = self.terminals.open_master(record, location)
        else:
            file = self.terminals.open_slave(record, location)
        file.count(self.vfs.budget)
        return file

    async def attachment(self, record: records.Attachment) -> FileDescription:
        """Of a System V segment."""
        objects = self.ipc.get(record.namespace)
        if objects is None:
            raise Damaged("there is no System V segment")
        return objects.attach(record)

    async def inotify(self, record: records.Watches) -> FileDescription:
        """With its watches."""
        file = InotifyFile(self.vfs, record.flags, most_queued(self.loader.kernel))
        for each in record.watched:
            inode = at(at(self.loader.inodes, each.tree, "tree"), each.inode, "file")
            file._next = each.wd
            if each.wd in file.watches or file.watch(inode, each.mask & KEPT) != each.wd:
                raise Damaged("a file that is watched twice")
        file._next = max(record.next, file._next)
        file.refill(record.events[: MAX_QUEUED + 1])
        return file

    def let_go(self) -> None:
        """Whoever has a use for one has it by now, or (it could not be loaded) never will."""
        files, self.made = self.made, []
        for file, record in zip(files, self.loader.snapshot.files, strict=False):
            if not isinstance(record, records.AnySocket) or record.is_open:
                file.decref()

    def _tie(self, file: FileDescription, record: records.AnySocket) -> None:
        self._tied().tie(file, record)

    def _tied(self) -> Tying:
        if self._tying is None:
            from sentry.state.sockets import Tying  # noqa: PLC0415  not all have sockets

            self._tying = Tying(self)
        return self._tying

    async def socket(self, record: records.AnySocket) -> FileDescription:
        """One that is tied to others when all are there."""
        from sentry.state.sockets import made  # noqa: PLC0415  not all have sockets

        return await made(self, record)

    async def named(self, record: records.NamedFile) -> FileDescription:
        """By its name, if some program of the container could have opened it."""
        if record.place is None:
            raise Damaged("an open file without a name")
        location = await self.loader.place(record.place)
        inode = location.dentry.inode
        if record.flags & O_PATH:
            file = FileDescription(location, record.flags & PATH_FLAGS)
        else:
            flags = record.flags & VALID_FLAGS & ~OPEN_ONLY
            if flags & O_TMPFILE == O_TMPFILE:
                flags &= ~O_TMPFILE
            if bool(flags & O_DIRECTORY) > inode.is_dir or inode.kind == S_IFIFO:
                raise Damaged(f"{record.place.path!r} is of another kind now")
            await again(self.loader.rights.check_open, self._caller, location, flags)
            if isinstance(inode, TextNode):
                inode.check_open(self._caller, flags)
                file = inode.opened(location, flags, self._keeper)
            else:
                file = await again(_open_kind, self._caller, location, flags)
        inode.linkable |= record.linkable and record.place.tree is not None
        if record.listed and isinstance(file, DirectoryFile):
            growing.checked((each.name, None) for each in record.listed)
            file.goes_on([(each.name, each.ino, each.mode & S_IFMT) for each in record.listed])
        file.count(self.vfs.budget)
        return file

    async def donated(self, record: records.DonatedFile) -> FileDescription:
        """One of the descriptors that are there again, else one whose other end is gone."""
        access, number = record.flags & O_ACCMODE, record.number
        if 0 <= number < len(self.stdio):
            fd = fcntl.fcntl(self.stdio[number], fcntl.F_DUPFD_CLOEXEC, 3)
            closes = not os.isatty(fd)
            return donated(
                self.vfs, fd, record.flags, self.owner, closes=closes, number=number
            )
        inode = PipeInode(self.vfs, self.owner)
        inode.fifo = Pipe(self.vfs, Credentials.root())
        location = self.vfs.anon_location(inode, b"pipe:[%d]" % inode.ino)
        return PipeFile(location, access if access in ENDS else O_RDWR, inode.fifo)

    async def pipe(self, record: records.PipeEnd) -> FileDescription:
        """An end: the first one of a pipe without a name makes its inode, too."""
        contents = at(self.loader.snapshot.pipes, record.pipe, "pipe")
        if record.flags & O_ACCMODE not in ENDS:
            raise Damaged("an end of a pipe that is none")
        known = self._pipes.get(record.pipe)
        pipe = self._filled(contents) if known is None else known[0]
        if record.place is not None:
            location = await self.loader.place(record.place)
            inode = location.dentry.inode
            if inode.kind != S_IFIFO or (known is None) != (inode.fifo is None):
                raise Damaged("a FIFO that is none")
            inode.fifo = pipe
            self._pipes[record.pipe] = pipe, None
        else:
            mine = known[1] if known is not None else PipeInode(self.vfs, Owner(contents.uid, 0))
            if mine is None:
                raise Damaged("a pipe that is a FIFO")
            mine.fifo = pipe
            self._pipes[record.pipe] = pipe, mine
            location = self.vfs.anon_location(mine, b"pipe:[%d]" % mine.ino)
        file = PipeFile(location, record.flags, pipe)
        file.seen_writes = record.seen_writes
        if record.place is not None:
            file.count(self.vfs.budget)
        return file

    def _filled(self, contents: records.PipeBuffer) -> Pipe:
        """What is in it fits. Raises: Damaged, ENFILE."""
        size = sum(len(data) for data, _ in contents.parts)
        pages = contents.capacity >> 12
        fits = len(contents.parts) <= (LARGEST >> 12) + SLACK and size <= contents.capacity
        if not 1 <= pages <= LARGEST >> 12 or pages & (pages - 1) or not fits:
            raise Damaged("more in a pipe than fits")
        pipe = Pipe(self.vfs, Credentials.root())
        self.vfs.pipes.count(pipe._uid, pages - (pipe.capacity >> 12))
        pipe.capacity = contents.capacity
        pipe._parts = deque(data for data, _ in contents.parts)
        pipe._packets = deque(packet for _, packet in contents.parts)
        pipe.size = size
        pipe.read_opens, pipe.write_opens = contents.reads, contents.writes
        return pipe

    async def eventfd(self, record: records.EventCounter) -> FileDescription:
        """A counter."""
        file = EventFile(self.vfs, record.value, record.flags)
        file.semaphore = record.semaphore
        return file

    async def epoll(self, record: records.EpollSet) -> FileDescription:
        """Empty, until all files are there."""
        return EpollFile(self.vfs)

    def _watch(self, epoll: EpollFile, record: records.EpollSet) -> None:
        for watch in record.watches:
            file = at(self.made, watch.file, "open file")
            try:
                epoll.add(watch.fd, file, watch.events, watch.data)
            except Errno as error:
                raise Damaged(f"an epoll cannot watch a file: {error}") from error
            item = epoll.items[watch.fd, id(file)]
            item.events = watch.events  # as EPOLLONESHOT has left it
            item.mask = item.mask if watch.events else 0
            if watch.ready:
                epoll._ready[item] = None
            else:
                epoll._ready.pop(item, None)

    async def timerfd(self, record: records.ClockTimer) -> FileDescription:
        """It goes on to the same moment of its clock, or in what was left."""
        if record.clock not in CLOCKS or (record.wall_ns and record.clock not in WALL_CLOCKS):
            raise Damaged(f"a timer of clock {record.clock}")
        steps, programs = self.kernel.services.clock_steps, self.kernel.clock
        file = TimerFile(self.vfs, programs, steps, record.clock, record.flags)
        at_ns, again = record.at_ns, None
        if record.left_ns is not None:
            at_ns = min(max(programs.now_ns() + record.left_ns, 1), MAX_NS)
        elif record.wall_ns:
            again = partial(wall_deadline, programs, record.clock, record.wall_ns)
            at_ns = again()
        file.set(record.interval_ns, 0 if record.expired else at_ns, again, record.cancels)
        file.absolute = record.left_ns is None
        file._at_ns, file._expired, file._ticks = at_ns, record.expired, record.ticks
        return file

    async def signalfd(self, record: records.SignalSet) -> FileDescription:
        """Of the process that had made it, or read it last; else of one that has it."""
        group = self.kernel.pids.groups.get(self.numbered(record.pid or 0))
        task = group.tasks[0] if group is not None and group.tasks else self._caller
        return SignalFile(task, record.mask, record.flags & ~O_ACCMODE, take_for)

    async def pidfd(self, record: records.ProcessHandle) -> FileDescription:
        """Of a process that is there."""
        group = self.kernel.pids.groups.get(self.numbered(record.pid))
        if group is None:
            raise Damaged(f"there is no process {record.pid}")
        return PidFile(self.vfs, group, bool(record.flags & ~O_RDWR))

    async def namespace(self, record: records.NamespaceHandle) -> FileDescription:
        """For setns(2)."""
        found = self.loader.namespaces.named(record.what)
        location = place_of(self.kernel, record.what.what, found)
        if record.flags & O_PATH:
            return FileDescription(location, record.flags & PATH_FLAGS)
        return NamespaceFile(location, record.flags & O_ACCMODE)

    async def memfd(self, record: records.MemoryFile) -> FileDescription:
        """One of a file without a name, which others may have, too."""
        mount = internal_mount(self.vfs)
        known = self._memory.get(record.inode)
        if known is None:
            if record.node is None or record.node.mode & 0o170000 != S_IFREG:
                raise Damaged("a memfd that is no file")
            fs = mount.fs
            assert isinstance(fs, TmpFs)
            inode = growing.made(self.loader, fs, record.node)
            assert isinstance(inode, TmpFile)
            growing.fill(self.loader, inode, record.node)
            growing.pass_number(fs, inode.ino)
            known = self._memory[record.inode] = inode, record
        inode, first = known
        if first.node != record.node:
            raise Damaged("a memfd that is two files")
        dentry = Dentry(None, b"/memfd:" + record.label, inode)
        dentry.unlinked = True
        return MemFdFile(Location(mount, dentry), record.flags)


LOADS: Final[dict[type, Load]] = {
    records.NamedFile: Files.named,
    records.DonatedFile: Files.donated,
    records.PipeEnd: Files.pipe,
    records.EventCounter: Files.eventfd,
    records.EpollSet: Files.epoll,
    records.ClockTimer: Files.timerfd,
    records.SignalSet: Files.signalfd,
    records.ProcessHandle: Files.pidfd,
    records.MemoryFile: Files.memfd,
    records.NamespaceHandle: Files.namespace,
    records.Watches: Files.inotify,
    records.Attachment: Files.attachment,
    records.Master: Files.terminal,
    records.Slave: Files.terminal,
    records.UnixEnd: Files.socket,
    records.TcpEnd: Files.socket,
    records.UdpEnd: Files.socket,
}


def _named(record: records.OpenFile) -> str:
    place: records.Place | None = getattr(record, "place", None)
    if place is None:
        return f"an open file ({type(record).__name__})"
    return "/" + place.path.decode(errors="replace")
