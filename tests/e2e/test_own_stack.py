"""A stack of its own behind a veth: what is outside reaches programs through the Sentry alone."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.e2e.own_stack import Inside, Outside, inside_of, ip, outside_of, plug

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
INSIDE = """
import errno, os, socket, struct, sys
def server(family, address, port):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, port))
    return sock
v4 = server(socket.AF_INET, "0.0.0.0", 7)
v6 = server(socket.AF_INET6, "::", 8)
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def echo(sock):
    data, sender = sock.recvfrom(70000)
    sock.sendto(data, sender)
    return len(data), sender[0]
def ask(address, port, size):
    asking.sendto(bytes(size), (address, port))
    data, sender = asking.recvfrom(70000)
    return len(data), sender
def refused(address, port, told):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, 11, told)  # IP_RECVERR
    try:
        sock.connect((address, port))
        sock.send(b"x")
        sock.settimeout(60)
        sock.recv(1)
    except OSError as error:
        return errno.errorcode[error.errno]
def ping(address):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    sock.settimeout(60)
    sock.sendto(b"\\x08\\0\\0\\0\\0\\0\\0\\1" + b"p" * 3000, (address, 0))
    return len(sock.recv(4000))
def connect_until_there_is_no_way(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while True:
            sock.connect((address, 9))
def mtu(address):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((address, 9))
    return sock.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU
def join(address):
    mreq = struct.pack("4s4si", socket.inet_aton(address), bytes(4), socket.if_nametoindex("eth0"))
    v4.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreq)
    index = struct.pack("i", socket.if_nametoindex("eth0"))
    mreq6 = socket.inet_pton(socket.AF_INET6, "ff02::77") + index
    v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, mreq6)
    return v4.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
def got(sock):
    data, sender = sock.recvfrom(9)
    return data, sender[0]
def tell(address, port):
    return v4.sendto(b"x", (address, port)), got(v4) if address == "239.1.2.3" else None
def listen():
    global tap
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind(("eth0", 3))
def heard(port):
    seen = []
    tap.settimeout(60)
    while len(seen) < 2:
        frame, (name, kind, sort, _, hardware) = tap.recvfrom(70000)
        is_udp = frame[12:14] == b"\\x08\\0" and frame[23] == 17
        if is_udp and port in struct.unpack(">HH", frame[34:38]):
            seen.append((name, sort, frame[6:12] == hardware))
    return seen
def who_has(address):
    own = tap.getsockname()[4]
    mine, theirs = map(socket.inet_aton, ("10.9.0.2", address))
    packet = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + own + mine + bytes(6) + theirs
    tap.send(b"\\xff" * 6 + own + b"\\x08\\x06" + packet)
    while True:
        frame = tap.recv(100)
        if frame[12:14] == b"\\x08\\x06" and frame[20:22] == b"\\0\\2":
            return socket.inet_ntoa(frame[28:32]), frame[6:12].hex(":")
def here():
    asking.sendto(b"x", ("10.9.0.2", 7))
    return echo(v4), asking.recvfrom(9)
print("ready")
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""
OUTSIDE = """
import os, socket, struct, sys
def udp(family, address, port, size, segment=0):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_UDP, 103, segment)  # UDP_SEGMENT
    sock.settimeout(60)
    sock.sendto(bytes(size), (address, port))
    return sock
def got(sock):
    data, sender = sock.recvfrom(70000)
    return len(data), sender[:2]
def ping(address, size):
    family, proto, kind = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128) if ":" in address
        else (socket.AF_INET, socket.IPPROTO_ICMP, 8)
    )
    sock = socket.socket(family, socket.SOCK_DGRAM, proto)
    sock.settimeout(60)
    sock.sendto(bytes([kind, 0, 0, 0, 0, 0, 0, 1]) + b"p" * size, (address, 0))
    return len(sock.recv(70000)) - 8
def refused(address, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(60)
    sock.connect((address, port))
    sock.send(b"x")
    try:
        sock.recv(1)
    except ConnectionRefusedError:
        return "refused"
def join(address):
    index = socket.if_nametoindex("eth0")
    mreq = struct.pack("4s4si", socket.inet_aton(address), bytes(4), index)
    server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreq)
def tell(family, address, port):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    if address[0] == "f":
        return sock.sendto(b"y", (address, port, 0, socket.if_nametoindex("eth0")))
    return sock.sendto(b"y", (address, port))
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 9))
server.settimeout(60)
def echo():
    data, sender = server.recvfrom(70000)
    server.sendto(data, sender)
    return len(data), sender[0]
open("/proc/sys/net/ipv4/ping_group_range", "w").write("0 0")
kept = None
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""


@pytest.fixture
def outside() -> Iterator[Outside]:
    with outside_of(OUTSIDE) as made:
        yield made


@pytest.fixture
def inside(tmp_path: Path, debian: Path, outside: Outside) -> Iterator[Inside]:
    with inside_of(INSIDE, tmp_path, debian, outside, "--network=sandbox") as made:
        yield made


def test_ping_and_datagrams_of_all_sizes_go_both_ways(inside: Inside, outside: Outside) -> None:
    assert outside.do("ping('10.9.0.2', 56)") == "56"
    assert outside.do("ping('fd09:0::2', 56)") == "56"
    assert outside.do("ping('10.9.0.2', 60000)") == "60000"
    assert outside.do("ping('fd09:0::2', 60000)") == "60000"
    for size in (0, 1, 1472, 1473, 60000):
        outside.begin(f"kept = udp(socket.AF_INET, '10.9.0.2', 7, {size})")
        inside.say("echo(v4)")
        assert inside.hear() == f"({size}, '10.9.0.1')"
        assert outside.do("got(kept)") == f"({size}, ('10.9.0.2', 7))"
        outside.begin(f"kept = udp(socket.AF_INET6, 'fd09:0::2', 8, {size})")
        inside.say("echo(v6)")
        assert inside.hear() == f"({size}, 'fd09::1')"
        assert outside.do("got(kept)") == f"({size}, ('fd09::2', 8))"
        inside.say(f"ask('10.9.0.1', 9, {size})")
        assert outside.do("echo()") == f"({size}, '10.9.0.2')"
        assert inside.hear() == f"({size}, ('10.9.0.1', 9))"
    outside.begin("kept = udp(socket.AF_INET, '10.9.0.2', 7, 2500, 1000)")
    assert [inside.do("echo(v4)") for _ in range(3)] == [
        f"({size}, '10.9.0.1')" for size in (1000, 1000, 500)
    ]
    assert inside.do("ping('10.9.0.1')") == "3008"
    inside.say("here()")
    assert inside.hear() == "((1, '10.9.0.2'), (b'x', ('10.9.0.2', 7)))"


def test_port_that_nobody_has_is_refused_both_ways(inside: Inside, outside: Outside) -> None:
    assert outside.do("refused('10.9.0.2', 77)") == "refused"
    inside.say("refused('10.9.0.1', 77, 0)")
    assert inside.hear() == "ECONNREFUSED"
    inside.say("refused('10.9.0.77', 77, 1)")
    assert inside.hear() == "EHOSTUNREACH"


def test_groups_are_reached_both_ways(inside: Inside, outside: Outside) -> None:
    assert inside.do("join('239.1.2.3')") == outside.do("join('239.1.2.4')") == "None"
    for address in ("239.1.2.3", "10.9.0.255", "255.255.255.255"):
        assert outside.do(f"tell(socket.AF_INET, {address!r}, 7)") == "1"
        assert inside.do("got(v4)") == "(b'y', '10.9.0.1')"
    assert outside.do("tell(socket.AF_INET6, 'ff02::77', 8)") == "1"
    assert inside.do("got(v6)")[:6] == "(b'y',"
    assert inside.do("tell('239.1.2.3', 7)") == "(1, (b'x', '10.9.0.2'))"
    for address in ("239.1.2.4", "10.9.0.255", "255.255.255.255"):
        assert inside.do(f"tell({address!r}, 9)") == "(1, None)"
        assert outside.do("echo()") == "(1, '10.9.0.2')"
        assert inside.do("got(v4)") == "(b'x', '10.9.0.1')"


def test_packet_socket_sees_and_sends_frames_of_the_link(inside: Inside, outside: Outside) -> None:
    assert inside.do("listen()") == "None"
    outside.begin("kept = udp(socket.AF_INET, '10.9.0.2', 7, 5)")
    assert inside.do("echo(v4)") == "(5, '10.9.0.1')"
    assert inside.do("heard(7)") == "[('eth0', 0, True), ('eth0', 4, True)]"
    shown = subprocess.check_output(
        ["nsenter", f"--target={outside.pid}", "--net", "ip", "-o", "link", "show", "eth0"],
        text=True,
    )
    own = shown.split("link/ether ")[1].split()[0]
    assert inside.do("who_has('10.9.0.1')") == f"('10.9.0.1', '{own}')"


def test_stack_without_its_network_process_is_off_the_link(inside: Inside) -> None:
    (network,) = (
        int(each.name) for each in Path("/proc").iterdir()
        if each.name.isdigit() and _is_network_process(each, inside.pid)
    )  # fmt: skip
    ended = os.pidfd_open(network)
    os.kill(network, signal.SIGKILL)
    assert select.select([ended], [], [], 20)[0]
    os.close(ended)
    assert inside.do("connect_until_there_is_no_way('10.9.0.1')") == "ENETUNREACH"
    assert inside.do("here()") == "((1, '10.9.0.2'), (b'x', ('10.9.0.2', 7)))"


def _is_network_process(process: Path, holder: int) -> bool:
    """The one in the namespace of this test."""
    try:
        title = (process / "cmdline").read_bytes()
        namespaces = {os.readlink(each / "ns/net") for each in (process, Path(f"/proc/{holder}"))}
    except OSError:
        return False
    return title.startswith(b"runsc-network") and len(namespaces) == 1


def test_interfaces_addresses_and_mtu_are_followed_while_it_runs(
    inside: Inside, outside: Outside
) -> None:
    names = "[name for _, name in socket.if_nameindex()]"
    ip(inside.pid, "addr add 10.9.0.22/24 dev eth0", "link set eth0 mtu 1300")
    assert inside.do(names) == "['lo', 'eth0']"
    assert outside.do("ping('10.9.0.22', 56)") == "56"
    assert inside.do("mtu('10.9.0.1')") == "1300"
    plug(inside.pid, outside.pid, 1)
    assert inside.do(names) == "['lo', 'eth0', 'eth1']"
    assert outside.do("ping('10.9.1.2', 2000)") == "2000"
    assert outside.do("ping('fd09:1::2', 2000)") == "2000"
    ip(inside.pid, "link del eth0")
    assert inside.do(names) == "['lo', 'eth1']"
    assert inside.do("ask('10.9.0.1', 9, 1)") == "ENETUNREACH"
    ip(inside.pid, "route add default via 10.9.1.1")
    inside.do(names)
    inside.say("ask('10.9.1.1', 9, 5)")
    assert outside.do("echo()") == "(5, '10.9.1.2')"
    assert inside.hear() == "(5, ('10.9.1.1', 9))"
