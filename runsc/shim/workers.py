"""Forks of the shim that do what may take its time, and leave what outlives them to it.

A sandbox is made by forking a process of one thread, and to ask one may mean to wait: so each such
request is carried out by a child, which has all modules already, says what came of it, and ends.
Its own children (a sandbox's processes) are the shim's then, which is a subreaper: prctl(2).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from runsc import host
from runsc.shim.loop import READ, Loop, Promise, leave_in_fork
from runsc.shim.server import refusal
from runsc.shim.ttrpc import Code, Refused
from sentry.abi import prctl

FDS_MOST = 16
ANSWER_MOST = 1 << 24


class Answer(msgspec.Struct, frozen=True):
    """What a worker says."""

    value: Any = None
    code: int = 0
    error: str = ""


class Lost(Refused):
    """A worker has ended in the middle of its job, without a word."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a job: a value of msgpack, the pid of its worker, and descriptors."""

    value: Any
    pid: int
    fds: Sequence[int] = ()


class Report:
    """The worker's end: it says once what came of its job, and may go on then."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __call__(self, value: Any, fds: Sequence[int] = ()) -> None:
        """It was done."""
        self._say(Answer(value), fds)

    def failed(self, error: BaseException) -> None:
        """It was not."""
        refused = refusal(error)
        text = str(refused)
        if refused.code == Code.INTERNAL:
            import traceback  # noqa: PLC0415  only for a defect

            text = "".join(traceback.format_exception(error))
        self._say(Answer(code=int(refused.code), error=text), ())

    def _say(self, answer: Answer, fds: Sequence[int]) -> None:
        with self._sock, suppress(OSError):
            socket.send_fds(self._sock, [b"\0"], fds)
            self._sock.sendall(msgspec.msgpack.encode(answer))

    def fileno(self) -> int:
        """The socket's."""
        return self._sock.fileno()

    def wait(self) -> bytes:
        """What a worker is told that was forked before there was something to do; b"" at the
        end of the shim."""
        data = bytearray()
        while more := self._sock.recv(1 << 16):
            data += more
        return bytes(data)


Job = Callable[[Report], None]


class Workers:
    """Those that run."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def start(self, job: Job) -> Promise[Outcome]:
        """Fork a worker for it. Raises (when it is awaited): Refused."""
        try:
            pid, sock = self.fork(job)
        except OSError as error:
            promise: Promise[Outcome] = Promise()
            promise.break_(refusal(error))
            return promise
        return self.hear(pid, sock)

    def fork(self, job: Job) -> tuple[int, socket.socket]:
        """The worker and our end of its socket. Preconditions: one thread.

        Raises: OSError: no process, or no descriptor, is left.
        """
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            try:
                _begin(parent, theirs.fileno())
                _work(job, Report(theirs))
            finally:
                os._exit(1)
        theirs.close()
        return pid, ours

    def hear(self, pid: int, sock: socket.socket) -> Promise[Outcome]:
        """What comes of it."""
        promise: Promise[Outcome] = Promise()
        data, fds = bytearray(), list[int]()

        def ready(_: int) -> None:
            try:
                more, given, _, _ = socket.recv_fds(sock, 1 << 16, FDS_MOST)
            except OSError:
                more, given = b"", []
            fds.extend(given)
            data.extend(more)
            if not more or len(data) > ANSWER_MOST:
                self._loop.forget(sock.fileno())
                sock.close()
                _settle(promise, bytes(data), Outcome(None, pid, fds))

        self._loop.watch(sock.fileno(), READ, ready)
        return promise


def _begin(parent: int, kept: int) -> None:
    """The first steps of a worker, which ends with the shim.

    It has nothing of the shim's open: who reads what a process has written, or is given, waits for
    the end of it, and a worker may take its time.
    """
    gc.disable()  # what it would look at is shared with the shim, or open there alone
    leave_in_fork()
    host.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    host.close_all_but({0, 1, 2, kept})


def _work(job: Job, report: Report) -> None:
    try:
        job(report)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException as error:
        report.failed(error)
        os._exit(1)
    os._exit(0)


def _settle(promise: Promise[Outcome], data: bytes, outcome: Outcome) -> None:
    refused: Refused | None = None
    answer = Answer()
    try:
        answer = msgspec.msgpack.decode(data[1:], type=Answer)
    except msgspec.DecodeError:
        refused = Lost(Code.INTERNAL, "the worker of the shim has ended")
    if answer.code:
        refused = Refused(answer.code, answer.error)
    if refused is not None:
        for fd in outcome.fds:
            os.close(fd)
        promise.break_(refused)
        return
    promise.keep(msgspec.structs.replace(outcome, value=answer.value))
