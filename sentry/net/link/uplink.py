"""`Uplink`: a link's frames, from and to a packet socket that was donated, by the loop.

Many frames move in a call (recvmmsg(2), sendmmsg(2)), a bounded number in a turn of the loop. Where
much comes a thread answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLIN, EPOLLOUT
from sentry.errors import EAGAIN
from sentry.platform._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.link.link import EthernetLink
    from sentry.net.link.sender import Sender

SLOT: Final = 1 << 17
"""Bytes for a frame: of 64 KiB and its headers, or some more, which is dropped."""
MAX_FRAME: Final = 10 + 18 + 65535 + 40
FRAMES_IN: Final = 16
"""That are received in a turn: less than a millisecond's work."""
FRAMES_OUT: Final = 64
BYTES_OUT: Final = 1 << 20
"""That are sent in a turn."""
MUCH: Final = 1 << 15
"""Bytes that have just come, from which on a thread sends: an acknowledgement lets the other end go
on in the call that sends it. To wake the thread takes as long as to send a small frame."""


class Uplink:
    """One of them. When its interface has gone it is silent until it is closed."""

    def __init__(
        self,
        fd: int,
        link: EthernetLink,
        loop: Any,
        after: Callable[[], None],
        sender: Sender | None = None,
    ) -> None:
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
        """The socket, or the outbox, takes no more for now."""
        self._much_came = False
        self._sender = sender
        self._outbox = None if sender is None else sender.open(fd, self._told)
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
        if self._sender is not None:
            self._sender.shut(self._fd)
        return self._fd

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT and self._is_full:
            self._is_full = False
            self._loop.watch(self._fd, EPOLLIN, self._ready)
            if self._outbox is not None:
                self._outbox.resume()
            self._flush()
        if events & ~EPOLLOUT:
            self._receive()

    # --- in

    def _receive(self) -> None:
        got = lib.uplink_receive(self._fd, self._slots, SLOT, FRAMES_IN, self._sizes)
        now_ns = self._loop.now_ns()
        self._much_came = sum(self._sizes[0 : max(got, 0)]) >= MUCH
        self.link.received(now_ns, *(
            bytes(ffi.buffer(self._slots + number * SLOT, self._sizes[number]))
            for number in range(max(got, 0))  # an error was the interface's going down, or nothing
            if self._sizes[number] <= MAX_FRAME
        ))  # fmt: skip
        if not self._is_coming:  # else it is called when the flush has been
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
            taken = self._hand_over(frames) if self._has_time() else self._send(frames)
            self.link.give_back(frames[taken:])
        if not self._is_full:
            if self.link.has_room:
                self.link.on_room()
            if self.link.outgoing:
                self.wants_to_send()
        self._after()

    def _send(self, frames: list[bytes]) -> int:
        """How many the socket has taken."""
        sizes = ffi.new("uint32_t[]", [len(frame) for frame in frames])
        sent = int(lib.uplink_send(self._fd, b"".join(frames), sizes, len(frames)))
        if sent == -EAGAIN.number:
            self._wait_for_socket()
            return 0
        if sent < 0:  # the first is refused, as by a link that is down
            self.link.lost += 1
            return 1
        return sent

    def _wait_for_socket(self) -> None:
        self._is_full = True
        self._loop.watch(self._fd, EPOLLIN | EPOLLOUT, self._ready)

    # --- by the thread

    def _has_time(self) -> bool:
        """The thread is worth its while, or has some that go before the next ones."""
        return self._outbox is not None and (self._much_came or len(self._outbox) > 0)

    def _hand_over(self, frames: list[bytes]) -> int:
        """How many the thread has taken."""
        assert self._outbox is not None
        for number, frame in enumerate(frames):
            if not self._outbox.put(frame):
                self._is_full = True
                return number
        return len(frames)

    def _told(self) -> None:
        """What the thread has to say."""
        assert self._outbox is not None
        self.link.lost += self._outbox.take_lost()
        if self._outbox.is_full:
            self._wait_for_socket()
        elif self._is_full:
            self._is_full = False
            self._flush()
