"""The dialer and a Sentry that has been taken over; and the process, with its walls."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import struct
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.errors import RuntimeFailure
from runsc.filters import Switches
from runsc.launch import dialer
from runsc.launch.boot import Terms
from runsc.launch.dialer import Dialing, serve
from sentry.net.host import protocol
from sentry.net.host.dial import Wanted, pack
from tests.patience import TIMEOUT_S

FOUR = bytes(10) + b"\xff\xff" + bytes((203, 0, 113, 5))


class Peer:
    """Requests to `serve`, which runs on a thread."""

    def __init__(self, *names: str) -> None:
        self.sock, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(TIMEOUT_S)
        self._thread = threading.Thread(target=serve, args=(self._theirs, names, "c"))
        self._thread.start()

    def ask(self, request: bytes) -> tuple[int, list[int]]:
        """errno, and descriptors."""
        self.sock.send(request)
        return answer(self.sock)

    def close(self) -> None:
        self.sock.close()
        self._thread.join()
        self._theirs.close()


def answer(sock: socket.socket) -> tuple[int, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, 4096, 4)
    number, more, changes = protocol.REPLY.unpack(data)
    assert (more, changes) == (0, 0)
    return number, fds


def broker(path: Path, backlog: int = 5) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(backlog)
    sock.settimeout(TIMEOUT_S)
    return sock


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with broker(tmp_path / "a") as made:
        yield made


@pytest.fixture
def peer(tmp_path: Path, listening: socket.socket) -> Iterator[Peer]:
    made = Peer(str(tmp_path / "a"), str(tmp_path / "none"))
    yield made
    made.close()


def test_broker_gets_a_line_and_the_sentry_a_stream_that_does_not_block(
    peer: Peer, listening: socket.socket
) -> None:
    number, (fd,) = peer.ask(pack(Wanted(0, FOUR, 443, ("a.org",), "/bin/x", 7, 8)))
    assert number == 0 and not os.get_blocking(fd)
    with listening.accept()[0] as came, came.makefile("rb") as lines:
        os.write(fd, b"GET")
        os.close(fd)
        said = json.loads(lines.readline())
        assert (said["container"], said["name"], said["address"]) == ("c", "a.org", "203.0.113.5")
        assert lines.read() == b"GET"


def test_broker_that_is_not_there_is_an_errno(peer: Peer, listening: socket.socket) -> None:
    assert peer.ask(pack(Wanted(1, FOUR, 1))) == (errno.ENOENT, [])
    assert peer.ask(pack(Wanted(2, FOUR, 1))) == (errno.EINVAL, [])
    listening.close()
    assert peer.ask(pack(Wanted(0, FOUR, 1))) == (errno.ECONNREFUSED, [])


def test_full_queue_is_told_and_holds_nobody_up(tmp_path: Path) -> None:
    with broker(tmp_path / "b", 0):
        peer = Peer(str(tmp_path / "b"))
        made: list[int] = []
        number = 0
        while not number:
            number, fds = peer.ask(pack(Wanted(0, FOUR, 1)))
            made += fds
        assert number == errno.EAGAIN and made
        for fd in made:
            os.close(fd)
        peer.close()


def test_any_request_is_answered_and_leaves_nothing(peer: Peer, listening: socket.socket) -> None:
    chance = random.Random(1)
    whole = pack(Wanted(0, FOUR, 443, ("a.org",), "/bin/x", 7, 8))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        data = bytearray(whole[: chance.choice([3, 40, len(whole)])])
        data[chance.randrange(len(data))] = chance.randrange(256)
        peer.sock.sendmsg(
            [bytes(data)],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))]
            if chance.random() < 0.2 else [],
        )  # fmt: skip
        _, fds = answer(peer.sock)
        for fd in fds:
            os.close(fd)
            listening.accept()[0].close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert peer.ask(whole)[0] == 0


def test_sockets_have_to_be_there(tmp_path: Path, listening: socket.socket) -> None:
    dialer.check((str(tmp_path / "a"),))
    with pytest.raises(RuntimeFailure, match=r"broker .*/none: no such file"):
        dialer.check((str(tmp_path / "none"),))
    with pytest.raises(RuntimeFailure, match="not a socket"):
        dialer.check((str(tmp_path),))


def reach(path: Path, listening: socket.socket) -> None:
    """Preconditions: one thread, as whoever makes a dialer has: else its fork could find a lock
    held for ever."""
    fd, pid = dialer.start(Dialing("c", (str(path),)), Switches(), Terms())
    with socket.socket(fileno=fd) as sock:
        status = Path(f"/proc/{pid}/status").read_text()
        assert "\nSeccomp:\t2\n" in status and "\nNoNewPrivs:\t1\n" in status
        assert "\nCapEff:\t0000000000000002\n" in status  # CAP_DAC_OVERRIDE
        assert sorted(os.listdir(f"/proc/{pid}/root")) == ["0"]
        for kind in ("net", "mnt", "pid", "ipc"):
            assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"runsc-dialer: c\0")
        sock.send(pack(Wanted(0, FOUR, 443)))
        number, (stream,) = answer(sock)
        assert number == 0
        with listening.accept()[0] as came:
            assert came.recv(4096).endswith(b"\n")
        os.close(stream)
    assert os.waitpid(pid, 0)[1] == 0  # it has ended with the last way to it


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_process_reaches_what_it_was_given_and_is_locked_in(
    tmp_path: Path, listening: socket.socket
) -> None:
    (tmp_path / "a").chmod(0o600)
    os.chown(tmp_path / "a", 1234, 1234)
    alone = os.fork()
    if not alone:
        try:
            reach(tmp_path / "a", listening)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(alone, 0)[1] == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_process_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeFailure, match="no such file"):
        dialer.start(Dialing("c", (str(tmp_path / "none"),)), Switches(), Terms())
    assert len(os.listdir("/proc/self/fd")) == before
