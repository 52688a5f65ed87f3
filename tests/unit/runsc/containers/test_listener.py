"""Questions to a sandbox that means harm."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from runsc.containers.listener import ask, listen, send
from sentry.control.protocol import Reply, Request


@contextmanager
def answering(path: Path, *, first: bytes, then: bytes = b"") -> Iterator[str]:
    """A sandbox that says `first`, and `then` again and again."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as end, suppress(OSError):
            end.recv(1000)
            end.sendall(first)
            while then and not over.wait(0.01):
                end.sendall(then)

    with listen(str(path / "control.sock")) as listener:
        listener.setblocking(True)
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        try:
            yield str(path / "control.sock")
        finally:
            over.set()
            server.join()


def test_answer_that_drips_in_ends_with_the_patience(tmp_path: Path) -> None:
    with answering(tmp_path, first=b"{", then=b" ") as path, pytest.raises(TimeoutError):
        ask(path, Request("ps"), 0.2)


def test_patience_may_be_of_any_length(tmp_path: Path) -> None:
    with answering(tmp_path, first=b"{}\n") as path:
        assert ask(path, Request("ps"), 1e10) == Reply()


@pytest.mark.parametrize(
    "said", [b"x\n", b'{"error": 5}\n', b"[" * 300_000 + b"\n"], ids=["text", "number", "deep"]
)
def test_answer_that_is_none_is_an_error(tmp_path: Path, said: bytes) -> None:
    with answering(tmp_path, first=said) as path, pytest.raises(ValueError, match="no Reply"):
        ask(path, Request("ps"), 10)


class Answered(socket.socket):
    """Its peer has gone as soon as the first bytes were there."""

    def sendall(self, data: object, flags: int = 0, /) -> None:
        raise BrokenPipeError


def test_who_has_gone_after_the_whole_question_has_heard_it() -> None:
    ours, theirs = socket.socketpair()
    with Answered(fileno=ours.detach()) as sock, theirs, open("/dev/null", "rb") as file:
        send(sock, Request("succeed"), (file.fileno(),))
        assert b"succeed" in theirs.recv(100)
