"""How one waits: all that is different between `runsc.api.aio` and `runsc.api.blocking`.

Descriptors do not block, and who has to wait says for which of them. So a command's streams, its
connection and a deadline are one wait, without a thread for each. Not generated.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping


async def ready(wanted: Mapping[int, int], seconds: float | None) -> dict[int, int]:
    """Which of the descriptors have an event, POLL* bits both ways; none when the time is over.

    Others may wait for the same ones: the loop knows of no descriptor but this call's own.
    """
    with select.epoll(max(len(wanted), 1)) as poll:
        for fd, events in wanted.items():
            poll.register(fd, events)
        found = poll.poll(0)
        if found:
            await asyncio.sleep(0)
            return dict(found)
        loop = asyncio.get_running_loop()
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


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
