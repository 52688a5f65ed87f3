"""The queue of a descriptor: what is watched of it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sentry.abi.poll import EPOLLET, EPOLLIN
from sentry.wait.host_queue import HostQueue


class Loop:
    """Hears what is watched."""

    def __init__(self) -> None:
        self.watched = 0

    def watch(self, _fd: int, events: int, _callback: Any = None) -> None:
        self.watched = events


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_an_entry_wants_is_watched_until_it_goes(exclusive: bool) -> None:
    loop = Loop()
    reader, writer = os.pipe()
    queue = HostQueue(loop, reader, watchable=True)

    entry = queue.add(lambda _: None, EPOLLIN, exclusive=exclusive)

    assert loop.watched == EPOLLIN | EPOLLET
    queue.remove(entry)
    assert loop.watched == 0
    os.close(reader)
    os.close(writer)
