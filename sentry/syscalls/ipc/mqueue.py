"""POSIX message queues: mq_open(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated, Any

from sentry.abi.fcntl import O_ACCMODE, O_CREAT, O_EXCL, O_NONBLOCK, O_RDWR, O_WRONLY
from sentry.abi.limits import NAME_MAX
from sentry.abi.mqueue import (
    MQ_ATTR,
    MQ_PRIO_MAX,
    NOTIFY_COOKIE_LEN,
    NOTIFY_REMOVED,
    NOTIFY_WOKENUP,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.signal import SI_MESGQ, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD
from sentry.abi.socket import AF_NETLINK
from sentry.abi.stat import S_IFREG
from sentry.abi.time import CLOCK_REALTIME, TIMESPEC
from sentry.auth.permissions import MAY_EXEC, MAY_READ, MAY_WRITE
from sentry.errors import (
    EACCES,
    EAGAIN,
    EBADF,
    EEXIST,
    EINVAL,
    EMSGSIZE,
    ENAMETOOLONG,
    ENOENT,
    ENOTSOCK,
    ETIMEDOUT,
    Errno,
)
from sentry.fs.mqueue.file import QueueFile
from sentry.fs.mqueue.filesystem import QueueDirectory, internal_mount
from sentry.fs.mqueue.queue import Attributes, MessageQueue, Notification
from sentry.kernel import signal_send
from sentry.kernel.clocks import NS, to_monotonic
from sentry.kernel.signals import NSIG, SigInfo
from sentry.kernel.task import Task
from sentry.net.socket import Socket
from sentry.syscalls.args import show_path, unsigned
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Fd, Mode, OpenFlags, Size, UInt
from sentry.vfs.access import check_create, check_delete, check_inode
from sentry.vfs.dentry import Dentry
from sentry.vfs.file import Result
from sentry.vfs.location import Location
from sentry.vfs.names import new_owner
from sentry.vfs.open import OpenHow, open_location
from sentry.wait.fiber import TimedOut
from sentry.wait.queue import ALL, WaitQueue
from sentry.wait.sleep import Retry, instead

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.vfs.mount import Mount
    from sentry.wait.sleep import Sleep

_sigevent = struct.Struct("<QiiI44x")
_uint = struct.Struct("<I").pack
Name = Annotated[int, unsigned(64, show_path)]


# Names -------------------------------------------------------------------------------------------


def _name(task: Task, addr: int) -> bytes:
    """getname(): the C library has taken the slash away. Raises: ENOENT, ENAMETOOLONG, EFAULT."""
    name: bytes = task.mm.read_path(addr)
    if not name:
        raise ENOENT("no name")
    return name


def _lookup(task: Task, mount: Mount, name: bytes) -> MessageQueue | None:
    """lookup_one_len(). Raises: EACCES (no name of one component), ENAMETOOLONG."""
    if name in (b".", b"..") or b"/" in name:
        raise EACCES(f"{name!r}")
    root = mount.root.inode
    check_inode(task.creds, root, MAY_EXEC)
    if len(name) > NAME_MAX:
        raise ENAMETOOLONG(f"{len(name)} bytes")
    assert isinstance(root, QueueDirectory)
    found = root.children.get(name)
    assert found is None or isinstance(found, MessageQueue)
    return found


@syscall(240)
def sys_mq_open(task: Task, name: Name, flags: OpenFlags, mode: Mode, attr: Addr) -> int:
    """mq_open(2): do_mq_open(). The descriptor is always close-on-exec."""
    wanted = None
    if attr:
        fields = MQ_ATTR.unpack(task.mm.read(attr, MQ_ATTR.size))
        wanted = Attributes(fields.mq_maxmsg, fields.mq_msgsize)
    path = _name(task, name)
    limit = task.rlimit(RLIMIT_NOFILE)
    task.files.free_from(0, limit)
    mount = internal_mount(task)
    queue = _lookup(task, mount, path)
    created = queue is None
    if queue is None:
        if not flags & O_CREAT:
            raise ENOENT(f"{path!r}")
        queue = _create(task, mount.root, path, mode, wanted)
    elif flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL:
        raise EEXIST(f"{path!r}")
    if flags & O_ACCMODE == O_RDWR | O_WRONLY:
        raise EINVAL("access mode")
    access = (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE)[flags & O_ACCMODE]
    place = Location(mount, mount.root.child(path, queue, task.kernel.vfs.dentries))
    how = OpenHow(flags & (O_ACCMODE | O_NONBLOCK), 0, access)
    task.kernel.vfs.budget.check_files()
    file = open_location(task, place, how, created=created)
    return task.files.install(file, limit, cloexec=True)


def _create(
    task: Task, directory: Dentry, name: bytes, mode: int, wanted: Attributes | None
) -> MessageQueue:
    check_create(task.creds, directory)
    root = directory.inode
    assert isinstance(root, QueueDirectory)
    bits, owner = new_owner(task, root, S_IFREG | mode & 0o7777)
    return root.make(task, name, bits & 0o7777, owner, wanted)


@syscall(241)
def sys_mq_unlink(task: Task, name: Name) -> None:
    """mq_unlink(2)."""
    path = _name(task, name)
    mount = internal_mount(task)
    queue = _lookup(task, mount, path)
    if queue is None:
        raise ENOENT(f"{path!r}")
    check_delete(task.creds, mount.root, queue, want_dir=False)
    root = mount.root.inode
    assert isinstance(root, QueueDirectory)
    root.remove(path)
    if (known := mount.root.known_child(path)) is not None:
        known.drop(task.kernel.vfs.dentries)


# Messages ----------------------------------------------------------------------------------------


def _file(task: Task, fd: int, mode: str = "") -> QueueFile:
    """The open queue of a descriptor. Raises: EBADF."""
    file = task.files.get(fd & 0xFFFFFFFF)
    if not isinstance(file, QueueFile) or (mode and not getattr(file, mode)):
        raise EBADF(f"fd {fd} is no queue that is {mode or 'open'}")
    return file


def _deadline(task: Task, addr: int) -> int | None:
    """An absolute time on CLOCK_REALTIME, as CLOCK_MONOTONIC. Raises: EFAULT, EINVAL."""
    if not addr:
        return None
    sec, nsec = TIMESPEC.unpack(task.mm.read(addr, TIMESPEC.size))
    if sec < 0 or not 0 <= nsec < NS:
        raise EINVAL("timeout")
    return to_monotonic(task.kernel.clock, CLOCK_REALTIME, sec * NS + nsec)


def _sleep(
    file: QueueFile, attempt: Callable[[], int], queue: WaitQueue, deadline_ns: int | None
) -> Sleep:
    """Until it can be done, or ETIMEDOUT."""
    sleep = Retry(attempt, queue, ALL, file, deadline_ns=deadline_ns)
    return sleep.timed_by_programs().ended(instead(TimedOut, ETIMEDOUT))


@syscall(242)
def sys_mq_timedsend(
    task: Task, fd: Fd, addr: Addr, size: Size, priority: UInt, timeout: Addr
) -> Result:
    """mq_timedsend(2): do_mq_timedsend()."""
    deadline_ns = _deadline(task, timeout)
    if priority >= MQ_PRIO_MAX:
        raise EINVAL(f"priority {priority}")
    file = _file(task, fd, "writable")
    queue = file.messages
    if size > queue.attributes.message_size:
        raise EMSGSIZE(f"{size} bytes")
    data = task.mm.read(addr, size)

    try:
        queue.send(priority, data, task)
    except EAGAIN:
        if file.flags & O_NONBLOCK:
            raise
    else:
        return 0
    counted = queue.fs.budget.count_waiting(size)

    def attempt() -> int:
        queue.send_counted(priority, data, task)
        return 0

    return _sleep(file, attempt, queue.writers, deadline_ns).ended(counted)


@syscall(243)
def sys_mq_timedreceive(
    task: Task, fd: Fd, addr: Addr, size: Size, priority: Addr, timeout: Addr
) -> Result:
    """mq_timedreceive(2): do_mq_timedreceive()."""
    deadline_ns = _deadline(task, timeout)
    file = _file(task, fd, "readable")
    queue = file.messages
    if size < queue.attributes.message_size:
        raise EMSGSIZE(f"{size} bytes")

    def attempt() -> int:
        number, data = queue.peek()
        # Pages that have to be fetched first must not cost the message.
        task.mm.accessible(addr, len(data), True)
        if priority:
            task.mm.accessible(priority, 4, True)
        queue.take()
        if priority:
            task.mm.write(priority, _uint(number))
        task.mm.write(addr, data)
        return len(data)

    try:
        return attempt()
    except EAGAIN:
        if file.flags & O_NONBLOCK:
            raise
    return _sleep(file, attempt, queue.readers, deadline_ns)


@syscall(245)
def sys_mq_getsetattr(task: Task, fd: Fd, new: Addr, old: Addr) -> None:
    """mq_getsetattr(2): of the new attributes only O_NONBLOCK counts."""
    flags = None
    if new:
        flags = MQ_ATTR.unpack(task.mm.read(new, MQ_ATTR.size)).mq_flags
        if flags & ~O_NONBLOCK:
            raise EINVAL(f"flags {flags:#x}")
    file = _file(task, fd)
    queue = file.messages
    was = MQ_ATTR.pack(file.flags & O_NONBLOCK, *queue.attributes, len(queue.messages), bytes(32))
    if old:
        task.mm.check_out(old, len(was))
    if flags is not None:
        file.flags = file.flags & ~O_NONBLOCK | flags
    if old:
        task.mm.write(old, was)


# Notification ------------------------------------------------------------------------------------


@syscall(244)
def sys_mq_notify(task: Task, fd: Fd, event: Addr) -> None:
    """mq_notify(2). SIGEV_THREAD is the C library's: it wants a cookie on a netlink socket."""
    if not event:
        _file(task, fd).messages.unregister(task.group)
        return
    value, signo, how, _ = _sigevent.unpack(task.mm.read(event, _sigevent.size))
    if how not in (SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD):
        raise EINVAL(f"sigev_notify {how}")
    if how == SIGEV_SIGNAL and not 0 <= signo <= NSIG:
        raise EINVAL(f"signal {signo}")
    group = task.group
    came: Callable[[Any], None] = _nothing
    dropped: Callable[[], None] = _nothing
    if how == SIGEV_SIGNAL and signo:

        def came(by: Task) -> None:
            info = SigInfo.queue(signo, SI_MESGQ, by.group.tgid, by.creds.uid, value)
            try:
                signal_send.send_to_group(group, info, by=by)
            except Errno:  # RLIMIT_SIGPENDING: the signal is lost, as on Linux
                return

    elif how == SIGEV_THREAD:
        came, dropped = _cookie(task, value, signo)
    queue = _file(task, fd).messages
    queue.register(Notification(group, group.tgid, how, signo, came, dropped))


def _nothing(*_: object) -> None:
    """Nobody is told."""


def _cookie(task: Task, addr: int, fd: int) -> tuple[Callable[[Any], None], Callable[[], None]]:
    """SIGEV_THREAD: the last byte of the cookie says what happened. EFAULT, EBADF, EINVAL."""
    cookie = task.mm.read(addr, NOTIFY_COOKIE_LEN)
    file = task.files.get(fd & 0xFFFFFFFF)
    if not isinstance(file, Socket):
        raise ENOTSOCK("no socket")
    if file.family != AF_NETLINK:
        raise EINVAL("no netlink socket")
    socket: Any = file
    socket.incref()

    def tell(what: int) -> None:
        socket.deliver(cookie[:-1] + bytes([what]), 0, 0)
        socket.decref()

    return (lambda _: tell(NOTIFY_WOKENUP)), (lambda: tell(NOTIFY_REMOVED))
