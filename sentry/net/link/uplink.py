"""`Uplink`: a link's frames, from and to a packet socket that was donated, by the loop.

Many frames move in a call (recvmmsg(2), sendmmsg(2)), a bounded number in a turn of the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLIN, EPOLLOUT
from sentry.errors import EAGAIN
from sentry.platform._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.link.link import EthernetLink

SLOT: Final = 1 << 17
"""Bytes for a frame: of 64 KiB and its headers, or some more, which is dropped."""
MAX_FRAME: Final = 10 + 18 + 65535 + 40
FRAMES_IN: Final = 16
"""That are received in a turn: less than a millisecond's work."""
FRAMES_OUT: Final = 64
BYTES_OUT: Final = 1 << 20
"""That are sent in a turn."""


class Uplink:
    """One of them. When its interface has gone it is silent until it is closed."""

    def __init__(self, fd: int, link: EthernetLink, loop: Any, after: Callable[[], None]) -> None:
        """`after` is called when a batch has been taken, or sent: timers may be others then."""
        self.link = link
        self._fd = fd
        self._loop = loop
        self._after = after
        self._slots = ffi.new("uint8_t[]", SLOT * FRAMES_IN)
        self._sizes = ffi.new("uint32_t[]", FRAMES_IN)
        self._is_coming = False
        """A flush is to come."""
        self._is_full = False
        """The socket takes no more for now."""
        self.is_closed = False
        link.on_output = self.wants_to_send
        loop.watch(fd, EPOLLIN, self._ready)
        if link.outgoing:
            self.wants_to_send()

    def close(self) -> int:
        """No more of it; the descriptor, which is the caller's to close."""
        self.is_closed = True
        self.link.on_output = self.link.on_room = lambda: None
        self._loop.watch(self._fd, 0)
        return self._fd

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT and self._is_full:
            self._is_full = False
            self._loop.watch(self._fd, EPOLLIN, self._ready)
            self._flush()
        if events & ~EPOLLOUT:
            self._receive()

    # --- in

    def _receive(self) -> None:
        got = lib.uplink_receive(self._fd, self._slots, SLOT, FRAMES_IN, self._sizes)
        now_ns = self._loop.now_ns()
        self.link.received(now_ns, *(
            bytes(ffi.buffer(self._slots + number * SLOT, self._sizes[number]))
            for number in range(max(got, 0))  # an error was the interface's going down, or nothing
            if self._sizes[number] <= MAX_FRAME
        ))  # fmt: skip
        self._after()

    # --- out

    def wants_to_send(self) -> None:
        """The first frame waits: all that this turn brings go together."""
        if not self._is_coming and not self._is_full:
            self._is_coming = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_coming = False
        if self.is_closed:
            return
        frames = self.link.take_outgoing(FRAMES_OUT, BYTES_OUT)
        if frames:
            sizes = ffi.new("uint32_t[]", [len(frame) for frame in frames])
            sent = lib.uplink_send(self._fd, b"".join(frames), sizes, len(frames))
            if sent == -EAGAIN.number:
                self.link.give_back(frames)
                self._is_full = True
                self._loop.watch(self._fd, EPOLLIN | EPOLLOUT, self._ready)
                self._after()
                return
            if sent < 0:  # the first is refused, as by a link that is down
                self.link.lost += 1
                sent = 1
            self.link.give_back(frames[sent:])
        if self.link.has_room:
            self.link.on_room()
        if self.link.outgoing:
            self.wants_to_send()
        self._after()
