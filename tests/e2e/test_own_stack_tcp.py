"""TCP by a veth: programs of a container whose stack is the Sentry's, and the host's kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.e2e.own_stack import Inside, Outside, inside_of, ip, outside_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
PROGRAM = """
import errno, hashlib, random, select, socket, struct, sys, threading, time, traceback
def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET
def listen(address, port, backlog=64):
    made = socket.socket(family(address), socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen(backlog)
    return made
def connect(address, port, seconds=30):
    made = socket.socket(family(address), socket.SOCK_STREAM)
    made.settimeout(seconds)
    made.connect((address, port))
    return made
def attempt(address, port, seconds=30):
    try:
        connect(address, port, seconds)
    except OSError as error:
        return "timeout" if isinstance(error, TimeoutError) and not error.errno else (
            errno.errorcode[error.errno])
    return "connected"
def accept(listener):
    listener.settimeout(30)
    made, peer = listener.accept()
    made.settimeout(60)
    return made
def data_of(seed, size):
    return random.Random(seed).randbytes(size)
def receive_all(sock):
    digest, size = hashlib.sha256(), 0
    while got := sock.recv(1 << 18):
        digest.update(got)
        size += len(got)
    return size, digest.hexdigest()
def both_ways(sock, seed, size):
    sock.settimeout(120)
    def send():
        sock.sendall(data_of(seed, size))
        sock.shutdown(socket.SHUT_WR)
    thread = threading.Thread(target=send)
    thread.start()
    got = receive_all(sock)
    thread.join()
    sock.close()
    return got
def expected(seed, size):
    return size, hashlib.sha256(data_of(seed, size)).hexdigest()
def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
def told(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]
def rounds(address, port, many):
    for _ in range(many):
        with connect(address, port) as sock:
            assert sock.recv(1) == b""
    return many
def serve(listener, many):
    for _ in range(many):
        accept(listener).close()
    return many
def states(port):
    rows = [row.split() for row in open("/proc/net/tcp")][1:]
    return sorted(row[3] for row in rows if row[1].endswith(f":{port:04X}"))
def counter(protocol, name, table="netstat"):
    rows = [row.split() for row in open("/proc/net/" + table) if row.startswith(protocol + ":")]
    return dict(zip(*rows))[name]
def fill(sock):
    sock.setblocking(False)
    size = 0
    try:
        while True:
            size += sock.send(bytes(65536))
    except BlockingIOError:
        return size
def close_in(sock, seconds):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    began = time.monotonic()
    sock.close()
    return time.monotonic() - began
kept = None
print("ready", flush=True)
for line in sys.stdin:
    try:
        exec(line)
    except Exception:
        print(traceback.format_exc().replace("\\n", " | "), flush=True)
"""
FLOOD = """
import os, random, socket, struct, sys
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
def total(data):
    found = sum(struct.unpack(f">{len(data) // 2}H", data))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return ~found & 0xFFFF
for number in range(int(sys.argv[1])):
    # the answers go by the default route, and who gets them knows no such address
    ends = socket.inet_aton(f"192.0.2.{number % 250}") + socket.inet_aton("10.9.0.2")
    first = struct.pack(">BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0)
    head = struct.pack(">HHIIBBHHH", 1024 + number % 30000, 7, number, 0, 80, 2, 1000, 0, 0)
    sum_ = total(ends + struct.pack(">HH", 6, 20) + head)
    raw.sendto(first + ends + head[:16] + struct.pack(">H", sum_) + head[18:], ("10.9.0.2", 0))
"""


@pytest.fixture
def outside() -> Iterator[Outside]:
    with outside_of(PROGRAM) as made:
        yield made


@pytest.fixture
def inside(tmp_path: Path, debian: Path, outside: Outside) -> Iterator[Inside]:
    with inside_of(PROGRAM, tmp_path, debian, outside, "--network=sandbox") as made:
        yield made


def do(inside: Inside, line: str) -> str:
    return inside.do(f"print({line}, flush=True)")


def test_connections_go_both_ways_and_carry_every_byte(inside: Inside, outside: Outside) -> None:
    size = 20_000_000
    for ours, theirs in (("10.9.0.2", "10.9.0.1"), ("fd09:0::2", "fd09:0::1")):
        outside.do(f"bool(server := listen({theirs!r}, 9))")
        inside.say(f"print(both_ways(connect({theirs!r}, 9), 1, {size}), flush=True)")
        there = outside.do(f"both_ways(accept(server), 2, {size})")
        assert inside.hear() == outside.do(f"expected(2, {size})")
        assert there == outside.do(f"expected(1, {size})")
        inside.say(f"server = listen({ours!r}, 7)")
        assert do(inside, "server.getsockname()[1]") == "7"
        outside.begin(f"kept = connect({ours!r}, 7)")
        inside.say(f"print(both_ways(accept(server), 3, {size}), flush=True)")
        there = outside.do(f"both_ways(kept, 4, {size})")
        assert inside.hear() == outside.do(f"expected(4, {size})")
        assert there == outside.do(f"expected(3, {size})")
        inside.say("server.close()")


def test_every_byte_comes_through_where_queues_are_short_and_lose_packets(
    inside: Inside, outside: Outside
) -> None:
    for pid in (inside.pid, outside.pid):
        limit = "tc qdisc add dev eth0 root tbf rate 200mbit burst 20k limit 100k"
        subprocess.run(["nsenter", f"--target={pid}", "--net", *limit.split()], check=True)
    size = 10_000_000
    outside.do("bool(server := listen('10.9.0.1', 9))")
    inside.say(f"print(both_ways(connect('10.9.0.1', 9), 1, {size}), flush=True)")
    there = outside.do(f"both_ways(accept(server), 2, {size})")
    assert inside.hear() == outside.do(f"expected(2, {size})")
    assert there == outside.do(f"expected(1, {size})")
    assert int(do(inside, "counter('Tcp', 'RetransSegs', 'snmp')")) > 0


def test_half_close_refusal_and_reset_are_seen_on_both_sides(
    inside: Inside, outside: Outside
) -> None:
    assert do(inside, "attempt('10.9.0.1', 77)") == "ECONNREFUSED"
    assert outside.do("attempt('10.9.0.2', 77)") == "ECONNREFUSED"
    assert do(inside, "attempt('10.9.0.99', 77)") == "EHOSTUNREACH"
    outside.do("bool(server := listen('10.9.0.1', 9))")
    inside.say("kept = connect('10.9.0.1', 9)")
    inside.say("kept.shutdown(socket.SHUT_WR)")
    outside.begin("kept = accept(server)")
    assert outside.do("kept.recv(9)") == "b''"
    assert outside.do("kept.send(b'more')") == "4"
    assert do(inside, "kept.recv(9)") == "b'more'"
    assert do(inside, "told(lambda: kept.send(b'x'))") == "EPIPE"
    outside.begin("kept.close()")
    assert do(inside, "kept.recv(9)") == "b''"
    inside.say("kept = connect('10.9.0.1', 9)")
    outside.begin("kept = accept(server)")
    assert do(inside, "kept.getpeername()[1]") == "9"
    outside.begin("reset(kept)")
    assert do(inside, "told(lambda: kept.recv(9))") == "ECONNRESET"
    inside.say("kept = connect('10.9.0.1', 9)")
    outside.begin("kept = accept(server)")
    inside.say("reset(kept)")
    assert outside.do("told(lambda: kept.recv(9))") == "ECONNRESET"


def test_close_waits_for_what_is_under_way_and_no_longer_than_it_may(
    inside: Inside, outside: Outside
) -> None:
    outside.do("bool(server := listen('10.9.0.1', 9))")
    assert outside.do("server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)") == "None"
    inside.say("kept = connect('10.9.0.1', 9)")
    outside.begin("kept = accept(server)")
    size = int(do(inside, "fill(kept)"))
    assert 1 <= float(do(inside, "close_in(kept, 1)")) < 15
    assert outside.do("receive_all(kept)[0]") == str(size)
    inside.say("kept = connect('10.9.0.1', 9)")
    inside.say("kept.send(b'last')")
    inside.say("print(close_in(kept, 100), flush=True)")
    outside.begin("kept = accept(server)")
    assert outside.do("receive_all(kept)[0]") == "4"
    assert float(inside.hear()) < 50


def test_listener_is_reached_by_the_loopback_and_by_the_link(
    inside: Inside, outside: Outside
) -> None:
    inside.say("server = listen('0.0.0.0', 7)")
    inside.say("held = []")
    for address in ("127.0.0.1", "10.9.0.2"):
        inside.say(f"held.append(connect({address!r}, 7))")
        inside.say("held.append(accept(server))")
        assert do(inside, "held[-1].getpeername()[0]") == address
    outside.begin("kept = connect('10.9.0.2', 7)")
    inside.say("held.append(accept(server))")
    assert do(inside, "held[-1].getpeername()[0]") == "10.9.0.1"
    assert do(inside, "states(7)") == "['01', '01', '01', '0A']"
    assert outside.do("kept.getpeername()") == "('10.9.0.2', 7)"
    assert do(inside, "server.setsockopt(socket.SOL_SOCKET, 25, b'lo')") == "None"
    assert outside.do("attempt('10.9.0.2', 7)") == "ECONNREFUSED"


def test_many_short_connections_leave_nothing_but_their_time(
    inside: Inside, outside: Outside
) -> None:
    inside.say("server = listen('0.0.0.0', 7)")
    assert do(inside, "1") == "1"
    outside.begin("print(rounds('10.9.0.2', 7, 200), flush=True)")
    assert do(inside, "serve(server, 200)") == "200"
    assert outside.talker.hear() == "200"
    assert do(inside, "sorted(set(states(7)))") == "['06', '0A']"
    outside.do("bool(server := listen('10.9.0.1', 9))")
    inside.say("print(rounds('10.9.0.1', 9, 200), flush=True)")
    assert outside.do("serve(server, 200)") == "200"
    assert inside.hear() == "200"


def test_listener_under_a_flood_of_syns_is_reached(inside: Inside, outside: Outside) -> None:
    inside.say("server = listen('0.0.0.0', 7, 16)")
    assert do(inside, "1") == "1"
    flood = ["nsenter", f"--target={outside.pid}", "--net", "python3", "-c", FLOOD, "20000"]
    with subprocess.Popen(flood) as flooding:
        outside.begin("kept = connect('10.9.0.2', 7)")
        inside.say("far = accept(server)")
        assert do(inside, "far.getpeername()[0]") == "10.9.0.1"
        assert outside.do("kept.send(b'here')") == "4"
        assert do(inside, "far.recv(9)") == "b'here'"
        assert flooding.wait(120) == 0
    outside.begin("kept = connect('10.9.0.2', 7)")
    assert do(inside, "accept(server).getpeername()[0]") == "10.9.0.1"
    assert int(do(inside, "counter('TcpExt', 'SyncookiesSent')")) > 100


def test_stack_whose_link_goes_times_out_and_goes_on_when_it_is_back(
    inside: Inside, outside: Outside
) -> None:
    outside.do("bool(server := listen('10.9.0.1', 9))")
    inside.say("kept = connect('10.9.0.1', 9)")
    assert outside.do("(kept := accept(server)).getpeername()[0]") == "10.9.0.2"
    assert do(inside, "kept.getpeername()") == "('10.9.0.1', 9)"
    ip(inside.pid, "link set eth0 down")
    assert do(inside, "kept.send(b'later')") == "5"
    ip(inside.pid, "link set eth0 up")
    assert outside.do("kept.recv(9)") == "b'later'"
