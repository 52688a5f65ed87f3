"""`StreamUplink`: a link's frames over a stream socket that was donated: passt(1), QEMU's stream.

Each frame has its size before it, four bytes in network order, and no virtio header: nothing is
left to who takes it. The other end has the frames from sockets of its host, never from a wire.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLIN, EPOLLOUT
from sentry.abi.virtio import VIRTIO_NET_HDR_F_DATA_VALID
from sentry.net.link import ethernet, vnet
from sentry.net.link.segments import finished
from sentry.net.link.uplink import BYTES_OUT, FRAMES_IN, FRAMES_OUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.link.link import EthernetLink

SIZE: Final = struct.Struct(">I")
LEAST_FRAME: Final = ethernet.HEADER_SIZE
MAX_FRAME: Final = 65535
"""passt ends a stream that has a shorter or a longer one."""
BUFFER: Final = 1 << 20
"""Bytes that are taken from the socket as they come: whoever sends them may have no room for more.
"""
CHECKED: Final = bytes([VIRTIO_NET_HDR_F_DATA_VALID]) + bytes(vnet.SIZE - 1)


class BadStream(Exception):
    """No frame can begin here: nobody knows where the next one does."""


class FrameReader:
    """Frames of a stream that comes in pieces. Sans-io."""

    def __init__(self) -> None:
        self._data = bytearray(BUFFER)
        self._begin = self._end = 0

    def room(self) -> memoryview:
        """Where the next bytes go; empty: there is none before some frames are taken."""
        if self._begin and len(self._data) - self._end < SIZE.size + MAX_FRAME:
            left = self._data[self._begin : self._end]
            self._data[: len(left)] = left
            self._begin, self._end = 0, len(left)
        return memoryview(self._data)[self._end :]

    def filled(self, count: int) -> None:
        """So many bytes of it have come."""
        self._end += count

    @property
    def has_frame(self) -> bool:
        """`take` has something to do."""
        held = self._end - self._begin
        return held >= SIZE.size and held >= SIZE.size + min(self._size(), MAX_FRAME + 1)

    def _size(self) -> int:
        return int(SIZE.unpack_from(self._data, self._begin)[0])

    def take(self, most: int) -> list[bytes]:
        """Whole frames, with a virtio header that says that nothing is left to do; those that are
        too short to be one are left out. Looks at so many at most. Raises: BadStream."""
        found: list[bytes] = []
        for _ in range(most):
            if self._end - self._begin < SIZE.size:
                break
            size = self._size()
            if size > MAX_FRAME:
                raise BadStream(f"a frame of {size} bytes")
            start = self._begin + SIZE.size
            if start + size > self._end:
                break
            self._begin = start + size
            if size >= LEAST_FRAME:
                found.append(CHECKED + self._data[start : self._begin])
        return found


class StreamUplink:
    """One of them. After the end of the stream what goes out is lost."""

    def __init__(
        self, fd: int, link: EthernetLink, loop: Any, received: Callable[[list[bytes]], None]
    ) -> None:
        """`received`: takes the frames of a turn. `fd` is a Unix stream socket, ours now."""
        self._link = link
        self._loop = loop
        self._received = received
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
        self._reader = FrameReader()
        self._unsent = memoryview(b"")
        self._is_flushing = self._is_reading = False
        """A turn for it is to come."""
        self._is_full = False
        """The socket takes no more for now."""
        self.is_over = False
        self.on_end: Callable[[str], None] = lambda why: None
        """No frame comes any more, nor goes."""
        self.sent = [0, 0]
        """Frames and bytes that are counted as sent."""
        link.on_output = self._wants_to_send
        loop.watch(fd, EPOLLIN, self._ready)

    def close(self) -> None:
        """The other end sees the end of the stream."""
        if not self.is_over:
            self.is_over = True
            self._loop.watch(self._sock.fileno(), 0)
            self._sock.close()

    def _end(self, why: str) -> None:
        self.close()
        self._unsent = memoryview(b"")
        self._wants_to_send()
        self.on_end(why)

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT and self._is_full:
            self._is_full = False
            self._loop.watch(self._sock.fileno(), EPOLLIN, self._ready)
            self._push()
        if events & ~EPOLLOUT and not self.is_over:
            self._receive()

    # --- in

    def _receive(self) -> None:
        room = self._reader.room()
        if not room:
            return
        try:
            got = self._sock.recvmsg_into([room], 0, socket.MSG_DONTWAIT)[0]
        except BlockingIOError:
            return
        except OSError as error:
            self._end(str(error.strerror))
            return
        if not got:
            self._end("it has ended")
            return
        self._reader.filled(got)
        if not self._is_reading:
            self._take()

    def _take(self) -> None:
        """Some of what has come; the rest in the next turn."""
        self._is_reading = False
        if self.is_over:
            return
        try:
            frames = self._reader.take(FRAMES_IN)
        except BadStream as error:
            self._end(str(error))
            return
        if self._reader.has_frame:
            self._is_reading = True
            self._loop.call_soon(self._take)
        if frames:
            self._received(frames)

    # --- out

    def _wants_to_send(self) -> None:
        """The first frame waits: all that this turn brings go together."""
        if not self._is_flushing and not self._unsent:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        frames = self._link.take_outgoing(FRAMES_OUT, BYTES_OUT)
        pieces: list[bytes] = []
        for frame in frames:
            link_size = ethernet.link_size(frame, vnet.SIZE)
            for each in finished(frame, link_size, cuts=True):
                size = len(each) - vnet.SIZE
                if self.is_over or not LEAST_FRAME <= size <= MAX_FRAME:
                    self._link.lost += 1
                    continue
                self.sent[0] += 1
                self.sent[1] += size
                pieces += (SIZE.pack(size), each[vnet.SIZE :])
        self._unsent = memoryview(b"".join(pieces))
        self._push()

    def _push(self) -> None:
        """As far as there is room now."""
        while self._unsent:
            try:
                flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
                sent = self._sock.send(self._unsent, flags)
            except BlockingIOError:
                self._is_full = True
                self._loop.watch(self._sock.fileno(), EPOLLIN | EPOLLOUT, self._ready)
                return
            except OSError as error:
                self._end(str(error.strerror))
                return
            self._unsent = self._unsent[sent:]
        if self._link.has_room:
            self._link.on_room()
        if self._link.outgoing:
            self._wants_to_send()
