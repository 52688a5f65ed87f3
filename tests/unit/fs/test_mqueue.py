"""POSIX message queues: order, accounting, notification, the end of a queue."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.fcntl import O_CREAT, O_RDWR
from sentry.auth.credentials import Credentials
from sentry.errors import EAGAIN, EBUSY, EINVAL, EMFILE, ENOSPC
from sentry.fs.mqueue.filesystem import MqueueFs, QueueDirectory
from sentry.fs.mqueue.queue import Attributes, MessageQueue, Notification
from sentry.vfs import budget as budgets
from sentry.vfs.interface import Owner
from tests.world import Program


class Person:
    """Who makes queues."""

    def __init__(self, effective: int = 0) -> None:
        self.creds = Credentials(uid=5, euid=5, effective=effective)

    def rlimit(self, resource: int) -> int:
        return 20_000


@pytest.fixture
def fs(kernel: Any) -> MqueueFs:
    return MqueueFs(kernel, {})


def made(
    fs: MqueueFs, name: bytes, wanted: Attributes | None, who: Person | None = None
) -> MessageQueue:
    root = fs.root
    assert isinstance(root, QueueDirectory)
    return root.make(who or Person(), name, 0o600, Owner(5, 5), wanted)


SMALL = Attributes(3, 10)


def test_messages_come_by_priority_and_then_by_age(fs: MqueueFs) -> None:
    queue = made(fs, b"q", SMALL)
    for priority, data in ((1, b"a"), (9, b"b"), (1, b"c")):
        queue.send(priority, data, None)
    with pytest.raises(EAGAIN):
        queue.send(0, b"d", None)
    order = []
    while queue.messages:
        order.append(queue.peek())
        queue.take()
    assert order == [(9, b"b"), (1, b"a"), (1, b"c")]
    with pytest.raises(EAGAIN):
        queue.peek()


def test_limits_hold_for_those_without_the_capability(fs: MqueueFs) -> None:
    for wanted in (Attributes(11, 10), Attributes(10, 8193), Attributes(0, 1), Attributes(1, -1)):
        with pytest.raises(EINVAL):
            made(fs, b"q", wanted)
    made(fs, b"q", Attributes(11, 10), Person(1 << CAP_SYS_RESOURCE))
    fs.queues = 256
    with pytest.raises(ENOSPC):
        made(fs, b"r", SMALL)
    made(fs, b"r", SMALL, Person(1 << CAP_SYS_RESOURCE))


def test_a_queue_counts_against_the_limit_until_it_is_closed(fs: MqueueFs) -> None:
    large = Attributes(10, 1800)
    queue = made(fs, b"q", large)
    with pytest.raises(EMFILE):
        made(fs, b"r", large)
    queue.opens = 1
    queue.send(0, b"left behind", None)
    root = fs.root
    assert isinstance(root, QueueDirectory)
    root.remove(b"q")
    with pytest.raises(EMFILE):
        made(fs, b"r", large)
    queue.closed()
    assert (fs.queues, fs.costs, fs.budget.message_bytes) == (0, {}, 0)
    made(fs, b"r", large)


def test_a_notification_is_told_once_and_only_of_an_empty_queue(fs: MqueueFs) -> None:
    queue = made(fs, b"q", SMALL)
    told: list[Any] = []
    note = Notification("me", 7, 0, 0, told.append, lambda: told.append("dropped"))
    queue.send(0, b"x", "early")
    queue.register(note)
    with pytest.raises(EBUSY):
        queue.register(note)
    queue.send(0, b"y", "not empty")
    queue.take()
    queue.take()
    queue.send(0, b"z", "first")
    queue.take()
    queue.send(0, b"z", "second")
    assert told == ["first"]
    queue.register(note)
    queue.unregister("somebody else")
    queue.unregister("me")
    assert told == ["first", "dropped"]


def test_a_waiting_receiver_comes_before_the_notification(fs: MqueueFs) -> None:
    queue = made(fs, b"q", SMALL)
    told: list[Any] = []
    queue.register(Notification("me", 7, 0, 0, told.append, lambda: None))
    entry = queue.readers.add(lambda _: None)
    queue.send(0, b"x", "sender")
    assert not told
    queue.take()
    queue.readers.remove(entry)
    queue.send(0, b"x", "sender")
    assert told == ["sender"]


def test_the_status_text(fs: MqueueFs) -> None:
    queue = made(fs, b"q", SMALL)
    queue.send(0, b"12345", None)
    assert queue.status() == b"QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n"


def test_who_waits_to_send_sends_what_was_read_once_and_counts_meanwhile(task: Program) -> None:
    budget, empty = task.task.kernel.vfs.budget, task.task.kernel.vfs.budget.message_bytes
    made = task.place(struct.pack("<qqqq32x", 0, 1, 8, 0))
    fd = task.ok("mq_open", b"q", O_CREAT | O_RDWR, 0o600, made)
    data = task.place(b"first")
    task.ok("mq_timedsend", fd, data, 5, 0, 0)
    one = budget.message_bytes - empty
    sender, other = task.thread(), task.thread()
    call = sender.begin("mq_timedsend", fd, data, 5, 0, 0)
    second = other.begin("mq_timedsend", fd, data, 5, 0, 0)
    task.world.settle()
    task.write(data, b"later")
    assert (call.done, second.done, budget.message_bytes) == (False, False, empty + 3 * one)
    room = task.buffer(8)
    for _ in range(3):
        assert task.ok("mq_timedreceive", fd, room, 8, 0, 0) == 5
        assert task.read(room, 5) == b"first"
    assert (call.wait(), second.wait(), budget.message_bytes) == (0, 0, empty)


def test_messages_that_wait_have_a_ceiling(
    task: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = task.task.kernel.vfs.budget
    made = task.place(struct.pack("<qqqq32x", 0, 1, 8, 0))
    fd = task.ok("mq_open", b"q", O_CREAT | O_RDWR, 0o600, made)
    data = task.buffer(8)
    task.ok("mq_timedsend", fd, data, 8, 0, 0)
    one = budget.message_bytes
    monkeypatch.setattr(budgets, "MAX_MESSAGE_BYTES", 2 * one)
    waits = task.thread().begin("mq_timedsend", fd, data, 8, 0, 0)
    assert task.thread().call("mq_timedsend", fd, data, 8, 0, 0) == -errno.ENOMEM
    assert task.ok("mq_timedreceive", fd, data, 8, 0, 0) == 8
    assert (waits.wait(), budget.message_bytes) == (0, one)
