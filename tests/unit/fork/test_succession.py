from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sentry.control.protocol import Reply, Request, decode, encode
from sentry.fork.succession import END, Place
from tests.patience import TIMEOUT_S


class Followed:
    """A process that has given up its place, and follows in a thread of the test."""

    def __init__(self, folder: Path) -> None:
        self.container = SimpleNamespace(oom_kills=0)
        self.kernel: Any = SimpleNamespace(
            container=self.container, exit_status=None, vfs=SimpleNamespace(donated=set()),
            finish=lambda status: None,
        )  # fmt: skip
        self.path = str(folder / "first.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(4)
        self.stand_in, theirs = socket.socketpair()
        self.successor, ours = socket.socketpair()
        self.place = Place(self.kernel, bool)
        self.place.leave(ours.detach(), lambda error: None)
        self.config: Any = SimpleNamespace(stdio=(0, 1, 2), stand_in_fd=theirs.detach())
        self.status: int | None = None
        self.thread = threading.Thread(target=self._follow)
        self.thread.start()

    def _follow(self) -> None:
        self.status = self.place.follow(self.listener, self.config)

    def ask(self, request: Request, *fds: int) -> Reply:
        """At the socket where it hears."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.connect(self.path)
            socket.send_fds(sock, [encode(request)], list(fds))
            return decode(sock.recv(1 << 12), Reply)

    def ended(self) -> int | None:
        self.thread.join(TIMEOUT_S)
        return self.status


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    made = Followed(tmp_path)
    yield made
    made.stand_in.close()
    made.thread.join(TIMEOUT_S)
    made.successor.close()
    made.listener.close()
    os.close(made.config.stand_in_fd)
    assert not made.thread.is_alive()


def test_it_ends_as_its_successor_does(followed: Followed) -> None:
    followed.successor.send(END.pack(7 << 8, 3))
    assert followed.ended() == 7 << 8
    assert followed.container.oom_kills == 3


def test_a_successor_that_is_killed_ends_it(followed: Followed) -> None:
    followed.successor.close()
    assert followed.ended() == signal.SIGKILL


def test_who_stands_for_it_outside_ends_it(followed: Followed) -> None:
    followed.stand_in.close()
    assert followed.ended() == signal.SIGKILL


def test_another_successor_comes_when_the_one_before_is_gone(followed: Followed) -> None:
    said: list[bytes] = []

    def end() -> None:
        said.append(followed.successor.recv(1))
        followed.successor.close()

    with closing(followed.successor):
        ending = threading.Thread(target=end)
        ending.start()
        new, theirs = socket.socketpair()
        with new, theirs:
            assert followed.ask(Request("succeed"), theirs.fileno()).error == ""
            assert said == [b"\0"]
            theirs.close()
            new.send(END.pack(1 << 8, 0))
            assert followed.ended() == 1 << 8
        ending.join()


def test_who_asks_for_something_else_is_refused(followed: Followed) -> None:
    assert "has taken its place" in followed.ask(Request("state")).error
    assert "has taken its place" in followed.ask(Request("succeed")).error
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.connect(followed.path)
        sock.send(b"no request\n")
        assert sock.recv(1) == b""
    assert followed.thread.is_alive()


def test_a_successor_says_how_it_ends() -> None:
    kernel: Any = SimpleNamespace(
        container=SimpleNamespace(oom_kills=2), loop=SimpleNamespace(watch=lambda *_: None)
    )
    place, (ours, theirs) = Place(kernel, bool), socket.socketpair()
    with ours:
        place.tell_end(0)  # it is nobody's successor
        place.take(theirs.detach())
        place.tell_end(9)
        assert END.unpack(ours.recv(64)) == (9, 2)
        place.take(-1)  # in a fork of it
        assert ours.recv(1) == b""


@pytest.mark.parametrize("is_quiet", [True, False])
def test_a_successor_gives_up_its_place(monkeypatch: pytest.MonkeyPatch, is_quiet: bool) -> None:
    """Whoever waits hears of it at once if nothing of it is under way, else when it has ended."""
    watched: list[Callable[[int], object]] = []
    loop = SimpleNamespace(
        watch=lambda fd, events, *ready: watched.extend(ready), now_ns=lambda: 0,
        call_at=lambda *_: None,
    )  # fmt: skip
    container = SimpleNamespace(copied=False, processes=list)
    place = Place(cast(Any, SimpleNamespace(loop=loop, container=container)), lambda: is_quiet)
    ours, theirs = socket.socketpair()
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    number = theirs.detach()
    with ours:
        place.take(number)
        for ready in watched:
            ready(number)
        assert ended == [0]
        ours.setblocking(False)
        if is_quiet:
            assert ours.recv(1) == b""
        else:
            with pytest.raises(BlockingIOError):
                ours.recv(1)
            os.close(number)


def test_what_has_ended_meanwhile_does_not_give_way() -> None:
    kernel: Any = SimpleNamespace(exit_status=0)
    place, (ours, theirs) = Place(kernel, bool), socket.socketpair()
    said: list[str] = []
    with ours:
        place.leave(theirs.detach(), said.append)
        assert said == ["the sandbox has ended"] and not place.is_left
        assert ours.recv(1) == b""


def test_who_is_gone_takes_no_place() -> None:
    """Nobody has had the patience until all programs stood."""
    kernel: Any = SimpleNamespace(exit_status=None)
    place, (ours, theirs) = Place(kernel, bool), socket.socketpair()
    ours.close()
    said: list[str] = []
    assert not place.leave(theirs.detach(), said.append)
    assert said == ["who was to go on has ended"] and not place.is_left
