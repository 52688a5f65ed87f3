"""What goes by a container's interfaces, for `runsc debug --packets`: as a packet socket sees it.

Who looks asks for some of it, and again when it has come. Meanwhile a bounded number of frames
waits, and what is beyond that is counted: who reads slowly holds up nobody. Connections of TCP
within the sandbox have no packets.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.socket import PACKET_OUTGOING
from sentry.control.answers import CapturedFrame, CapturedInterface, Packets
from sentry.errors import EBUSY
from sentry.net.interfaces import LOOPBACK_INDEX

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.packets import Frame
    from sentry.net.stack import Stack

MAX_CAPTURES: Final = 8
"""Of a network namespace."""
MAX_FRAMES: Final = 4096
MAX_BYTES: Final = 4 << 20
"""That wait."""
MAX_INTERFACES: Final = 1024
"""That are told of; programs may make others again and again."""
BATCH_FRAMES: Final = 64
BATCH_BYTES: Final = 1 << 18
"""Of an answer, but for the first frame."""


class _Counted:
    """One interface."""

    __slots__ = ("has_header", "lost", "name", "seen")

    def __init__(self, name: str, *, has_header: bool) -> None:
        self.name = name
        self.has_header = has_header
        self.seen = self.lost = 0


class Capture:
    """Somebody who looks: a `Tap` of the stack until it ends."""

    def __init__(
        self, stack: Stack, name: str, loop: Any, told: Callable[[Packets], object]
    ) -> None:
        """`name`: of the interface; empty: all. `told` hears an answer for each question.

        Raises: ENODEV, EBUSY.
        """
        self._index = stack.interfaces.by_name(name).index if name else 0
        if sum(isinstance(tap, Capture) for tap in stack.taps) >= MAX_CAPTURES:
            raise EBUSY("too many look at its packets")
        self._stack = stack
        self._loop = loop
        self._told = told
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._counted: dict[int, _Counted] = {}
        self._changed: dict[int, None] = {}
        """Those of which more is known than was told."""
        self._questions = 0
        self._is_coming = False
        """An answer."""
        stack.taps[self] = None

    def ask(self, *, ends: bool) -> None:
        """For what there is, as soon as there is some; what there is now where it `ends`, or where
        a question waits already."""
        if ends:
            self.end()
        if self._questions:
            self._answer()
        self._questions += 1
        if self._frames or ends:
            self._come()

    def end(self) -> None:
        """No more frames."""
        self._stack.taps.pop(self, None)

    def hear(self, frame: Frame) -> None:
        """A frame goes out, or comes in. On the loopback, where it is both, it is shown once."""
        index = frame.index
        if self._index not in (0, index):
            return
        if index == LOOPBACK_INDEX and frame.kind == PACKET_OUTGOING:
            return
        counted = self._counted.get(index)
        if counted is None:
            found = self._stack.interfaces.get(index)
            if found is None or len(self._counted) >= MAX_INTERFACES:
                return
            counted = _Counted(found.name, has_header=bool(frame.header))
            self._counted[index] = counted
        counted.seen += 1
        self._changed[index] = None
        if len(self._frames) >= MAX_FRAMES or self._bytes + len(frame.data) > MAX_BYTES:
            counted.lost += 1
            return
        self._frames.append(frame)
        self._bytes += len(frame.data)
        if self._questions:
            self._come()

    def _come(self) -> None:
        """Soon: all that this turn brings goes together."""
        if not self._is_coming:
            self._is_coming = True
            self._loop.call_soon(self._give)

    def _give(self) -> None:
        self._is_coming = False
        if self._questions:
            self._answer()

    def _answer(self) -> None:
        self._questions -= 1
        frames: list[CapturedFrame] = []
        size = 0
        while self._frames and len(frames) < BATCH_FRAMES and (size < BATCH_BYTES or not frames):
            frame = self._frames.popleft()
            size += len(frame.data)
            is_outgoing = frame.kind == PACKET_OUTGOING
            frames.append(
                CapturedFrame(frame.index, frame.stamp_ns, frame.whole, outgoing=is_outgoing)
            )
        self._bytes -= size
        changed, self._changed = self._changed, {}
        interfaces = [
            CapturedInterface(index, counted.name, counted.has_header, counted.seen, counted.lost)
            for index, counted in self._counted.items() if index in changed
        ]  # fmt: skip
        self._told(Packets(interfaces, frames))
