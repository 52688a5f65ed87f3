"""`exec`: the host's side of a process that is added to a running container.

The Sentry gets what the process is and its descriptors in one message, answers with its number, and
says on the same connection how it ended. While the connection is open a process of the host stands
for it: this one, or, detached, a small one that it leaves behind, whose pid goes to --pid-file.
That one forwards the signals it gets, ends with the status of the process, and takes the process
along when it is killed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

from runsc import listener, signals
from runsc.errors import RuntimeFailure
from runsc.names import check_id
from runsc.pidfile import write_pid_file
from sentry.control.protocol import Event, LineBuffer, Reply, Request, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sentry.control.protocol import ExecProcess

FAILED = 255
"""What runc exits with when the process was not started."""
STOPPED = "cannot exec in a stopped container"
KILLED = 128 + signal.SIGKILL
CHUNK = 1 << 16


class Wishes:
    """What the command line asks for."""

    __slots__ = (
        "additional_gids", "args", "cap", "console_socket", "container_id", "cwd", "detach", "env",
        "ignore_paused", "no_new_privs", "pid_file", "preserve_fds", "process", "tty", "user",
    )  # fmt: skip

    def __init__(self, container_id: str, args: Sequence[str], **given: Any) -> None:
        self.container_id = container_id
        self.args = args
        self.console_socket: str | None = given.get("console_socket")
        self.cwd: str | None = given.get("cwd")
        self.env: Sequence[str] = given.get("env", ())
        self.tty: bool = given.get("tty", False)
        self.user: str | None = given.get("user")
        self.additional_gids: Sequence[int] = given.get("additional_gids", ())
        self.process: str | None = given.get("process")
        self.detach: bool = given.get("detach", False)
        self.pid_file: str | None = given.get("pid_file")
        self.no_new_privs: bool = given.get("no_new_privs", False)
        self.cap: Sequence[str] = given.get("cap", ())
        self.preserve_fds: int = given.get("preserve_fds", 0)
        self.ignore_paused: bool = given.get("ignore_paused", False)


class Process:
    """A process of a container, from the outside."""

    def __init__(self, sock: socket.socket, lines: LineBuffer, unread: list[bytes]) -> None:
        self._sock = sock
        self._lines = lines
        self._unread = unread
        """Lines that came together with the answer."""

    def wait(self, wakeup: socket.socket) -> int:
        """Stay to its end; its exit code. Bytes on `wakeup` are signals to forward.

        When the sandbox ends without a word, it was killed with it.
        """
        import select  # noqa: PLC0415  while the program starts

        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        while True:
            for line in self._unread:
                if (code := _exit_code(line)) is not None:
                    return code
            ready = {fd for fd, _ in poll.poll()}
            if wakeup.fileno() in ready:
                for number in wakeup.recv(64):
                    self._forward(number)
            if self._sock.fileno() in ready:
                data = self._sock.recv(CHUNK)
                if not data:
                    return KILLED
                self._unread = self._lines.feed(data)

    def _forward(self, number: int) -> None:
        with suppress(OSError):
            self._sock.send(encode(Request("signal", signal=number)), socket.MSG_NOSIGNAL)

    def stay_behind(self, terminal: int, pid_file: str | None) -> None:
        """Leave a process that waits in our place; `terminal` is what tells it new sizes, or -1."""
        everything = signal.valid_signals()
        signal.pthread_sigmask(signal.SIG_BLOCK, everything)
        pid = os.fork()
        if pid == 0:
            code = KILLED
            try:
                os.setsid()
                if terminal >= 0:
                    with suppress(OSError):  # SIGWINCH comes to whose terminal it is
                        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
                _leave_all_but(self._sock.fileno())
                wakeup = signals.catch()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, everything)
                code = self.wait(wakeup)
            finally:
                os._exit(code)
        if pid_file is not None:
            try:
                write_pid_file(pid_file, pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                raise
        signal.pthread_sigmask(signal.SIG_UNBLOCK, everything)


def _exit_code(line: bytes) -> int | None:
    """Of an "exited"; other lines are answers to forwarded signals."""
    if not line.startswith(b'{"event"'):
        return None
    status = decode(line, Event).status
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _leave_all_but(kept: int) -> None:
    """Nothing of the caller stays open, nor its working directory."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != kept:
            with suppress(OSError):
                os.close(fd)
    os.chdir("/")


def run(root: str, wishes: Wishes, warn: Callable[[str], None]) -> int:
    """The command: what it exits with. Raises: RuntimeFailure with the code to exit with."""
    try:
        return _run(root, wishes, warn)
    except RuntimeFailure as error:
        error.code = FAILED
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        where = f"{error.filename}: " if error.filename else ""
        raise RuntimeFailure(where + reason, FAILED) from None


def _run(root: str, wishes: Wishes, warn: Callable[[str], None]) -> int:
    path = os.path.join(root, check_id(wishes.container_id), "control.sock")
    described, size = _described(wishes, warn)
    terminal = described.terminal
    fds, slave = [0, 1, 2], -1
    if terminal or wishes.console_socket:
        from runsc import console  # noqa: PLC0415  most have no terminal

        console.check(terminal, wishes.detach, wishes.console_socket)
        slave = console.make(wishes.console_socket, size) if wishes.console_socket else -1
        wire = max(slave, 0)
        fds = [wire, wire, wire]
    fds += _preserved(wishes.preserve_fds)
    try:
        process = start(path, described, fds)
    except (ConnectionRefusedError, FileNotFoundError):
        raise RuntimeFailure(_why_nobody_listens(root, wishes.container_id)) from None
    if wishes.detach:
        process.stay_behind(slave, wishes.pid_file)
        return 0
    if not terminal:
        return foreground(process, wishes.pid_file)
    with console.settings_kept(0):
        return foreground(process, wishes.pid_file)


def _described(
    wishes: Wishes, warn: Callable[[str], None]
) -> tuple[ExecProcess, tuple[int, int] | None]:
    """The process, and the size of its terminal. Raises: RuntimeFailure in runc's words."""
    from runsc import execspec  # noqa: PLC0415

    if wishes.process is not None:
        return execspec.from_file(wishes, warn)
    return execspec.from_flags(wishes, warn), None


def _why_nobody_listens(root: str, container_id: str) -> str:
    from runsc.container import Store  # noqa: PLC0415  only where it fails

    Store(root).load(container_id)
    return STOPPED


def _preserved(count: int) -> list[int]:
    """The descriptors of --preserve-fds. Raises: RuntimeFailure in runc's words."""
    for index in range(count):
        try:
            os.fstat(3 + index)
        except OSError:
            raise RuntimeFailure(
                f"unable to stat preserved-fd {index} (of {count})", FAILED
            ) from None
    return list(range(3, 3 + count))


def start(path: str, process: ExecProcess, fds: Sequence[int]) -> Process:
    """Start it in the sandbox that listens at `path`; `fds` become 0, 1, 2 and so on.

    Raises: RuntimeFailure with the Sentry's words; OSError when nobody listens.
    """
    sock = listener.connect(path)
    data = encode(Request("exec", process=process))
    try:
        sent = socket.send_fds(sock, [data[:CHUNK]], fds)
        sock.sendall(data[sent:])
        lines = LineBuffer()
        while received := sock.recv(CHUNK):
            answers = lines.feed(received)
            if not answers:
                continue
            reply = decode(answers[0], Reply)
            if reply.error:
                raise RuntimeFailure(reply.error, FAILED)
            return Process(sock, lines, answers[1:])
    except (BrokenPipeError, ConnectionResetError):
        pass
    raise RuntimeFailure(STOPPED, FAILED)


def foreground(process: Process, pid_file: str | None) -> int:
    """Stay with it: its exit code."""
    wakeup = signals.catch()
    if pid_file is not None:
        write_pid_file(pid_file, os.getpid())
    return process.wait(wakeup)
