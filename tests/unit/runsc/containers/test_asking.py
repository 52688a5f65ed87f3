"""One question to a sandbox, which may mean harm."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from runsc.containers import asking
from sentry.control.protocol import Request, decode
from tests.unit.runsc.containers.test_listener import answering


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (asking.line("start"), Request("start")),
        (asking.line("kill", signal=9, pid=1, all=False), Request("kill", signal=9)),
        (asking.line("kill", signal=0, pid=-7, all=True), Request("kill", pid=-7, all=True)),
        (asking.line("wait", pid=3), Request("wait", pid=3)),
    ],
)
def test_line_is_a_request_of_the_protocol(line: bytes, request_: Request) -> None:
    assert decode(line, Request) == request_
    assert line.endswith(b"\n")


@pytest.mark.parametrize(
    ("first", "said"), [(b"{}\n", ""), (b'{"error":"no"}\n', "no"), (b'{"pid":5}\n{', "")]
)
def test_tell_gives_what_went_wrong(tmp_path: Path, first: bytes, said: str) -> None:
    with answering(tmp_path, first=first) as path:
        assert asking.tell(path, asking.line("start"), 10) == said


def test_answer_that_drips_in_ends_with_the_patience(tmp_path: Path) -> None:
    with answering(tmp_path, first=b"{", then=b" ") as path, pytest.raises(TimeoutError):
        asking.tell(path, asking.line("start"), 0.2)


def test_answer_without_an_end_is_an_error(tmp_path: Path) -> None:
    endless = b" " * (1 << 20)
    with (
        answering(tmp_path, first=endless, then=endless) as path,
        pytest.raises(ValueError, match="too long"),
    ):
        asking.tell(path, asking.line("start"), 60)


@pytest.mark.parametrize(
    "said", [b"x\n", b'{"error": 5}\n', b"[" * 300_000 + b"\n"], ids=["text", "number", "deep"]
)
def test_answer_that_is_none_is_an_error(tmp_path: Path, said: bytes) -> None:
    with answering(tmp_path, first=said) as path, pytest.raises(ValueError, match="no Reply"):
        asking.tell(path, asking.line("start"), 10)


def test_end_without_an_answer_is_an_error(tmp_path: Path) -> None:
    with answering(tmp_path, first=b"{") as path, pytest.raises(OSError, match=r"ended|reset"):
        asking.tell(path, asking.line("start"), 10)


@pytest.mark.parametrize("reads", [True, False])
def test_end_says_whether_the_question_had_been_read(tmp_path: Path, reads: bool) -> None:
    """Who waits for a process of a sandbox that is killed is told so; else it was over before."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    sock = asking.connect(str(tmp_path / "s"))

    def end() -> None:
        if reads:
            accepted, _ = listener.accept()
            while b"\n" not in accepted.recv(100):
                continue
            accepted.close()
        listener.close()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(OSError) as caught:
        asking.answer_to(sock, asking.line("wait", pid=1), 10)
    thread.join()
    sock.close()

    assert isinstance(caught.value, asking.Ended) is reads
    assert isinstance(caught.value, ConnectionResetError | BrokenPipeError)


def test_sandbox_that_accepts_nobody_costs_no_more_than_the_patience(tmp_path: Path) -> None:
    """Those who gave up are among those that wait to be accepted, until nobody else may."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        first = asking.connect(path)
        assert first.gettimeout() is None
        assert not any(first.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
        first.close()
        with pytest.raises(TimeoutError):
            asking.connect(path, 0.05)


def test_what_nobody_reads_is_owed_once_and_told_in_its_order() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = asking.Outbox(ours)
        with suppress(BlockingIOError):
            while True:
                ours.send(b"\n" * 1000, socket.MSG_DONTWAIT)
        for text in (b"one\n", b"two\n", b"one\n"):
            outbox.tell(text)
        assert list(outbox.owed) == [b"two\n", b"one\n"]
        theirs.setblocking(False)
        heard = b""
        with suppress(BlockingIOError):
            while True:
                heard = heard[-10:] + theirs.recv(1 << 16)
                outbox.flush()
    assert heard.lstrip() == b"two\none\n"
    assert not outbox.owed
