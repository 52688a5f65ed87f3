"""How one waits: all that is different between `runsc.api.aio` and `runsc.api.blocking`.

Descriptors do not block, and who has to wait says for which of them. So a command's streams, its
connection and a deadline are one wait, without a thread for each. Not generated.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

Lock: Final = asyncio.Lock
"""Of one task at a time."""


async def ready(wanted: Mapping[int, int], seconds: float | None) -> dict[int, int]:
    """Which of the descriptors have an event, POLL* bits both ways; none when the time is over.

    Others may wait for the same ones, or close them: the loop knows of no descriptor but this
    call's own, and epoll(7) would forget what is closed.
    """
    poll = select.poll()
    for fd, events in wanted.items():
        poll.register(fd, events)
    found = dict(poll.poll(0))
    if found:
        await asyncio.sleep(0)
        return found
    with ExitStack() as stack:
        copies = {_copy(stack, fd): fd for fd in wanted}
        found = await _waited({copy: wanted[fd] for copy, fd in copies.items()}, seconds)
    return {copies[copy]: events for copy, events in found.items()}


async def _waited(wanted: Mapping[int, int], seconds: float | None) -> dict[int, int]:
    """The same of descriptors that nobody else has."""
    loop = asyncio.get_running_loop()
    with select.epoll(max(len(wanted), 1)) as poll:
        for fd, events in wanted.items():
            poll.register(fd, events)
        found = poll.poll(0)
        try:
            async with asyncio.timeout(seconds):
                while not found:  # another task may have taken what there was
                    told: asyncio.Future[None] = loop.create_future()
                    loop.add_reader(poll.fileno(), _tell, told)
                    try:
                        await told
                    finally:
                        loop.remove_reader(poll.fileno())
                    found = poll.poll(0)
        except TimeoutError:
            return {}
        return dict(found)


def _copy(stack: ExitStack, fd: int) -> int:
    copy = os.dup(fd)
    stack.callback(os.close, copy)
    return copy


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
