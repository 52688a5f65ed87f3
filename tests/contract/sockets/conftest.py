"""Every family of sockets on a loopback of its own, in the Sentry and on the host's Linux."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from sentry.abi.netlink import NETLINK_USERSOCK
from sentry.abi.sched import CLONE_NEWNET
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_PACKET,
    AF_UNIX,
    IPPROTO_TCP,
    IPPROTO_UDP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SIOCSIFFLAGS,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM,
)
from sentry.net.inet.tcp_options import TCP
from sentry.net.inet.udp_options import UDP
from sentry.net.netlink.options import NETLINK
from sentry.net.options import Options
from sentry.net.packet_options import PACKET
from sentry.net.unix_options import UNIX
from tests.contract.sockets.calls import Sockets
from tests.linux import NativeProgram
from tests.world import World

ETHERTYPE = 0x88B5
"""For experiments: IEEE 802."""
LOCAL4 = struct.pack("<HH4s8x", AF_INET, 0, bytes((127, 0, 0, 1)))
LOCAL6 = struct.pack("<HHI16sI", AF_INET6, 0, 0, bytes(15) + b"\x01", 0)
LOCAL_NETLINK = struct.pack("<HHII", AF_NETLINK, 0, 0, 0)
ON_LO = struct.pack("<HHiHBB8s", AF_PACKET, ETHERTYPE >> 8 | (ETHERTYPE & 0xFF) << 8, 1, 0, 0, 6,
                    bytes(8))  # fmt: skip
Pair = Callable[[Sockets, "Family"], tuple[int, int]]


class Family(NamedTuple):
    """One kind of socket."""

    domain: int
    kind: int
    protocol: int
    options: Options
    local: bytes
    """An address to bind to."""
    connect: Pair
    """Two of them that are connected."""

    def new(self, sockets: Sockets) -> int:
        """A socket that nothing was done to."""
        return sockets.ok("socket", self.domain, self.kind, self.protocol)

    def send(self, sockets: Sockets, fd: int, data: bytes) -> int:
        """To the other end; packet sockets say whither."""
        if self.domain != AF_PACKET:
            return sockets.send(fd, data)
        to = sockets.place(self.local)
        flags = MSG_DONTWAIT | MSG_NOSIGNAL
        return sockets.call("sendto", fd, data, len(data), flags, to, len(self.local))

    @property
    def listens(self) -> bool:
        """There are connections."""
        return self.kind != SOCK_DGRAM

    @property
    def has_shutdown(self) -> bool:
        """shutdown(2) is for it."""
        return self.domain not in (AF_NETLINK, AF_PACKET)


def _pair(sockets: Sockets, family: Family) -> tuple[int, int]:
    return sockets.pair(family.domain, family.kind)


def _accept(sockets: Sockets, family: Family) -> tuple[int, int]:
    listener, one = family.new(sockets), family.new(sockets)
    place = sockets.bind(listener, family.local)
    sockets.ok("listen", listener, 1)
    sockets.connect(one, place)
    return one, sockets.ok("accept", listener, 0, 0)


def _face(sockets: Sockets, family: Family) -> tuple[int, int]:
    one, other = family.new(sockets), family.new(sockets)
    places = [sockets.bind(fd, family.local) for fd in (one, other)]
    sockets.connect(one, places[1])
    sockets.connect(other, places[0])
    return one, other


def _tap(sockets: Sockets, family: Family) -> tuple[int, int]:
    """Packet sockets are never connected: each hears what either sends."""
    one, other = family.new(sockets), family.new(sockets)
    sockets.bind(one, family.local)
    sockets.bind(other, family.local)
    return one, other


def no_pair(sockets: Sockets, family: Family) -> tuple[int, int]:
    """It is asked for options alone."""
    raise NotImplementedError


FAMILIES = {
    "unix stream": Family(AF_UNIX, SOCK_STREAM, 0, UNIX, b"\x01\0", _pair),
    "unix seqpacket": Family(AF_UNIX, SOCK_SEQPACKET, 0, UNIX, b"\x01\0", _accept),
    "unix dgram": Family(AF_UNIX, SOCK_DGRAM, 0, UNIX, b"\x01\0", _face),
    "tcp": Family(AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP, LOCAL4, _accept),
    "tcp6": Family(AF_INET6, SOCK_STREAM, IPPROTO_TCP, TCP, LOCAL6, _accept),
    "udp": Family(AF_INET, SOCK_DGRAM, IPPROTO_UDP, UDP, LOCAL4, _face),
    "udp6": Family(AF_INET6, SOCK_DGRAM, IPPROTO_UDP, UDP, LOCAL6, _face),
    "netlink": Family(AF_NETLINK, SOCK_DGRAM, NETLINK_USERSOCK, NETLINK, LOCAL_NETLINK, _face),
    "packet": Family(AF_PACKET, SOCK_DGRAM, 0, PACKET, ON_LO, _tap),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each in turn."""
    return FAMILIES[request.param]


@pytest.fixture
def sentry() -> Iterator[Sockets]:
    """A program in the Sentry."""
    with World() as world:
        yield Sockets(world.program())


@pytest.fixture
def linux() -> Iterator[Sockets]:
    """A program of the host with a network namespace of its own."""
    if os.geteuid():
        pytest.skip("needs root for a network namespace")
    with ExitStack() as ends:
        native = Sockets(NativeProgram(Path("/"), ends))
        native.ok("unshare", CLONE_NEWNET)
        fd = native.ok("socket", AF_INET, SOCK_DGRAM, 0)
        native.ok("ioctl", fd, SIOCSIFFLAGS, native.place(struct.pack("16sH22x", b"lo", 1)))
        native.ok("close", fd)
        yield native


@pytest.fixture(params=["linux", "sentry"])
def sockets(request: pytest.FixtureRequest) -> Sockets:
    """Either."""
    found: Sockets = request.getfixturevalue(request.param)
    return found
