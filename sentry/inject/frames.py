"""Faults of a link: frames that are lost, late, or come after those behind them.

A frame of the stack is what it hands to its interface: of TCP it may be up to 64 KiB, which the
host cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.inject.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.loop import Loop
    from sentry.net.link.link import Link

MAX_KEPT: Final = 4096
MAX_KEPT_BYTES: Final = 16 << 20
"""More is lost."""
ALONE_NS: Final = 10_000_000
"""A frame behind which none comes is kept no longer."""


class FrameFaults:
    """Of one link."""

    def __init__(self, link: Link, loop: Loop, choices: Sequence[Choice]) -> None:
        self._link = link
        self._loop = loop
        self._ways = {
            way: [each for each in choices if each.rule.direction in ("", way)]
            for way in ("in", "out")
        }
        self._kept = self._kept_bytes = 0
        self._held: dict[str, list[bytes]] = {"in": [], "out": []}
        """Those that wait for the next one."""

    def comes(self, frame: bytes) -> bool:
        """Whether it comes now."""
        return self._passes("in", frame)

    def goes(self, frame: bytes) -> bool:
        """Whether it goes now."""
        return self._passes("out", frame)

    def _passes(self, way: str, frame: bytes) -> bool:
        chosen = next((each for each in self._ways[way] if each.takes()), None)
        if chosen is None:
            if self._held[way]:
                self._loop.call_soon(partial(self._release, way))
            return True
        rule = chosen.rule
        if rule.drop:
            return False
        if self._kept >= MAX_KEPT or self._kept_bytes + len(frame) > MAX_KEPT_BYTES:
            self._link.lost += 1
            return False
        self._kept += 1
        self._kept_bytes += len(frame)
        if rule.reorder:
            self._held[way].append(frame)
            release: Callable[[], None] = partial(self._release, way)
            self._loop.call_at(self._loop.now_ns() + ALONE_NS, release)
        else:
            late = partial(self._late, way, frame)
            self._loop.call_at(self._loop.now_ns() + rule.delay_ns, late)
        return False

    def _release(self, way: str) -> None:
        held, self._held[way] = self._held[way], []
        for frame in held:
            self._late(way, frame)

    def _late(self, way: str, frame: bytes) -> None:
        self._kept -= 1
        self._kept_bytes -= len(frame)
        if way == "in":
            self._link.came_late(self._loop.now_ns(), frame)
        else:
            self._link.go(frame)
