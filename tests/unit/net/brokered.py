"""A world with a policy that hands connections to brokers, and a test in the place of these."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from sentry.abi.socket import AF_INET, SOCK_STREAM
from sentry.errors import Errno
from sentry.net import made
from sentry.net.host.dial import Wanted
from sentry.net.inet.egress import Egress
from sentry.net.inet.resolver import Resolver
from tests.world import Call, Program, World

API, OTHER = "203.0.113.5", "203.0.113.6"
POLICY: Final = """
[[rule]]
action = "allow"
names = ["api.org", "*.api.org"]
ports = [443]
broker = "/run/a.sock"
[[rule]]
action = "allow"
cidrs = ["203.0.113.6"]
broker = "/run/b.sock"
"""
NS: Final = 1_000_000_000


def mapped(address: str) -> bytes:
    """As flows have it."""
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def place(address: str, port: int) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("<H", AF_INET) + struct.pack(">H4s8x", port, socket.inet_aton(address))


@contextmanager
def brokered(policy: str = POLICY) -> Iterator[Brokered]:
    """A world that ends with all its streams."""
    with World() as world:
        made = Brokered(world, policy)
        try:
            yield made
        finally:
            made.end()


class Dialed:
    """In place of a dialer: the other end of each stream is the test's."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []
        self.ends: list[socket.socket] = []
        self.errors: list[Errno] = []
        """What the next ones hear."""
        self.is_closed = False

    async def dial(self, wanted: Wanted) -> int:
        self.wanted.append(wanted)
        if self.errors:
            raise self.errors.pop(0)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(20)
        self.ends.append(theirs)
        return ours.detach()

    def close(self) -> None:
        self.is_closed = True


class Brokered:
    """One world."""

    def __init__(self, world: World, policy: str = POLICY) -> None:
        self.world = world
        self.stack = world.init.task.ns.net.stack
        made.plug_in(self.stack)
        self.dialed = Dialed()
        self._all = [self.dialed]
        self.resolver = Resolver(self.stack, cast(Any, None), world.loop, ())
        dialer = cast(Any, self.dialed)
        self.egress = Egress(self.stack, self.resolver, world.loop, policy, (), dialer)
        self.program = world.program()
        self.names(API, "api.org")

    def end(self) -> None:
        """No stream is left."""
        for stream in list(self.egress.brokers._streams.values()):
            stream.reset()
        self.world.settle()
        for each in self._all:
            for sock in each.ends:
                sock.close()

    def names(self, address: str, *names: str) -> None:
        """The resolver has given it for them."""
        given = self.resolver.forwarder.given
        for name in names:
            given.remember(mapped(address), name, 60 * NS, time.monotonic_ns())

    def begin(self, address: str, port: int = 443, by: Program | None = None) -> tuple[int, Call]:
        """A socket, and its connect(2), which may be asleep."""
        program = by or self.program
        fd = program.ok("socket", AF_INET, SOCK_STREAM, 0)
        call = program.begin("connect", fd, place(address, port), 16)
        self.world.settle()
        return fd, call

    def connect(self, address: str = API, port: int = 443) -> tuple[int, socket.socket]:
        """A socket that is connected, and the broker's end."""
        fd, call = self.begin(address, port)
        assert call.result == 0
        return fd, self.dialed.ends[-1]

    def refused(self, address: str = API, port: int = 443) -> str:
        """The errno of a connect(2) that fails."""
        fd, call = self.begin(address, port)
        result = call.result
        self.program.ok("close", fd)
        return errno.errorcode[-result]

    def send(self, fd: int, data: bytes) -> int:
        """Without waiting: how many bytes, or -errno."""
        done = self.program.call("sendto", fd, data, len(data), 0x4040, 0, 0)
        self.world.settle()
        return done

    def receive(self, fd: int, size: int = 65536) -> bytes | str:
        """Without waiting: bytes, or the name of an errno."""
        self.world.settle()
        room = self.program.buffer(size)
        done = self.program.call("recvfrom", fd, room, size, 0x40, 0, 0)
        self.world.settle()
        return self.program.read(room, done) if done >= 0 else errno.errorcode[-done]

    def begin_change(self, policy: str) -> None:
        """Another one, with another dialer."""
        self.dialed = Dialed()
        self._all.append(self.dialed)
        self.egress.change(policy, (), cast(Any, self.dialed))

    def change(self, policy: str) -> None:
        """The same, and all that comes of it."""
        self.begin_change(policy)
        self.world.settle()

    @property
    def log(self) -> list[tuple[int, str]]:
        """Rules and reasons."""
        return [(each.rule, each.reason) for each in self.egress.flows.denials.since(0)]
