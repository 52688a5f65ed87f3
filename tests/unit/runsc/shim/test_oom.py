"""Kills for want of memory, as a sandbox tells them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.shim import oom
from runsc.shim.loop import Loop
from sentry.control.answers import Stats
from sentry.control.protocol import Reply, Request, decode, encode


class Sandbox:
    """One that says how many there were; in the same thread."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop(lambda pid, status: None)
        self.told = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(folder / "control.sock"))
        self._listener.listen()
        self._listener.setblocking(False)
        self.watch = oom.Watch(self.loop, str(folder / "control.sock"), self._hear)

    def _hear(self) -> None:
        self.told += 1

    def is_asked(self) -> int | None:
        """How many are known to who asks; None: nobody does."""
        try:
            self._sock, _ = self._listener.accept()
        except BlockingIOError:
            return None
        return decode(self._sock.recv(1 << 16).rstrip(), Request).oom_kills

    def say(self, kills: int) -> None:
        with self._sock:
            self._sock.send(encode(Reply(stats=Stats(0, 0, 0, 0, 0, kills, 0, 0))))
        self.go_on()

    def go_on(self) -> None:
        for _ in range(3):
            self.loop.after(0, self.loop.stop)
            self.loop._stopped = False
            self.loop.run()

    def close(self) -> None:
        self.watch.end()
        self._sock.close()
        self._listener.close()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path)
    yield made
    made.close()


def test_each_is_told_and_the_next_is_waited_for(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oom, "APART_S", 0.0)
    assert sandbox.is_asked() == 0
    sandbox.say(2)
    assert sandbox.is_asked() == 2
    sandbox.say(3)
    assert (sandbox.told, sandbox.is_asked()) == (2, 3)


def test_sandbox_that_has_always_one_more_is_not_asked_at_once(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oom, "APART_S", 600 * oom.APART_S)
    sandbox.is_asked()
    sandbox.say(1)
    assert (sandbox.told, sandbox.is_asked()) == (1, None)


def test_after_the_end_nobody_is_asked(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom, "APART_S", 60.0)
    sandbox.is_asked()
    sandbox.say(1)
    sandbox.watch.finish()
    assert (sandbox.loop._patience(), sandbox.is_asked()) == (None, None)


def test_sandbox_that_has_been_deleted_meanwhile_is_not_asked(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(oom, "APART_S", 0.01)
    sandbox.is_asked()
    tmp_path.rename(tmp_path.with_name("gone"))
    sandbox.say(1)
    sandbox.loop.after(0.03, sandbox.loop.stop)
    sandbox.loop._stopped = False
    sandbox.loop.run()
    tmp_path.with_name("gone").rename(tmp_path)
    assert (sandbox.told, sandbox.is_asked()) == (1, None)


def test_sandbox_that_takes_no_question_or_answers_none_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue is full, or it has as many connections as there may be."""
    monkeypatch.setattr(oom, "AGAIN_S", 0.0)
    asked, refused = oom.Watch._asked, [BlockingIOError()]

    def refused_once(watch: oom.Watch) -> socket.socket:
        if refused:
            raise refused.pop()
        return asked(watch)

    monkeypatch.setattr(oom.Watch, "_asked", refused_once)
    sandbox = Sandbox(tmp_path)
    assert sandbox.is_asked() is None
    sandbox.go_on()
    assert sandbox.is_asked() == 0
    sandbox._sock.close()
    sandbox.go_on()
    assert sandbox.is_asked() == 0
    sandbox.close()
