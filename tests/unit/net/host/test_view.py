"""When the host's interfaces are listed again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.netlink import NETLINK_ROUTE, RTNLGRP_LINK
from sentry.errors import ENETDOWN
from sentry.net.host.view import HostView
from sentry.net.stack import Stack
from sentry.wait.again import NotNow, again


class Process:
    """A network process that answers at once."""

    def __init__(self) -> None:
        self.on_change: Any = None
        self.asked: list[int] = []
        self.changes = 3
        self.dead = False

    async def list_all(self, changes: int) -> Any:
        if self.dead:
            raise ENETDOWN
        self.asked.append(changes)
        return SimpleNamespace(changes=self.changes, parts=[])


class Loop:
    """Runs at once what does not sleep."""

    def spawn(self, coro: Any, _name: object) -> None:
        with pytest.raises(StopIteration):
            while coro.send(None).deadline_ns == 0:  # others would run in between
                pass


@pytest.fixture
def stack() -> Stack:
    made = Stack(None, {})
    made.host = Process()  # type: ignore[assignment]
    made.view = HostView(made, made.host, Loop())  # type: ignore[arg-type]
    return made


def listen(stack: Stack, *groups: int) -> None:
    member = SimpleNamespace(groups={*groups}, port=1, deliver=lambda *_: True)
    stack.netlink[NETLINK_ROUTE, 1] = member  # type: ignore[assignment]


def run(operation: Any) -> None:
    """A call that may have to be made again, but not to sleep."""
    Loop().spawn(again(operation), "test")


def test_answer_waits_for_a_list_with_the_count_of_the_last(stack: Stack) -> None:
    process: Any = stack.host
    with pytest.raises(NotNow):
        stack.look()
    run(stack.look)
    run(stack.look)

    assert process.asked == [-1, 3]


def test_change_is_looked_at_if_somebody_listens(stack: Stack) -> None:
    process: Any = stack.host
    listen(stack)
    process.on_change()
    assert process.asked == []

    listen(stack, RTNLGRP_LINK)
    process.on_change()

    assert process.asked == [-1]


def test_who_begins_to_listen_misses_nothing(stack: Stack) -> None:
    process: Any = stack.host
    assert stack.view is not None
    stack.view.listened()
    assert process.asked == []
    process.on_change()

    stack.view.listened()
    stack.view.listened()

    assert process.asked == [-1]


def test_what_was_known_stays_when_the_process_has_ended(stack: Stack) -> None:
    process: Any = stack.host
    process.dead = True
    listen(stack, RTNLGRP_LINK)

    run(stack.look)
    process.on_change()
    process.on_change()

    assert [link.name for link in stack.interfaces] == ["lo"]
