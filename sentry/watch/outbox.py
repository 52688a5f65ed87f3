"""`Outbox`: messages on their way to a listener outside, who may be slow, dead or hostile.

It has a descriptor that was connected outside, and waits for nobody: what there is no room for
stays in a queue with a bound, what the queue has no room for is lost and counted. Messages are
gathered for a moment and sent together. The flags of the descriptor are not changed.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.limits import PIPE_BUF

if TYPE_CHECKING:
    from sentry.loop import Timer

MAX_QUEUED: Final = 1 << 20
"""Bytes."""
MAX_MESSAGES: Final = 16384
"""A message costs memory beside its bytes."""
GATHER_NS: Final = 1_000_000
"""So long the first of several waits for others."""
AT_ONCE: Final = 64
"""So many are sent without waiting, and at a time."""
FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Patience:
    """How long a message for which there is no room is tried again, before it is lost.

    `retries` 0: as long as the queue has room for those behind it.
    """

    __slots__ = ("backoff_max_ns", "backoff_ns", "retries")

    def __init__(self, retries: int, backoff_ns: int, backoff_max_ns: int) -> None:
        self.retries = retries
        self.backoff_ns = backoff_ns
        self.backoff_max_ns = backoff_max_ns


class Outbox:
    """The queue to one descriptor, which is this one's alone."""

    def __init__(
        self, fd: int, loop: Any, patience: Patience | None = None, *, packets: bool = False
    ) -> None:
        """`packets`: it is a socket that keeps messages apart."""
        self._fd = fd
        self._loop = loop
        self._patience = patience or Patience(0, 0, 0)
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._timer: Timer | None = None
        self._blocked = False
        self._tries = 0
        self.taken = 0
        """All messages so far."""
        self.dropped = 0
        """Those that were lost."""
        self.dead = False
        """Nobody is there any more."""
        self.on_death: Callable[[], object] | None = None
        """Hears that nobody is there: in the middle of a system call, so it must not do much."""
        mode = os.fstat(fd).st_mode
        self._sock: socket.socket | None = None
        self._packets = packets
        if stat.S_ISSOCK(mode):
            kind = socket.SOCK_SEQPACKET if packets else socket.SOCK_STREAM
            self._sock = socket.socket(socket.AF_UNIX, kind, 0, fileno=fd)
        self._is_file = stat.S_ISREG(mode)

    def put(self, message: bytes) -> None:
        """Take a message, or lose it."""
        self.taken += 1
        size = len(message)
        if self.dead or self._size + size > MAX_QUEUED or len(self._queue) >= MAX_MESSAGES:
            self.dropped += 1
            return
        self._queue.append(message)
        self._size += size
        if self._blocked:
            return
        if len(self._queue) >= AT_ONCE:
            self._send()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._loop.now_ns() + GATHER_NS, self._gathered)

    def flush(self) -> None:
        """Send what can be sent now."""
        self._cancel()
        while self._queue and not self._blocked and not self.dead:
            self._send()

    def close(self) -> None:
        """Nothing more; what is left goes out as far as there is room."""
        self.flush()
        self._wait(False)
        self.dead = True
        if self._sock is not None:
            self._sock.close()
        else:
            os.close(self._fd)

    def forget(self) -> None:
        """In a fork: what is left is the parent's to send."""
        self._cancel()
        self._queue.clear()
        self._size = 0

    def _gathered(self) -> None:
        self._timer = None
        self._send()

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _send(self) -> None:
        """Some of them; the rest in a moment, or when there is room."""
        self._cancel()
        try:
            if self._packets:
                self._send_packets()
            else:
                self._write()
        except BlockingIOError:
            self._wait(True)
        except OSError:
            self._die()
            return
        if self._queue and not self._blocked and self._timer is None:
            self._timer = self._loop.call_at(self._loop.now_ns(), self._gathered)

    def _send_packets(self) -> None:
        assert self._sock is not None
        for _ in range(min(AT_ONCE, len(self._queue))):
            try:
                self._sock.send(self._queue[0], FLAGS)
            except OSError as error:
                if isinstance(error, (BlockingIOError, ConnectionError)):
                    raise
                self.dropped += 1  # EMSGSIZE: larger than any message may be
            self._pop()

    def _write(self) -> None:
        """Lines: as many as fit. A pipe is written when it is ready, and then PIPE_BUF at most,
        which does not block: pipe(7)."""
        if self._sock is None and not self._is_file and not self._is_ready():
            raise BlockingIOError
        chunk = bytearray()
        most = PIPE_BUF if self._sock is None and not self._is_file else 1 << 16
        while self._queue and len(chunk) < most:
            chunk += self._pop()
        data = bytes(chunk[:most])
        try:
            done = self._sock.send(data, FLAGS) if self._sock else os.write(self._fd, data)
        except BlockingIOError:
            done = 0
        except OSError:
            self.dropped += chunk.count(b"\n")
            raise
        rest = bytes(chunk[done:])
        if rest:
            self._queue.appendleft(rest)
            self._size += len(rest)
        if done < len(data) and not self._is_file:  # of a full disk the next write says so
            raise BlockingIOError

    def _pop(self) -> bytes:
        message = self._queue.popleft()
        self._size -= len(message)
        self._tries = 0
        return message

    def _is_ready(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return any(event & (select.POLLOUT | select.POLLERR) for _, event in poll.poll(0))

    # --- no room

    def _wait(self, wanted: bool) -> None:
        if wanted is not self._blocked:
            self._blocked = wanted
            self._loop.watch(self._fd, select.EPOLLOUT if wanted else 0, self._room)
        self._cancel()
        if wanted and self._patience.retries:
            self._try_later()

    def _try_later(self) -> None:
        patience = self._patience
        backoff_ns = min(patience.backoff_ns << min(self._tries, 32), patience.backoff_max_ns)
        self._timer = self._loop.call_at(self._loop.now_ns() + backoff_ns, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        self._tries += 1
        if self._tries > self._patience.retries and self._queue:
            self._pop()
            self.dropped += 1
        self._try_later() if self._queue else self._wait(False)

    def _room(self, _events: int) -> None:
        self._wait(False)
        self._send()

    def _die(self) -> None:
        """The other end is gone, or the disk is full: nobody wants to know any more."""
        self._wait(False)
        self.dropped += len(self._queue)
        self._queue.clear()
        self._size = 0
        self.dead = True
        if self.on_death is not None:
            self.on_death()
