"""Two sandboxes behind a router: streams, names and connections for long, and nothing is left.

RUNSC_NETWORK_SOAK_SECONDS (1200) says how long. Other tests beside it come first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import rootfs_of
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.nameserver import PROGRAM as NAMESERVER
from tests.e2e.own_stack import TOLD, Inside, Outside, inside_of, ip, outside_of
from tests.full.test_soak import GROWS, YIELDING, differences, without

SECONDS = float(os.environ.get("RUNSC_NETWORK_SOAK_SECONDS", "1200"))
ROUND_S = 20
WAYS = (
    "object sentry.net.ip.seam.Path", "object sentry.net.rules.RouteKey",
    "object sentry.net.inet.udp_early.Known",
)  # fmt: skip
"""`IpLayer` keeps up to MAX_SOURCES ways that were found, and then begins anew; `KnownEnds` has up
to MOST."""
pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
    pytest.mark.timeout(SECONDS * 3 + 600),
]
OUTSIDE = NAMESERVER + """
def hello(listener):
    while True:
        with listener.accept()[0] as sock:
            sock.sendall(b"hello")
def begin():
    listener = socket.create_server(("0.0.0.0", 9000))
    threading.Thread(target=hello, args=(listener,), daemon=True).start()
for number in range(50):
    answers[f"n{number}.good.org"] = 0, ["10.9.0.1"], False
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""
INSIDE = TOLD + """
import ctypes, subprocess, threading, time
M_ARENA_MAX = -8
ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)  # else its threads have one more as it happens
server = None
def serve():
    "With the library that a thread of iperf3 loads when it ends while somebody cancels it: seldom."
    global server
    whole = {**os.environ, "LD_PRELOAD": "libgcc_s.so.1"}
    server = subprocess.Popen(["iperf3", "-s"], stdout=subprocess.DEVNULL, env=whole)
def stop():
    server.kill(); server.wait()
    return "stopped"
def streams(peer, flags, end, done):
    while time.monotonic() < end:
        command = ["iperf3", "-c", peer, "-t", "3", *flags]
        done["streams"] += subprocess.run(command, capture_output=True).returncode == 0
def names(end, done):
    while time.monotonic() < end:
        socket.getaddrinfo(f"n{done['names'] % 50}.good.org", 80)
        done["names"] += 1
def connections(router, end, done):
    "Who closes first keeps the port for a minute: here one of four, or there are none in the end."
    while time.monotonic() < end:
        with socket.create_connection((router, 9000), 60) as sock:
            assert sock.recv(5) == b"hello"
            assert done["connections"] % 4 == 0 or sock.recv(1) == b""
        done["connections"] += 1
def work(peer, router, flags, seconds):
    end, done = time.monotonic() + seconds, dict.fromkeys(("streams", "names", "connections"), 0)
    tasks = [threading.Thread(target=each, args=args) for each, args in (
        (streams, (peer, flags, end, done)), (names, (end, done)),
        (connections, (router, end, done)),
    )]
    for each in tasks: each.start()
    for each in tasks: each.join()
    return all(done.values())
def quiet():
    "No connection is in TIME_WAIT."
    while any(line.split()[3] == "06" for name in ("tcp", "tcp6")
              for line in open(f"/proc/net/{name}").readlines()[1:]):
        time.sleep(0.1)
def own():
    "Pages of memory of its own, of which malloc keeps now more, now less."
    with open("/proc/self/status") as status:
        rows = dict(line.split(":") for line in status.read().splitlines())
    return int(rows["RssAnon"].split()[0]) // 4
print("ready")
for line in sys.stdin:
    print(eval(line), flush=True)
"""


@pytest.fixture
def outside() -> Iterator[Outside]:
    with outside_of(OUTSIDE) as made:
        ip(made.pid, "link set lo up")
        yield made


@pytest.fixture
def pair(outside: Outside, tmp_path: Path) -> Iterator[list[Inside]]:
    """Two of them, 10.9.0.2 and 10.9.1.2; between them the host's kernel is a router."""
    with ExitStack() as stack:
        made = []
        for number in range(2):
            place = tmp_path / str(number)
            place.mkdir()
            made.append(stack.enter_context(inside_of(
                INSIDE, place, rootfs_of("network"), outside, "--network=sandbox",
                nameservers=[f"10.9.{number}.1"], number=number, before=YIELDING,
            )))  # fmt: skip
        assert outside.do("open('/proc/sys/net/ipv4/ip_forward', 'w').write('1')") == "1"
        assert outside.do("serve('10.9.0.1') or serve('10.9.1.1') or begin()") == "None"
        yield made


def _counts(inside: Inside) -> dict[str, int]:
    assert inside.do("quiet()") == "None"
    assert inside.do("own()").isdigit()  # the next time it needs nothing for that any more
    own = int(inside.do("own()"))
    found: dict[str, int] = json.loads(inside.client.ok("debug", "--counts", "c"))
    found["ram_frames"] -= own
    return without((*GROWS, *WAYS), found)


def _work(pair: list[Inside]) -> None:
    """Each has a server, and a client of the other's."""
    for each in pair:
        assert each.do("serve()") == "None"
    for number, (each, flags) in enumerate(zip(pair, ([], ["-R", "-P", "4"]), strict=True)):
        here, there = f"10.9.{number}.1", f"10.9.{1 - number}.2"
        each.say(f"work({there!r}, {here!r}, {flags}, {ROUND_S})")
    for each in pair:
        assert each.hear() == "True"
    for each in pair:
        assert each.do("stop()") == "stopped"


def test_after_streams_names_and_connections_nothing_is_left(pair: list[Inside]) -> None:
    _work(pair)
    before = [_counts(each) for each in pair]

    for _ in range(max(1, round(SECONDS / ROUND_S))):
        _work(pair)

    left = [differences(*each) for each in zip(before, map(_counts, pair), strict=True)]
    assert left == [{}, {}], json.dumps(left, indent=1)
