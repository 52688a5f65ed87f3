"""/dev/net/tun as engines give it, in every kind of network; programs that manage interfaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, Document, kvm_is_usable
from tests.e2e.own_stack import inside_of, outside_of
from tests.e2e.test_own_stack import OUTSIDE

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="needs /dev/kvm"),
]
TUN = {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666}
SERVE = """
import errno, fcntl, os, select, socket, struct, sys
def make(name="", flags=0x1001):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    made = fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), flags))
    return fd, made[:16].rstrip(b"\\0").decode()
def change(name, request, value):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, request, struct.pack("16s24s", name.encode(), value))
def up(name, ip):
    for request, each in ((0x8916, ip), (0x891C, "255.255.255.0")):
        change(name, request, struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(each)))
    change(name, 0x8914, struct.pack("H", 0x1091))
def turn(packet):
    udp = packet[22:24] + packet[20:22] + packet[24:26] + bytes(2) + packet[28:]
    return packet[:12] + packet[16:20] + packet[12:16] + udp
def serve(ip):
    fd, name = make()
    up(name, ip)
    net = ip.rpartition(".")[0]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(60)
    sock.sendto(b"question", (net + ".9", 77))
    while True:
        packet = os.read(fd, 2000)
        if packet[0] == 0x45 and packet[9] == 17:
            break
    os.write(fd, turn(packet))
    return name, sock.recvfrom(20)
"""
LOOP = """
print("ready")
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""
TOLD = """\
tap7
2: tap7: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1400 qdisc noqueue qlen 1000\\\
    link/ether 02:00:00:00:00:07 brd ff:ff:ff:ff:ff:ff
2: tap7    inet 10.3.7.1/24 scope global tap7\\       valid_lft forever preferred_lft forever
10.3.7.0/24 dev tap7 scope link  src 10.3.7.1
10.4.0.0/16 via 10.3.7.9 dev tap7
0x1802
-1
1
0
down
lo
vpn
tap8
Set 'tap8' nonpersistent
lo
"""


def with_device(document: Document) -> None:
    document["linux"]["devices"] = [TUN]
    names = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]
    sets = ("bounding", "effective", "permitted")
    document["process"]["capabilities"] = dict.fromkeys(sets, names)


def test_program_serves_an_interface_of_its_container(tmp_path: Path, debian: Path) -> None:
    program = SERVE + "print(serve('10.3.0.1'), os.listdir('/sys/class/net'))"
    bundle = Bundle(tmp_path / "bundle", debian).args("python3", "-uc", program)
    bundle.configure(with_device)
    done = bundle.run(flags=["--network=none"])
    assert (done.stdout, done.stderr) == (
        "('tun0', (b'question', ('10.3.0.9', 77))) ['lo', 'tun0']\n", "",
    )  # fmt: skip


def test_without_the_capability_none_is_made(tmp_path: Path, debian: Path) -> None:
    program = SERVE + "\ntry: make()\nexcept OSError as error: print(errno.errorcode[error.errno])"
    bundle = Bundle(tmp_path / "bundle", debian).args("python3", "-uc", program)
    bundle.document["linux"]["devices"] = [TUN]
    done = bundle.run(flags=["--network=none"])
    assert (done.stdout, done.stderr) == ("EPERM\n", "")


def test_tools_make_show_and_delete_persistent_ones(tmp_path: Path, busybox: Path) -> None:
    script = """
tunctl -t tap7
ip addr add 10.3.7.1/24 dev tap7; ip link set tap7 address 02:00:00:00:00:07
ip link set tap7 mtu 1400; ip link set tap7 up; ip route add 10.4.0.0/16 via 10.3.7.9
ip -o link show dev tap7; ip -o -4 addr show dev tap7; ip route
cd /sys/class/net/tap7; cat tun_flags owner type carrier operstate
ip link set tap7 name vpn; ls /sys/class/net; ip link del vpn
tunctl -t tap8; tunctl -d tap8; ls /sys/class/net
"""
    bundle = Bundle(tmp_path / "bundle", busybox).args("sh", "-c", script).configure(with_device)
    done = bundle.run(flags=["--network=none"])
    assert (done.stdout.replace(" \n", "\n"), done.stderr) == (TOLD, "")


def test_with_sockets_of_the_host_only_namespaces_inside_have_some(
    tmp_path: Path, debian: Path
) -> None:
    program = SERVE + """
try: make()
except OSError as error: print(errno.errorcode[error.errno])
os.unshare(os.CLONE_NEWNET)
print(serve('10.3.0.1'))
"""
    bundle = Bundle(tmp_path / "bundle", debian).args("python3", "-uc", program)
    bundle.configure(with_device)
    done = bundle.run(flags=["--network=host"])
    assert (done.stdout, done.stderr) == (
        "EPERM\n('tun0', (b'question', ('10.3.0.9', 77)))\n", ""
    )  # fmt: skip


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_beside_an_interface_of_the_host_both_work(tmp_path: Path, debian: Path) -> None:
    program = SERVE + """
def away():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.sendto(b"x", ("10.9.0.1", 9))
    return sock.recvfrom(9)
def mtu(name):
    return change(name, 0x8922, struct.pack("i", 1200))
""" + LOOP
    with (
        outside_of(OUTSIDE) as outside,
        inside_of(
            program, tmp_path, debian, outside, "--network=sandbox", change=with_device
        ) as inside,
    ):
        assert inside.do("serve('10.3.0.1')") == "('tun0', (b'question', ('10.3.0.9', 77)))"
        inside.say("away()")
        assert outside.do("echo()") == "(1, '10.9.0.2')"
        assert inside.hear() == "(b'x', ('10.9.0.1', 9))"
        assert inside.do("mtu('eth0')") == "EPERM"
        assert inside.do("make('eth0')") == "EINVAL"
        assert inside.do("[each for _, each in socket.if_nameindex()]") == "['lo', 'eth0', 'tun0']"
        assert inside.do("serve('10.3.1.1')") == "('tun1', (b'question', ('10.3.1.9', 77)))"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_where_nothing_may_leave_one_still_works(tmp_path: Path, debian: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text('default = "deny"\n')
    flags = ("--network=sandbox", f"--egress={policy}")
    with (
        outside_of(OUTSIDE) as outside,
        inside_of(
            SERVE + LOOP, tmp_path, debian, outside, *flags, change=with_device
        ) as inside,
    ):
        assert inside.do("serve('10.3.0.1')") == "('tun0', (b'question', ('10.3.0.9', 77)))"
        assert inside.do("os.unshare(os.CLONE_NEWNET)") == "None"
        assert inside.do("serve('10.3.0.1')") == "('tun0', (b'question', ('10.3.0.9', 77)))"
