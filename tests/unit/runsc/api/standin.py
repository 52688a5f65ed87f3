"""A sandbox that is none: its control socket, behind which programs of the host run.

What the Python API does with one is the same, so it is tested without a machine for each test.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from runsc.containers.listener import connect, listen
from sentry.config import JobUse
from sentry.control.answers import FileEntry
from sentry.control.orders import FileOrder
from sentry.control.protocol import Event, LineBuffer, Reply, Request, decode, encode

USE = JobUse(user_ns=10**9, system_ns=5 * 10**8, memory=1 << 20, tasks=2, written=7)
Filed = Callable[["StandIn", FileOrder, list[int]], Reply]


class StandIn:
    """Serves each connection by a thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.exceeded = ""
        """The limit that has ended each command."""
        self.says: bytes | None = None
        """Instead of any answer."""
        self.filed: Filed = lambda *_: Reply(error="ENOSYS")
        self.threads: list[threading.Thread] = []
        self._listener = listen(path)
        self._listener.setblocking(True)
        self._begin(self._accept)

    def _begin(self, body: Callable[[], None]) -> None:
        thread = threading.Thread(target=body)
        self.threads.append(thread)
        thread.start()

    def settle(self) -> None:
        """All connections have ended: those before this one have been accepted when it has."""
        with connect(self.path) as last:
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        for thread in self.threads[1:]:
            thread.join()

    def close(self) -> None:
        """Nobody can connect any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.unlink(self.path)
        for thread in self.threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._begin(lambda sock=sock: self._serve(sock))  # type: ignore[misc]

    def _serve(self, sock: socket.socket) -> None:
        lines, given = LineBuffer(), []
        with sock, suppress(ConnectionResetError, BrokenPipeError):
            while True:
                data, fds, _, _ = socket.recv_fds(sock, 1 << 16, 16)
                given += fds
                if not data:
                    return
                for line in lines.feed(data):
                    request = decode(line, Request)
                    self.requests.append(request)
                    if self.says is not None:
                        sock.sendall(self.says)
                        close_all(given)
                        return
                    self._answer(sock, request, given)
                    given = []

    def _answer(self, sock: socket.socket, request: Request, fds: list[int]) -> None:
        if request.op == "exec":
            assert request.process is not None
            self._run(sock, [os.fsdecode(arg) for arg in request.process.args], fds)
        elif request.op == "file":
            assert request.file is not None
            reply = self.filed(self, request.file, fds)
            close_all(fds)
            sock.sendall(encode(reply))
        else:
            sock.sendall(encode(Reply()))

    def _run(self, sock: socket.socket, args: list[str], fds: list[int]) -> None:
        try:
            process = subprocess.Popen(
                args, stdin=fds[0], stdout=fds[1], stderr=fds[2], start_new_session=True
            )
        except OSError as error:
            close_all(fds)
            sock.sendall(encode(Reply(error=f"unable to start container process: {error}")))
            return
        close_all(fds)
        sock.sendall(encode(Reply(pid=process.pid)))
        pidfd = os.pidfd_open(process.pid)
        lines = LineBuffer()
        try:
            while True:
                ready = select.select([sock, pidfd], [], [])[0]
                if pidfd in ready:
                    break
                data = sock.recv(1 << 16)
                if not data:
                    os.killpg(process.pid, signal.SIGKILL)
                    continue
                for line in lines.feed(data):
                    request = decode(line, Request)
                    self.requests.append(request)
                    os.killpg(process.pid, request.signal)
                    sock.sendall(encode(Reply()))
        finally:
            os.close(pidfd)
        code = process.wait()
        status = -code if code < 0 else code << 8
        sock.sendall(encode(Event("exited", status=status, use=USE, exceeded=self.exceeded)))


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


@contextmanager
def standing_in(folder: Path) -> Iterator[StandIn]:
    """One, below a folder."""
    with closing(StandIn(str(folder / "control.sock"))) as made:
        yield made


def entry(path: bytes, mode: int, **others: int) -> FileEntry:
    """Of a listing."""
    return FileEntry(path, mode, **others)


def lines(*values: msgspec.Struct) -> bytes:
    """As they come through a pipe."""
    return b"".join(msgspec.json.encode(value) + b"\n" for value in values)
