"""Events in their order, whatever becomes of the connection."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runsc.shim import messages as m
from runsc.shim import publisher as tested
from runsc.shim import ttrpc
from runsc.shim.loop import Loop, Timer
from runsc.shim.publisher import Publisher, Way
from runsc.shim.workers import Workers
from sentry.protobuf import Message, decode, encode


class Containerd:
    """Its side, in the same thread."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tested, "AGAIN_S", 0.0)
        self.loop = Loop(lambda pid, status: None)
        self.path = folder / "ttrpc"
        self.logged: list[str] = []
        workers = Workers(self.loop)
        way = Way(str(self.path), namespace="ns")
        self.publisher = Publisher(self.loop, workers, way, self.logged.append)
        self.listener: socket.socket | None = None
        self.sock: socket.socket | None = None

    def open(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.listener.setblocking(False)

    def close(self) -> None:
        for sock in (self.sock, self.listener):
            if sock is not None:
                sock.close()
        self.path.unlink()
        self.sock = self.listener = None

    def turn(self) -> None:
        for _ in range(6):
            self.loop.after(0, self.loop.stop)
            self.loop._stopped = False
            self.loop.run()

    def hear(self) -> tuple[int, m.Envelope]:
        """One event."""
        self.turn()
        if self.sock is None:
            assert self.listener is not None
            self.sock, _ = self.listener.accept()
            self.sock.setblocking(False)
        self.turn()
        [frame] = ttrpc.Reader().feed(self.sock.recv(1 << 16))
        request = decode(m.Request, frame.data)
        assert (request.service, request.method) == (tested.SERVICE, "Forward")
        envelope = decode(m.Forward, request.payload).envelope
        assert envelope is not None
        return frame.stream, envelope

    def answer(self, stream: int, message: Message | None = None) -> None:
        assert self.sock is not None
        self.sock.send(ttrpc.answer(stream, message or m.Empty()))
        self.turn()

    def take(self) -> str:
        """One event; its topic."""
        stream, envelope = self.hear()
        self.answer(stream)
        return envelope.topic


@pytest.fixture
def containerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Containerd]:
    made = Containerd(tmp_path, monkeypatch)
    yield made
    made.close()
    made.publisher.close()


def test_an_event_has_a_topic_a_namespace_and_a_name(containerd: Containerd) -> None:
    containerd.open()

    containerd.publisher.publish(m.TaskStart("c", 5))
    _, envelope = containerd.hear()

    assert (envelope.topic, envelope.namespace) == ("/tasks/start", "ns")
    assert envelope.timestamp is not None and envelope.timestamp.seconds > 1 << 30
    assert envelope.event == m.Any("containerd.events.TaskStart", encode(m.TaskStart("c", 5)))


def test_one_after_the_other_in_their_order(containerd: Containerd) -> None:
    containerd.open()
    for event in (m.TaskCreate("c"), m.TaskStart("c"), m.TaskExit("c")):
        containerd.publisher.publish(event)

    assert [containerd.take() for _ in range(3)] == ["/tasks/create", "/tasks/start", "/tasks/exit"]
    assert containerd.publisher.empty


def test_while_containerd_is_away_they_are_kept(containerd: Containerd) -> None:
    containerd.publisher.publish(m.TaskStart("c"))
    containerd.publisher.publish(m.TaskExit("c"))
    containerd.turn()

    containerd.open()

    assert [containerd.take() for _ in range(2)] == ["/tasks/start", "/tasks/exit"]


def test_of_too_many_none_is_lost_that_is_not_said(
    containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "KEPT", 3)
    containerd.open()
    containerd.publisher.publish(m.TaskCreate("c"))
    stream, _ = containerd.hear()
    for event in (m.TaskStart("c"), m.TaskOOM("c"), m.TaskExit("c")):
        containerd.publisher.publish(event)

    containerd.answer(stream)

    assert [containerd.take() for _ in range(2)] == ["/tasks/oom", "/tasks/exit"]
    assert containerd.logged == ["containerd is away: an event is lost: /tasks/start"]


def test_one_that_was_not_answered_is_told_again(containerd: Containerd) -> None:
    containerd.open()
    containerd.publisher.publish(m.TaskStart("c"))
    containerd.hear()

    containerd.close()
    containerd.turn()
    containerd.open()

    assert containerd.take() == "/tasks/start"


def test_one_that_is_refused_is_not(containerd: Containerd) -> None:
    containerd.open()
    containerd.publisher.publish(m.TaskStart("c"))
    stream, _ = containerd.hear()
    assert containerd.sock is not None

    containerd.sock.send(ttrpc.error(stream, ttrpc.Code.INVALID_ARGUMENT, "what?"))
    containerd.turn()

    assert containerd.publisher.empty
    assert "what?" in containerd.logged[0]


def test_of_too_many_the_oldest_are_lost(
    containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "KEPT", 2)
    for event in (m.TaskCreate("c"), m.TaskStart("c"), m.TaskExit("c")):
        containerd.publisher.publish(event)
    containerd.open()

    assert [containerd.take() for _ in range(2)] == ["/tasks/start", "/tasks/exit"]
    assert "/tasks/create" in containerd.logged[0]


def test_when_all_are_told_somebody_hears_of_it(containerd: Containerd) -> None:
    containerd.open()
    heard: list[bool] = []
    containerd.publisher.on_empty = lambda: heard.append(True)

    containerd.publisher.publish(m.TaskStart("c"))
    containerd.take()

    assert heard == [True]


def test_without_ttrpc_containerds_program_is_called_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = os.fork, [errno.EAGAIN, errno.ENOMEM]

    def fork() -> int:
        if failures:
            raise OSError(failures.pop(), "no process is left")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(tested, "AGAIN_S", 0.0)
    program = tmp_path / "containerd"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncat >> {tmp_path}/events\n')
    program.chmod(0o755)
    loop = Loop(lambda pid, status: None)
    way = Way("", "/c.sock", str(program), "ns")
    publisher = Publisher(loop, Workers(loop), way, lambda text: None)

    publisher.publish(m.TaskStart("c"))
    publisher.publish(m.TaskExit("c"))
    publisher.on_empty = loop.stop
    loop.run()
    loop.reap()

    assert (tmp_path / "calls").read_text().splitlines() == [
        f"--address /c.sock publish --topic /tasks/{each} --namespace ns"
        for each in ("start", "exit")
    ]
    assert b"containerd.events.TaskStart" in (tmp_path / "events").read_bytes()


def test_containerds_program_that_hangs_is_ended_and_called_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "AGAIN_S", 0.0)
    program = tmp_path / "containerd"
    hangs = f"[ -e {tmp_path}/again ] || {{ echo >{tmp_path}/again; exec sleep 1000; }}"
    program.write_text(f'#!/bin/sh\n{hangs}\necho "$5" >> {tmp_path}/calls\n')
    program.chmod(0o755)
    loop = Loop(lambda pid, status: None)
    late = loop.after

    def after(seconds: float, callback: Callable[[], None]) -> Timer:
        """The first one is late when it is there."""
        if seconds != tested.PROGRAM_S or (tmp_path / "again").exists():
            return late(seconds, callback)

        def look() -> None:
            if (tmp_path / "again").exists():
                callback()
            else:
                late(0.0, look)

        return late(0.0, look)

    monkeypatch.setattr(loop, "after", after)
    publisher = Publisher(
        loop, Workers(loop), Way("", "/c.sock", str(program), "ns"), lambda text: None
    )
    publisher.publish(m.TaskStart("c"))
    publisher.publish(m.TaskExit("c"))
    publisher.on_empty = loop.stop
    loop.run()
    loop.reap()

    assert (tmp_path / "calls").read_text() == "/tasks/start\n/tasks/exit\n"
