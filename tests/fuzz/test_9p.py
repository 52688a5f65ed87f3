"""Whatever a client sends, the Gofer lives, serves others, and stays below its root."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st

from gofer.attachment import Attachment
from gofer.p9 import constants as c
from gofer.p9.codec import MESSAGES, Message
from gofer.p9.extensions import Tdupx, Thearx
from gofer.p9.messages import Rgetattr, Tattach, Tgetattr, Tversion
from tests.fuzz.running import explore, for_a_while
from tests.patience import TIMEOUT_S
from tests.unit.gofer.harness import Client, serving
from tests.unit.gofer.p9.strategies import KINDS, requests

pytestmark = pytest.mark.root

_FIDS = st.sampled_from([0, 1, 2, 3, 4, 5, c.NOFID])
LONG = [b"n" * 255, b"n" * 256]
_NAMES = st.sampled_from(b"|.|..|/|a|b|file|dir|link|../secret|a/b|x\0y|user.a".split(b"|") + LONG)
_FIELDS: dict[str, st.SearchStrategy[object]] = {
    "fid": _FIDS,
    "newfid": _FIDS,
    "dfid": _FIDS,
    "olddirfid": _FIDS,
    "newdirfid": _FIDS,
    "dirfd": _FIDS,
    "names": st.lists(_NAMES, max_size=4),
    "newfids": st.lists(_FIDS, max_size=4),
    "flags": st.sampled_from([0, 1, 2, 0o1002, 0o302, 0o200, c.NOOPEN]) | KINDS["U32"],
    "mode": st.sampled_from([0o755, 0o40755, 0o120777, 0o10600, 0o20666, 0o104777]) | KINDS["U32"],
    "count": st.sampled_from([0, 1, 100, 65536, 0xFFFFFFFF]),
    "offset": st.sampled_from([0, 1, 1 << 20, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]),
    "size": st.sampled_from([0, 1, 1 << 20, (1 << 63) - 1, (1 << 64) - 1]),
    "attr_size": st.sampled_from([0, 1, 3, 65536, 1 << 40]),
}
_LIKELY_KINDS = [
    kind
    for number, kind in sorted(MESSAGES.items())
    if number % 2 == 0 and kind not in (Tversion, Tattach, Tdupx)
]


def _field(name: str, kind: str) -> st.SearchStrategy[object]:
    if name in _FIELDS:
        return _FIELDS[name]
    return _NAMES if kind == "Str" else KINDS[kind]


def _likely(kind: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(kind, **{name: _field(name, field) for name, field in kind.fields.items()})


def likely_requests() -> st.SearchStrategy[Message]:
    """Requests that get somewhere: few fids, few names."""
    return st.sampled_from(_LIKELY_KINDS).flatmap(_likely)


class World:
    """A served tree with a secret beside it."""

    def __init__(self, base: Path, sock: socket.socket) -> None:
        self.base = base
        self.main = Client(sock)
        self.main.start()

    def session(self) -> Client:
        """A new session, attached as fid 0."""
        self.main.call(Tdupx())
        client = Client(socket.socket(fileno=self.main.take_fd()))
        client.sock.settimeout(TIMEOUT_S)
        client.start()
        return client

    def check(self) -> None:
        """The server serves, and nothing outside its root has changed."""
        assert self.main.ask(Tgetattr(0, 0), Rgetattr).nlink
        assert sorted(os.listdir(self.base)) == ["root", "secret"]
        assert (self.base / "secret").read_bytes() == b"secret"
        assert os.stat(self.base / "secret").st_mode & 0o7777 == 0o640


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    base = tmp_path / "base"
    root = base / "root"
    (root / "dir").mkdir(parents=True)
    (root / "file").write_bytes(b"contents")
    (root / "link").symlink_to("../secret")
    (base / "secret").write_bytes(b"secret")
    os.chmod(base / "secret", 0o640)
    fd = os.open(root, os.O_PATH)
    with serving([Attachment(b"0", fd)]) as sock:
        yield World(base, sock)


def check_requests(world: World, sent: list[Message]) -> None:
    client = world.session()
    listens = False
    with client.sock:
        for request in sent:
            if isinstance(request, Thearx) and listens:  # the answer may never come
                continue
            listens |= isinstance(request, Thearx)
            try:
                client.call(request)
            except OSError as problem:
                assert not isinstance(problem, TimeoutError), request
            except EOFError:
                break
            for fd in client.fds:
                st_ = os.fstat(fd)
                assert not os.path.samestat(st_, os.stat(world.base / "secret"))
                os.close(fd)
            client.fds.clear()
    world.check()


@for_a_while()
def test_any_requests_leave_the_server_alive_and_below_its_root(
    world: World, seconds: float
) -> None:
    sent = st.lists(likely_requests() | requests(), min_size=1, max_size=30)
    explore(seconds, lambda sent: check_requests(world, sent), 150, sent=sent)


def check_bytes(
    world: World, sent: list[Message], noise: list[tuple[int, bytes]], tail: bytes
) -> None:
    stream = bytearray(b"".join(message.encode(tag) for tag, message in enumerate(sent)) + tail)
    for at, piece in noise:
        stream[at : at + len(piece)] = piece
    client = world.session()
    with client.sock:
        client.sock.sendall(stream)
        client.sock.shutdown(socket.SHUT_WR)
        try:
            while client.sock.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
    world.check()


@for_a_while()
def test_any_bytes_leave_the_server_alive(world: World, seconds: float) -> None:
    explore(
        seconds, lambda **values: check_bytes(world, **values), 150,
        sent=st.lists(requests(), max_size=3),
        noise=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=8)), max_size=6),
        tail=st.binary(max_size=64),
    )  # fmt: skip
