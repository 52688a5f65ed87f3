"""Which message a receiver gets, and what queues may hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.sysvipc import MSG_COPY, MSG_EXCEPT
from sentry.auth.credentials import Credentials
from sentry.errors import EACCES, EAGAIN, EIDRM, ENOMEM
from sentry.kernel.sysv_msg import Message, Queue, Queues, search
from sentry.vfs import budget as budgets
from sentry.vfs.budget import Budget

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
