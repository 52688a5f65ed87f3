"""What is asked of files of a `tests.world` from outside, and what comes of it."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import msgspec

from sentry.control.answers import FileEntry
from sentry.control.files import PIPES, Filing
from sentry.control.orders import FileOrder
from sentry.control.protocol import Reply
from tests.world import World

T = TypeVar("T")


class Asked:
    """An order that has begun."""

    def __init__(self, world: World, order: FileOrder, data: bytes = b"") -> None:
        self._world = world
        self.replies: list[Reply] = []
        self.found = b""
        self._out = -1
        fds = []
        if order.do in PIPES:
            out, into = os.pipe()
            if order.do == "write":
                os.write(into, data)
                os.close(into)
                fds.append(out)
            else:
                os.set_blocking(out, False)
                self._out = out
                fds.append(into)
        container = world.kernel.container
        self.filing = Filing(world.kernel, container, fds, order, self.replies.append)

    def settle(self) -> None:
        """All that can be done now, and read."""
        self._world.settle()
        while self._out >= 0:
            try:
                piece = os.read(self._out, 1 << 16)
            except BlockingIOError:
                return
            if not piece:
                os.close(self._out)
                self._out = -1
            self.found += piece
            self._world.settle()

    def leave(self) -> None:
        """Nobody reads any more."""
        os.close(self._out)
        self._out = -1

    def lines(self, kind: type[T]) -> list[T]:
        """What came, as values."""
        return [msgspec.json.decode(line, type=kind) for line in self.found.splitlines()]


def done(world: World, order: FileOrder, data: bytes = b"") -> Asked:
    """An order, to its end."""
    asked = Asked(world, order, data)
    while not asked.replies or asked._out >= 0:
        asked.settle()
    assert world.loop.fibers == 0
    return asked


def error_of(world: World, do: str, path: bytes, data: bytes = b"", **others: Any) -> str:
    """What was wrong with it; "" if nothing was."""
    return done(world, FileOrder(do, path, **others), data).replies[0].error


def entries(world: World, path: bytes, depth: int = 1) -> dict[bytes, FileEntry]:
    """A listing, by path."""
    asked = done(world, FileOrder("list", path, depth=depth))
    assert asked.replies == [Reply()]
    return {entry.path: entry for entry in asked.lines(FileEntry)}
