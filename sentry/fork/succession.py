"""`Place`: a fork goes on in the place of the sandbox that it is a copy of.

The first process of a sandbox's PID namespace cannot end without all its forks, and whoever has
started it waits for it. So it stays when a fork takes its place, without a machine, and follows: it
ends when that one does, with its status. It hears of who comes next at the socket where it was
asked before, which has another name then. `runsc/launch/succession.py` is the other side.

The two are connected. The successor says how it ended; the one that follows says that there is
another one, and hears the end of the connection when its process is gone.
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sentry.abi.signal import SIGKILL
from sentry.abi.socket import MSG_NOSIGNAL, SO_PEERCRED, SOL_SOCKET, UCRED
from sentry.control import descriptors
from sentry.control.protocol import Reply, Request, decode, encode
from sentry.kernel import pause
from sentry.suppress import suppress

if TYPE_CHECKING:
    import socket

    from sentry.config import SandboxConfig
    from sentry.kernel.kernel import Kernel

END: Final = struct.Struct("=ii")
"""The wait status of the first process, and how often memory has run out."""
ASKED_MS: Final = 10_000
"""So long who connects may take to say what it wants."""
GONE_MS: Final = 15_000
"""So long a successor may take to be gone."""
STANDS_NS: Final = 100_000_000
"""So long a successor whose time is over may take until its programs stand."""
OWNER: Final = 0


class Place:
    """Of one process: that it has given up, or that it has taken."""

    def __init__(self, kernel: Kernel, is_quiet: Callable[[], bool]) -> None:
        """`is_quiet`: nothing is under way outside. Preconditions: all programs stand."""
        self._kernel = kernel
        self._is_quiet = is_quiet
        self._successor = -1
        self._origin = -1
        self._listener: socket.socket | None = None
        """Closed by the end of the process alone: the filter forbids what an object would do."""

    @property
    def is_left(self) -> bool:
        """It was given up."""
        return self._successor >= 0

    def leave(self, successor: int, told: Callable[[str], object]) -> bool:
        """Nothing moves; now its loop ends. False: who was to go on is gone, or there is nothing to
        leave any more. Preconditions: all programs stand."""
        why = ""
        if self._kernel.exit_status is not None:
            why = "the sandbox has ended"
        elif _comes(successor, select.POLLRDHUP, 0):  # nobody has had the patience
            why = "who was to go on has ended"
        if why:
            descriptors.close_all((successor,))
            told(why)
            return False
        self._successor = successor
        self._kernel.finish(SIGKILL)
        told("")
        return True

    def take(self, origin: int) -> None:
        """In a fork: what its parent had is not its own; -1: it takes nobody's place."""
        loop, before = self._kernel.loop, self._origin
        self._origin = origin
        if before >= 0:
            loop.watch(before, 0)
            os.close(before)
        if origin >= 0:
            loop.watch(origin, select.EPOLLIN | select.EPOLLRDHUP, lambda _: self._give_up())

    def _give_up(self) -> None:
        """Another one takes the place, or nobody stands for the sandbox any more. Who waits for the
        end of this process need not wait until its memory is unmapped, too."""
        loop = self._kernel.loop
        loop.watch(self._origin, 0)
        loop.call_at(loop.now_ns() + STANDS_NS, lambda: os._exit(0))
        pause.stand(self._kernel.container, self._end)

    def _end(self) -> None:
        if self._is_quiet():
            os.close(self._origin)
        os._exit(0)

    def tell_end(self, status: int) -> None:
        """Of one that has taken a place: how its first process has ended."""
        if self._origin >= 0:
            with suppress(OSError):
                os.write(self._origin, END.pack(status, self._kernel.container.oom_kills))

    def follow(self, listener: socket.socket | None, config: SandboxConfig) -> int:
        """Until the last successor ends, or whoever stands for the sandbox outside; the status."""
        kernel, self._listener = self._kernel, listener
        for inode in kernel.vfs.donated:  # others see the ends of pipes
            if inode.fd >= 0 and inode.fd not in config.stdio:
                os.close(inode.fd)
        poll = select.poll()
        poll.register(self._successor, select.POLLIN)
        if config.stand_in_fd >= 0:
            poll.register(config.stand_in_fd, select.POLLRDHUP)
        if listener is not None:
            poll.register(listener, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == config.stand_in_fd:
                    return SIGKILL
                if fd == self._successor:
                    said = os.read(fd, END.size)
                    if len(said) < END.size:
                        return SIGKILL
                    status, kernel.container.oom_kills = END.unpack(said)
                    return int(status)
                if listener is not None and fd == listener.fileno():
                    before = self._successor
                    self._hear(listener)
                    if self._successor != before:
                        poll.unregister(before)
                        os.close(before)
                        poll.register(self._successor, select.POLLIN)
                        break

    def _hear(self, listener: socket.socket) -> None:
        """Somebody connects: with another successor, or for nothing."""
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock:
            peer = UCRED.unpack(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, UCRED.size))
            fds: list[int] = []
            try:
                if peer.uid != OWNER or not _comes(sock.fileno(), select.POLLIN, ASKED_MS):
                    return
                data, fds = descriptors.receive(sock, 1 << 16)
                wanted = decode(data, Request).op
            except (OSError, ValueError):
                descriptors.close_all(fds)
                return
            error = ""
            if wanted != "succeed" or len(fds) != 1:
                error = "another process has taken its place"
            elif not self._gone():
                error = "who was there does not end"
            if error:
                descriptors.close_all(fds)
            else:
                self._successor = fds[0]
            with suppress(OSError):
                sock.send(encode(Reply(error=error)), MSG_NOSIGNAL)

    def _gone(self) -> bool:
        """The present successor ends, and is gone."""
        with suppress(OSError):
            os.write(self._successor, b"\0")
        return _comes(self._successor, select.POLLRDHUP, GONE_MS)


def _comes(fd: int, events: int, patience_ms: int) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(patience_ms))
