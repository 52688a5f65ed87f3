"""The host's own stack in a namespace, silenced: packet sockets see what it does not answer."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from runsc import host
from runsc.launch import packet_sockets, silence
from sentry.abi.socket import ETH_P_IP, IPPROTO_TCP
from sentry.net.host.protocol import FIRST_OF_HOST
from sentry.net.ip import ipv4
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.link import ethernet, vnet
from tests.e2e.bundle import REPOSITORY
from tests.namespaces import Namespace
from tests.patience import TIMEOUT_S

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
OURS, THEIRS = "10.9.0.2", "10.9.0.1"
SYN, RST, ACK = 2, 4, 16


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    """A veth: the container's end, and the other one."""
    ours, theirs = Namespace(), Namespace()
    peer = f"/proc/{os.getpid()}/fd/{theirs.fd}"
    ours.ip(f"link add eth0 type veth peer name eth0 netns {peer}")
    ours.ip(f"addr add {OURS}/24 dev eth0", "link set eth0 up", "link set lo up")
    theirs.ip(f"addr add {THEIRS}/24 dev eth0", "link set eth0 up", "link set lo up")
    yield ours, theirs
    for each in (ours, theirs):
        os.close(each.fd)


def connect(namespace: Namespace, port: int, timeout_s: float = TIMEOUT_S) -> str:
    """What becomes of a connection to the container's address."""

    def body() -> str:
        with socket.socket() as sock:
            sock.settimeout(timeout_s)
            try:
                sock.connect((OURS, port))
            except OSError as error:
                return type(error).__name__
            return "connected"

    return str(namespace.run(body))


def packet_socket(namespace: Namespace) -> socket.socket:
    """Bound to the end of a namespace."""

    def body() -> socket.socket:
        made, *others = packet_sockets.make()
        for each in others:
            each.close()
        host.bind(made.fileno(), packet_sockets.address_of(socket.if_nametoindex("eth0")))
        made.settimeout(TIMEOUT_S)
        return made

    made = namespace.run(body)
    assert isinstance(made, socket.socket)
    return made


def answer(sock: socket.socket, port: int, is_open: bool) -> None:
    """To a port's first SYN: as a stack would, with the checksum left to the link."""
    own = b""
    while True:
        frame = sock.recv(1 << 17)
        found = ethernet.parse(frame, vnet.SIZE)
        assert found is not None
        data = frame[found.start :]
        if found.ethertype != ETH_P_IP:
            continue
        own = found.target
        header = ipv4.parse(data)
        assert header is not None
        source, target, number = struct.unpack_from(">HHI", data, header.size)
        if target != port:  # sent again before the answer came
            continue
        flags = SYN | ACK if is_open else RST | ACK
        pseudo = pseudo_sum(header.target, header.source, IPPROTO_TCP, 20)
        reply = struct.pack(
            ">HHIIBBHHH", target, source, 7, number + 1, 0x50, flags, 65535, pseudo, 0
        )
        back = header._replace(source=header.target, target=header.source, size=20, total=40)
        offload = vnet.Offload(20, 36)
        head = vnet.build(offload, 14, IPPROTO_TCP, is_v4=True, header_size=40)
        sock.send(head + ethernet.build(found.source, own, 0x800) + ipv4.build(back) + reply)
        return


def test_open_and_closed_port_get_our_answer_alone(ends: tuple[Namespace, Namespace]) -> None:
    ours, theirs = ends
    theirs.ip(f"neigh replace {OURS} lladdr {ours.hardware()} dev eth0")
    listener = ours.run(lambda: socket.create_server((OURS, 80)))
    sock, silencer = packet_socket(ours), ours.run(silence.silence)
    watching = packet_socket(theirs)
    for port, expected in ((81, "ConnectionRefusedError"), (80, "connected")):
        thread = threading.Thread(target=answer, args=(sock, port, port == 80))
        thread.start()
        assert connect(theirs, port) == expected
        thread.join()
    watching.setblocking(False)
    flags = []
    while True:
        try:
            frame = watching.recv(1 << 17)
        except BlockingIOError:
            break
        if frame[22:24] == b"\x08\0":
            flags.append(frame[10 + 14 + 20 + 13])
    assert flags == [RST | ACK, SYN | ACK]
    silencer.close()
    assert connect(theirs, 80) == "connected"
    for each in (sock, watching, listener):
        each.close()


def test_silenced_host_answers_nothing_and_its_own_ports_go_on(
    ends: tuple[Namespace, Namespace],
) -> None:
    ours, theirs = ends
    theirs.ip(f"neigh replace {OURS} lladdr {ours.hardware()} dev eth0")
    silencer = ours.run(silence.silence)
    ours.run(silence.keep_ports)
    assert connect(theirs, 81, 0.3) == "TimeoutError"
    server = theirs.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("0.0.0.0", 0))
    server.settimeout(TIMEOUT_S)
    resolver = ours.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    resolver.settimeout(TIMEOUT_S)
    resolver.sendto(b"question", (THEIRS, server.getsockname()[1]))
    data, sender = server.recvfrom(100)
    assert data == b"question" and sender[1] >= FIRST_OF_HOST
    server.sendto(b"answer", sender)
    assert resolver.recv(100) == b"answer"
    inside = ours.run(lambda: socket.create_server(("127.0.0.1", 0)))
    port = inside.getsockname()[1]
    ours.run(lambda: socket.create_connection(("127.0.0.1", port), TIMEOUT_S)).close()
    for each in (silencer, server, resolver, inside):
        each.close()


def test_frames_of_the_hosts_ports_and_of_vlans_are_not_seen(
    ends: tuple[Namespace, Namespace],
) -> None:
    ours, theirs = ends
    silencer, sock, sender = ours.run(silence.silence), packet_socket(ours), packet_socket(theirs)
    hardware = bytes.fromhex(ours.hardware().replace(":", ""))
    link = ethernet.build(hardware, b"\x02" + bytes(5), 0x800)
    source, target = socket.inet_aton(THEIRS), socket.inet_aton(OURS)

    def datagram(port: int, between: bytes = b"") -> bytes:
        header = ipv4.Header(20, 29, 0, 0, 0, 64, 17, source, target)
        head = link[:12] + between + link[12:]
        return bytes(10) + head + ipv4.build(header) + struct.pack(">HHHH", 9, port, 9, 0) + b"x"

    for frame in (
        datagram(FIRST_OF_HOST), datagram(65535), datagram(7, b"\x81\0\0\x05"),
        bytes(10) + link[:12] + b"\x88\xcc" + bytes(46), datagram(FIRST_OF_HOST - 1),
    ):  # fmt: skip
        sender.send(frame)
    seen = [sock.recv(1 << 17)]
    while struct.unpack_from(">H", seen[-1], 10 + 14 + 22)[0] != FIRST_OF_HOST - 1:
        seen.append(sock.recv(1 << 17))
    assert not [each for each in seen if each[22:24] == b"\x08\0"][:-1]
    assert checksum(seen[-1][24:44]) == 0
    for each in (silencer, sock, sender):
        each.close()


def test_who_has_no_right_is_told_why() -> None:
    code = "from runsc.launch import silence; print(silence.why_not())"
    ask = [sys.executable, "-c", code]
    few = ["setpriv", "--bounding-set=-net_admin"]
    told = [
        subprocess.check_output(["unshare", "--net", *prefix, *ask], text=True, cwd=REPOSITORY)
        for prefix in ([], few)
    ]
    assert told == ["\n", "nftables of the host: operation not permitted\n"]
