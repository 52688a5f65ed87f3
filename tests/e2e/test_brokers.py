"""Connections that a policy hands to brokers of the host, also where there is no other network."""

from __future__ import annotations

import ast
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.e2e.bundle import REPOSITORY, Bundle, kvm_is_usable
from tests.e2e.client import Client
from tests.e2e.own_stack import TOLD, inside_of, outside_of
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
INSIDE = (
    TOLD
    + """
import http.client, time, urllib.request
def connect(address="192.0.2.7", port=80):
    def go():
        global kept
        kept = socket.create_connection((address, port), 60)
    return told(go)
def says(data):
    def go():
        kept.sendall(data)
        return kept.recv(100)
    return told(go)
def datagram(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return told(sock.sendto, b"x", (address, port))
def ask(name, path="/", data=None, **headers):
    connection = http.client.HTTPConnection(name, timeout=60)
    connection.request("POST" if data else "GET", path, data, headers)
    response = connection.getresponse()
    return response.status, response.getheaders(), response.read()
def often(count):
    seen = set()
    for _ in range(count):
        try:
            with socket.create_connection(("192.0.2.7", 80), 60) as sock:
                sock.sendall(b"x")
                seen.add(sock.recv(10))
        except OSError as error:
            seen.add(errno.errorcode[error.errno])
    return sorted(map(str, seen))
kept = None
print("ready", flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""
)
POLICY = """
[dns]
hosts = {{ "api.example.org" = ["192.0.2.7"] }}
[[rule]]
action = "allow"
names = ["api.example.org"]
ports = [80]
broker = "{}"
[[rule]]
action = "allow"
cidrs = ["192.0.2.7"]
ports = [80]
broker = "{}"
"""
SECRET = "Bearer s3cret-of-the-operator"
Serve = Callable[[socket.socket, dict[str, Any]], None]


class Broker:
    """It answers each connection in a thread: by default what it hears, in capitals."""

    def __init__(self, path: Path, serve: Serve | None = None) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self._serve = serve or self._shout
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen(128)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                came, _ = self._sock.accept()
                threading.Thread(target=self._one, args=(came,), daemon=True).start()

    def _one(self, came: socket.socket) -> None:
        with came, suppress(OSError):
            line = b""
            while not line.endswith(b"\n"):
                line += came.recv(1)
            self.lines.append(json.loads(line))
            self._serve(came, self.lines[-1])

    @staticmethod
    def _shout(came: socket.socket, line: dict[str, Any]) -> None:
        while data := came.recv(65536):
            came.sendall(data.upper())

    def end(self) -> None:
        """Nobody listens any more."""
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class Inside(Talker):
    client: Client

    def do(self, line: str) -> str:
        self.say(line)
        return self.hear()


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="runsc-b-") as made:
        yield Path(made)


@pytest.fixture
def broker(place: Path) -> Iterator[Broker]:
    made = Broker(place / "a.sock")
    yield made
    with suppress(OSError):
        made.end()


def policy_in(place: Path, broker: Path, name: str = "egress.toml") -> Path:
    path = place / name
    path.write_text(POLICY.format(broker, broker))
    return path


def bundle_in(tmp_path: Path, debian: Path, place: Path) -> Bundle:
    """Its resolver is asked at an address of its own: nothing else is there."""
    bundle = Bundle(tmp_path / "bundle", debian).args("python3", "-uc", INSIDE)
    (place / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    bundle.document["mounts"].append({
        "destination": "/etc/resolv.conf", "type": "bind", "source": str(place / "resolv.conf"),
        "options": ["bind", "ro"],
    })  # fmt: skip
    return bundle


@contextmanager
def running(client: Client, policy: Path) -> Iterator[Inside]:
    path = client.bundle.write()
    flags = "--network=sandbox", f"--egress={policy}"
    made = Inside(client.command(*flags, "run", f"--bundle={path}", "c"))
    made.client = client
    assert made.hear() == "ready"
    yield made
    made.end()


@pytest.fixture
def inside(tmp_path: Path, debian: Path, place: Path, broker: Broker) -> Iterator[Inside]:
    client = Client(bundle_in(tmp_path, debian, place))
    with running(client, policy_in(place, broker.path)) as made:
        yield made


def dialers(place: Path) -> list[int]:
    """Processes of the host that have sockets of this folder in their root, and so are of a sandbox
    of this test: others, at the same time, have containers of the same name."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (each / "cmdline").read_bytes().rstrip(b"\0") != b"runsc-dialer: c":
                continue
            if f"/{place.name}/" in (each / "mountinfo").read_text():
                found.append(int(each.name))
    return found


def are_gone(*pids: int) -> bool:
    """Wait for their end; whose they are does not matter."""
    for pid in pids:
        while os.path.exists(f"/proc/{pid}"):
            with suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    break
            time.sleep(0.001)
    return True


def test_broker_gets_the_connection_and_hears_whose_it_is(inside: Inside, broker: Broker) -> None:
    assert inside.do("connect()") == "None"
    assert inside.do("says(b'hello')") == "b'HELLO'"
    assert inside.do("connect('api.example.org')") == "None"
    assert inside.do("says(b'again')") == "b'AGAIN'"
    by_address, by_name = broker.lines
    assert by_address["name"] is None and by_name["name"] == "api.example.org"
    assert by_name["names"] == ["api.example.org"]
    for line in (by_address, by_name):
        assert (line["container"], line["address"], line["port"]) == ("c", "192.0.2.7", 80)
        assert line["program"].startswith("/usr/bin/python3") and line["uid"] == 0
    assert inside.do("connect('192.0.2.7', 81)") == "ENETUNREACH"
    assert inside.do("connect('198.51.100.1')") == "ENETUNREACH"


def test_large_bodies_and_half_closed_connections_go_through(
    inside: Inside, broker: Broker
) -> None:
    def serve(came: socket.socket, line: dict[str, Any]) -> None:
        count = 0
        while data := came.recv(65536):
            count += len(data)
        came.sendall(b"y" * count)

    broker._serve = serve
    inside.do("connect()")
    size = 10_000_000
    assert inside.do(f"kept.sendall(b'x' * {size}), kept.shutdown(1)") == "(None, None)"
    counted = "len(b''.join(iter(lambda: kept.recv(65536), b'')))"
    assert inside.do(counted) == str(size)


def test_broker_that_is_not_there_refuses_and_one_that_breaks_off_resets(
    inside: Inside, broker: Broker
) -> None:
    def serve(came: socket.socket, line: dict[str, Any]) -> None:
        """It closes: whether that is a reset depends on who was first."""

    broker._serve = serve
    inside.do("connect()")
    assert inside.do("(kept.sendall(b'x'), told(kept.recv, 1))[1]") in ("ECONNRESET", "b''")
    broker.end()
    assert inside.do("connect()") == "ECONNREFUSED"
    log = inside.client.ok("egress", "log", "c")
    assert " tcp 192.0.2.7:80 by /usr/bin/python3" in log
    assert log.splitlines()[-1].endswith(": rule 2: its broker: ECONNREFUSED")
    assert "# handed_on: 2\n" in inside.client.ok("egress", "show", "c")


def test_another_policy_names_another_broker(inside: Inside, broker: Broker, place: Path) -> None:
    (before,) = dialers(place)
    other = Broker(place / "b.sock")
    inside.do("connect()")
    inside.client.ok("egress", "set", "c", str(policy_in(place, other.path, "b.toml")))
    assert inside.do("told(kept.recv, 1)") == "ECONNABORTED"
    assert are_gone(before) and len(dialers(place)) == 1
    assert inside.do("connect()") == "None" and inside.do("says(b'x')") == "b'X'"
    assert len(other.lines) == len(broker.lines) == 1
    missing = policy_in(place, place / "none.sock", "c.toml")
    told = inside.client.error("egress", "set", "c", str(missing))
    assert told == f"broker {place}/none.sock: no such file or directory"
    assert inside.do("says(b'still')") == "b'STILL'"
    (place / "d.toml").write_text("")
    inside.client.ok("egress", "set", "c", str(place / "d.toml"))
    assert inside.do("told(kept.recv, 1)") == "ECONNABORTED"
    assert inside.do("connect()") == "ENETUNREACH"
    assert are_gone(*dialers(place))
    other.end()


def test_dialer_that_is_killed_takes_no_connection_along(
    inside: Inside, place: Path, broker: Broker
) -> None:
    inside.do("connect()")
    (pid,) = dialers(place)
    os.kill(pid, signal.SIGKILL)
    assert are_gone(pid)
    assert inside.do("says(b'goes on')") == "b'GOES ON'"
    assert inside.do("connect()") == "ECONNREFUSED"
    assert "rule 2: the dialer has ended" in inside.client.ok("egress", "log", "c")
    inside.client.ok("egress", "set", "c", str(policy_in(place, broker.path)))
    assert inside.do("connect()") == "None" and inside.do("says(b'x')") == "b'X'"


@pytest.mark.parametrize("seed", range(3))
def test_brokers_and_dialers_are_killed_at_any_moment(
    inside: Inside, place: Path, broker: Broker, seed: int
) -> None:
    chance = random.Random(seed)
    known = {"b'X'", "b''", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE"}
    for _ in range(6):
        inside.say("often(200)")
        for _ in range(chance.randrange(2000)):
            os.sched_yield()
        if chance.random() < 0.5:
            for pid in dialers(place):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            broker.end()
            broker.path.unlink()
            broker = Broker(broker.path)
        assert set(ast.literal_eval(inside.hear())) <= known
        before = dialers(place)
        inside.client.ok("egress", "set", "c", str(policy_in(place, broker.path)))
        assert are_gone(*before)
        assert inside.do("often(5)") == "[\"b'X'\"]"
    assert len(dialers(place)) == 1
    with suppress(OSError):
        broker.end()


def test_dialer_ends_with_the_container(
    tmp_path: Path, debian: Path, place: Path, broker: Broker
) -> None:
    client = Client(bundle_in(tmp_path, debian, place).args("sleep", "1000"))
    policy = policy_in(place, broker.path)
    client.flags += ["--network=sandbox", f"--egress={policy}"]
    client.create("c", "--detach", command="run")
    pids = dialers(place)
    assert len(pids) == 1
    client.ok("egress", "set", "c", str(policy))
    assert are_gone(*pids) and len(dialers(place)) == 1
    pids = dialers(place)
    client.ok("delete", "--force", "c")
    assert are_gone(*pids)
    with running(Client(bundle_in(tmp_path / "other", debian, place)), policy) as made:
        pids = dialers(place)
        made.process.kill()
        assert len(pids) == 1 and are_gone(*pids)


def test_container_with_a_broker_that_is_not_there_does_not_start(
    tmp_path: Path, debian: Path, place: Path
) -> None:
    client = Client(bundle_in(tmp_path, debian, place))
    policy = policy_in(place, place / "none.sock")
    flags = "--network=sandbox", f"--egress={policy}"
    told = client.error(*flags, "run", f"--bundle={client.bundle.write()}", "c")
    assert told == f"runsc run failed: broker {place}/none.sock: no such file or directory"
    assert not dialers(place) and not client.remains()


def test_no_packet_goes_by_a_link_to_where_a_broker_leads(
    tmp_path: Path, debian: Path, place: Path, broker: Broker
) -> None:
    policy = policy_in(place, broker.path)
    policy.write_text(policy.read_text() + '[[rule]]\naction = "allow"\n')
    flags = "--network=sandbox", f"--egress={policy}"
    program = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin: exec(line)"
    with (
        outside_of(program) as outside,
        inside_of(INSIDE, tmp_path, debian, outside, *flags) as inside,
    ):
        assert inside.do("connect()") == "None" and inside.do("says(b'x')") == "b'X'"
        assert inside.do("kept.getsockname()[0]") == "10.9.0.2"
        assert inside.do("datagram('192.0.2.7', 80)") == "ECONNREFUSED"
        assert inside.do("datagram('192.0.2.7', 81)") == "1"
        log = inside.client.ok("egress", "log", "c")
        assert log.splitlines()[-1].endswith(": rule 2: only by its broker")


class Upstream(BaseHTTPRequestHandler):
    """Whom the example asks: it notes who is let in."""

    seen: ClassVar[list[tuple[str, str | None, int]]] = []

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, self.headers["Authorization"], len(data)))
        body = b"%d" % len(data) + b"." * len(data)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, text: str, *values: Any) -> None:
        """Nothing."""


@pytest.fixture
def example(place: Path) -> Iterator[Path]:
    """The example, before a server of the host."""
    server = HTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (place / "secret").write_text(f"Authorization: {SECRET}\n")
    name = "api.example.org"
    made = Talker([
        sys.executable, str(REPOSITORY / "examples" / "http_broker.py"),
        f"--to={name}=http://127.0.0.1:{server.server_port}", str(place / "http.sock"),
        f"{name}={place / 'secret'}",
    ])  # fmt: skip
    assert made.hear() == "ready"
    yield place / "http.sock"
    made.process.terminate()
    made.end()
    server.shutdown()
    server.server_close()


def test_example_adds_a_secret_that_is_not_seen_inside(
    tmp_path: Path, debian: Path, place: Path, example: Path
) -> None:
    client = Client(bundle_in(tmp_path, debian, place))
    Upstream.seen.clear()
    with running(client, policy_in(place, example)) as inside:
        first = inside.do("ask('api.example.org', '/v1?x=1', Authorization='mine')")
        assert first.startswith("(200, ") and first.endswith("b'0')")
        large = inside.do("len(ask('api.example.org', '/v2', b'x' * 3_000_000)[2])")
        assert large == str(len("3000000") + 3_000_000)
        assert inside.do("ask('api.example.org', Host='other.org')[0]") == "421"
        assert inside.do("ask('192.0.2.7')[0]") == "421"
        assert Upstream.seen == [("/v1?x=1", SECRET, 0), ("/v2", SECRET, 3_000_000)]
        everything = (
            "any(b's3cret' in open(f'/proc/self/{name}', 'rb').read()"
            " for name in ('environ', 'cmdline', 'mountinfo'))"
        )
        assert inside.do(everything) == "False" and "s3cret" not in first
        log = inside.client.ok("egress", "show", "c") + inside.client.ok("egress", "log", "c")
        assert "s3cret" not in log
