"""What a Sentry that is not ours any more can do to the command line that waits for it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from runsc.errors import RuntimeFailure
from runsc.filters import Switches
from runsc.launch import isolation
from runsc.launch import sandbox as sandbox_module
from runsc.launch.boot import Terms
from runsc.launch.programs import Programs
from runsc.launch.sandbox import Sandbox


def _child(close: socket.socket) -> int:
    pid = os.fork()
    if pid == 0:
        close.close()
        signal.pause()
        os._exit(0)
    return pid


def _say(end: socket.socket, what: bytes) -> None:
    with suppress(OSError):  # nobody listens any more
        end.sendall(what)


@pytest.fixture
def pair() -> Iterator[tuple[Sandbox, socket.socket]]:
    """A command line, and the Sentry's end of the line between them."""
    ours, theirs = socket.socketpair()
    made = Sandbox(_child(theirs), _child(theirs), ours, None)
    yield made, theirs
    theirs.close()
    with suppress(OSError):
        made.abandon()


@pytest.mark.parametrize(
    "said",
    [
        b'{"event":\n',
        b'{"event": 5}\n',
        b'{"event":"a","x":' + b"[" * 200_000 + b"\n",
        b'"event"' + b"x" * (5 << 20),
    ],
    ids=["cut", "number", "deep", "endless"],
)
def test_what_is_no_message_ends_the_sandbox(
    pair: tuple[Sandbox, socket.socket], said: bytes
) -> None:
    sandbox, theirs = pair
    sender = threading.Thread(target=_say, args=(theirs, said))
    sender.start()

    with pytest.raises(RuntimeFailure, match="said what is no message"):
        sandbox.await_ready()
    sender.join()


def test_who_looks_is_called_until_the_program_may_run(
    pair: tuple[Sandbox, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "LOOK_MS", 1)
    sandbox, theirs = pair
    seen: list[bool] = []

    def look(is_over: bool) -> None:
        seen.append(is_over)
        if len(seen) == 3:
            theirs.sendall(b'{"event":"ready"}\n')

    sandbox.looks = look
    sandbox.await_ready()

    assert seen[:3] == [False] * 3 and seen.index(True) == len(seen) - 1


@pytest.mark.parametrize("said", [b"", b'{"event":"ready"}\n'], ids=["ready", "kept"])
def test_sandbox_that_says_nothing_is_given_up(
    pair: tuple[Sandbox, socket.socket], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """Nor does it help to go on about other things."""
    monkeypatch.setattr(sandbox_module, "READY_S", 0.3)
    sandbox, theirs = pair
    theirs.sendall(said)
    over = threading.Event()

    def chat() -> None:
        while not over.is_set():
            _say(theirs, b'{"event":"soon"}\n')

    sender = threading.Thread(target=chat)
    sender.start()
    try:
        with pytest.raises(RuntimeFailure, match=r"^the sandbox was not ready after 0.3 seconds$"):
            sandbox.await_ready()
            sandbox.keep()
    finally:
        over.set()
        sandbox.abandon()
        sender.join()


def test_events_that_nobody_waits_for_are_not_kept(pair: tuple[Sandbox, socket.socket]) -> None:
    sandbox, theirs = pair
    theirs.sendall(b"".join(b'{"event":"%d"}\n' % number for number in range(100)))
    theirs.sendall(b'{"event":"ready"}\n')

    sandbox.await_ready()

    assert sandbox._events == {"ready"}


@pytest.mark.parametrize("event", ["ready", ""], ids=["starting", "running"])
def test_sandbox_that_nobody_wants_any_more_is_ended(
    pair: tuple[Sandbox, socket.socket], event: str
) -> None:
    sandbox, _ = pair
    sandbox.lifeline, other = os.pipe()
    os.close(other)

    with pytest.raises(RuntimeFailure, match=r"killed by signal 9|has ended"):
        sandbox.await_ready() if event else sandbox.wait()
    os.close(sandbox.lifeline)


def test_sentry_that_does_not_read_holds_no_signal_up(
    pair: tuple[Sandbox, socket.socket],
) -> None:
    """When it reads it gets them."""
    sandbox, theirs = pair
    with suppress(BlockingIOError):
        while True:
            sandbox._control.send(b"{}\n" * 1000, socket.MSG_DONTWAIT)
    sandbox.forward(signal.SIGUSR1)
    sandbox.forward(signal.SIGTERM)

    def read() -> None:
        said = b""
        while not said.endswith(b'"signal":15}\n'):
            said = said[-100:] + theirs.recv(1 << 16)
        assert b'"signal":10}' in said
        os.kill(sandbox.pid, signal.SIGUSR2)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.raises(RuntimeFailure, match="killed by signal 12"):
        sandbox.wait()
    reader.join()


class _Root(msgspec.Struct):
    image_fd: int = 0
    written_behind: bool = False


class _Config(msgspec.Struct):
    root: _Root
    gofer_fd: int = -1
    control_fd: int = -1
    stand_in_fd: int = -1
    victim_fd: int = -1


@pytest.mark.parametrize("comes_first", [False, True])
def test_signal_while_the_stand_in_is_waited_for_ends_the_sentry(
    monkeypatch: pytest.MonkeyPatch, comes_first: bool
) -> None:
    """Else what is removed then, as its cgroup, is in use."""
    monkeypatch.setattr(isolation, "freeze_heap", lambda: None)
    life, other = socket.socketpair()
    begun: list[int] = []

    def begin(*_: object) -> int:
        begun.append(_child(other))
        return begun[0]

    class Standing:
        victim = None

        def __init__(self) -> None:
            self.life = life
            self.comes_first = comes_first

        def await_ready(self) -> None:
            raise SystemExit(128 + signal.SIGTERM)

    config: Any = _Config(_Root())
    standing: Any = Standing()
    serve: Any = None
    with life, other:
        with pytest.raises(SystemExit):
            sandbox_module.start(
                config, (), Programs(begin, serve), Switches(), Terms(), standing
            )
        try:
            with pytest.raises(ChildProcessError):
                os.waitpid(begun[0], os.WNOHANG)
        finally:
            sandbox_module.end_child(begun[0])


@pytest.mark.parametrize(("ends", "wanted"), [(True, "reap"), (False, "end")])
def test_stand_in_that_waits_for_a_gofer_is_waited_for_if_that_ends(
    ends: bool, wanted: str
) -> None:
    """Else it may be held up for ever, by a file system of the host that does not answer."""
    heard: list[str] = []

    class Standing:
        pid = os.getpid()

        def reap(self) -> int:
            heard.append("reap")
            return 0

        def end(self) -> int:
            heard.append("end")
            return signal.SIGKILL

    ours, theirs = socket.socketpair()
    standing: Any = Standing()
    pids = _child(theirs), _child(theirs)
    sandbox = Sandbox(*pids, ours, None, standing, gofer_grace_ms=10_000 if ends else 1)
    theirs.close()
    for pid in pids[: 1 + ends]:
        os.kill(pid, signal.SIGTERM)

    with pytest.raises(RuntimeFailure, match="the sandbox process was killed by signal 15"):
        sandbox.wait()

    assert heard == [wanted]
