"""`Uplink`: a link's frames, from and to a packet socket that was donated, by the loop.

Many frames move in a call (recvmmsg(2), sendmmsg(2)), a bounded number in a turn of the loop. Where
much comes, or goes, a thread sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLIN, EPOLLOUT
from sentry.errors import EAGAIN, Errno
from sentry.net.host import calls
from sentry.net.link import ethernet, vnet
from sentry.net.link.early import RECORD, Segment
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
MOST_MISSED: Final = 6
LARGE: Final = 1 << 13
"""Bytes of a frame that it costs more to copy than to send it in a call of its own."""
LINK_SIZE: Final = vnet.SIZE + ethernet.HEADER_SIZE
IP6: Final = 6
MUCH: Final = 1 << 15
"""Bytes that have just come, from which on a thread sends: an acknowledgement lets the other end go
on in the call that sends it. To wake the thread takes as long as to send a small frame."""
MUCH_OUT: Final = 1 << 16
"""Bytes that go, from which on a thread sends them: a program, or another connection, makes more
meanwhile."""


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
        self._found = ffi.new("struct early[]", FRAMES_IN)
        self._frames_in = memoryview(ffi.buffer(self._slots))
        self._sizes_in = memoryview(ffi.buffer(self._sizes)).cast("I")
        self._records = memoryview(ffi.buffer(self._found))
        self._kinds = bytearray(FRAMES_IN)
        """What has become of the first ones of several that are one segment."""
        self._out_sizes = ffi.new("uint32_t[]", FRAMES_OUT)
        self._sizes_out = memoryview(ffi.buffer(self._out_sizes)).cast("I")
        self._is_coming = False
        """A flush is to come."""
        self._is_full = False
        """The socket, or the outbox, takes no more for now."""
        self._much_came = False
        self._missed = self._passes = 0
        """So often in a row no answer was there; so many more times none is looked for."""
        self._sender = sender
        self._outbox = None if sender is None else sender.open(fd, self._told)
        link.early = {}
        self.is_closed = False
        link.on_output = self.wants_to_send
        loop.watch(fd, EPOLLIN, self._ready)
        if link.outgoing:
            self.wants_to_send()

    def close(self) -> int:
        """No more of it; the descriptor, which is the caller's to close."""
        self.is_closed = True
        self.link.early = None
        self.link.on_output = self.link.on_room = lambda: None
        self._loop.watch(self._fd, 0)
        if self._sender is not None:
            self._sender.shut(self._fd)
        return self._fd

    @property
    def is_bound(self) -> bool:
        """The interface has not gone: of one that has, whose number another may have, the socket is
        bound to none. packet_notifier()."""
        try:
            return bound_to(calls.name(self._fd, peer=False)) == self.link.index
        except Errno:  # as of a stand-in for one
            return True

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

    def _receive(self) -> bool:
        """Whether there was something."""
        got = int(lib.uplink_receive(self._fd, self._slots, SLOT, FRAMES_IN, self._sizes))
        if got <= 0:  # the interface went down, or there is nothing
            return False
        link, now_ns = self.link, self._loop.now_ns()
        some = 0
        if link.early and link.faults is None and link.upper.takes_early():
            some = lib.uplink_early(self._slots, SLOT, got, self._sizes, link.hardware, self._found)
        came = 0
        counts, sizes = [0, 0], [0, 0]  # of what goes straight to sockets: IPv4, IPv6
        for number in range(got):
            size: int = self._sizes_in[number]
            came += size
            kind = self._early(now_ns, number) if some else 0
            if kind:
                counts[kind == IP6] += 1
                sizes[kind == IP6] += size - LINK_SIZE
            elif size <= MAX_FRAME:
                begin = number * SLOT
                link.receive(now_ns, bytes(self._frames_in[begin : begin + size]))
        self._much_came = came >= MUCH
        for is_v6 in (0, 1):
            if counts[is_v6]:
                link.upper.came_early(not is_v6, counts[is_v6], sizes[is_v6])
        link.upper.rest(now_ns)
        if not self._is_coming:  # else it is called when the flush has been
            self._look_at_time()
        return True

    def _early(self, now_ns: int, number: int) -> int:
        """A frame goes straight to its connection: the version of IP; 0: it does not."""
        found: Segment = RECORD.unpack_from(self._records, number * RECORD.size)
        if found[15]:
            return self._kinds[found[15] - 1]
        early = self.link.early
        receiver = early.get(found[11]) if found[0] and early is not None else None
        is_one = found[13] == 1
        kind = 0
        if receiver is not None:
            begin = number * SLOT
            first = self._frames_in[begin + found[5] : begin + found[6]]
            payload = bytes(first) if is_one else self._joined(first, found)
            kind = found[0] if receiver.early(now_ns, found, payload) else 0
        if not is_one:
            self._kinds[number] = kind
        return kind

    def _joined(self, first: memoryview, found: Segment) -> bytes:
        """With the payloads of those that go on from it."""
        pieces = [first]
        while number := found[14]:
            found = RECORD.unpack_from(self._records, number * RECORD.size)
            begin = number * SLOT
            pieces.append(self._frames_in[begin + found[5] : begin + found[6]])
        return b"".join(pieces)

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
            has_time = self._has_time(frames)
            taken = self._hand_over(frames) if has_time else self._send(frames)
            if taken < len(frames):
                self.link.give_back(frames[taken:])
            if taken and not has_time:
                self._look_for_answers()
        if not self._is_full:
            if self.link.has_room:
                self.link.on_room()
            if self.link.outgoing:
                self.wants_to_send()
        self._look_at_time()

    def _look_for_answers(self) -> None:
        """Of what is done in the call that sends, as a kernel at the other end of a veth answers a
        ping, a SYN or a large segment: who has asked for it need not sleep. Where there is none it
        is looked for less often."""
        if self._passes:
            self._passes -= 1
        elif self._receive():
            self._missed = 0
        else:
            self._missed = min(self._missed + 1, MOST_MISSED)
            self._passes = (1 << self._missed) - 1

    def _look_at_time(self) -> None:
        if self.link.has_moved:
            self.link.has_moved = False
            self._after()

    def _send(self, frames: list[bytes]) -> int:
        """How many the socket has taken."""
        done = 0
        while done < len(frames):
            some = _first_of(frames, done)
            for number, frame in enumerate(some):
                self._sizes_out[number] = len(frame)
            whole = some[0] if len(some) == 1 else b"".join(some)
            sent = int(lib.uplink_send(self._fd, whole, self._out_sizes, len(some)))
            if sent == -EAGAIN.number:
                self._wait_for_socket()
                break
            if sent < 0:  # the first is refused, as by a link that is down
                self.link.lost += 1
                sent = 1
            done += sent
        return done

    def _wait_for_socket(self) -> None:
        self._is_full = True
        self._loop.watch(self._fd, EPOLLIN | EPOLLOUT, self._ready)

    # --- by the thread

    def _has_time(self, frames: list[bytes]) -> bool:
        """The thread is worth its while, or has some that go before these."""
        if self._outbox is None:
            return False
        if self._much_came or len(self._outbox) > 0:
            return True
        size = 0
        for each in frames:
            size += len(each)
        return size >= MUCH_OUT

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


def bound_to(address: bytes) -> int:
    """The interface in a struct sockaddr_ll."""
    return int.from_bytes(address[4:8], "little", signed=True)


def _first_of(frames: list[bytes], begin: int) -> list[bytes]:
    """Those from there on that go in a call: one that is large, or all up to the next such one."""
    end = begin + 1
    if len(frames[begin]) < LARGE:
        while end < len(frames) and len(frames[end]) < LARGE:
            end += 1
    return frames[begin:end]
