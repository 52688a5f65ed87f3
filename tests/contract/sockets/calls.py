"""The system calls of sockets, with their structures packed and unpacked."""

from __future__ import annotations

import struct
from typing import Any

from sentry.abi.fcntl import F_SETFL, O_NONBLOCK
from sentry.abi.socket import MSG_DONTWAIT, MSG_NOSIGNAL
from tests.caller import Caller

ADDRESS_ROOM = 128


class Sockets:
    """A program, and what it does with sockets. Errors are results: -errno."""

    def __init__(self, program: Any) -> None:
        self.program: Caller = program
        self.call = program.call
        self.ok = program.ok
        self.place = program.place
        self.begin = program.begin

    # --- making them

    def pair(self, domain: int, kind: int) -> tuple[int, int]:
        """socketpair(2)."""
        at = self.place(bytes(8))
        self.ok("socketpair", domain, kind, 0, at)
        one, other = struct.unpack("<ii", self.program.read(at, 8))
        return one, other

    def bind(self, fd: int, address: bytes) -> bytes:
        """bind(2); the name that it has then."""
        self.ok("bind", fd, self.place(address), len(address))
        return self.name(fd)

    def connect(self, fd: int, address: bytes) -> None:
        self.ok("connect", fd, self.place(address), len(address))

    def name(self, fd: int) -> bytes:
        """getsockname(2)."""
        at, size = self.place(bytes(ADDRESS_ROOM)), self.place(struct.pack("<i", ADDRESS_ROOM))
        self.ok("getsockname", fd, at, size)
        return self.program.read(at, struct.unpack("<i", self.program.read(size, 4))[0])

    def nonblock(self, fd: int) -> None:
        self.ok("fcntl", fd, F_SETFL, O_NONBLOCK)

    # --- data

    def send(self, fd: int, data: bytes) -> int:
        flags = MSG_DONTWAIT | MSG_NOSIGNAL
        return self.call("sendto", fd, self.place(data), len(data), flags, 0, 0)

    def receive(self, fd: int, flags: int = MSG_DONTWAIT, room: int = 64) -> bytes | int:
        """recvfrom(2): the bytes, or -errno."""
        at = self.place(bytes(room))
        got = self.call("recvfrom", fd, at, room, flags, 0, 0)
        return self.program.read(at, got) if got >= 0 else got

    def poll(self, fd: int, events: int) -> int:
        """poll(2) without waiting: what of it there is."""
        at = self.place(struct.pack("<ihh", fd, events, 0))
        self.ok("poll", at, 1, 0)
        return int(struct.unpack("<ihh", self.program.read(at, 8))[2])

    # --- options

    def set(self, fd: int, level: int, name: int, value: bytes) -> int:
        return self.call("setsockopt", fd, level, name, self.place(value), len(value))

    def get(self, fd: int, level: int, name: int, room: int = 64) -> bytes | int:
        """getsockopt(2): the value, or -errno."""
        at, size = self.place(b"\xa5" * 64), self.place(struct.pack("<i", room))
        result = self.call("getsockopt", fd, level, name, at, size)
        if result < 0:
            return result
        (told,) = struct.unpack("<i", self.program.read(size, 4))
        return self.program.read(at, min(told, 64))
