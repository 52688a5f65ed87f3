"""A world with a socket of every kind, and what hostile programs do with them: steps as tuples."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import strategies as st

from sentry.abi import netlink, socket
from sentry.abi.fcntl import O_WRONLY
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_PACKET,
    AF_UNIX,
    ETH_P_ALL,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_RAW,
    IPPROTO_UDPLITE,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_PACKET,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
)
from tests.fuzz.inside import Inside, Step
from tests.world import Program

EVERY = ETH_P_ALL << 8 & 0xFFFF
KINDS = (
    (AF_INET, SOCK_STREAM, 0), (AF_INET6, SOCK_STREAM, 0),
    (AF_INET, SOCK_DGRAM, 0), (AF_INET6, SOCK_DGRAM, 0),
    (AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), (AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE),
    (AF_INET, SOCK_DGRAM, IPPROTO_ICMP), (AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6),
    (AF_INET, SOCK_RAW, IPPROTO_ICMP), (AF_INET6, SOCK_RAW, IPPROTO_ICMPV6),
    (AF_INET, SOCK_RAW, IPPROTO_RAW), (AF_INET6, SOCK_RAW, IPPROTO_RAW),
    (AF_INET, SOCK_RAW, 253), (AF_INET6, SOCK_RAW, 253),
    (AF_INET, SOCK_RAW, 17), (AF_INET6, SOCK_RAW, 17), (AF_INET, SOCK_RAW, 6),
    (AF_PACKET, SOCK_RAW, EVERY), (AF_PACKET, SOCK_DGRAM, EVERY), (AF_PACKET, SOCK_PACKET, EVERY),
    (AF_NETLINK, SOCK_RAW, netlink.NETLINK_ROUTE),
    (AF_NETLINK, SOCK_DGRAM, netlink.NETLINK_SOCK_DIAG),
    (AF_NETLINK, SOCK_RAW, netlink.NETLINK_USERSOCK),
    (AF_NETLINK, SOCK_RAW, netlink.NETLINK_KOBJECT_UEVENT),
    (AF_UNIX, SOCK_STREAM, 0), (AF_UNIX, SOCK_DGRAM, 0), (AF_UNIX, SOCK_SEQPACKET, 0),
    (AF_NETLINK, SOCK_RAW, netlink.NETLINK_NETFILTER),
)  # fmt: skip
PORT = 4000
LOCAL = {
    AF_INET: struct.pack("<H", AF_INET) + struct.pack(">H4s8x", PORT, b"\x7f\0\0\x01"),
    AF_INET6: struct.pack("<H", AF_INET6) + struct.pack(">HI16sI", PORT, 0, bytes(15) + b"\x01", 0),
}
ON_LO = struct.pack("<HHiHBB8s", AF_PACKET, EVERY, 1, 0, 0, 6, bytes(8))
PLACES = len(KINDS) + 10
"""Those, pairs of Unix sockets, and the ends of connections."""


class Sockets(Inside):
    """Sockets at `fds`, which never sleep."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        super().__init__(lambda program: self.fds.extend(_sockets(program)))

    def run(self, steps: Iterable[Step]) -> None:
        """Each step; then everything that has come is read."""
        for name, place, *values in steps:
            getattr(self, f"_{name}")(self.fds[place % len(self.fds)], *values)
        self.world.settle()
        for fd in self.fds:
            self._receive(fd, 512, 256, 0)
            self._receive(fd, 64, 64, socket.MSG_ERRQUEUE)

    def _send(self, fd: int, name: bytes, data: bytes, control: bytes, flags: int) -> None:
        at = self.message(name, data, control)
        self.call("sendmsg", fd, at, flags | MSG_DONTWAIT | MSG_NOSIGNAL)

    def _receive(self, fd: int, room: int, control: int, flags: int) -> None:
        at = self.message(bytes(128), bytes(room), bytes(control))
        self.call("recvmsg", fd, at, flags | MSG_DONTWAIT)

    def _set(self, fd: int, level: int, number: int, value: bytes, size: int) -> None:
        self.call("setsockopt", fd, level, number, value, size)

    def _get(self, fd: int, level: int, number: int, value: bytes, size: int) -> None:
        length = self.program.place(struct.pack("<I", size))
        self.call("getsockopt", fd, level, number, value, length)

    def _connect(self, fd: int, name: bytes) -> None:
        self.call("connect", fd, name, len(name))

    def _bind(self, fd: int, name: bytes) -> None:
        self.call("bind", fd, name, len(name))

    def _ioctl(self, fd: int, request: int, argument: bytes) -> None:
        self.call("ioctl", fd, request, argument + bytes(64))

    def _other(self, fd: int, name: str, value: int) -> None:
        self.call(name, fd, value)


def _sockets(program: Program) -> Iterator[int]:
    fd = program.ok("open", b"/proc/sys/net/ipv4/ping_group_range", O_WRONLY, 0)
    program.ok("write", fd, b"0 2147483647", 12)
    program.ok("close", fd)
    for domain, kind, protocol in KINDS:
        fd = program.ok("socket", domain, kind | SOCK_NONBLOCK, protocol)
        if domain in LOCAL and kind in (SOCK_STREAM, SOCK_DGRAM) and protocol != IPPROTO_ICMPV6:
            program.ok("bind", fd, LOCAL[domain], len(LOCAL[domain]))
        if kind == SOCK_STREAM and domain in LOCAL:
            program.ok("listen", fd, 4)
            client = program.ok("socket", domain, kind, 0)
            program.ok("connect", client, LOCAL[domain], len(LOCAL[domain]))
            yield client
            yield program.ok("accept4", fd, 0, 0, SOCK_NONBLOCK)
        if kind == SOCK_RAW and domain in LOCAL:  # so that nobody has to say where packets go
            program.ok("connect", fd, LOCAL[domain], len(LOCAL[domain]))
        if domain == AF_PACKET and kind != SOCK_PACKET:
            program.ok("bind", fd, ON_LO, len(ON_LO))
        yield fd
    pair = program.buffer(8)
    for kind in (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET):
        program.ok("socketpair", AF_UNIX, kind | SOCK_NONBLOCK, 0, pair)
        yield from struct.unpack("<2i", program.read(pair, 8))


def numbers(module: Any, *prefixes: str) -> list[int]:
    """The constants of a header by their prefixes."""
    found = {getattr(module, name) for name in dir(module) if name.startswith(prefixes)}
    return sorted(n for n in found if isinstance(n, int))


def words(size: int) -> st.SearchStrategy[int]:
    """Numbers of so many bytes, those at the edges first."""
    top = (1 << 8 * size) - 1
    return st.sampled_from([0, 1, 2, 4, 8, top, top >> 1, (top >> 1) + 1]) | st.integers(0, top)


PLACE = st.integers(0, PLACES - 1)
FLAGS = st.sampled_from([0, *(1 << bit for bit in range(32))]) | words(4)
IPS4 = st.sampled_from([
    bytes(4), b"\x7f\0\0\x01", b"\x7f\0\0\x02", b"\x7f\xff\xff\xff", b"\xff" * 4, b"\xe0\0\0\x01",
    b"\x08\x08\x08\x08",
])  # fmt: skip
IPS6 = st.sampled_from(
    [
        bytes(16),
        bytes(15) + b"\x01",
        bytes(10) + b"\xff\xff\x7f\0\0\x01",
        b"\xff\x02" + bytes(13) + b"\x01",
        b"\xfe\x80" + bytes(13) + b"\x01",
        b"\x20\x01" + bytes(14),
    ]
)
PORTS = st.sampled_from([0, PORT, PORT + 1, 65535])
DATA = st.binary(max_size=64) | st.builds(
    bytes, st.sampled_from([1280, 1500, 9000, 65487, 65507, 65515, 65535, 66000])
)
NAMES = st.one_of(
    st.just(b""),
    st.builds(
        lambda port, ip: struct.pack("<H", AF_INET) + struct.pack(">H4s8x", port, ip), PORTS, IPS4
    ),
    st.builds(
        lambda port, ip, scope: (
            struct.pack("<H", AF_INET6) + struct.pack(">HI16s", port, 0, ip) + scope
        ),
        PORTS,
        IPS6,
        st.sampled_from([bytes(4), b"\1\0\0\0", b"\xff" * 4]),
    ),
    st.builds(
        lambda kind, index, size: struct.pack(
            "<HHiHBB8s", AF_PACKET, kind, index, 0, 0, size, bytes(8)
        ),
        st.sampled_from([0, 8, 0xDD86, EVERY]),
        st.sampled_from([0, 1, 2, -1]),
        st.integers(0, 255),
    ),
    st.builds(
        lambda port, groups: struct.pack("<HHII", AF_NETLINK, 0, port, groups), words(4), words(4)
    ),
    st.builds(lambda name: struct.pack("<H", AF_UNIX) + name, st.binary(max_size=110)),
    st.builds(
        lambda family, rest: struct.pack("<H", family) + rest,
        st.integers(0, 45),
        st.binary(max_size=30),
    ),
    st.binary(max_size=130),
)
"""Of sockets: struct sockaddr."""
