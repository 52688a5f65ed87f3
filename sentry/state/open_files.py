"""Open files as records: which class has which, and what there is none of.

A class without a row here or in `REFUSED` is not known to snapshots, and refused by its name
(`tests/unit/state/test_kinds.py` finds it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import ENOENT
from sentry.fs.dev.memory import MemoryDevice
from sentry.fs.epoll.file import EpollFile
from sentry.fs.erofs.file import ErofsFile
from sentry.fs.eventfd import EventFile
from sentry.fs.gofer.directory import GoferDirectoryFile
from sentry.fs.gofer.file import GoferFile
from sentry.fs.host.file import HostFile
from sentry.fs.inotify import InotifyFile
from sentry.fs.memfd import MemFdFile
from sentry.fs.overlay.file import OverlayFile
from sentry.fs.pidfd import PidFile
from sentry.fs.pipe.file import PipeFile
from sentry.fs.proc.owner import live_task
from sentry.fs.pseudo.files import TextFile
from sentry.fs.pseudo.nodes import GeneratedDirectoryFile
from sentry.fs.signalfd import SignalFile
from sentry.fs.timerfd import TimerFile
from sentry.fs.tmpfs.file import TmpOpenFile
from sentry.kernel.clocks import HOST_CLOCKS
from sentry.state import records
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.fd_table import FdTable
from sentry.vfs.file import FileDescription
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.fs.pipe.buffer import Pipe
    from sentry.state.saver import Saver

Save = Callable[["Saver", Any, dict[str, Any]], records.OpenFile]
"""(saver, open file, what all have in common)"""

KINDS: Final[dict[type, Save]] = {}
REFUSED: Final = {
    "sentry.fs.bpf_program.ProgramFile": "a program of bpf(2)",
    "sentry.fs.fanotify.FanotifyFile": "fanotify(7)",
    "sentry.fs.fsopen.FsContextFile": "a file system that is being made (fsopen(2))",
    "sentry.fs.fuse.device.FuseDevice": "an open FUSE connection",
    "sentry.fs.fuse.directory.FuseDirectoryFile": "a directory of a FUSE file system",
    "sentry.fs.fuse.file.FuseFile": "a file of a FUSE file system",
    "sentry.fs.gofer.host_fifo.HostFifo": "a FIFO of the host",
    "sentry.fs.memfd.SecretFile": "memfd_secret(2)",
    "sentry.fs.mqueue.file.QueueFile": "a POSIX message queue",
    "sentry.fs.proc.pagemap.PagemapFile": "memory of a process that is open (/proc/PID/pagemap)",
    "sentry.fs.proc.process_memory.MemFile": "memory of a process that is open (/proc/PID/mem)",
    "sentry.fs.proc.process_memory.MmFile": "memory of a process that is open",
    "sentry.fs.served.device.DeviceFile": "a device that is served from outside",
    "sentry.kernel.aio.RingFile": "io_setup(2)",
    "sentry.kernel.seccomp_listener.Listener": "a supervisor of seccomp(2)",
    "sentry.net.tun.device.TunDevice": "a tun device",
    "sentry.vfs.mounting.TreeFile": "a mount that is at no place (open_tree(2))",
}
"""By the class's name, for most need not be imported."""
SOCKETS: Final = {
    "raw": "a raw socket", "ping": "a ping socket", "netlink": "a netlink socket",
    "packet_socket": "a packet socket", "unix_host": "a socket of a service of the host",
    "host": "a socket of the host (--network=host)",
}  # fmt: skip
"""By a part of the module's name; all others below sentry.net are "a socket"."""
NAMED: Final = (
    MemoryDevice, DirectoryFile, ErofsFile, GoferDirectoryFile, GoferFile, OverlayFile,
    GeneratedDirectoryFile, TmpOpenFile,
)  # fmt: skip
"""What is opened by its name again; their subclasses are not."""


def kinds() -> dict[type, Save]:
    """By class."""
    from sentry.fs.devpts.files import PtyMaster, PtySlave  # noqa: PLC0415
    from sentry.fs.layers.file import LayeredFile, LayeredListing  # noqa: PLC0415
    from sentry.fs.proc.contents import RootListing  # noqa: PLC0415
    from sentry.fs.proc.map_files import MapFilesFile  # noqa: PLC0415
    from sentry.fs.proc.namespaces import NamespaceFile  # noqa: PLC0415
    from sentry.fs.proc.sysctl_links import LinksListing  # noqa: PLC0415
    from sentry.kernel.sysv_shm import ShmFile  # noqa: PLC0415
    from sentry.net.inet.tcp import TcpSocket  # noqa: PLC0415  few programs need all of them
    from sentry.net.inet.udp import UdpSocket  # noqa: PLC0415
    from sentry.net.unix import UnixSocket  # noqa: PLC0415
    from sentry.state import sockets, sysv, terminals  # noqa: PLC0415

    found: dict[type, Save] = dict.fromkeys(
        (*NAMED, LayeredFile, LayeredListing, LinksListing, MapFilesFile, RootListing), _named
    )
    for kind in MemoryDevice.__subclasses__():
        found[kind] = _named
        found |= dict.fromkeys(kind.__subclasses__(), _named)
    return found | {
        EpollFile: _epoll, EventFile: _eventfd, HostFile: _donated, MemFdFile: _memfd,
        InotifyFile: _inotify, PidFile: _pidfd, PipeFile: _pipe_end, SignalFile: _signalfd,
        PtyMaster: terminals.master, PtySlave: terminals.slave,
        NamespaceFile: _namespace, ShmFile: sysv.attached, TextFile: _text, TimerFile: _timerfd,
        TcpSocket: sockets.tcp, UdpSocket: sockets.udp, UnixSocket: sockets.unix,
    }  # fmt: skip


def described(kind: type) -> str:
    """What one of a kind that has no record is to its user."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in REFUSED:
        return REFUSED[name]
    if not name.startswith("sentry.net."):
        return f"an open file of a new kind ({name})"
    parts = name.split(".")
    return next((what for part, what in SOCKETS.items() if part in parts), "a socket")


def save(saver: Saver, file: FileDescription) -> records.OpenFile:
    """Raises: EOPNOTSUPP."""
    from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

    if not KINDS:
        KINDS.update(kinds())
    how = _named if type(file) is FileDescription else KINDS.get(type(file))
    if how is None:
        refused(described(type(file)))
    if saver.others.has(file):
        refused("an open file, or an end of a connection, that another container has, too")
    if file.inode.locks is not None:
        saver.locked.setdefault(id(file.inode.locks), file)
    common = {
        "flags": file.flags, "position": file.position,
        "owner": (file.owner[0], saver.number(file.owner[1])),
        "owner_ids": file.owner_ids, "owner_signal": file.owner_signal,
        "creds": None if file.creds is None else saver.creds(file.creds),
    }  # fmt: skip
    notice: Any = file.async_notice
    if notice is not None:
        common["async_notice"] = records.AsyncNotice(notice.fd, notice.wants_room)
    told: Any = file.dnotify
    if told is not None:
        table = saver.descriptors(told.table)
        common["dnotify"] = records.DirectoryNotice(told.fd, told.wanted, table)
    return how(saver, file, common)


def _named(saver: Saver, file: Any, common: dict[str, Any]) -> records.OpenFile:
    if saver.mounts.at(file.location.mount) is None:
        if type(file) is TmpOpenFile:
            return _memfd(saver, file, common)
        if hasattr(file.inode, "kind_name"):
            return _namespace(saver, file, common)
    changed = isinstance(file, TextFile) and file.has_changed
    return records.NamedFile(
        place=saver.place(file.location), changed=changed, linkable=file.inode.linkable,
        listed=saver.listed.pop(id(file), []), **common,
    )  # fmt: skip


async def listed(file: Any) -> list[records.Listed]:
    """What an open directory goes on with, whatever has become of that since."""
    if not isinstance(file, DirectoryFile) or file._listing is None or not file.position:
        return []
    return [records.Listed(*each) for each in await driven(file._listing.all())]


def _text(saver: Saver, file: TextFile, common: dict[str, Any]) -> records.OpenFile:
    from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

    if saver.mounts.is_one_of_many(file.changes) and not _is_of_its_process(file):
        refused("an open list of mounts (/proc/PID/mounts) of another namespace than its process's")
    return _named(saver, file, common)


def _is_of_its_process(file: TextFile) -> bool:
    """Whether it would show the same namespace if it was opened now."""
    inode: Any = file.inode
    try:
        return live_task(inode._subject).ns.mounts.mounts.changes is file.changes
    except ENOENT:
        return False


def _namespace(saver: Saver, file: Any, common: dict[str, Any]) -> records.OpenFile:
    inode = file.inode
    if saver.mounts.at(file.location.mount) is not None:
        return _named(saver, file, common)
    what = saver.namespaces.named(inode.kind_name, inode.namespace)
    return records.NamespaceHandle(what=what, **common)


def _donated(_: Saver, file: HostFile, common: dict[str, Any]) -> records.OpenFile:
    if file.is_regular:
        common["position"] = 0  # the host's
    number = getattr(file.inode, "number", -1)
    return records.DonatedFile(number=number, **common)


def _pipe_end(saver: Saver, file: PipeFile, common: dict[str, Any]) -> records.OpenFile:
    from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

    if saver.others.has(file.pipe):
        refused("a pipe whose other end another container has")
    place = saver.place(file.location) if file.named else None
    return records.PipeEnd(
        pipe=saver.pipes(file.pipe), place=place, seen_writes=file.seen_writes, **common
    )


def _eventfd(_: Saver, file: EventFile, common: dict[str, Any]) -> records.OpenFile:
    return records.EventCounter(value=file.value, semaphore=file.semaphore, **common)


def _epoll(saver: Saver, file: EpollFile, common: dict[str, Any]) -> records.OpenFile:
    watches = [
        records.Watch(
            item.fd, saver.files(item.file), item.events, item.data, item in file._ready
        )
        for item in file.items.values()
    ]
    return records.EpollSet(watches=watches, **common)


def _timerfd(_: Saver, file: TimerFile, common: dict[str, Any]) -> records.OpenFile:
    programs, at_ns = file._programs, file._at_ns
    wall_ns, left_ns = 0, None
    if file._again is not None:
        wall_ns = at_ns + programs.distance_ns(HOST_CLOCKS[file.clock])
    elif at_ns and not file.absolute:
        left_ns = min(at_ns - programs.now_ns(), records.MOST)
    return records.ClockTimer(
        clock=file.clock, at_ns=records.time_ns(at_ns),
        interval_ns=records.time_ns(file._interval_ns), expired=file._expired, ticks=file._ticks,
        left_ns=left_ns, wall_ns=records.time_ns(wall_ns), cancels=file._cancels, **common,
    )  # fmt: skip


def _signalfd(saver: Saver, file: SignalFile, common: dict[str, Any]) -> records.OpenFile:
    return records.SignalSet(mask=file.mask, pid=saver.known(file._group.tgid), **common)


def _inotify(saver: Saver, file: InotifyFile, common: dict[str, Any]) -> records.OpenFile:
    watched = [
        records.Watched(each.wd, each.mask, *saver.in_tree(each.inode))
        for each in file.watches.values()
    ]
    return records.Watches(next=file._next, watched=watched, events=list(file._events), **common)


def locks(saver: Saver, file: FileDescription) -> records.Locks | None:
    """Those on the file behind an open one; None: there are none."""
    from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

    found = file.inode.locks
    if found is None or not (found.records or found.flocks or found.leases):
        return None
    if found.leases is not None and found.leases.items:
        refused("a lease of a file")
    held = []
    others = saver.others
    for owner, some in found.records.items():
        if others.has(owner):
            continue
        is_table = isinstance(owner, FdTable)
        table = saver.descriptors(owner) if is_table else None
        whose = None if is_table else saver.files(owner)
        held += [
            records.Held(saver.number(each.pid), each.exclusive, each.start, each.end, table, whose)
            for each in some
        ]
    flocks = [
        records.Flock(saver.files(owner), exclusive, saver.number(found._pids.get(owner, 0)))
        for owner, exclusive in found.flocks.items() if not others.has(owner)
    ]
    return records.Locks(saver.files(file), held, flocks)


def _pidfd(saver: Saver, file: PidFile, common: dict[str, Any]) -> records.OpenFile:
    from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

    kernel = file.group.kernel
    if file.thread is not None or kernel.pids.groups.get(file.group.tgid) is not file.group:
        refused("a pidfd of a thread, or of a process that is gone")
    number = saver.number(file.group.tgid)
    if not number:
        refused("a pidfd of a process of another container")
    return records.ProcessHandle(pid=number, **common)


def _memfd(saver: Saver, file: Any, common: dict[str, Any]) -> records.OpenFile:
    from sentry.state.trees import node  # noqa: PLC0415  which knows the saver

    inode = file.inode
    label = file.location.dentry.name.removeprefix(b"/memfd:")
    return records.MemoryFile(label=label, node=node(saver, inode), inode=inode.ino, **common)


def pipe(pipe: Pipe) -> records.PipeBuffer:
    """What is in it."""
    parts = [
        (bytes(part), packet)
        for part, packet in zip(pipe._parts, pipe._packets, strict=True)
    ]
    return records.PipeBuffer(
        parts, pipe.capacity, pipe._uid, reads=pipe.read_opens, writes=pipe.write_opens
    )


