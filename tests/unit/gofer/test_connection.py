"""Replies with descriptors, on a socket that takes no more of them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from typing import Any

import pytest

from gofer.connection import Connection
from gofer.p9.constants import OPENED_DONATED
from gofer.p9.extensions import Rwalkx
from gofer.p9.messages import Rclunk, Rlerror
from gofer.server import Server

DONATED = Rwalkx(0, OPENED_DONATED, b"", [])


class Crowded:
    """A socket whose user has too many descriptors in flight: unix(7), ETOOMANYREFS."""

    family = socket.AF_UNIX

    def __init__(self, *, full: bool) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.full = full

    def fileno(self) -> int:
        return self.ours.fileno()

    def send(self, data: bytes, flags: int) -> int:
        if self.full:
            raise BlockingIOError
        return self.ours.send(data, flags)

    def sendmsg(self, data: Iterable[bytes], rights: Any, flags: int) -> int:
        if self.full:
            raise BlockingIOError
        raise OSError(errno.ETOOMANYREFS, "too many references")

    def close(self) -> None:
        self.ours.close()


@pytest.mark.parametrize("full", [False, True])
def test_descriptor_that_cannot_go_is_enfile_for_its_request_alone(full: bool) -> None:
    sock, server = Crowded(full=full), Server([])
    given: Any = sock
    connection: Connection = server.add(given)
    fd = os.open("/dev/null", os.O_RDONLY)

    connection.send(7, DONATED, (fd,))
    connection.send(8, Rclunk())
    sock.full = False
    connection.on_writable()

    assert sock.theirs.recv(4096) == Rlerror(errno.ENFILE).encode(7) + Rclunk().encode(8)
    assert not connection.closed and not connection.wants_to_write
    with pytest.raises(OSError):
        os.fstat(fd)
    sock.theirs.close()
    server.close()
