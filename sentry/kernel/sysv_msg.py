"""System V message queues: ipc/msg.c, msgop(2), msgctl(2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from itertools import compress, count
from typing import TYPE_CHECKING, Any, NamedTuple

from sentry.abi.limits import LONG_MAX
from sentry.abi.sysvipc import MSG_COPY, MSG_EXCEPT
from sentry.errors import EAGAIN, EIDRM
from sentry.kernel.sysv_ids import (
    READ,
    WRITE,
    Caller,
    IdTable,
    IpcObject,
    check_permission,
    get,
    now,
)
from sentry.vfs.budget import MESSAGE_COST
from sentry.wait.fiber import Fiber, Mode
from sentry.wait.queue import Each, WaitQueue, in_place
from sentry.wait.sleep import Until, no_hand

if TYPE_CHECKING:
    from sentry.vfs.budget import Budget
    from sentry.wait.sleep import Sleep


class Message(NamedTuple):
    """What was sent."""

    kind: int
    """mtype, positive."""
    data: bytes


LetGo = Callable[[Iterable[Message], Callable[[Message], object]], object]
"""What forgets many of them, one after the other: Leftovers.begin."""


def all_at_once(messages: Iterable[Message], end: Callable[[Message], object]) -> None:
    """Here and now."""
    for message in messages:
        end(message)


class Search(Enum):
    """How a receiver chooses."""

    ANY = 0
    EQUAL = 1
    NOT_EQUAL = 2
    LESS_EQUAL = 3
    NUMBER = 4


def search(kind: int, flags: int) -> tuple[Search, int]:
    """What msgtyp and the flags of msgrcv(2) mean: convert_mode()."""
    if flags & MSG_COPY:
        return Search.NUMBER, kind
    if not kind:
        return Search.ANY, 0
    if kind < 0:
        return Search.LESS_EQUAL, min(-kind, LONG_MAX)
    return (Search.NOT_EQUAL if flags & MSG_EXCEPT else Search.EQUAL), kind


class Queue(IpcObject):
    """struct msg_queue."""

    __slots__ = ("bytes", "kinds", "lrpid", "lspid", "max_bytes", "messages", "newest", "readers",
                 "rtime", "stime", "writers")  # fmt: skip

    def __init__(self, task: Caller, key: int, flags: int, max_bytes: int) -> None:
        super().__init__(task.creds, key, flags)
        self.messages: list[Message] = []
        self.kinds: list[int] = []
        """Of each its kind: to look for one among 500,000 takes a few ms, in C."""
        self.bytes = 0
        self.max_bytes = max_bytes
        self.stime = self.rtime = self.lspid = self.lrpid = 0
        self.readers = WaitQueue()
        self.writers = WaitQueue()
        self.newest: Message | None = None
        """Of what readers are told; None: of something else than a message."""

    def find(self, how: Search, kind: int) -> int | None:
        """The index of the message that a receiver wants: find_msg()."""
        kinds = self.kinds
        if how is Search.ANY:
            return 0 if kinds else None
        if how is Search.NUMBER:
            return kind if 0 <= kind < len(kinds) else None
        if how is Search.NOT_EQUAL:
            return next(compress(count(), map(kind.__ne__, kinds)), None)
        if how is Search.LESS_EQUAL:
            lowest = min(kinds, default=kind + 1)
            return kinds.index(lowest) if lowest <= kind else None
        try:
            return kinds.index(kind)
        except ValueError:
            return None

    def add(self, message: Message) -> None:
        """The last one."""
        self.messages.append(message)
        self.kinds.append(message.kind)

    def pop(self, index: int) -> Message:
        """Take one out."""
        del self.kinds[index]
        return self.messages.pop(index)

    def tell_a_reader(self, message: Message) -> None:
        """One of those who wait for such a message: pipelined_send()."""
        self.newest = message
        self.readers.notify()

    def has_room(self, size: int) -> bool:
        """msg_fits_inqueue()."""
        return self.bytes + size <= self.max_bytes and len(self.messages) + 1 <= self.max_bytes

    def tell_a_writer(self) -> None:
        """One of those who wait for room that there is; it tells the next."""
        self.writers.notify()

    def tell_all(self, each: Each = in_place) -> None:
        """It is gone, or its rights have changed: expunge_all()."""
        self.newest = None
        self.readers.notify_all(each=each)
        self.writers.notify_all(each=each)

    def check_alive(self) -> None:
        """Raises: EIDRM."""
        if self.removed:
            raise EIDRM("removed")


class InLine(Until):
    """Asleep at a queue with others, of whom one at a time is woken: the first who `wants` to be.

    Who was woken and could not do anything has `pass_on` called.
    """

    __slots__ = ("_line", "_pass_on", "_wants")

    def __init__(
        self,
        attempt: Callable[[], Any],
        line: WaitQueue,
        wants: Callable[[], bool],
        pass_on: Callable[[], None],
    ) -> None:
        super().__init__(attempt, (), 0, None, Mode.INTERRUPTIBLE, True)
        self._line = line
        self._wants = wants
        self._pass_on = pass_on
        self.tried()

    def enter(self, fiber: Fiber) -> None:
        """At the end of the line."""
        hear = partial(self._hear, fiber)
        self._entries = [(self._line, self._line.add(hear, exclusive=True))]

    def _hear(self, fiber: Fiber, _events: int) -> bool:
        return self._wants() and fiber.wake()

    def attempt(self) -> Any:
        """Once more."""
        try:
            return super().attempt()
        except EAGAIN:
            raise
        except BaseException:
            self._pass_on()
            raise


def receiving(attempt: Callable[[], Any], queue: Queue, how: Search, kind: int) -> InLine:
    """Until there is a message that one wants; one that cannot be taken is for the next."""

    def wanted() -> bool:
        return queue.newest is None or wants(how, kind, queue.newest)

    def pass_on() -> None:
        index = None if queue.removed else queue.find(how, kind)
        if index is not None:
            queue.tell_a_reader(queue.messages[index])

    return InLine(attempt, queue.readers, wanted, pass_on)


def sending(attempt: Callable[[], Any], queue: Queue, size: int) -> InLine:
    """Until there is room for a message: ss_wakeup()."""
    return InLine(
        attempt, queue.writers, lambda: queue.removed or queue.has_room(size), queue.tell_a_writer
    )


def wants(how: Search, kind: int, message: Message) -> bool:
    """testmsg()."""
    if how is Search.LESS_EQUAL:
        return message.kind <= kind
    if how in (Search.EQUAL, Search.NOT_EQUAL):
        return (message.kind == kind) == (how is Search.EQUAL)
    return True


def _check_send(task: Caller, queue: Queue, message: Message) -> None:
    """Raises: EACCES, EIDRM, EAGAIN while there is no room."""
    check_permission(task.creds, queue, WRITE)
    queue.check_alive()
    if not queue.has_room(len(message.data)):
        raise EAGAIN("the queue is full")


class Queues:
    """All queues of a namespace."""

    def __init__(
        self, budget: Budget, limit: Callable[[str], int], let_go: LetGo = all_at_once
    ) -> None:
        self.ids: IdTable[Queue] = IdTable("msg")
        self.limit = limit
        self.messages = self.bytes = 0
        """In all of them."""
        self._budget = budget
        self._let_go = let_go

    def get(self, task: Caller, key: int, flags: int) -> int:
        """msgget(2)."""

        def make() -> int:
            queue = Queue(task, key, flags, self.limit("msgmnb"))
            return self.ids.add(queue, self.limit("msgmni"))

        return get(self.ids, task.creds, key, flags, make, lambda _: None)

    def send(self, task: Caller, queue: Queue, message: Message) -> None:
        """msgsnd(2). Raises: EACCES, EIDRM, EAGAIN while there is no room, ENOMEM."""
        _check_send(task, queue, message)
        self._budget.check_messages(len(message.data))
        self._add(task, queue, message)

    def sent_in_line(self, task: Caller, queue: Queue, message: Message) -> Sleep:
        """Until there is room; what was read once is what is sent. Raises: ENOMEM."""

        def attempt() -> int:
            _check_send(task, queue, message)
            self._add(task, queue, message)
            return 0

        size = len(message.data)
        return sending(attempt, queue, size).ended(self._budget.count_waiting(size)).ended(no_hand)

    def _add(self, task: Caller, queue: Queue, message: Message) -> None:
        size = len(message.data)
        queue.add(message)
        self._count(queue, 1, size)
        queue.stime, queue.lspid = now(), task.group.tgid
        queue.tell_a_reader(message)
        if queue.has_room(1):
            queue.tell_a_writer()

    def peek(self, task: Caller, queue: Queue, how: Search, kind: int) -> int:
        """One look for msgrcv(2): the index. Raises: EACCES, EIDRM, EAGAIN when there is none."""
        check_permission(task.creds, queue, READ)
        queue.check_alive()
        index = queue.find(how, kind)
        if index is None:
            raise EAGAIN("no message")
        return index

    def take(self, task: Caller, queue: Queue, index: int) -> Message:
        """Receive the message at `index`."""
        message = queue.pop(index)
        self._count(queue, -1, -len(message.data))
        queue.rtime, queue.lrpid = now(), task.group.tgid
        queue.tell_a_writer()
        return message

    def _count(self, queue: Queue, messages: int, size: int) -> None:
        queue.bytes += size
        self.bytes += size
        self.messages += messages
        self._budget.message_bytes += size + messages * MESSAGE_COST

    def remove(self, queue: Queue, each: Each = in_place) -> None:
        """IPC_RMID: who waits gets EIDRM."""
        self.ids.remove(queue)
        self._count(queue, -len(queue.messages), -queue.bytes)
        messages, queue.messages, queue.kinds = queue.messages, [], []
        self._let_go(messages, lambda _: None)
        queue.tell_all(each)

    def table(self, reader: Caller) -> Iterator[str]:
        """The lines of /proc/sysvipc/msg."""
        of = reader.pids.of
        for q in self.ids.in_order():
            yield (
                f"{q.key:10} {q.id:10}  {q.mode:4o}  {q.bytes:10} {len(q.messages):10} "
                f"{of(q.lspid):5} {of(q.lrpid):5} {q.owners(reader.creds)} "
                f"{q.stime:10} {q.rtime:10} {q.ctime:10}\n"
            )
