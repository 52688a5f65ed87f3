"""Attempts to get past an egress policy: nothing of them leaves, and each is in the log.

A program with all rights of root over its network tries (`attempts.py`); whatever comes out of the
container's interface is looked at from the other end of the veth.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.attempts import OTHER_CONTAINER, PROGRAM
from tests.e2e.bundle import Bundle, Document, kvm_is_usable
from tests.e2e.client import Client
from tests.e2e.nameserver import PROGRAM as NAMESERVER
from tests.e2e.own_stack import Inside, Outside, inside_of, ip, outside_of
from tests.e2e.test_tun import TUN

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
GOOD, BAD = "198.51.100.1", "198.51.100.66"
POLICY = """
[[rule]]
action = "allow"
names = ["good.org", "*.good.org"]
ports = [80]
protocols = ["tcp"]
"""
OUTSIDE = (
    NAMESERVER
    + """
def hello(listener):
    while True:
        with listener.accept()[0] as sock:
            sock.sendall(b"hello")
def begin(address):
    listener = socket.create_server((address, 80))
    threading.Thread(target=hello, args=(listener,), daemon=True).start()
class Rebound(dict):
    def __getitem__(self, name):
        found = dict.__getitem__(self, name)
        if name == "rebound.good.org" and asked[-1][1] == 1:
            self[name] = 0, ["10.9.0.1"], False
        return found
answers = Rebound()
tap = None
def watch():
    global tap
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    tap.bind(("eth0", 3))
    tap.setblocking(False)
def left():
    found = []
    while True:
        try:
            data, (_, kind, direction, *_) = tap.recvfrom(2000)
        except BlockingIOError:
            return found
        if direction == socket.PACKET_OUTGOING or kind == 0x806:
            continue
        if kind == 0x800 and data[0] == 0x45:
            target = socket.inet_ntoa(data[16:20])
            port = int.from_bytes(data[22:24], "big")
            is_good = (data[9], target, port) == (6, "198.51.100.1", 80)
            is_asked = (target, port) == ("10.9.0.1", 53)
            if data[9] == 2 or (is_good and b"secret" not in data) or is_asked:
                continue
        elif kind == 0x86DD and data[6] in (0, 58) and data[24] in (0xFF, 0xFE, 0xFD):
            continue
        found.append((hex(kind), data[:60].hex()))
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""
)
REFUSED = dict.fromkeys(
    re.findall(r"@attempt\ndef (\w+)\(", PROGRAM),
    ("ECONNREFUSED", r" by /usr/bin/python3\S* uid 0: "),
)
EXPECTED = REFUSED | {
    name: ("Name or service not known", f" dns {what} by ")
    for name, what in (
        ("name_that_nobody_may_ask_for", r"bad\.org"), ("name_that_ends_alike", r"evilgood\.org"),
        ("name_that_begins_alike", r"good\.org\.bad\.org"),
    )
} | {
    "name_in_a_datagram_of_ones_own": ("rcode 3", r" dns secret\.bad\.org by "),
    "name_in_a_stream": ("rcode 3", r" dns secret\.bad\.org by "),
    "name_that_is_asked_for_behind_a_router": ("rcode 3", r" dns secret\.bad\.org by -: "),
    "name_with_a_dot_in_a_label": ("rcode 3", " dns "),
    **dict.fromkeys(  # headers of a program's own go by no link
        ("raw_packet_with_its_header", "raw_packet_from_somebody_else",
         "raw_packet_that_says_another_target_than_the_call"),
        ("ENETUNREACH", ""),
    ),
    **dict.fromkeys(
        ("connection_that_begins_at_an_interface_of_ones_own_as_from_somebody",),
        ("written", r" tcp 198\.51\.100\.66:4001 by -: the default$"),
    ),
    "reset_for_somebody_who_has_not_called": ("written", ""),
    **dict.fromkeys(
        ("echo_for_somebody_who_has_not_asked", "complaint_for_somebody_who_has_not_sent"),
        ("written", r" icmp 198\.51\.100\.66 by -: the default$"),
    ),
    "datagram_that_is_to_be_forwarded": (
        "written", r" udp 198\.51\.100\.66:0 by -: a source that is not ours$",
    ),
    **dict.fromkeys(
        ("segment_to_an_allowed_address_that_is_to_be_forwarded",
         "segment_as_from_somebody_that_is_to_be_forwarded"),
        ("written", r" tcp 198\.51\.100\.1:0 by -: a source that is not ours$"),
    ),
    "fragments_that_are_to_be_forwarded": (
        "written", r" udp 198\.51\.100\.66:0 by -: a source that is not ours$",
    ),
    "source_that_is_an_address_of_ones_own_interface": (
        "ECONNREFUSED", r" tcp 198\.51\.100\.1:0 by \S+ uid 0: a source that is not ours$",
    ),
    "network_of_ones_own": ("status 77", ""),
    "other_user": ("status 78", r" uid 1234: "),
}  # fmt: skip
"""What the program is told, and a line of the log; "": there is nothing that could leave."""


def _all_rights(document: Document) -> None:
    names = ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SYS_ADMIN", "SETUID", "SETGID"]
    rights = [f"CAP_{each}" for each in names]
    sets = ("bounding", "effective", "permitted")
    document["process"]["capabilities"].update((each, rights) for each in sets)
    document["linux"]["devices"] = [TUN]
    document["linux"]["readonlyPaths"] = []


def _mounted(document: Document, folder: Path) -> None:
    mount = {"destination": "/v", "type": "bind", "source": str(folder), "options": ["bind", "rw"]}
    document["mounts"].append(mount)


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with outside_of(OUTSIDE) as made:
        own = [f"addr add {each}/32 dev lo" for each in (GOOD, BAD)]
        ip(made.pid, "link set lo up", *own, "addr add 2001:db8:1::66/128 dev lo")
        for name, address in (
            ("good.org", GOOD), ("meta.good.org", "169.254.169.254"),
            ("inner.good.org", "10.9.0.1"), ("rebound.good.org", GOOD),
        ):  # fmt: skip
            made.begin(f"answers['{name}'] = 0, ['{address}'], False")
        made.begin(f"begin('{GOOD}'), begin('{BAD}')")
        yield made


@pytest.fixture(scope="module")
def inside(
    tmp_path_factory: pytest.TempPathFactory, debian: Path, outside: Outside
) -> Iterator[Inside]:
    place = tmp_path_factory.mktemp("egress")
    policy, folder = place / "egress.toml", place / "v"
    policy.write_text(POLICY)
    folder.mkdir()

    def change(document: Document) -> None:
        _all_rights(document)
        _mounted(document, folder)

    flags = "--network=sandbox", f"--egress={policy}"
    with inside_of(
        PROGRAM, place, debian, outside, *flags, nameservers=["10.9.0.1"], change=change
    ) as made:
        assert outside.do("serve('10.9.0.1')") == "None"
        assert outside.do("watch()") == "None"
        router = outside.do("tap.getsockname()[4].hex()")
        assert made.do(f"ROUTER.__init__(bytes.fromhex('{router}'))") == "None"
        yield made


def test_there_are_forty() -> None:
    assert len(EXPECTED) >= 40


@pytest.mark.parametrize("name", EXPECTED)
def test_attempt_is_stopped_and_in_the_log(inside: Inside, outside: Outside, name: str) -> None:
    told, logged = EXPECTED[name]
    before = inside.client.ok("egress", "log", "c").splitlines()

    assert inside.do(f"told(ATTEMPTS['{name}'])") == told

    # what is allowed goes the same way behind it
    allowed = inside.do(f"told(addresses, 'good.org'), told(tcp, '{GOOD}')")
    assert allowed == f"(['{GOOD}'], 'hello')"
    assert ast.literal_eval(outside.do("left()")) == []
    lines = inside.client.ok("egress", "log", "c").splitlines()[len(before) :]
    assert not logged or any(re.search(logged, line) for line in lines), lines


def test_connection_that_was_opened_before_the_rule_changed_is_stopped_and_in_the_log(
    inside: Inside, outside: Outside, tmp_path: Path
) -> None:
    client, policy = inside.client, tmp_path / "egress.toml"
    before = client.ok("egress", "log", "c").splitlines()
    assert inside.do(f"told(addresses, 'good.org'), told(keep, '{GOOD}')") == f"(['{GOOD}'], None)"
    policy.write_text("")
    client.ok("egress", "set", "c", str(policy))
    assert inside.do("told(KEPT[-1].send, b'secret')") == "ECONNABORTED"
    assert ast.literal_eval(outside.do("left()")) == []
    lines = client.ok("egress", "log", "c").splitlines()[len(before) :]
    told = r" tcp 198\.51\.100\.1:80 \([^)]*good\.org[^)]*\) by /usr/bin/python3"
    assert any(re.search(told, line) for line in lines), lines
    policy.write_text(POLICY)
    client.ok("egress", "set", "c", str(policy))
    assert inside.do(f"told(addresses, 'good.org'), told(tcp, '{GOOD}')") == (
        f"(['{GOOD}'], 'hello')"
    )


def test_name_that_is_asked_for_behind_a_router_is_known(inside: Inside) -> None:
    assert inside.do("told(behind, 'good.org')") == f"(0, '{GOOD}')"


def test_socket_of_another_container_is_judged_where_it_was_made(
    inside: Inside, outside: Outside, debian: Path, tmp_path: Path
) -> None:
    first = inside.client
    folder = next(
        each["source"] for each in first.bundle.document["mounts"] if each["destination"] == "/v"
    )
    other = Client(Bundle(tmp_path / "other", debian).args("python3", "-c", OTHER_CONTAINER))
    other.root, other.flags[0] = first.root, f"--root={first.root}"
    _mounted(other.bundle.document, Path(folder))
    pid = first.state("c")["pid"]
    for namespace in other.bundle.document["linux"]["namespaces"]:
        if namespace["type"] == "ipc":
            namespace["path"] = f"/proc/{pid}/ns/ipc"
    assert inside.do("meet()") == "None"
    before = first.ok("egress", "log", "c").splitlines()
    inside.say("exchange()")
    other.ok("run", f"--bundle={other.bundle.write()}", "d")
    assert inside.hear() == "('ECONNREFUSED', 'ENETUNREACH')"
    assert ast.literal_eval(outside.do("left()")) == []
    lines = first.ok("egress", "log", "c").splitlines()[len(before) :]
    assert any(re.search(r" udp 198\.51\.100\.66:80 by /usr/bin/python3", each) for each in lines)
