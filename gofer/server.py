"""The Gofer's server: connections, and the loop that serves them.

Single-threaded: metadata calls are short and run here; what may block on a disk goes to a small
pool. Sockets are SOCK_STREAM, because 9P frames itself and every standard client and server speaks
over a stream; SOCK_SEQPACKET would also bound a message by the socket's buffer size.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable, Sequence

from gofer.attachment import Attachment
from gofer.connection import Connection
from gofer.hearing import PAUSE_S
from gofer.native import forget_code
from gofer.shared import Given, Limits, Shared

BEGINNING_S = 1.0
"""So long most sandboxes take until they wait for something."""


def _quiet(_text: str) -> None:
    """No log."""


class Server:
    """Serves attachments to any number of sessions."""

    def __init__(
        self,
        attachments: Sequence[Attachment],
        limits: Limits | None = None,
        log: Callable[[str], None] = _quiet,
        given: Given = Given(),  # noqa: B008  it is frozen
    ) -> None:
        self.shared = Shared(attachments, limits or Limits(), log, given)
        self._hot = self.shared.table.hot
        self._epoll = select.epoll()
        self._epoll.register(self.shared.pool.fd, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._ending: set[Connection] = set()
        """Closed, and pool threads work on requests of theirs."""
        self._masks: dict[int, int] = {}
        self._next_number = 0
        self._listens_at = 0.0
        """When the queue of changes is looked at again; 0: as soon as there is something."""
        if given.group >= 0:
            self._epoll.register(given.group, select.EPOLLIN)

    @property
    def connections(self) -> int:
        return len(self._connections) + len(self._ending)

    def add(self, sock: socket.socket) -> Connection:
        """Serve one more client."""
        self._next_number += 1
        connection = Connection(self.shared, self, sock, self._next_number)
        fd = sock.fileno()
        self._connections[fd] = connection
        self._masks[fd] = select.EPOLLIN
        self._epoll.register(fd, select.EPOLLIN)
        return connection

    def forget(self, connection: Connection) -> None:
        """`connection` is being closed."""
        fd = connection.sock.fileno()
        if self._connections.pop(fd, None) is not None:
            del self._masks[fd]
            self._epoll.unregister(fd)
            self._hot.forget(fd)
            if connection.busy:
                self._ending.add(connection)

    def ended(self, connection: Connection) -> None:
        """A request of a closed `connection` is done."""
        if not connection.busy:
            self._ending.discard(connection)

    def update(self, connection: Connection) -> None:
        """Wait for what `connection` can use now: requests, or room for its replies."""
        mask = select.EPOLLOUT if connection.wants_to_write else 0
        if not connection.congested():
            mask |= select.EPOLLIN
        fd = connection.sock.fileno()
        if self._masks[fd] != mask:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)
        self._hot.ready(fd, connection.is_quiet)

    def step(self, timeout: float | None = None) -> None:
        """Wait for events once and handle them."""
        patience = self._patience(timeout)
        wait_ms = -1 if patience is None else math.ceil(patience * 1000)
        for fd, events in self._hot.wait(self._epoll.fileno(), wait_ms):
            if fd == self.shared.pool.fd:
                self.shared.pool.completed()
                continue
            if fd == self.shared.hearing.fd:
                self._hear()
                continue
            connection = self._connections.get(fd)
            if connection is None:
                continue
            owed, donated = self._hot.owed()
            if owed:
                connection.owe(owed, donated)
            if data := self._hot.came():
                connection.take(data)
                continue
            if events & select.EPOLLOUT:
                connection.on_writable()
            if connection.closed:
                continue
            if events & select.EPOLLIN:
                connection.on_readable()
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                connection.close()

    def _hear(self) -> None:
        """Others have changed something, or most probably this process has."""
        self.shared.hearing.hear()
        self.shared.hearing.tell()
        self._epoll.unregister(self.shared.hearing.fd)  # each event would call it otherwise
        self._listens_at = time.monotonic() + PAUSE_S

    def _patience(self, timeout: float | None) -> float | None:
        if not self._listens_at:
            return timeout
        left = self._listens_at - time.monotonic()
        if left > 0:
            return left if timeout is None else min(left, timeout)
        self._listens_at = 0.0
        self._epoll.register(self.shared.hearing.fd, select.EPOLLIN)
        return timeout

    def run(self) -> None:
        """Serve until no client is left."""
        end = time.monotonic() + BEGINNING_S
        while self._connections and (left := end - time.monotonic()) > 0:
            self.step(left)
        if self._connections:
            forget_code()
        while self._connections:
            self.step()
        self.close()

    def close(self) -> None:
        """End all sessions. The attachments' descriptors stay their owner's."""
        for connection in list(self._connections.values()):
            connection.close()
        self._epoll.close()
        self.shared.pool.close()
