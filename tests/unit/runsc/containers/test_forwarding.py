"""Connections of port-forward, with nobody inside."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import threading
from typing import Any

import pytest

from runsc.containers import forwarding, listener
from sentry.control.protocol import Reply, encode
from tests.patience import TIMEOUT_S


def test_a_connection_closed_again_closes_nothing_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "connect", lambda _: socket.socket())
    monkeypatch.setattr(listener, "send", lambda *_: None)
    ours, theirs = socket.socketpair()
    connection = forwarding.Connection("", theirs, 80)
    connection.close()
    others = os.pipe2(os.O_CLOEXEC)

    connection.close()

    for fd in others:
        os.close(fd)
    ours.close()


def test_a_connection_that_cannot_be_had_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(*_: Any) -> Reply:
        raise TimeoutError

    monkeypatch.setattr(listener, "connect", lambda _: socket.socket())
    monkeypatch.setattr(listener, "send", lambda *_: None)
    monkeypatch.setattr(listener, "answer", answer)
    forwards = forwarding.Forwarding("", -1, lambda _: None)
    before = os.listdir("/proc/self/fd")
    ours, theirs = socket.socketpair()

    with ours, pytest.raises(TimeoutError):
        forwards.add(theirs, 80)

    assert os.listdir("/proc/self/fd") == before


def test_what_was_said_before_the_end_of_a_container_goes_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = os.memfd_create("over")  # always ready
    said = bytes(100_000)

    def send(*arguments: Any) -> None:
        """Its answer is there before anybody looks."""
        _, out = arguments[-1]
        fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, 1 << 17)
        os.write(out, said)

    monkeypatch.setattr(listener, "connect", lambda _: socket.socket())
    monkeypatch.setattr(listener, "send", send)
    monkeypatch.setattr(listener, "answer", lambda *_: Reply())
    ours, theirs = socket.socketpair()
    forwards = forwarding.Forwarding("", over, lambda _: None)
    forwards.add(theirs, 80)

    forwards.run({})

    assert ours.recv(len(said), socket.MSG_WAITALL) == said
    forwards.close()
    assert ours.recv(1) == b""
    ours.close()
    os.close(over)


def test_without_descriptors_it_waits_for_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on then."""
    said: list[str] = []
    tried = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        tried.set()

    over, ends = os.pipe2(os.O_CLOEXEC)
    monkeypatch.setattr(listener, "connect", lambda _: socket.socket())
    monkeypatch.setattr(listener, "send", lambda *_: None)
    monkeypatch.setattr(listener, "answer", lambda *_: Reply(error="nobody listens"))
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as visitor:
        listening.setblocking(False)
        forwards = threading.Thread(
            target=forwarding.Forwarding("", over, say).run, args=({listening: 80},)
        )
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
        filled = [os.dup(over) for _ in range(highest)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(filled) + 1, limits[1]))
        try:
            forwards.start()
            visitor.connect(listening.getsockname())
            assert tried.wait(TIMEOUT_S)
            assert said[0] == "port forwarding: [Errno 24] Too many open files"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in filled:
                os.close(fd)
        visitor.settimeout(TIMEOUT_S)
        assert visitor.recv(1) == b""
        os.close(ends)
        forwards.join(TIMEOUT_S)
        assert said[-1] == "port forwarding: nobody listens"
    os.close(over)


class Inside:
    """The ends of the pipes that the sandbox has, by connections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends: list[tuple[int, int]] = []
        self.came = threading.Semaphore(0)
        self.controls: list[socket.socket] = []
        """The other ends of connections to the sandbox."""
        self.answers = True
        monkeypatch.setattr(listener, "connect", self._connect)
        monkeypatch.setattr(listener, "send", self._send)

    def _connect(self, _: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.controls.append(theirs)
        return ours

    def _send(self, *arguments: Any) -> None:
        into, out = arguments[-1]
        self.ends.append((os.dup(into), os.dup(out)))
        if self.answers:
            self.answer()
        self.came.release()

    def answer(self) -> None:
        """The last one is connected."""
        self.controls[-1].sendall(encode(Reply()))

    def close(self) -> None:
        for each in self.controls:
            each.close()


def test_a_connection_that_nobody_has_inside_ends_with_what_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside = Inside(monkeypatch)
    over, ends = os.pipe2(os.O_CLOEXEC)
    forwards = forwarding.Forwarding("", over, lambda _: None)
    ours, theirs = socket.socketpair()
    forwards.add(theirs, 80)
    into, out = inside.ends[0]
    os.write(out, b"answer")
    for fd in (into, out):
        os.close(fd)
    thread = threading.Thread(target=forwards.run, args=({},))
    thread.start()
    thread.join(TIMEOUT_S)
    was_over = not thread.is_alive()
    os.close(ends)
    thread.join()

    assert was_over
    assert ours.recv(100) == b"answer"
    assert ours.recv(100) == b""
    ours.close()
    inside.close()
    os.close(over)


def test_who_says_nothing_more_makes_room_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program has ended its connections, and who made them keeps them."""
    monkeypatch.setattr(forwarding, "MOST", 1)
    inside = Inside(monkeypatch)
    over, ends = os.pipe2(os.O_CLOEXEC)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        forwards = forwarding.Forwarding("", over, lambda _: None)
        thread = threading.Thread(target=forwards.run, args=({listening: 80},))
        thread.start()
        first = socket.create_connection(listening.getsockname())
        assert inside.came.acquire(timeout=TIMEOUT_S)
        os.close(inside.ends[0][1])
        second = socket.create_connection(listening.getsockname())
        has_room = inside.came.acquire(timeout=TIMEOUT_S)
        os.close(ends)
        thread.join()
        forwards.close()
    for sock in (first, second, inside):
        sock.close()
    for fd in (over, inside.ends[0][0], *(inside.ends[1] if has_room else ())):
        os.close(fd)

    assert has_room


def test_who_is_connected_is_asked_whether_he_is_still_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    over, ends = os.pipe2(os.O_CLOEXEC)

    def connection(_: str, sock: socket.socket, __: int) -> None:
        asked.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        os.close(ends)
        raise OSError("enough")

    monkeypatch.setattr(forwarding, "Connection", connection)
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as visitor:
        visitor.connect(listening.getsockname())
        forwarding.Forwarding("", over, lambda _: None).run({listening: 80})
    os.close(over)

    assert asked == [1]


def test_who_is_not_let_in_yet_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not accept: its queue is full."""
    inside = Inside(monkeypatch)
    inside.answers = False
    over, ends = os.pipe2(os.O_CLOEXEC)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        forwards = forwarding.Forwarding("", over, lambda _: None)
        thread = threading.Thread(target=forwards.run, args=({listening: 80},))
        thread.start()
        first = socket.create_connection(listening.getsockname())
        assert inside.came.acquire(timeout=TIMEOUT_S)
        inside.answers = True
        second = socket.create_connection(listening.getsockname())
        is_served = inside.came.acquire(timeout=TIMEOUT_S)
        if is_served:
            os.write(inside.ends[1][1], b"hello")
            second.settimeout(TIMEOUT_S)
            assert second.recv(100) == b"hello"
        os.close(ends)
        thread.join()
        forwards.close()
    for sock in (first, second, inside):
        sock.close()
    for fd in (over, *(fd for pair in inside.ends for fd in pair)):
        os.close(fd)

    assert is_served


def test_who_is_not_let_in_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "ANSWER_S", 0.0)
    inside = Inside(monkeypatch)
    inside.answers = False
    said: list[str] = []
    over, ends = os.pipe2(os.O_CLOEXEC)

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            os.close(ends)

    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as visitor:
        listening.setblocking(False)
        visitor.connect(listening.getsockname())
        forwarding.Forwarding("", over, say).run({listening: 80})
        assert visitor.recv(1) == b""
    inside.close()
    for fd in (over, *inside.ends[0]):
        os.close(fd)

    assert said[1] == "port forwarding: the sandbox does not answer"
