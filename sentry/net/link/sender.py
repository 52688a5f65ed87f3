"""`Sender`: a thread in C that sends the frames of uplinks, while the kernel thread takes others.

What sending costs is mostly what the other end of a veth does with a frame: of a large segment to
take it, of an acknowledgement to send more, which may be as much work.
"""

from __future__ import annotations

import select
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.platform._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

MASK: Final = 0xFFFFFFFF


class Outbox:
    """Frames for one socket, in their order."""

    def __init__(self, box: Any, told: Callable[[], None]) -> None:
        """`told` is called when one of the following may be another."""
        self._box = box
        self.told = told
        self._kept: deque[Any] = deque()
        """Frames that the thread may still read; once they have gone, until the next one comes."""
        self._gone = 0

    def put(self, frame: bytes) -> bool:
        """False: there is no room; `told` is called when there is."""
        gone = int(lib.outbox_gone(self._box))
        for _ in range((gone - self._gone) & MASK):
            self._kept.popleft()
        self._gone = gone
        kept = ffi.from_buffer("uint8_t[]", frame)
        if not lib.outbox_put(self._box, kept, len(frame)):
            return False
        self._kept.append(kept)
        return True

    def __len__(self) -> int:
        return int(lib.outbox_waiting(self._box))

    @property
    def is_full(self) -> bool:
        """The socket takes no more, and nothing is sent until `resume`."""
        return bool(lib.outbox_is_full(self._box))

    def resume(self) -> None:
        """It takes more again."""
        lib.outbox_resume(self._box)

    def take_lost(self) -> int:
        """Frames that the socket refused since this was asked last."""
        return int(lib.outbox_take_lost(self._box))

    def close(self) -> None:
        """What waits is lost; the descriptor is the caller's again."""
        lib.outbox_close(self._box)
        self._kept.clear()


class Sender:
    """The thread. Made before the filter. Raises: OSError, MemoryError."""

    def __init__(self, loop: Any) -> None:
        self._sender = lib.sender_open()
        if self._sender == ffi.NULL:
            raise OSError("a thread that sends frames cannot be made")
        self._loop = loop
        self._boxes: dict[int, Outbox] = {}
        loop.watch(lib.sender_fd(self._sender), select.EPOLLIN, self._ready)

    def open(self, fd: int, told: Callable[[], None]) -> Outbox:
        """One for a socket, whose descriptor nobody closes before it."""
        box = lib.outbox_open(self._sender, fd)
        if box == ffi.NULL:
            raise MemoryError
        made = self._boxes[fd] = Outbox(box, told)
        return made

    def shut(self, fd: int) -> None:
        """The end of one."""
        self._boxes.pop(fd).close()

    def close(self) -> None:
        """The end of all."""
        for fd in list(self._boxes):
            self.shut(fd)
        self._loop.watch(lib.sender_fd(self._sender), 0)
        lib.sender_close(self._sender)

    def _ready(self, _events: int) -> None:
        lib.sender_heard(self._sender)
        for fd, box in list(self._boxes.items()):
            if self._boxes.get(fd) is box:
                box.told()
