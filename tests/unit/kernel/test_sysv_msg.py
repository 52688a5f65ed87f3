"""Which message a receiver gets, and what queues may hold."""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.sched import CLONE_NEWIPC
from sentry.abi.signal import SIGKILL
from sentry.abi.sysvipc import IPC_RMID, MSG_COPY, MSG_EXCEPT
from sentry.auth.credentials import Credentials
from sentry.errors import EACCES, EAGAIN, EIDRM, ENOMEM
from sentry.kernel.sysv_msg import Message, Queue, Queues, search
from sentry.vfs import budget as budgets
from sentry.vfs.budget import Budget
from tests.world import Program, World

LIMITS = {"msgmnb": 100, "msgmni": 10, "msgmax": 50}


def person(creds: Credentials) -> Any:
    return SimpleNamespace(creds=creds, group=SimpleNamespace(tgid=7))


ROOT = person(Credentials.root())


@pytest.fixture
def queues() -> Queues:
    return Queues(Budget(), LIMITS.__getitem__)


def made(queues: Queues, *messages: tuple[int, bytes]) -> Queue:
    queue = queues.ids.find(queues.get(ROOT, 0, 0o600))
    for kind, data in messages:
        queues.send(ROOT, queue, Message(kind, data))
    return queue


@pytest.mark.parametrize(
    ("kind", "flags", "data"),
    [
        (0, 0, b"c"), (1, 0, b"a"), (3, MSG_EXCEPT, b"a"), (-2, 0, b"a"), (-9, 0, b"a"),
        (2, MSG_COPY, b"b"), (-(1 << 63), 0, b"a"), (4, 0, None), (9, MSG_COPY, None),
        (-1, MSG_COPY, None),
    ],
)  # fmt: skip
def test_search(queues: Queues, kind: int, flags: int, data: bytes | None) -> None:
    queue = made(queues, (3, b"c"), (1, b"a"), (2, b"b"), (1, b"z"))
    index = queue.find(*search(kind, flags))
    assert (None if index is None else queue.messages[index].data) == data


@pytest.mark.parametrize(
    ("kind", "flags", "index"),
    [(0, 0, 0), (2, 0, 999), (3, 0, None), (1, MSG_EXCEPT, 999), (-1, 0, 0), (999, MSG_COPY, 999)],
)
def test_search_among_many_looks_at_none_in_python(
    kind: int, flags: int, index: int | None
) -> None:
    queue = Queue(ROOT, 0, 0, 1000)
    for number in range(1000):
        queue.add(Message(1 + (number == 999), b""))
    events = 0

    def count(*_: object) -> None:
        nonlocal events
        events += 1

    how = search(kind, flags)
    sys.setprofile(count)
    try:
        found = queue.find(*how)
    finally:
        sys.setprofile(None)
    assert found == index
    assert events < 20


def test_messages_of_a_queue_that_is_removed_go_one_after_the_other() -> None:
    let_go: list[Any] = []
    queues = Queues(Budget(), LIMITS.__getitem__, lambda some, _end: let_go.extend(some))
    queue = made(queues, (1, b"a"), (2, b"b"))
    queues.remove(queue)
    assert let_go == [(1, b"a"), (2, b"b")]
    assert (len(queue.messages), queue.find(*search(2, 0))) == (0, None)


def test_a_queue_is_full_by_bytes_and_by_messages(queues: Queues) -> None:
    queue = made(queues, *[(1, b"")] * 100)
    with pytest.raises(EAGAIN):
        queues.send(ROOT, queue, Message(1, b""))
    other = made(queues, (1, bytes(100)))
    with pytest.raises(EAGAIN):
        queues.send(ROOT, other, Message(1, b"x"))
    queues.send(ROOT, other, Message(1, b""))


def test_messages_of_all_queues_have_a_ceiling(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "MAX_MESSAGE_BYTES", 200)
    queue = made(queues, (1, bytes(50)))
    with pytest.raises(ENOMEM):
        queues.send(ROOT, queue, Message(1, bytes(20)))
    queues.remove(queue)
    assert (queues.messages, queues.bytes) == (0, 0)
    assert made(queues, (1, bytes(50))).bytes == 50


def test_rights_and_removal_are_looked_at_on_every_try(queues: Queues) -> None:
    queue = made(queues, (1, b"x"))
    with pytest.raises(EACCES):
        queues.peek(person(Credentials.user(5, 5)), queue, *search(0, 0))
    queues.remove(queue)
    with pytest.raises(EIDRM):
        queues.peek(ROOT, queue, *search(0, 0))


@pytest.fixture
def real() -> Iterator[World]:
    with World() as made:
        yield made


def send(program: Program, queue: int, kind: int, data: bytes = b"") -> int:
    message = program.place(struct.pack("<q", kind) + data)
    return program.call("msgsnd", queue, message, len(data), 0)


def test_message_wakes_one_who_wants_it(real: World) -> None:
    program = real.program()
    queue = program.ok("msgget", 0, 0o1600)
    readers = [program.thread() for _ in range(6)]
    kinds = (1, 1, 2, 0, -3, 2)
    calls = [
        one.begin("msgrcv", queue, one.buffer(16), 8, kind, 0)
        for one, kind in zip(readers, kinds, strict=True)
    ]
    for kind, expected in ((2, {2}), (2, {2, 3}), (1, {0, 2, 3}), (3, {0, 2, 3, 4})):
        assert send(program, queue, kind) == 0
        real.settle()
        assert {at for at, call in enumerate(calls) if call.done} == expected
    program.ok("msgctl", queue, 0, 0)
    real.settle()
    assert [call.result for call in calls] == [0, -errno.EIDRM, 0, 0, 0, -errno.EIDRM]


def test_message_that_one_cannot_take_is_for_the_next(real: World) -> None:
    program = real.program()
    queue = program.ok("msgget", 0, 0o1600)
    one, other = program.thread(), program.thread()
    small = one.begin("msgrcv", queue, one.buffer(16), 2, 0, 0)
    large = other.begin("msgrcv", queue, other.buffer(16), 8, 0, 0)
    assert send(program, queue, 1, b"longer") == 0
    real.settle()
    assert (small.result, large.result) == (-errno.E2BIG, 6)


def test_room_is_for_all_whose_message_fits(real: World) -> None:
    program = real.program()
    queue = program.ok("msgget", 0, 0o1600)
    for _ in range(2):
        assert send(program, queue, 1, bytes(8192)) == 0
    writers = [program.thread() for _ in range(4)]
    calls = []
    for one, size in zip(writers, (8192, 10, 10, 8190), strict=True):
        message = one.place(struct.pack("<q", 1) + bytes(size))
        calls.append(one.begin("msgsnd", queue, message, size, 0))
    real.settle()
    assert not any(call.done for call in calls)
    room = program.buffer(8200)
    program.ok("msgrcv", queue, room, 8192, 0, 0)
    real.settle()
    assert [call.done for call in calls] == [True, False, False, False]
    program.ok("msgrcv", queue, room, 8192, 0, 0)
    real.settle()
    assert [call.done for call in calls] == [True, True, True, False]
    program.ok("msgrcv", queue, room, 8192, 0, 0)
    real.settle()
    assert all(call.result == 0 for call in calls)


def test_what_a_namespace_had_counts_nowhere_when_it_has_ended(real: World) -> None:
    budget, program = real.vfs.budget, real.program()
    before = budget.semaphores, budget.message_bytes
    program.ok("unshare", CLONE_NEWIPC)
    for _ in range(40):
        program.ok("semget", 0, 10, 0o1600)
        assert send(program, program.ok("msgget", 0, 0o1600), 1, b"text") == 0
    assert budget.semaphores == before[0] + 400
    program.begin("exit_group", 0)
    del program
    real.settle()
    assert (budget.semaphores, budget.message_bytes) == before


def full_queue(program: Program) -> int:
    queue = program.ok("msgget", 0, 0o600)
    for _ in range(2):
        assert send(program, queue, 1, bytes(8192)) == 0
    return queue


def test_who_waits_to_send_sends_what_was_read_once_and_counts_meanwhile(real: World) -> None:
    budget, program = real.vfs.budget, real.program()
    queue = full_queue(program)
    before = budget.message_bytes
    message = program.place(struct.pack("<q", 1) + b"first")
    calls = [program.thread().begin("msgsnd", queue, message, 5, 0) for _ in range(2)]
    real.settle()
    program.write(message + 8, b"later")
    assert [call.done for call in calls] == [False, False]
    assert budget.message_bytes == before + 2 * (5 + budgets.MESSAGE_COST)
    room = program.buffer(8200)
    for size in (8192, 8192, 5, 5):
        assert program.ok("msgrcv", queue, room, 8192, 0, 0) == size
        real.settle()
        assert size != 5 or program.read(room + 8, 5) == b"first"
    assert ([call.wait() for call in calls], budget.message_bytes) == ([0, 0], 0)


def test_messages_that_wait_have_a_ceiling_and_go_with_their_sender(
    real: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget, program = real.vfs.budget, real.program()
    queue = full_queue(program)
    full = budget.message_bytes
    monkeypatch.setattr(budgets, "MAX_MESSAGE_BYTES", full + budgets.MESSAGE_COST + 5)
    message = program.place(struct.pack("<q", 1) + b"first")
    child = program.fork()
    waits = child.begin("msgsnd", queue, message, 5, 0)
    assert program.call("msgsnd", queue, message, 5, 0) == -errno.ENOMEM
    program.ok("kill", child.task.group.tgid, SIGKILL)
    real.settle()
    assert (waits.done, budget.message_bytes) == (True, full)
    program.ok("msgctl", queue, IPC_RMID, 0)
    assert budget.message_bytes == 0
