"""Forks that do something and say what came of it."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from runsc.errors import NoContainer
from runsc.shim.loop import Loop, Promise, spawn
from runsc.shim.ttrpc import Code, Refused
from runsc.shim.workers import Job, Outcome, Report, Workers


def result(job: Job) -> Outcome | Refused:
    """What comes of it."""
    loop = Loop(lambda pid, status: None)
    promise: Promise[Outcome] = Workers(loop).start(job)
    found: list[Outcome | Refused] = []

    async def wait() -> None:
        try:
            found.append(await promise)
        except Refused as error:
            found.append(error)
        loop.stop()

    spawn(wait())
    loop.run()
    loop.reap()
    return found[0]


def test_a_value_and_descriptors_come_back() -> None:
    def job(report: Report) -> None:
        reader, writer = os.pipe()
        os.write(writer, b"sent")
        report({"a": [1, b"x"]}, [reader])

    outcome = result(job)

    assert isinstance(outcome, Outcome)
    assert (outcome.value, outcome.pid > 1) == ({"a": [1, b"x"]}, True)
    assert os.read(outcome.fds[0], 9) == b"sent"
    os.close(outcome.fds[0])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NoContainer("c"), Code.NOT_FOUND, 'container "c" does not exist'),
        (Refused(Code.ALREADY_EXISTS, "there"), Code.ALREADY_EXISTS, "there"),
        (ZeroDivisionError("x"), Code.INTERNAL, "ZeroDivisionError"),
    ],
)
def test_an_error_comes_back(error: Exception, code: Code, text: str) -> None:
    def job(report: Report) -> None:
        raise error

    outcome = result(job)

    assert isinstance(outcome, Refused)
    assert outcome.code == code
    assert text in str(outcome)


def test_one_that_dies_without_a_word_is_an_error() -> None:
    outcome = result(lambda report: os._exit(3))

    assert isinstance(outcome, Refused) and outcome.code == Code.INTERNAL


def test_without_a_process_for_it_a_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)

    outcome = result(lambda report: None)

    assert isinstance(outcome, Refused) and outcome.code == Code.UNKNOWN
    assert "resource temporarily unavailable" in str(outcome)


def test_one_that_has_said_its_word_may_go_on() -> None:
    def job(report: Report) -> None:
        report(1)
        signal.pause()

    outcome = result(job)

    assert isinstance(outcome, Outcome) and outcome.value == 1
    os.kill(outcome.pid, signal.SIGTERM)
    _, status = os.waitpid(outcome.pid, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_one_that_takes_its_time_keeps_no_reader_waiting() -> None:
    """Of what others have written into a named pipe of containerd's."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def job(report: Report) -> None:
        report(1)
        signal.pause()

    outcome = result(job)
    os.close(writer)
    assert os.read(reader, 1) == b""

    assert isinstance(outcome, Outcome)
    os.close(reader)
    os.kill(outcome.pid, signal.SIGTERM)
    os.waitpid(outcome.pid, 0)
