"""What a Sentry that is not ours any more can do to an `exec`, and to the process it leaves."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from runsc.containers import asking, execution
from runsc.containers.container import Store
from runsc.containers.execspec import Wishes
from runsc.containers.listener import listen
from runsc.containers.processes import start_time
from runsc.containers.state import State
from runsc.errors import RuntimeFailure

Behaviour = Callable[[socket.socket], None]


@contextmanager
def sandbox(path: Path, behaviour: Behaviour) -> Iterator[str]:
    """A socket at which one connection is met so."""

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as end, suppress(OSError):
            end.recv(1 << 16)
            behaviour(end)

    with listen(str(path / "control.sock")) as listener:
        listener.setblocking(True)
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        yield str(path / "control.sock")
        server.join()


def _endless(end: socket.socket) -> None:
    while True:
        end.sendall(b"x" * (1 << 16))


def _silent(end: socket.socket) -> None:
    end.recv(1)


def _says(text: bytes) -> Behaviour:
    def say(end: socket.socket) -> None:
        end.sendall(text)
        end.recv(1)

    return say


@pytest.mark.parametrize(
    "behaviour",
    [
        _endless,
        _silent,
        _says(b'{"error":'),
        _says(b'{"error":5}\n'),
        _says(b'{"error":\n'),
        _says(b'{"error":' + b"[" * 60_000 + b"\n"),
    ],
    ids=["endless", "silent", "half", "number", "broken", "deep"],
)
def test_answer_that_is_none_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour
) -> None:
    monkeypatch.setattr(execution, "ANSWER_S", 0.3)

    with (
        sandbox(tmp_path, behaviour) as path,
        pytest.raises(RuntimeFailure, match=r"^the sandbox does not answer$"),
    ):
        execution.start(path, b"{}\n", [])


def test_error_of_the_sandbox_is_told(tmp_path: Path) -> None:
    with (
        sandbox(tmp_path, _says(b'{"error":"no such file"}\n')) as path,
        pytest.raises(RuntimeFailure, match=r"^no such file$"),
    ):
        execution.start(path, b"{}\n", [])


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("hooks", [{}, {"prestart": [{"path": "/bin/true"}]}], ids=["", "hooks"])
def test_container_that_is_being_created_is_not_asked(
    tmp_path: Path, hooks: dict[str, Any], is_there: bool
) -> None:
    pid = os.getpid()
    since = start_time(pid) + (not is_there)
    store = Store(str(tmp_path))
    store.create(State("1.2.0", "c", "/", creator_pid=pid, creator_start=since, hooks=hooks))
    with listen(store.path("c", "control.sock")) as listener, pytest.raises(RuntimeFailure) as why:
        if not is_there:
            listener.close()
        execution.run(str(tmp_path), Wishes("c", ["true"]), pytest.fail)
    words = 'container not running: "c"' if is_there else f'{execution.STOPPED}: "c"'
    assert (str(why.value), why.value.code) == (words, execution.FAILED)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives something to others")
def test_who_listens_in_a_folder_of_others_gets_no_descriptors(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with listen(str(tmp_path / "c" / "control.sock")) as listener:
        listener.setblocking(False)
        os.chown(tmp_path, 1000, 1000)

        with pytest.raises(RuntimeFailure, match="belongs to another user"):
            execution.run(str(tmp_path), Wishes("c", ("true",)), print)

        with pytest.raises(BlockingIOError):
            listener.accept()


def test_process_whose_sandbox_has_ended_with_it_at_once_was_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()

    class Slow(socket.socket):
        """Its owner goes on when the other end is gone."""

        def sendmsg(self, *given: Any) -> int:
            sent = super().sendmsg(*given)
            theirs.sendall(b'{"pid":2}\n{"event":"exited","status":768}\n')
            theirs.recv(1 << 16)
            theirs.close()
            return sent

    monkeypatch.setattr(asking, "connect", lambda _: Slow(fileno=ours.detach()))
    reader, writer = os.pipe()

    process = execution.start("control.sock", b"{}\n", [])

    assert process.pid == 2
    assert process.wait(reader) == 3
    os.close(reader)
    os.close(writer)


def _then(behaviour: Behaviour) -> Behaviour:
    def meet(end: socket.socket) -> None:
        end.sendall(b'{"pid":2}\n')
        behaviour(end)

    return meet


def _reset(end: socket.socket) -> None:
    """Close with something unread."""
    while not end.recv(1, socket.MSG_PEEK):
        continue


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (_endless, execution.KILLED),
        (_reset, execution.KILLED),
        (_says(b'{"event":"exited","status":256}\n'), 1),
        (_says(b'{"event":"exited","status":99999999999}\n'), 255),
        (_says(b'{"event":"exited","status":-1}\n'), 255),
    ],
    ids=["endless", "reset", "exit", "huge", "negative"],
)
def test_end_of_a_process_is_told_whatever_comes(
    tmp_path: Path, behaviour: Behaviour, code: int
) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"\x0f")  # forwarded: it is what stays unread
    with sandbox(tmp_path, _then(behaviour)) as path:
        process = execution.start(path, b"{}\n", [])
        assert process.wait(reader) == code
    os.close(reader)
    os.close(writer)


def test_signals_that_the_sandbox_does_not_read_hold_nothing_up(tmp_path: Path) -> None:
    """Its words are heard meanwhile."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    with theirs:
        process = execution.Process(ours, b"", b"")  # type: ignore[arg-type]
        with suppress(BlockingIOError):
            while True:
                ours.send(b"\n" * 1000, socket.MSG_DONTWAIT)
        os.write(writer, bytes([signal.SIGUSR1, signal.SIGTERM]))
        theirs.sendall(b'{"event":"exited","status":256}\n')
        assert process.wait(reader) == 1
    os.close(reader)
    os.close(writer)
