"""Who serves an interface: what is written to /dev/net/tun, in what order, with which requests."""

from __future__ import annotations

import struct
from typing import Self

from hypothesis import strategies as st

from sentry.abi import tun
from sentry.abi.fcntl import O_NONBLOCK, O_RDWR
from sentry.abi.netlink import IFF_UP
from sentry.abi.sched import CLONE_NEWNET
from sentry.abi.socket import AF_INET, AF_INET6, SIOCGIFHWADDR, SIOCSIFHWADDR, SOCK_NONBLOCK
from sentry.abi.stat import S_IFCHR
from sentry.abi.tun import IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_TUN, IFF_VNET_HDR
from sentry.net.interfaces import Address
from sentry.net.netlink.notices import change_flags, tell_address
from tests.fuzz.inside import Step, many
from tests.fuzz.running import explore, for_a_while, kept
from tests.fuzz.sockets import DATA, PORT, Sockets, numbers
from tests.fuzz.test_own_stack import FRESH, NAMES, UNBOUND
from tests.fuzz.test_stack import ANY, FRAMES
from tests.unit.net.wired import hardware, ip6

DEVICE = 10 << 8 | 200
KINDS = (
    IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
    IFF_TUN | IFF_NO_PI | IFF_VNET_HDR,
    IFF_TUN | IFF_MULTI_QUEUE,
    IFF_TUN | IFF_MULTI_QUEUE,
)
"""Of the devices that are there: two by themselves, and two of one interface."""
DEVICES = len(KINDS)
REQUESTS = [*numbers(tun, "TUNSET", "TUNGET", "TUNATT", "TUNDET"), SIOCGIFHWADDR, SIOCSIFHWADDR]
FLAGS = st.integers(0, 0xFFFF)
LINKS = st.sampled_from([b"", b"t0", b"t2", b"v0", b"v1", b"v2", b"lo"])
SERVERS = st.integers(0, DEVICES)
"""One of them has no interface."""
STEPS = st.one_of(
    *[st.tuples(st.just("write"), SERVERS, FRAMES | ANY, st.integers(0, 30))] * 4,
    *[st.tuples(st.just("read"), SERVERS, st.sampled_from([0, 3, 12, 60, 70_000]))] * 2,
    st.tuples(st.just("reflect"), SERVERS),
    st.tuples(st.just("request"), SERVERS, st.sampled_from(REQUESTS),
              st.binary(max_size=40) | st.integers(0, 255).map(lambda n: struct.pack("<I", n))),
    st.tuples(st.just("number"), SERVERS, st.sampled_from(REQUESTS), st.integers(0, 1 << 32)),
    st.tuples(st.just("attach"), SERVERS, FLAGS | st.sampled_from(KINDS)),
    st.tuples(st.just("turn"), SERVERS, st.booleans()),
    st.tuples(st.just("reopen"), SERVERS),
    st.tuples(st.just("link"), SERVERS, st.sampled_from([16, 16, 16, 17, 19]), FLAGS,
              st.sampled_from([b"veth", b"dummy", b"tun"]), LINKS, LINKS, st.integers(0, 40)),
    *[st.tuples(st.just("send"), FRESH.map(lambda n: n + DEVICES + 1), NAMES, DATA, st.just(b""),
                st.just(0))] * 3,
    st.tuples(st.just("connect"), FRESH.map(lambda n: n + DEVICES + 1), NAMES),
)  # fmt: skip


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def request_for(name: bytes, flags: int) -> bytes:
    return struct.pack("<16sH22x", name, flags)


class Served(Sockets):
    """Sockets, and devices whose interfaces have the addresses that they send to."""

    def __enter__(self) -> Self:
        super().__enter__()
        first = self.first
        first.ok("mknod", b"/tun", S_IFCHR | 0o600, DEVICE)
        made = [self._open() for _ in range(DEVICES + 1)]
        stack = first.task.ns.net.stack
        for at, flags in enumerate(KINDS):
            request = request_for(b"t%d" % min(at, 2), flags)
            first.ok("ioctl", made[at], tun.TUNSETIFF, request)
        for at, interface in enumerate(each for each in stack.interfaces if each.driver):
            if interface.hardware:
                interface.hardware = hardware(1)
                interface.driver.changed()
            change_flags(stack, interface, IFF_UP, IFF_UP)
            one, two = bytes([10, 0, at, 1]), ip6(1)[:8] + bytes([at]) + ip6(1)[9:]
            for own in (Address(AF_INET, one, 24, 0), Address(AF_INET6, two, 64, 0)):
                interface.addresses.append(own)
                tell_address(stack, interface, own, 20)
        self.netlink = first.ok("socket", 16, 3, 0)
        self.here = first.ok("open", b"/proc/self/ns/net", 0, 0)
        first.ok("unshare", CLONE_NEWNET)
        away = first.ok("open", b"/proc/self/ns/net", 0, 0)
        first.ok("setns", self.here, 0)
        self.here = away
        fresh = [first.ok("socket", at, kind | SOCK_NONBLOCK, n) for at, kind, n in UNBOUND]
        self.fds[:0] = [*made, *fresh]
        self.program = first.fork()
        return self

    def _open(self) -> int:
        return self.first.ok("open", b"/tun", O_RDWR | O_NONBLOCK, 0)

    def _write(self, fd: int, frame: bytes, cut: int) -> None:
        """As it is, as a packet without a link header, and behind packet information."""
        for data in (frame, frame[:10] + frame[24:], b"\0\0" + frame[22:], frame[cut:]):
            self.call("write", fd, data, len(data))
        self.world.settle()

    def _read(self, fd: int, room: int) -> bytes:
        at = self.program.buffer(max(room, 1))
        got = self.call("read", fd, at, room)
        return self.program.read(at, got) if got and got > 0 else b""

    def _reflect(self, fd: int) -> None:
        """What has left comes back, from where it went."""
        for _ in range(4):
            data = self._read(fd, 70_000)
            self.call("write", fd, data, len(data))
            if len(data) > 30:
                turned = data[:22] + data[26:30] + data[22:26] + data[30:]
                self.call("write", fd, turned, len(turned))
        self.world.settle()

    def _request(self, fd: int, request: int, argument: bytes) -> None:
        self.call("ioctl", fd, request, argument + bytes(64))

    def _number(self, fd: int, request: int, argument: int) -> None:
        self.call("ioctl", fd, request, argument)

    def _attach(self, fd: int, flags: int) -> None:
        self.call("ioctl", fd, tun.TUNSETIFF, request_for(b"t%d" % (flags % 4), flags))

    def _turn(self, fd: int, up: bool) -> None:
        """Up or down, as SIOCSIFFLAGS does."""
        stack = self.first.task.ns.net.stack
        for interface in list(stack.interfaces):
            if interface.driver is not None:
                change_flags(stack, interface, IFF_UP if up else 0, IFF_UP)
        self.world.settle()

    def _link(
        self, fd: int, request: int, flags: int, kind: bytes, name: bytes, peer: bytes, cut: int
    ) -> None:
        """RTM_NEWLINK and its kin by a netlink socket; what stands last may be cut."""
        named = attribute(3, name) if name else b""
        other = attribute(1, bytes(16) + (attribute(3, peer) if peer else b""))
        data = attribute(1, kind) + attribute(2, other)
        body = struct.pack("<BxHiII", 0, 0, 0, flags & 1, 1) + named + attribute(18, data)
        body += attribute(19, struct.pack("<I", fd)) if flags & 2 else b""
        body += attribute(28, struct.pack("<I", self.here)) if flags & 4 else b""
        body = body[: len(body) - max(cut - 30, 0)]
        flags = 5 | (0x600 if flags & 8 else 0x400)
        message = struct.pack("<IHHII", 16 + len(body), request, flags, 0, 0) + body
        self.call("sendto", self.netlink, message, len(message), 0, 0, 0)
        self.world.settle()

    def _reopen(self, fd: int) -> None:
        """Closed, and another in its place."""
        at = self.fds.index(fd)
        for program in (self.program, self.first):
            program.call("close", fd)
        self.fds[at] = self._open()
        self.program = self.first.fork()


def check(steps: list[Step]) -> None:
    with Served() as served:
        served.run(steps)


@for_a_while()
def test_servers_of_interfaces_hurt_nobody(seconds: float) -> None:
    explore(seconds, check, steps=many(STEPS))


@kept("tun")
def test_what_was_found_is_mended(case: list[Step]) -> None:
    check(case)


def test_what_is_sent_is_read_and_an_answer_arrives() -> None:
    with Served() as served:
        sock = served.fds[DEVICES + 1]
        name = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", PORT, bytes([10, 0, 1, 2]))
        served.call("sendto", sock, b"hello", 5, 0, name, 16)
        frames = iter(lambda: served._read(served.fds[1], 70_000), b"")
        assert any(frame[10 + 28 :] == b"hello" for frame in frames)
