"""What tools that look at a network say inside of a container, whose stack is the Sentry's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.conftest import rootfs_of
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.own_stack import Inside, Outside, inside_of, outside_of

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
    pytest.mark.timeout(300),
]
OUTSIDE = """
import socket, sys
listener = socket.create_server(("10.9.0.1", 9000))
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""
INSIDE = """
import os, socket, subprocess, sys, time
os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
def said(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout + done.stderr
def captured(flags, act):
    "What tcpdump shows of what is done once it listens."
    command, pipe = ["tcpdump", "-Z", "root", "-nn", "-l", *flags], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as dump:
        heard = ""
        while "listening on" not in heard:
            heard += dump.stderr.readline()
        act()
        return dump.stdout.read(), dump.stderr.read()
def ping():
    said("ping", "-c", "2", "-i", "0.1", "10.9.0.1")
def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(3):
            sock.sendto(b"hello", ("10.9.0.1", 7))
print("ready", flush=True)
for line in sys.stdin:
    print(repr(eval(line)), flush=True)
"""


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with outside_of(OUTSIDE) as made:
        yield made


@pytest.fixture(scope="module")
def inside(outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    place = tmp_path_factory.mktemp("tools")
    with inside_of(INSIDE, place, rootfs_of("network"), outside) as made:
        yield made


def _numbers(text: str, pattern: str) -> list[int]:
    return [int(each) for each in re.findall(pattern, text)]


@pytest.mark.parametrize("flags", [[], ["--immediate-mode"], ["-p", "-s", "64"]])
def test_tcpdump_shows_packets_of_both_ways(inside: Inside, flags: list[str]) -> None:
    shown, told = eval(inside.do(f"captured({['-i', 'eth0', '-c', '4', *flags, 'icmp']}, ping)"))
    lines = re.findall(r"IP (\S+) > (\S+): ICMP (echo \w+), id \d+, seq (\d)", shown)
    there, back = ("10.9.0.2", "10.9.0.1"), ("10.9.0.1", "10.9.0.2")
    assert lines == [
        (*way, kind, number)
        for number in "12" for way, kind in ((there, "echo request"), (back, "echo reply"))
    ]  # fmt: skip
    assert "4 packets captured" in told and "0 packets dropped by kernel" in told


def test_tcpdump_of_all_interfaces_shows_cooked_packets(inside: Inside) -> None:
    command = ["-i", "any", "-c", "3", "udp", "port", "7"]
    shown, told = eval(inside.do(f"captured({command}, datagrams)"))
    assert len(re.findall(r"eth0\s+Out IP 10\.9\.0\.2\.\d+ > 10\.9\.0\.1\.7: UDP", shown)) == 3
    assert "3 packets captured" in told


def test_ethtool_says_what_is_left_to_the_other_end(inside: Inside) -> None:
    shown = eval(inside.do("said('ethtool', '-k', 'eth0')"))
    for line in (
        "rx-checksumming: on", "tx-checksumming: on", "scatter-gather: on",
        "tcp-segmentation-offload: on", "generic-segmentation-offload: on",
        "generic-receive-offload: on", "large-receive-offload: off", "rx-vlan-offload: off",
    ):  # fmt: skip
        assert line in shown, shown
    assert "Link detected: yes" in eval(inside.do("said('ethtool', 'eth0')"))


def test_connection_is_in_what_ss_and_netstat_show(inside: Inside, outside: Outside) -> None:
    inside.do("globals().update(conn=socket.create_connection(('10.9.0.1', 9000)))")
    outside.begin("peer, _ = listener.accept()")
    inside.do("conn.sendall(b'x' * 100_000)")
    assert outside.do("len(peer.recv(100_000, socket.MSG_WAITALL))") == "100000"
    while "bytes_acked:100001" not in (shown := eval(inside.do("said('ss', '-tin')"))):
        pass
    assert re.search(r"ESTAB +0 +0 +10\.9\.0\.2:\d+ +10\.9\.0\.1:9000", shown), shown
    assert "cubic" in shown
    (last_ms,) = _numbers(shown, r"lastrcv:(\d+)")
    assert last_ms < 200_000  # of this connection, not since the host has begun
    shown = eval(inside.do("said('netstat', '-tn')"))
    assert re.search(r"tcp +0 +0 10\.9\.0\.2:\d+ +10\.9\.0\.1:9000 +ESTABLISHED", shown), shown
    inside.do("conn.close()")
    outside.begin("peer.close()")


def test_counters_count_what_was_done(inside: Inside) -> None:
    names = "IcmpOutEchos|IcmpInEchoReps|UdpOutDatagrams|IpOutRequests|IpExtOutOctets"

    def counted() -> dict[str, int]:
        shown = eval(inside.do("said('nstat', '-asz')"))
        return {name: int(value) for name, value in re.findall(rf"({names}) +(\d+)", shown)}

    before = counted()
    inside.do("ping()")
    inside.do("datagrams()")
    after = counted()
    more = {name: after[name] - before[name] for name in after}
    assert more == {
        "IcmpOutEchos": 2, "IcmpInEchoReps": 2, "UdpOutDatagrams": 3, "IpOutRequests": 5,
        "IpExtOutOctets": 2 * 84 + 3 * 33,
    }  # fmt: skip
    shown = eval(inside.do("said('netstat', '-s')"))
    assert _numbers(shown, r"echo requests?: (\d+)") and _numbers(shown, r"echo replies: (\d+)")
