"""Stand-ins that are children of the caller: what engines start waits for a child of its own.

The fork of the zygote makes all else of a container and asks for this; both sides are here. The
caller has imported what it takes while the fork has begun.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress

import msgspec

from runsc.errors import RuntimeFailure
from runsc.launch import stand_in
from runsc.launch.oom_victim import Victim
from runsc.zygote.protocol import STAND_IN

ORDER_MAX = 1 << 17
FDS_MAX = 64
ANSWER_MAX = 4096


class Order(msgspec.Struct, frozen=True):
    """What is asked for; the descriptors are its life, its cgroups, and perhaps a terminal."""

    namespaces: stand_in.Namespaces
    container_id: str
    has_terminal: bool


class ByCaller(stand_in.StandIn):
    """One that is another process's child, which will reap it."""

    def __init__(
        self, pid: int, life: socket.socket, joins: tuple[int, ...], victim: Victim | None
    ) -> None:
        super().__init__(pid, life, joins, victim)
        self._pidfd = os.pidfd_open(pid)

    def _has_ended(self, timeout_ms: int | None) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_ms))

    def check(self) -> None:
        """As of its parent."""
        if self._has_ended(0):
            raise RuntimeFailure("the stand-in process has ended")

    def end(self) -> int:
        """As of its parent; nobody but that hears its status."""
        self.close()
        with suppress(PermissionError, ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        return self.reap()

    def reap(self) -> int:
        """When it has ended."""
        self._has_ended(None)
        return 0


class AskedOfCaller:
    """Makes stand-ins on the other side of the connection."""

    kind: type[stand_in.StandIn] = ByCaller

    def __init__(self, conn: socket.socket) -> None:
        self._conn = conn

    def __call__(
        self,
        namespaces: stand_in.Namespaces,
        container_id: str,
        life: socket.socket,
        joins: tuple[int, ...],
        terminal: int,
    ) -> int:
        """As `stand_in.fork`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [life.fileno(), *joins, *([terminal] if terminal >= 0 else [])]
        order = Order(namespaces, container_id, terminal >= 0)
        with ours:
            with theirs:
                socket.send_fds(self._conn, [STAND_IN], [theirs.fileno()])
            socket.send_fds(ours, [msgspec.msgpack.encode(order)], fds)
            said = ours.recv(ANSWER_MAX).decode(errors="replace")
        if not said.isdigit():
            raise RuntimeFailure(said or "the command line has ended")
        return int(said)


def serve(fd: int) -> None:
    """The caller's side: make one."""
    with socket.socket(fileno=fd) as sock:
        packet, fds, _, _ = socket.recv_fds(sock, ORDER_MAX, FDS_MAX)
        try:
            said = str(_made(msgspec.msgpack.decode(packet, type=Order), fds))
        except (RuntimeFailure, OSError, msgspec.DecodeError) as error:
            said = str(error)
        finally:
            for each in fds:
                os.close(each)
        with suppress(OSError):
            sock.send(said.encode()[:ANSWER_MAX])


def _made(order: Order, fds: list[int]) -> int:
    terminal = fds[-1] if order.has_terminal else -1
    joins = tuple(fds[1 : len(fds) - order.has_terminal])
    life = socket.socket(fileno=os.dup(fds[0]))
    with life:
        return stand_in.fork(order.namespaces, order.container_id, life, joins, terminal)
