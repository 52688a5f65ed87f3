"""What may leave a container: names, connections and datagrams, over a veth, by a policy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.nameserver import PROGRAM as NAMESERVER
from tests.e2e.own_stack import TOLD, Inside, Outside, inside_of, ip, outside_of
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
INSIDE = TOLD + """
def addresses(name, kind=socket.SOCK_STREAM):
    found = told(socket.getaddrinfo, name, 80, 0, kind)
    return found if isinstance(found, str) else sorted({each[4][0] for each in found})
def tcp(address, port=80):
    def go():
        with socket.create_connection((address, port), 60) as sock:
            return sock.recv(100).decode()
    return told(go)
def udp(address, port=80):
    def go():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(60)
            sock.sendto(b"x", (address, port))
            return sock.recv(100).decode()
    return told(go)
def ping(address):
    def go():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
            sock.settimeout(60)
            sock.sendto(b"\\x08\\0\\0\\0\\0\\0\\0\\1" + b"p" * 8, (address, 0))
            return len(sock.recv(100))
    return told(go)
def hold(address, port):
    global kept
    kept = socket.create_connection((address, port), 60)
def serve(port):
    import threading
    listener = socket.create_server(("0.0.0.0", port))
    def go():
        while True:
            with listener.accept()[0] as sock:
                sock.sendall(b"inside")
    threading.Thread(target=go, daemon=True).start()
def raw(address):
    def go():
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 47) as sock:
            return sock.sendto(b"gre", (address, 0))
    return told(go)
def frame(address, port):
    def go():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind(("eth0", 0))
            own = socket.inet_aton("10.9.0.2")
            ends = own + socket.inet_aton(address)
            head = struct.pack(">BBHHHBBH", 69, 0, 29, 0, 0, 9, 17, 0) + ends
            total = sum(struct.unpack(">10H", head))
            total = ~(total + (total >> 16)) & 0xFFFF
            head = head[:10] + struct.pack(">H", total) + head[12:]
            data = struct.pack(">HHHH", 4000, port, 9, 0) + b"f"
            return sock.send(b"\\xff" * 6 + b"\\2" * 6 + b"\\x08\\0" + head + data)
    return told(go)
def no_packet():
    def go():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind(("eth0", 0))
            return sock.send(b"\\xff" * 6 + b"\\2" * 6 + b"\\x08\\x06" + bytes(28))
    return told(go)
def question(ident, name):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return struct.pack(">HHHHHH", ident, 256, 1, 0, 0, 0) + labels + b"\\0\\0\\1\\0\\1"
def by_stream(family, server, names):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        sock.connect((server, 53))
        peer = sock.getpeername()[:2]
        asked = [question(number, name) for number, name in enumerate(names)]
        whole = b"".join(len(each).to_bytes(2, "big") + each for each in [b"junk", *asked])
        sock.send(whole[:9])
        sock.send(whole[9:])
        found = {}
        for _ in names:
            size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
            reply = sock.recv(size, socket.MSG_WAITALL)
            found[names[reply[1]]] = reply[3] & 15
        return peer, sorted(found.items())
kept = None
print("ready", flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""
OUTSIDE = NAMESERVER + """
def hello(listener, text):
    while True:
        with listener.accept()[0] as sock:
            sock.sendall(text)
def hello_udp(sock, text):
    while True:
        data, sender = sock.recvfrom(100)
        got.append((data, sender[0]))
        sock.sendto(text, sender)
got, waiting = [], []
def begin(address, port=80):
    text = f"{address}:{port}".encode()
    listener = socket.create_server((address, port))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    threading.Thread(target=hello, args=(listener, text), daemon=True).start()
    threading.Thread(target=hello_udp, args=(sock, text), daemon=True).start()
def connect(address, port, seconds=20):
    with socket.create_connection((address, port), seconds) as sock:
        return sock.recv(100).decode()
def told(call, *args):
    try:
        return call(*args)
    except OSError as error:
        return type(error).__name__
def ended(sock):
    sock.settimeout(60)
    return told(sock.recv, 1)
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""
GOOD, BAD, DENIED = "198.51.100.1", "198.51.100.66", "10.9.0.1"
POLICY = """
[[rule]]
action = "allow"
names = ["good.org", "*.good.org"]
ports = [80]
"""


@contextmanager
def outside_with_names() -> Iterator[Outside]:
    with outside_of(OUTSIDE) as made:
        ip(made.pid, "link set lo up", f"addr add {GOOD}/32 dev lo", f"addr add {BAD}/32 dev lo")
        made.begin(f"answers['good.org'] = 60, ['{GOOD}'], False")
        made.begin(f"answers['cut.good.org'] = 60, ['{GOOD}'], True")
        made.begin(f"answers['inner.good.org'] = 60, ['{DENIED}'], False")
        made.begin(f"answers['bad.org'] = 60, ['{BAD}'], False")
        made.begin(f"begin('{GOOD}'), begin('{BAD}'), begin('{GOOD}', 81)")
        yield made


@pytest.fixture
def outside() -> Iterator[Outside]:
    with outside_with_names() as made:
        yield made


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "egress.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def inside(tmp_path: Path, debian: Path, outside: Outside, policy: Path) -> Iterator[Inside]:
    flags = "--network=sandbox", f"--egress={policy}"
    with inside_of(INSIDE, tmp_path, debian, outside, *flags, nameservers=["10.9.0.1"]) as made:
        assert outside.do("serve('10.9.0.1')") == "None"
        yield made


def test_only_what_was_resolved_by_an_allowed_name_is_connected_to(
    inside: Inside, outside: Outside
) -> None:
    assert inside.do(f"tcp('{GOOD}')") == "ECONNREFUSED"  # nobody has asked for its name
    assert inside.do("addresses('good.org')") == f"['{GOOD}']"
    assert inside.do(f"tcp('{GOOD}')") == f"{GOOD}:80"
    assert inside.do(f"udp('{GOOD}')") == f"{GOOD}:80"
    assert inside.do(f"tcp('{GOOD}', 81)") == "ECONNREFUSED"
    assert inside.do(f"tcp('{BAD}')") == inside.do(f"udp('{BAD}')") == "ECONNREFUSED"
    assert inside.do("addresses('cut.good.org')") == f"['{GOOD}']"  # over TCP
    assert inside.do("addresses('bad.org')") == "Name or service not known"
    assert outside.do("[each for each in asked if each[0] == 'bad.org']") == "[]"
    assert "('cut.good.org', 1, False)" in outside.do("asked")


@pytest.mark.parametrize("server", ["10.9.0.1", "fd09::1"])
def test_nameserver_is_asked_by_stream_and_by_datagram(
    tmp_path: Path, debian: Path, outside: Outside, policy: Path, server: str
) -> None:
    flags = "--network=sandbox", f"--egress={policy}"
    with inside_of(INSIDE, tmp_path, debian, outside, *flags, nameservers=[server]) as inside:
        assert outside.do(f"serve('{server}')") == "None"
        assert inside.do("addresses('good.org')") == f"['{GOOD}']"
        family = "socket.AF_INET6" if ":" in server else "socket.AF_INET"
        names = ["good.org", "x.good.org", "cut.good.org", "bad.org"]
        assert inside.do(f"by_stream({family}, '{server}', {names})") == str((
            (server, 53),
            [("bad.org", 3), ("cut.good.org", 0), ("good.org", 0), ("x.good.org", 3)],
        ))  # fmt: skip
        for _ in range(100):
            inside.do(f"by_stream({family}, '{server}', ['good.org'])")
        assert inside.do(f"tcp('{server}', 54)") == "ECONNREFUSED"


def test_whatever_sends_is_judged(inside: Inside, outside: Outside) -> None:
    assert inside.do("addresses('inner.good.org')") == f"['{DENIED}']"
    assert inside.do(f"tcp('{DENIED}')") == "ECONNREFUSED"  # a name opens no private range
    assert inside.do(f"ping('{BAD}')") == inside.do(f"raw('{BAD}')") == "ECONNREFUSED"
    assert inside.do(f"frame('{BAD}', 80)") == inside.do("no_packet()") == "ECONNREFUSED"
    assert inside.do("addresses('good.org')") == f"['{GOOD}']"
    assert inside.do(f"frame('{GOOD}', 81)") == "ECONNREFUSED"
    assert inside.do(f"frame('{GOOD}', 80)") == "43"
    assert inside.do(f"udp('{GOOD}')") == f"{GOOD}:80"
    assert outside.do("got") == "[(b'f', '10.9.0.2'), (b'x', '10.9.0.2')]"


def test_change_holds_for_what_is_open_and_denials_are_told(
    inside: Inside, outside: Outside, tmp_path: Path
) -> None:
    client = inside.client
    follower = Talker(client.command("egress", "log", "--follow", "c"))
    inside.do("addresses('good.org'), addresses('bad.org')")
    for _ in ("A", "AAAA"):
        assert follower.hear().endswith("dns bad.org by /usr/bin/python3.13[1] uid 0: the default")
    outside.begin(f"waiting.append(socket.create_server(('{GOOD}', 8080)))")
    changed = tmp_path / "changed.toml"
    changed.write_text(POLICY.replace("80", "80, 8080").replace('"good.org"', '"*"'))
    client.ok("egress", "set", "c", str(changed))
    assert inside.do("addresses('bad.org')") == f"['{BAD}']"
    assert inside.do(f"tcp('{BAD}')") == f"{BAD}:80"
    assert inside.do(f"hold('{GOOD}', 8080)") == "None"
    assert outside.do("waiting.append(waiting[0].accept()[0]) or len(waiting)") == "2"
    changed.write_text('denial = "EPERM"\ndns.refusal = "REFUSED"')
    client.ok("egress", "set", "c", str(changed))
    assert inside.do("told(kept.recv, 1)") == "ECONNABORTED"
    assert outside.do("ended(waiting[1])") == "ConnectionResetError"
    assert inside.do(f"tcp('{GOOD}')") == inside.do(f"udp('{GOOD}')") == "EPERM"
    assert f" tcp {GOOD}:8080 (good.org) by " in follower.hear()  # the one that was open
    heard = follower.hear()
    still_closing = f" tcp {BAD}:80 (bad.org) by " in heard  # the one before, if it was not over
    if still_closing:
        heard = follower.hear()
    assert f" tcp {GOOD}:80 (good.org) by /usr/bin/python3.13[1] uid 0: " in heard
    assert inside.do("addresses('good.org')") == "Temporary failure in name resolution"
    shown = client.ok("egress", "show", "c")
    assert shown.startswith(changed.read_text()) and f"# revoked: {1 + still_closing}\n" in shown
    changed.write_text("rule = 7")
    assert client.call("egress", "set", "c", str(changed)).returncode == 1
    assert "rules are written as [[rule]]" in client.log.read_text()
    follower.process.kill()
    follower.end()


def test_what_comes_from_outside_is_let_in_as_the_policy_says(
    inside: Inside, outside: Outside, tmp_path: Path
) -> None:
    inside.do("serve(9000)")
    assert outside.do("connect('10.9.0.2', 9000)") == "inside"
    changed = tmp_path / "changed.toml"
    changed.write_text('inbound = "deny"')
    inside.client.ok("egress", "set", "c", str(changed))
    assert outside.do("told(connect, '10.9.0.2', 9000, 0.5)") == "TimeoutError"


def test_nameserver_of_an_engine_is_asked_where_it_lives(
    tmp_path: Path, debian: Path, outside: Outside, policy: Path
) -> None:
    """As Docker's: in the container's namespace, at an address of the loopback."""
    annotations = {"dev.runsc.egress": str(policy)}
    with inside_of(
        INSIDE, tmp_path, debian, outside, "--network=sandbox",
        nameservers=["127.0.0.11"], annotations=annotations,
    ) as inside:  # fmt: skip
        assert inside.do("addresses('x.good.org')") == "Temporary failure in name resolution"
        enter = ["nsenter", f"--target={inside.pid}", "--net", sys.executable, "-uc"]
        engine = Talker([*enter, OUTSIDE])
        assert engine.hear() == "ready"
        for name in ("good.org", "cut.good.org"):
            engine.say(f"answers['{name}'] = 60, ['{GOOD}'], '{name}' != 'good.org'")
        engine.say("serve('127.0.0.11') or print('serves', flush=True)")
        assert engine.hear() == "serves"
        assert inside.do("addresses('good.org')") == f"['{GOOD}']"
        assert inside.do("addresses('cut.good.org')") == f"['{GOOD}']"
        assert inside.do(f"tcp('{GOOD}')") == f"{GOOD}:80"
        engine.process.kill()
        engine.end()


def test_container_without_a_stack_of_its_own_does_not_start(
    tmp_path: Path, debian: Path, policy: Path
) -> None:
    bundle = Bundle(tmp_path / "bundle", debian).args("true")
    result = bundle.run(flags=[f"--egress={policy}", "--network=host"])
    assert result.returncode == 1 and "sockets of the host nobody judges" in result.stderr
