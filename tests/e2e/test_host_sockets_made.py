"""Sockets that a program makes in a folder of the host: the host connects to them (--host-uds)."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, Bundle

Start = Callable[..., "Running"]
PATIENCE_S = 120


class Running:
    """A program inside, which says a line when it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def hear(self) -> str:
        """A line of it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line.removesuffix("\n")

    def say(self, line: str = "") -> None:
        """A line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """What it still says; it ends well."""
        said, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, errors
        return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    made.chmod(0o777)
    return made


@pytest.fixture
def start(tmp_path: Path, folder: Path, debian: Path, platform: str) -> Iterator[Start]:
    """A program of Python with the folder on /made."""
    made: list[Running] = []

    def run(program: str, uds: str = "create", *options: str, **process: object) -> Running:
        bundle = Bundle(tmp_path / "bundle", debian)
        mount = {"destination": "/made", "source": str(folder), "options": ["bind", *options]}
        bundle.document["mounts"].append(mount)
        bundle.document["process"].update(process)
        command = bundle.args("python3", "-uc", program).command(platform, [f"--host-uds={uds}"])
        pipe = subprocess.PIPE
        made.append(
            Running(
                subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=REPOSITORY
                )
            )
        )
        return made[-1]

    yield run
    for each in made:
        each.process.kill()
        each.process.communicate()


@contextmanager
def connected(path: Path, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        yield sock


SERVE = """
import os, socket, struct
s = socket.socket(socket.AF_UNIX, {kind})
s.bind("/made/sock")
print("bound")
input()
s.listen(5)
print("listening")
for _ in range({count}):
    c, name = s.accept()
    print(name, struct.unpack("<iII", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:])
    before = os.listdir("/proc/self/fd")
    data, fds = c.recvmsg(100, socket.CMSG_SPACE(4))[:2]
    assert not fds and os.listdir("/proc/self/fd") == before
    c.sendall(data[::-1])
    c.close()
"""


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_host_connects_to_what_a_program_has_bound(
    start: Start, folder: Path, kind: socket.SocketKind
) -> None:
    running = start(SERVE.format(kind=int(kind), count=2))
    assert running.hear() == "bound"
    with pytest.raises(ConnectionRefusedError), connected(folder / "sock", kind):
        pass
    running.say()
    assert running.hear() == "listening"

    for word in (b"first", b"second"):
        with connected(folder / "sock", kind) as sock, open("/dev/null", "rb") as file:
            socket.send_fds(sock, [word], [file.fileno()])
            assert sock.recv(100) == word[::-1]
            assert sock.recv(100) == b""

    user = (os.getuid(), os.getgid())
    assert running.end() == f" {user}\n" * 2
    with pytest.raises(ConnectionRefusedError), connected(folder / "sock", kind):
        pass  # as on Linux: the name stays


@pytest.mark.root
def test_owner_mode_and_credentials_are_the_programs(start: Start, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    program = "import os; os.umask(0o27)\n" + SERVE.format(kind=1, count=1)
    running = start(program, user={"uid": 7, "gid": 8, "additionalGids": [9]})
    running.hear()
    running.say()
    running.hear()

    found = (folder / "sock").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (7, 8, 0o750)
    with connected(folder / "sock") as sock:
        creds = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert struct.unpack("<iII", creds)[1:] == (7, 8)
        sock.send(b"x")
        assert sock.recv(1) == b"x"
    running.end()


DATAGRAMS = """
import select, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/made/sock")
print("bound")
input()
poll = select.poll()
poll.register(s, select.POLLIN)
assert poll.poll()
for n in range(50):
    data, fds, _, name = s.recvmsg(1000, socket.CMSG_SPACE(4))
    assert (len(data), fds, name) == (n, [], None), (n, data, fds, name)
other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
other.sendto(b"within", "/made/sock")
print(s.recv(100))
s.close()
print("closed")
input()
"""


def test_datagrams_of_the_host_keep_their_bounds(start: Start, folder: Path) -> None:
    running = start(DATAGRAMS)
    assert running.hear() == "bound"

    with connected(folder / "sock", socket.SOCK_DGRAM) as sock, open("/dev/null", "rb") as file:
        running.say()
        for number in range(50):
            socket.send_fds(sock, [b"x" * number], [file.fileno()])
        assert running.hear() == "b'within'"
        assert running.hear() == "closed"
        with pytest.raises(ConnectionRefusedError):
            while True:  # until the end of it has come through
                sock.send(b"x")
    running.say()
    running.end()


UNLINKED = """
import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind("/made/sock")
s.listen()
try:
    socket.socket(socket.AF_UNIX).bind("/made/sock")
except OSError as error:
    print(os.strerror(error.errno))
os.rename("/made/sock", "/made/other")
print("renamed")
print(s.accept()[0].recv(10))
os.unlink("/made/other")
print(s.getsockname(), os.listdir("/made"))
"""


def test_name_is_moved_and_removed_as_any_other(start: Start, folder: Path) -> None:
    running = start(UNLINKED)
    assert [running.hear(), running.hear()] == ["Address already in use", "renamed"]

    with connected(folder / "other") as sock:
        sock.send(b"moved")
        assert running.end() == "b'moved'\n/made/sock []\n"
    assert os.listdir(folder) == []


WAITING = """
import selectors, socket
s = socket.socket(socket.AF_UNIX)
s.bind("/made/sock")
s.listen(0)
s.setblocking(False)
print("ready")
wait = selectors.EpollSelector()
wait.register(s, selectors.EVENT_READ)
for _ in range(2):
    assert wait.select(60)
    c, _ = s.accept()
    print(c.recv(10))
    try:
        s.accept()
    except BlockingIOError:
        print("no more")
s.shutdown(socket.SHUT_RDWR)
print("shut")
input()
"""


def test_who_polls_is_told_of_each_connection(start: Start, folder: Path) -> None:
    running = start(WAITING)
    assert running.hear() == "ready"

    for _ in range(2):
        with connected(folder / "sock") as sock:
            sock.send(b"hello")
            assert [running.hear(), running.hear()] == ["b'hello'", "no more"]
    assert running.hear() == "shut"
    with pytest.raises(ConnectionRefusedError), connected(folder / "sock"):
        pass
    running.say()
    running.end()


def test_backlog_is_the_programs(start: Start, folder: Path) -> None:
    program = SERVE.format(kind=1, count=0).replace("listen(5)", "listen(1)") + "input()\n"
    running = start(program)
    running.hear()
    running.say()
    running.hear()

    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for sock in waiting:
        sock.setblocking(False)
    waiting[0].connect(str(folder / "sock"))
    waiting[1].connect(str(folder / "sock"))
    with pytest.raises(BlockingIOError):
        waiting[2].connect(str(folder / "sock"))
    running.say()
    running.end()
    for sock in waiting:
        sock.close()


BOTH = """
import socket
s = socket.socket(socket.AF_UNIX)
s.bind("/made/sock")
s.listen()
print("ready")
c = s.accept()[0]
try:
    other = socket.socket(socket.AF_UNIX)
    other.connect("/made/host")
    print(other.recv(100))
except OSError as error:
    print(type(error).__name__)
c.send(b"x")
"""


@pytest.mark.parametrize(
    ("uds", "said"), [("create", "ConnectionRefusedError\n"), ("all", "b'of the host'\n")]
)
def test_all_is_create_and_open(start: Start, folder: Path, uds: str, said: str) -> None:
    with socket.socket(socket.AF_UNIX) as service:
        service.settimeout(PATIENCE_S)
        service.bind(str(folder / "host"))
        (folder / "host").chmod(0o666)
        service.listen()
        running = start(BOTH, uds)
        assert running.hear() == "ready"
        with connected(folder / "sock") as sock:
            if uds == "all":
                with service.accept()[0] as connection:
                    connection.send(b"of the host")
            assert sock.recv(10) == b"x"
        assert running.end() == said
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.accept()


@pytest.mark.parametrize(
    ("uds", "options"), [("named", ()), ("open", ()), ("create", ("ro",))]
)  # fmt: skip
def test_host_finds_none_where_the_caller_does_not_say_so(
    start: Start, folder: Path, uds: str, options: tuple[str, ...]
) -> None:
    program = """
import socket
s = socket.socket(socket.AF_UNIX)
try:
    s.bind("/made/sock")
except OSError as error:
    print(error.strerror)
else:
    s.listen()
    socket.socket(socket.AF_UNIX).connect("/made/sock")
    print("bound")
input()
"""
    running = start(program, uds, *options)

    if options:
        assert running.hear() == "Read-only file system"
        assert os.listdir(folder) == []
    else:
        assert running.hear() == "bound"
        with pytest.raises(ConnectionRefusedError), connected(folder / "sock"):
            pass
    running.say()
    running.end()


def test_killed_sandbox_leaves_a_name_that_nobody_serves(start: Start, folder: Path) -> None:
    running = start(SERVE.format(kind=1, count=1))
    running.hear()
    running.say()
    running.hear()

    running.process.kill()
    running.process.wait()
    with connected_until_refused(folder / "sock"):
        assert stat.S_ISSOCK((folder / "sock").stat().st_mode)


@contextmanager
def connected_until_refused(path: Path) -> Iterator[None]:
    """Who is still there is connected to, and hears of the end."""
    while True:
        try:
            with connected(path) as sock:
                assert sock.recv(1) == b""
        except ConnectionResetError:
            continue
        except ConnectionRefusedError:
            break
    yield
