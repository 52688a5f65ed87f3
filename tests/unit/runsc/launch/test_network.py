"""The network process and a Sentry that has been taken over."""

from __future__ import annotations

import array
import errno
import os
import random
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from runsc import host
from runsc.launch import packet_sockets
from runsc.launch.network import Watch, open_netlink, serve
from sentry.abi import netlink as abi
from sentry.abi.sched import CLONE_NEWNET
from sentry.net.host import protocol
from sentry.net.host.interfaces import messages
from tests.patience import TIMEOUT_S

MPTCP = 262
"""Which the host may have, but is no business of ours."""


class Peer:
    """Requests to `serve`, which runs on a thread."""

    def __init__(
        self, kind: type[socket.socket] = socket.socket, pool: list[socket.socket] | None = None,
        *, names_only: bool = False,
    ) -> None:  # fmt: skip
        self.sock, plain = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs = kind(fileno=plain.detach())
        self.sock.settimeout(TIMEOUT_S)
        self.netlink, self.watch = open_netlink(), Watch()
        self._theirs = theirs
        self._thread = threading.Thread(
            target=serve, args=(theirs, self.netlink, self.watch, pool or []),
            kwargs={"names_only": names_only},
        )  # fmt: skip
        self._thread.start()

    def ask(self, request: bytes, *fds: int) -> tuple[int, bytes, list[int]]:
        """errno, what follows it, and descriptors."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([request], rights)
        body, made, more = b"", [], 1
        while more:
            data, some, _, _ = socket.recv_fds(self.sock, protocol.MAX_PACKET, 4)
            error, more, self.changes = protocol.REPLY.unpack_from(data)
            assert error >= 0
            body, made = body + data[protocol.REPLY.size :], made + some
        return error, body, made

    def notice(self) -> int:
        """What comes without a request."""
        error, _, _ = protocol.REPLY.unpack(self.sock.recv(protocol.MAX_PACKET))
        return int(error)

    def close(self) -> None:
        self.sock.close()
        self._thread.join()
        for sock in (self._theirs, self.netlink, self.watch.sock):
            sock.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


@pytest.fixture
def own_network() -> Iterator[None]:
    """A network namespace of this thread, and of those that it makes."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    host.unshare(CLONE_NEWNET)
    yield
    host.setns(before, CLONE_NEWNET)
    os.close(before)


def request(operation: int, a: int = 0, b: int = 0, c: int = 0) -> bytes:
    return protocol.HEADER.pack(operation, a, b, c)


def kinds(data: bytes) -> set[int]:
    """Types of netlink messages."""
    return {kind for kind, _ in messages([data])}


def still_serves(peer: Peer) -> bool:
    error, _, made = peer.ask(request(protocol.SOCKET, socket.AF_INET, socket.SOCK_STREAM))
    for fd in made:
        os.close(fd)
    return error == 0 and len(made) == 1


def open_descriptors(peer: Peer) -> int:
    """Of this process, whose thread serves: what it gave is closed when it answers again."""
    assert peer.ask(request(protocol.LIST, -1))[0] == 0
    return len(os.listdir("/proc/self/fd"))


def test_socket_is_made_and_interfaces_are_listed(peer: Peer) -> None:
    assert still_serves(peer)
    error, data, _ = peer.ask(request(protocol.LIST, -1))
    assert error == 0
    assert b"lo\0" in data
    assert {abi.RTM_NEWLINK, abi.RTM_NEWADDR, abi.RTM_NEWROUTE} <= kinds(data)


class Crowded(socket.socket):
    """Of a user whose sockets hold too many descriptors: unix(7), ETOOMANYREFS."""

    def sendmsg(self, data: Any, rights: Any = (), *rest: Any) -> int:
        if rights:
            raise OSError(errno.ETOOMANYREFS, "too many references")
        return super().sendmsg(data, rights, *rest)


def test_packet_socket_is_bound_to_the_interface_that_is_asked_for(own_network: None) -> None:
    names = [f"eth{number}" for number in range(packet_sockets.COUNT + 2)]
    for name, other in zip(names[::2], names[1::2], strict=True):
        add = ["ip", "link", "add", name, "type", "veth", "peer", "name", other]
        subprocess.run(add, check=True)
    indexes = [socket.if_nametoindex(name) for name in names]
    pool = packet_sockets.make()
    peer = Peer(pool=pool)
    assert peer.ask(request(protocol.UPLINK, 1))[0] == errno.EINVAL
    assert peer.ask(request(protocol.UPLINK, 77777))[0] == errno.ENODEV
    *most, last, more = zip(names, indexes, strict=True)
    for name, index in (*most, *most):
        error, _, (fd,) = peer.ask(request(protocol.UPLINK, index))
        with socket.socket(fileno=fd) as sock:
            assert not error and sock.getsockname()[0] == name
    assert len(most) == packet_sockets.COUNT
    for _, index in (last, more):
        assert peer.ask(request(protocol.UPLINK, index))[0] == errno.EMFILE
    for index in (indexes[0], indexes[0], 77777):
        assert peer.ask(request(protocol.GIVE_BACK, index)) == (0, b"", [])
    error, _, (fd,) = peer.ask(request(protocol.UPLINK, last[1]))
    os.close(fd)
    assert not error
    before = open_descriptors(peer)
    assert still_serves(peer) and open_descriptors(peer) == before
    assert peer.ask(request(protocol.UPLINK, more[1]))[0] == errno.EMFILE
    peer.close()
    for each in pool:
        each.close()


def test_packet_socket_has_nothing_of_the_interface_that_had_it_before(own_network: None) -> None:
    for names in (("eth0", "eth1"), ("eth2", "eth3")):
        add = ["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]]
        subprocess.run(add, check=True)
        for name in names:
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
    (only, *others) = packet_sockets.make()
    pool = packet_sockets.Pool([only])
    index = socket.if_nametoindex("eth0")
    pool.lend(index)
    with pytest.raises(OSError, match="no packet socket"):
        pool.lend(socket.if_nametoindex("eth2"))
    frame = b"\xff" * 6 + bytes(6) + b"\x08\0" + b"\x45" + bytes(40)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as other:
        other.bind(("eth1", 0))
        for _ in range(3):
            other.send(frame)
        subprocess.run(["ip", "link", "del", "eth0"], check=True)
    pool.give_back(index)
    pool.lend(socket.if_nametoindex("eth2"))
    seen = []
    with pytest.raises(BlockingIOError):
        while True:
            seen.append(only.recv(100, socket.MSG_DONTWAIT))
    assert frame not in [each[10:] for each in seen]
    for each in (only, *others):
        each.close()


def address4(ip: str, port: int) -> bytes:
    return struct.pack("<H", socket.AF_INET) + struct.pack(">H4s8x", port, socket.inet_aton(ip))


def test_socket_to_a_nameserver_is_connected_and_to_no_other_port(own_network: None) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    pool = packet_sockets.make()
    peer, other = Peer(pool=pool), Peer()
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        asked = request(protocol.NAMESERVER, socket.AF_INET, kind)
        assert peer.ask(asked + address4("127.0.0.11", 54)) == (errno.EACCES, b"", [])
        assert peer.ask(asked + address4("127.0.0.11", 53)[:4])[0] == errno.EINVAL
        assert other.ask(asked + address4("127.0.0.11", 53))[0] == errno.EINVAL
        asked6 = request(protocol.NAMESERVER, socket.AF_INET6, kind)
        assert peer.ask(asked6 + address4("127.0.0.11", 53))[0] == errno.EINVAL
    asked = request(protocol.NAMESERVER, socket.AF_INET, socket.SOCK_DGRAM)
    error, _, (fd,) = peer.ask(asked + address4("127.0.0.11", 53))
    with socket.socket(fileno=fd) as sock:
        assert not error and sock.getpeername() == ("127.0.0.11", 53)
        assert not os.get_blocking(fd)
    unix = request(protocol.NAMESERVER, socket.AF_UNIX, socket.SOCK_STREAM)
    assert peer.ask(unix + address4("127.0.0.11", 53))[0] == errno.EPROTONOSUPPORT
    peer.close()
    other.close()
    for each in pool:
        each.close()


def address6(ip: str, port: int) -> bytes:
    packed = socket.inet_pton(socket.AF_INET6, ip)
    return struct.pack("<H", socket.AF_INET6) + struct.pack(">H4x16s4x", port, packed)


def test_connection_to_a_port_that_a_program_has_is_handed_over(own_network: None) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    pool = packet_sockets.make()
    peer, other = Peer(pool=pool), Peer()
    asked = request(protocol.LISTEN, 7) + address4("127.0.0.1", 8080)
    assert other.ask(asked)[0] == other.ask(request(protocol.CLOSE, 7))[0] == errno.EINVAL
    assert peer.ask(asked) == (0, b"", [])
    assert peer.ask(asked)[0] == errno.EMFILE
    assert peer.ask(request(protocol.LISTEN, 8) + address4("127.0.0.1", 8080))[0]
    assert peer.ask(request(protocol.LISTEN, 9) + asked[:3])[0] == errno.EAFNOSUPPORT
    assert peer.ask(request(protocol.LISTEN, 9, 1) + address6("::", 8080)) == (0, b"", [])
    for ip, number in (("127.0.0.1", 7), ("::1", 9)):
        with socket.create_connection((ip, 8080)) as sock:
            data, (fd,), _, _ = socket.recv_fds(peer.sock, protocol.MAX_PACKET, 4)
            assert protocol.REPLY.unpack(data)[:2] == (protocol.CAME, number)
            with socket.socket(fileno=fd) as made:
                assert made.getpeername() == sock.getsockname()
    for number in (7, 7, 9):
        assert peer.ask(request(protocol.CLOSE, number)) == (0, b"", [])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 8080))
    for number in range(protocol.MAX_LISTENING):
        asked = request(protocol.LISTEN, number + 1) + address4("127.0.0.1", 9000 + number)
        assert not peer.ask(asked)[0]
    assert peer.ask(request(protocol.LISTEN, 9999) + address4("127.0.0.1", 80))[0] == errno.EMFILE
    peer.close()
    other.close()
    for each in pool:
        each.close()


def test_where_names_alone_are_asked_nothing_else_is_answered() -> None:
    """It is in the caller's own network namespace."""
    peer = Peer(names_only=True)
    with socket.socket() as sock:
        for asked, fds in (
            (request(protocol.LIST, -1), ()),
            (request(protocol.SOCKET, socket.AF_INET, socket.SOCK_STREAM), ()),
            (request(protocol.BIND) + address4("127.0.0.1", 80), (sock.fileno(),)),
            (request(protocol.UPLINK, 2), ()),
            (request(protocol.LISTEN, 2) + address4("127.0.0.1", 8080), ()),
            (b"x", ()),
        ):
            assert peer.ask(asked, *fds) == (errno.EACCES, b"", [])
    asked = request(protocol.NAMESERVER, socket.AF_INET, socket.SOCK_DGRAM)
    assert peer.ask(asked + address4("127.0.0.1", 54))[0] == errno.EACCES
    error, _, (fd,) = peer.ask(asked + address4("127.0.0.53", 53))
    with socket.socket(fileno=fd) as made:
        assert not error and made.getpeername() == ("127.0.0.53", 53)
    peer.close()


def test_socket_that_cannot_be_handed_over_is_enfile() -> None:
    peer = Peer(Crowded)
    before = open_descriptors(peer)

    answer = peer.ask(request(protocol.SOCKET, socket.AF_INET, socket.SOCK_STREAM))
    error, data, _ = peer.ask(request(protocol.LIST, -1))

    assert answer == (errno.ENFILE, b"", [])
    assert not error and data
    assert open_descriptors(peer) == before
    peer.close()


def test_list_without_a_change_has_the_interfaces_alone(peer: Peer) -> None:
    peer.ask(request(protocol.LIST, -1))
    _, data, _ = peer.ask(request(protocol.LIST, peer.changes))

    assert kinds(data) == {abi.RTM_NEWLINK, abi.NLMSG_DONE}


def test_change_is_told_once_after_a_list(own_network: None, peer: Peer) -> None:
    peer.ask(request(protocol.LIST, -1))
    before = peer.changes
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    assert peer.notice() == protocol.CHANGED
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1500"], check=True)

    error, data, _ = peer.ask(request(protocol.LIST, before))

    assert error == 0
    assert peer.changes > before
    assert abi.RTM_NEWADDR in kinds(data)


def test_notices_that_were_lost_are_a_change(own_network: None) -> None:
    watch = Watch()
    watch.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for mtu in range(1000, 1100):
        subprocess.run(["ip", "link", "set", "lo", "mtu", str(mtu)], check=True)

    watch.look()

    assert 0 < watch.changes < 100
    watch.sock.close()


@pytest.mark.parametrize(
    "wrong",
    [
        b"x",
        request(99),
        request(protocol.SOCKET, socket.AF_PACKET, socket.SOCK_RAW),
        request(protocol.SOCKET, socket.AF_INET, socket.SOCK_RAW, 1),
        request(protocol.SOCKET, socket.AF_INET, socket.SOCK_STREAM, -(1 << 31)),
        request(protocol.SOCKET, socket.AF_INET, socket.SOCK_STREAM, MPTCP),
        request(protocol.SOCKET, socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
        request(protocol.SOCKET, socket.AF_UNIX, socket.SOCK_STREAM),
        request(protocol.BIND),
    ],
)
def test_request_that_is_none_is_an_error(peer: Peer, wrong: bytes) -> None:
    error, _, made = peer.ask(wrong)

    assert error in (errno.EINVAL, errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT)
    assert made == []
    assert still_serves(peer)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 7, 12, 23, 28, 128])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_address_of_any_bytes_is_answered(peer: Peer, family: int, size: int, byte: bytes) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        address = (int(family).to_bytes(2, "little") + byte * 128)[:size]
        peer.ask(request(protocol.BIND) + address, sock.fileno())

    assert still_serves(peer)


def test_descriptors_that_come_along_do_not_stay(peer: Peer) -> None:
    before = open_descriptors(peer)
    with socket.socket(socket.AF_INET) as sock:
        for count in (1, 2, 3, 100):
            peer.ask(request(protocol.LIST, -1), *[sock.fileno()] * count)
        peer.ask(request(protocol.BIND) + bytes(16), sock.fileno(), sock.fileno())
        reader, writer = os.pipe()
        assert peer.ask(request(protocol.BIND) + bytes(16), reader)[0] == errno.ENOTSOCK
        os.close(reader)
        os.close(writer)

    assert open_descriptors(peer) == before
    assert still_serves(peer)


def test_random_requests_are_answered(peer: Peer) -> None:
    chance = random.Random(15)
    before = open_descriptors(peer)
    for _ in range(2000):
        words = [chance.choice((0, 1, 2, 3, 10, 16, 18, 22, 26, -1, 1 << 30)) for _ in range(4)]
        data = protocol.HEADER.pack(*words) + chance.randbytes(chance.randrange(40))
        _, _, made = peer.ask(data[: chance.randrange(1, len(data) + 1)])
        for fd in made:
            os.close(fd)
    peer.ask(b"x")  # what it made before is closed

    assert open_descriptors(peer) == before
    assert still_serves(peer)
