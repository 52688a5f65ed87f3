"""Sockets of the host that config.json mounts: connected to, by bytes alone, and no others."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle

Serve = Callable[[socket.socket], None]


class Service:
    """One that answers a connection, in a thread."""

    def __init__(self, path: Path, kind: int, serve: Serve) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, kind)
        self._sock.bind(str(path))
        path.chmod(0o666)
        if kind != socket.SOCK_DGRAM:
            self._sock.listen(5)
        self._serve = serve
        self.seen: list[bytes] = []
        self.thread = threading.Thread(target=self._run, args=(kind,), daemon=True)
        self.thread.start()

    def _run(self, kind: int) -> None:
        self._sock.settimeout(60)
        if kind == socket.SOCK_DGRAM:
            self._serve(self._sock)
            return
        with self._sock.accept()[0] as connection:
            connection.settimeout(60)
            self._serve(connection)

    def end(self) -> None:
        self.thread.join(60)
        self._sock.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[[int, Serve], Service]]:
    made: list[Service] = []

    def make(kind: int, serve: Serve) -> Service:
        made.append(Service(tmp_path / "service", kind, serve))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def inside(tmp_path: Path, debian: Path, platform: str) -> Callable[..., str]:
    """What a program of Python prints, with a file of the host on /service."""
    bundle = Bundle(tmp_path / "bundle", debian)

    def run(source: Path, program: str, network: str = "none", **process: object) -> str:
        mount = {"destination": "/service", "source": str(source), "options": ["bind"]}
        bundle.document["mounts"].append(mount)
        bundle.document["process"].update(process)
        flags = [f"--network={network}"]
        result = bundle.args("python3", "-c", program).run(platform, flags=flags)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


STREAM = """
import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect("/service")
before = os.listdir("/proc/self/fd")
print(s.recvmsg(100, socket.CMSG_SPACE(4))[:2])
assert os.listdir("/proc/self/fd") == before
s.sendall(b"x" * 1000000)
s.shutdown(socket.SHUT_WR)
print(s.recv(100), s.recv(100))
"""


@pytest.mark.parametrize("network", ["none", "host"])
def test_stream_goes_both_ways_and_brings_no_descriptors(
    service: Callable[[int, Serve], Service], inside: Callable[..., str], network: str
) -> None:
    def serve(connection: socket.socket) -> None:
        creds = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        made.seen.append(creds)
        with open("/etc/passwd", "rb") as file:
            socket.send_fds(connection, [b"hello"], [file.fileno()])
        count = 0
        while data := connection.recv(65536):
            count += len(data)
        connection.sendall(b"%d" % count)

    made = service(socket.SOCK_STREAM, serve)
    user = {"uid": 7, "gid": 8, "additionalGids": [9]}

    if os.geteuid() != 0:
        user = {"uid": 0, "gid": 0}
    shown = inside(made.path, STREAM, network, user=user)

    assert shown == "(b'hello', [])\nb'1000000' b''\n"
    if os.geteuid() == 0:
        made.thread.join(60)
        assert struct.unpack("<iII", made.seen[0])[1:] == (7, 8)


def test_datagrams_keep_their_bounds(
    service: Callable[[int, Serve], Service], inside: Callable[..., str]
) -> None:
    def serve(sock: socket.socket) -> None:
        came = [sock.recv(1000) for _ in range(3)]
        made.seen.extend(came)

    made = service(socket.SOCK_DGRAM, serve)
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
        "s.connect('/service'); [s.send(b'x' * n) for n in (3, 500, 1)]"
    )

    inside(made.path, program)

    made.thread.join(60)
    assert [len(each) for each in made.seen] == [3, 500, 1]


def test_packets_keep_their_bounds(
    service: Callable[[int, Serve], Service], inside: Callable[..., str]
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.send(b"one")
        connection.send(b"and two")
        made.seen.append(connection.recv(100))

    made = service(socket.SOCK_SEQPACKET, serve)
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        "s.connect('/service'); print(s.recv(100), s.recv(100)); s.send(b'back')"
    )

    assert inside(made.path, program) == "b'one' b'and two'\n"
    made.thread.join(60)
    assert made.seen == [b"back"]


def test_end_of_either_side_reaches_the_other(
    service: Callable[[int, Serve], Service], inside: Callable[..., str]
) -> None:
    def serve(connection: socket.socket) -> None:
        made.seen.append(connection.recv(100))
        made.seen.append(connection.recv(100))

    made = service(socket.SOCK_STREAM, serve)
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/service');"
        "s.send(b'last'); s.close(); input()"
    )

    with pytest.raises(AssertionError, match="EOFError"):  # of its standard input
        inside(made.path, program)
    made.thread.join(60)
    assert made.seen == [b"last", b""]


REFUSED = """
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    try:
        socket.socket(socket.AF_UNIX, kind).connect("{path}")
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.root
def test_rights_are_those_of_who_connects(
    service: Callable[[int, Serve], Service], inside: Callable[..., str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = service(socket.SOCK_DGRAM, lambda sock: None)
    made.path.chmod(0o600)

    shown = inside(made.path, REFUSED.format(path="/service"), user={"uid": 7, "gid": 7})

    assert shown == "PermissionError\nPermissionError\n"


def test_other_kind_is_the_wrong_one(
    service: Callable[[int, Serve], Service], inside: Callable[..., str]
) -> None:
    made = service(socket.SOCK_DGRAM, lambda sock: None)

    program = REFUSED.format(path="/service").replace(", socket.SOCK_DGRAM)", ",)")
    assert inside(made.path, program) == "OSError\n"  # EPROTOTYPE


def test_socket_in_a_folder_is_not_connected_to(
    service: Callable[[int, Serve], Service], inside: Callable[..., str]
) -> None:
    """It is not one that config.json itself mounts."""
    made = service(socket.SOCK_DGRAM, lambda sock: None)

    shown = inside(made.path.parent, REFUSED.format(path="/service/service"))

    assert shown == "ConnectionRefusedError\nConnectionRefusedError\n"


@pytest.fixture
def opening(tmp_path: Path, debian: Path, platform: str) -> Callable[..., str]:
    """What a program prints, with a folder of the host on /service that sockets may be used of."""
    bundle = Bundle(tmp_path / "bundle", debian)

    def run(source: Path, program: str, *options: str) -> str:
        mount = {"destination": "/service", "source": str(source), "options": ["bind", *options]}
        bundle.document["mounts"].append(mount)
        flags = ["--host-uds=open"]
        result = bundle.args("python3", "-c", program).run(platform, flags=flags)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.mark.parametrize("options", [(), ("ro",)])
def test_socket_in_a_folder_is_connected_to_if_the_caller_says_so(
    service: Callable[[int, Serve], Service],
    opening: Callable[..., str],
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)

    def serve(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100)[::-1])

    made = service(socket.SOCK_STREAM, serve)
    made.path.rename(tmp_path / "a" / "b" / "sock")
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/service/b/sock');"
        "s.sendall(b'abc'); print(s.recv(100), s.getpeername())"
    )

    shown = opening(tmp_path / "a", program, *options)

    assert shown == "b'cba' /service/b/sock\n"


LINKS = """
import os, socket
def connect(path):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except OSError as error:
        print(type(error).__name__)
os.symlink("{outside}", "/service/absolute")
os.symlink("../outside", "/service/relative")
connect("/service/absolute")
connect("/service/relative")
own = socket.socket(socket.AF_UNIX)
own.bind("/service/own")
connect("/service/own")
own.listen()
connect("/service/own")
own.close()
connect("/service/own")
"""


def test_links_of_a_program_lead_to_no_socket_outside(
    service: Callable[[int, Serve], Service], opening: Callable[..., str], tmp_path: Path
) -> None:
    made = service(socket.SOCK_DGRAM, lambda sock: None)
    made.path.rename(tmp_path / "outside")
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o777)

    shown = opening(tmp_path / "a", LINKS.format(outside=tmp_path / "outside"))

    refused = "ConnectionRefusedError\n"
    assert shown == "FileNotFoundError\n" * 2 + refused + refused


def test_no_socket_is_connected_to_if_the_caller_says_so(
    service: Callable[[int, Serve], Service], tmp_path: Path, debian: Path, platform: str
) -> None:
    made = service(socket.SOCK_DGRAM, lambda sock: None)
    bundle = Bundle(tmp_path / "bundle", debian)
    mount = {"destination": "/service", "source": str(made.path), "options": ["bind"]}
    bundle.document["mounts"].append(mount)
    bundle.args("python3", "-c", REFUSED.format(path="/service"))

    shown = bundle.run(platform, flags=["--host-uds=none"]).stdout

    assert shown == "ConnectionRefusedError\nConnectionRefusedError\n"


def test_socket_that_nobody_serves(tmp_path: Path, inside: Callable[..., str]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "left"))
    (tmp_path / "left").chmod(0o666)

    shown = inside(tmp_path / "left", REFUSED.format(path="/service"))

    assert shown.splitlines()[0] == "ConnectionRefusedError"


def test_device_of_the_host_is_there_and_not_opened(inside: Callable[..., str]) -> None:
    assert inside(Path("/dev/null"), "import os; print(os.stat('/service').st_rdev)") == "259\n"
