"""A folder of a sandbox that is watched: the sandbox's own inotify(7), told over a pipe."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from runsc.api import events
from runsc.api.aio.poll import ready
from runsc.api.aio.streams import AsyncStream
from runsc.api.aio.wire import AsyncWire
from runsc.api.values import FilesystemEvent
from sentry.control.answers import FileEvent
from sentry.control.protocol import LineBuffer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType
    from typing import Self


class AsyncWatch:
    """What happens in a folder: iterated, it gives `FilesystemEvent`, until it is closed or the
    folder is gone. Who reads too slowly gets "overflow" for what was lost."""

    def __init__(self, wire: AsyncWire, source: AsyncStream) -> None:
        self._wire = wire
        self._source = source
        self._lines = LineBuffer()
        self._waiting: list[FilesystemEvent] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more is told."""
        self._wire.close()
        self._source.close()

    def __aiter__(self) -> AsyncIterator[FilesystemEvent]:
        return self

    async def __anext__(self) -> FilesystemEvent:
        while not self._waiting:
            if not self._take(await self._source.read()):
                raise StopAsyncIteration
        return self._waiting.pop(0)

    async def get_new_events(self, timeout: float = 0.0) -> list[FilesystemEvent]:
        """What has happened since; if nothing has, what does within so many seconds."""
        deadline = time.monotonic() + timeout
        while not self._waiting and self._source.fileno() >= 0:
            data = self._source.take()
            left_s = max(0.0, deadline - time.monotonic())
            if data is None:
                if not await ready({self._source.fileno(): select.POLLIN}, left_s):
                    break
            elif not self._take(data) or not left_s:
                break
        found, self._waiting = self._waiting, []
        return found

    def _take(self, data: bytes) -> bool:
        """Whether there may be more."""
        for event in events.decoded(self._lines, data, FileEvent):
            told = events.event_of(event)
            if told is not None:
                self._waiting.append(told)
        return bool(data)


def nothing(size: int) -> None:
    """Nobody counts these bytes."""
