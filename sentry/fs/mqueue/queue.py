"""`MessageQueue`: the inode of a POSIX message queue, and what is in it."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sentry.abi.mqueue import MQ_PRIO_MAX
from sentry.abi.poll import EPOLLIN, EPOLLOUT, EPOLLRDNORM, EPOLLWRNORM
from sentry.abi.signal import SIGEV_SIGNAL
from sentry.errors import EAGAIN, EBUSY
from sentry.fs.mqueue.file import QueueFile
from sentry.fs.tmpfs.inode import TmpInode
from sentry.vfs.budget import MESSAGE_COST
from sentry.vfs.interface import Owner
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.fs.mqueue.filesystem import MqueueFs
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location

STATUS_SIZE: Final = 80
"""FILENT_SIZE: what stat(2) says."""
MSG_COST: Final = 48
"""sizeof(struct msg_msg) and of struct posix_msg_tree_node, which RLIMIT_MSGQUEUE counts."""


class Attributes(NamedTuple):
    """mq_maxmsg and mq_msgsize, checked."""

    max_messages: int
    message_size: int

    @property
    def cost(self) -> int:
        """What the queue counts against RLIMIT_MSGQUEUE: getrlimit(2)."""
        tree = (self.max_messages + min(self.max_messages, MQ_PRIO_MAX)) * MSG_COST
        return tree + self.max_messages * self.message_size


class Notification(NamedTuple):
    """Who asked mq_notify(2) to be told, and how."""

    owner: object
    """The process; `tgid` is its number."""
    tgid: int
    how: int
    signo: int
    message_came: Callable[[Any], None]
    """Called with the task that sent it."""
    dropped: Callable[[], None]
    """Called when it is taken back before that."""


class MessageQueue(TmpInode):
    """The messages by priority, who waits for them, who wants to be told."""

    __slots__ = (
        "_sequence", "attributes", "bytes", "cost_of", "events", "messages", "notification",
        "opens", "readers", "writers",
    )  # fmt: skip

    fs: MqueueFs

    def __init__(self, fs: MqueueFs, mode: int, owner: Owner, attributes: Attributes) -> None:
        super().__init__(fs, 0o100000 | mode, owner)
        self.attributes = attributes
        self.messages: list[tuple[int, int, bytes]] = []
        """(priority, minus the order of arrival, data), the next one last."""
        self.bytes = 0
        self.opens = 0
        self.events = WaitQueue()
        """For poll(2)."""
        self.readers = WaitQueue()
        """Who sleeps in mq_receive(3); a message goes to them before anybody is notified."""
        self.writers = WaitQueue()
        self.notification: Notification | None = None
        self.cost_of = owner.uid
        """Whose RLIMIT_MSGQUEUE counts it."""
        self._sequence = 0

    # --- as a file

    def size_of(self) -> tuple[int, int]:
        """The size of the status text."""
        return STATUS_SIZE, 0

    def resize(self, size: int) -> None:
        """Truncating it changes nothing."""

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """open(2) and mq_open(2)."""
        self.opens += 1
        return QueueFile(location, flags, self)

    def closed(self) -> None:
        """One open file less."""
        self.opens -= 1
        self.check_end()

    def check_end(self) -> None:
        """Neither a name nor an open file is left: the messages go."""
        if self.nlink or self.opens:
            return
        self._count(-len(self.messages), -self.bytes)
        self.messages.clear()
        self.fs.released(self)

    def status(self) -> bytes:
        """What read(2) gives: mqueue_read_file()."""
        note = self.notification
        how, signo, pid = (0, 0, 0)
        if note is not None:
            how, pid = note.how, note.tgid
            signo = note.signo if how == SIGEV_SIGNAL else 0
        return b"QSIZE:%-10d NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n" % (
            self.bytes, how, signo, pid,
        )  # fmt: skip

    # --- messages

    def poll(self) -> int:
        """EPOLL* events that hold."""
        count = len(self.messages)
        return (EPOLLIN | EPOLLRDNORM if count else 0) | (
            EPOLLOUT | EPOLLWRNORM if count < self.attributes.max_messages else 0
        )

    def send(self, priority: int, data: bytes, by: Any) -> None:
        """Add a message. Raises: EAGAIN when the queue is full, ENOMEM."""
        self._check_not_full()
        self.fs.budget.check_messages(len(data))
        self._add(priority, data, by)

    def send_counted(self, priority: int, data: bytes, by: Any) -> None:
        """One that has waited, and counts already. Raises: EAGAIN when the queue is full."""
        self._check_not_full()
        self._add(priority, data, by)

    def _check_not_full(self) -> None:
        if len(self.messages) >= self.attributes.max_messages:
            raise EAGAIN("full")

    def _add(self, priority: int, data: bytes, by: Any) -> None:
        self._sequence += 1
        insort(self.messages, (priority, -self._sequence, data))
        self._count(1, len(data))
        self._stamp()
        if not self.readers.notify() and len(self.messages) == 1:
            self._notify(by)
        self.events.notify(EPOLLIN | EPOLLRDNORM)

    def peek(self) -> tuple[int, bytes]:
        """Priority and data of the next message. Raises: EAGAIN when there is none."""
        if not self.messages:
            raise EAGAIN("empty")
        priority, _, data = self.messages[-1]
        return priority, data

    def take(self) -> None:
        """Remove the next message."""
        _, _, data = self.messages.pop()
        self._count(-1, -len(data))
        self._stamp()
        self.writers.notify()
        self.events.notify(EPOLLOUT | EPOLLWRNORM)

    def _count(self, messages: int, size: int) -> None:
        self.bytes += size
        self.fs.budget.message_bytes += size + messages * MESSAGE_COST

    def _stamp(self) -> None:
        self.atime_ns = self.mtime_ns = self.ctime_ns = self.fs.now_ns()

    # --- notification

    def register(self, notification: Notification) -> None:
        """mq_notify(2). Raises: EBUSY when somebody is registered."""
        if self.notification is not None:
            raise EBUSY("somebody else is to be notified")
        self.notification = notification
        self.atime_ns = self.ctime_ns = self.fs.now_ns()

    def unregister(self, owner: object) -> None:
        """mq_notify(2) with a null pointer, or a close(2) by the process that is registered."""
        note = self.notification
        if note is not None and note.owner is owner:
            self.notification = None
            note.dropped()
            self.atime_ns = self.ctime_ns = self.fs.now_ns()

    def _notify(self, by: Any) -> None:
        """A message came to an empty queue: tell, once."""
        note, self.notification = self.notification, None
        if note is not None:
            note.message_came(by)
