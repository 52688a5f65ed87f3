"""A Gofer in a child process, and a client that sends what a test wants and nothing else."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from gofer._native import lib
from gofer.attachment import Attachment
from gofer.main import run
from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.frames import FrameReader
from gofer.p9.messages import Rlerror, Tattach, Tversion
from gofer.shared import Given

_M = TypeVar("_M", bound=Message)


def _log(text: str) -> None:
    print(text, file=sys.stderr)


def spawn(body: Callable[[], None]) -> int:
    """Run `body` in a child that exits 0 if it returns."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        body()
        status = 0
    except BaseException as problem:
        sys.stderr.write(f"gofer: {type(problem).__name__}: {problem}\n")
    finally:
        os._exit(status)


@contextmanager
def serving(
    attachments: Sequence[Attachment],
    lockdown: Callable[[], None] = lambda: None,
    family: int = socket.AF_UNIX,
    journal: int = -1,
    hears: bool = True,
) -> Iterator[socket.socket]:
    """A socket with a Gofer on the other end, which must end cleanly when it is closed."""
    if family == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()

    def body() -> None:
        ours.close()
        given = Given(lib.gofer_notify(), journal, lib.gofer_hearing() if hears else -1)
        run(theirs, attachments, lockdown, _log, given)

    pid = spawn(body)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        assert os.waitpid(pid, 0)[1] == 0, "the Gofer did not end cleanly"


class Client:
    """Requests one at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fds: list[int] = []
        self.tag = 1
        self._reader = FrameReader(c.MSIZE_MAX)

    def start(self, version: bytes = c.VERSION_EXTENDED, aname: bytes = b"", fid: int = 0) -> None:
        """Version and attach."""
        self.call(Tversion(c.MSIZE_MAX, version))
        self.call(Tattach(fid, c.NOFID, b"", aname, 0))

    def call(self, request: Message) -> Message:
        """The reply. Raises the OSError of an Rlerror, EOFError if the connection is closed."""
        tag = c.NOTAG if isinstance(request, Tversion) else self.tag
        self.sock.sendall(request.encode(tag))
        while True:
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 8)
            self.fds += fds
            if not data:
                raise EOFError
            for got, reply in self._reader.feed(data):
                assert got == tag
                if isinstance(reply, Rlerror):
                    raise OSError(reply.ecode, os.strerror(reply.ecode))
                return reply

    def ask(self, request: Message, kind: type[_M]) -> _M:
        """`call`, for a known reply."""
        reply = self.call(request)
        assert isinstance(reply, kind), reply
        return reply

    def take_fd(self) -> int:
        """The donated descriptor; exactly one must have come."""
        assert len(self.fds) == 1
        return self.fds.pop()
