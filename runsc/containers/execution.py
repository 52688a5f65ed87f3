"""`exec`: the host's side of a process that is added to a running container.

The Sentry gets what the process is and its descriptors in one message, answers with its number, and
says on the same connection how it ended. While the connection is open a process of the host stands
for it: this one, or, detached, a small one that it leaves behind, whose pid goes to --pid-file.
That one forwards the signals it gets, ends with the status of the process, and takes the process
along when it is killed.

Starting a process takes the Sentry a few milliseconds, as long as importing a module or two takes
CPython. So nothing is imported on the way that can be done without (socket, typing, msgspec), and
what is needed afterwards is imported while the Sentry works.
"""

from __future__ import annotations

import os
from _socket import MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET
from time import monotonic

from runsc.containers import asking, execspec
from runsc.containers.execspec import Wishes
from runsc.containers.names import check_id, check_root
from runsc.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket
    from collections.abc import Callable, Sequence

    from runsc.containers.relay import Relay

FAILED = 255
"""What runc exits with when the process was not started."""
STOPPED = "cannot exec in a stopped container"
NO_ANSWER = "the sandbox does not answer"
KILLED = 128 + 9
CHUNK = 1 << 16
LINE_MAX = 1 << 16
"""Of an answer, or an event. The sandbox is not trusted: what is longer is none."""
ANSWER_S = 60.0
"""How long it may take to start the process."""
EXITED = b'{"event":"exited"'
ERROR = b'{"error":'


class Stopped(RuntimeFailure):
    """The container has ended."""


class Process:
    """A process of a container, from the outside."""

    def __init__(self, sock: Socket, answer: bytes, received: bytes) -> None:
        self._sock = sock
        self._outbox = asking.Outbox(sock)
        self._answer = answer
        self._received = received
        """What came after the answer."""
        self.on_resize: Callable[[], object] = lambda: None
        """Before the Sentry hears of a new size of the caller's terminal."""

    @property
    def pid(self) -> int:
        """As the container numbers it; 0 if the sandbox does not say so."""
        digits = self._answer.partition(b'"pid":')[2].rstrip(b"}")
        return int(digits) if digits.isdigit() and len(digits) < 11 else 0

    def wait(self, wakeup: int) -> int:
        """Stay to its end; its exit code. Bytes that `wakeup` gives are signals to forward.

        When the sandbox ends without a word, or says what is none, it was killed with it.
        """
        try:
            return self._until_exited(wakeup)
        finally:
            self._sock.close()

    def _until_exited(self, wakeup: int) -> int:
        import select  # noqa: PLC0415  while the program starts

        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        while True:
            *lines, self._received = self._received.split(b"\n")
            for line in lines:
                if line.startswith(EXITED):
                    return _exit_code(line)
            owed = select.POLLOUT if self._outbox.owed else 0
            poll.modify(self._sock.fileno(), select.POLLIN | owed)
            events = dict(poll.poll())
            if wakeup in events:
                for number in os.read(wakeup, 64):
                    self._forward(number)
            came = events.get(self._sock.fileno(), 0)
            if came & select.POLLOUT:
                self._outbox.flush()
            if came & ~select.POLLOUT:
                try:
                    data = self._sock.recv(CHUNK)
                except OSError:
                    data = b""
                if not data or len(self._received) > LINE_MAX:
                    return KILLED
                self._received += data

    def _forward(self, number: int) -> None:
        import signal  # noqa: PLC0415

        if number == signal.SIGWINCH:
            self.on_resize()
        self._outbox.tell(b'{"op":"signal","signal":%d}\n' % number)

    def stand_for(self, terminal: int) -> int:
        """Be the process of the host that stands for it: its exit code, at its end.

        `terminal` is what tells new sizes, or -1. Nothing else of the caller stays open.
        """
        import signal  # noqa: PLC0415

        from runsc.containers import signals  # noqa: PLC0415

        os.setsid()
        if terminal >= 0:
            _make_controlling(terminal)
        _leave_all_but(self._sock.fileno())
        wakeup = signals.catch_fd()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        if terminal >= 0:  # the size may have changed before we were told of it
            self._forward(signal.SIGWINCH)
        return self.wait(wakeup)

    def stay_behind(self, terminal: int, pid_file: str | None) -> None:
        """Leave a process that stands for it in our place."""
        import signal  # noqa: PLC0415

        from runsc.containers.processes import write_pid_file  # noqa: PLC0415

        everything = signal.valid_signals()
        signal.pthread_sigmask(signal.SIG_BLOCK, everything)
        pid = os.fork()
        if pid == 0:
            code = KILLED
            try:
                code = self.stand_for(terminal)
            finally:
                os._exit(code)
        try:
            if pid_file is not None:
                write_pid_file(pid_file, pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, everything)


def _make_controlling(terminal: int) -> None:
    """SIGWINCH comes to whose terminal it is."""
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    try:  # noqa: SIM105
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    except OSError:
        pass


def _exit_code(line: bytes) -> int:
    """Of an "exited": {"event":"exited","status":N}, the wait(2) status, left out if it is 0."""
    digits = line.partition(b'"status":')[2].rstrip(b"}")
    if digits and not (digits.isdigit() and len(digits) < 6):
        return 255  # no Sentry of ours says that
    status = int(digits or b"0")
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _leave_all_but(kept: int) -> None:
    """Nothing of the caller stays open, nor its working directory."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != kept:
            try:  # noqa: SIM105
                os.close(fd)
            except OSError:
                pass
    os.chdir("/")


def run(root: str, wishes: Wishes, warn: Callable[[str], None]) -> int:
    """The command: what it exits with. Raises: RuntimeFailure with the code to exit with."""
    try:
        return _run(root, wishes, warn)
    except RuntimeFailure as error:
        failure = error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        failure = RuntimeFailure(f"{error.filename}: {reason}" if error.filename else reason)
    failure.code = FAILED
    raise failure


def _run(root: str, wishes: Wishes, warn: Callable[[str], None]) -> int:
    folder = os.path.join(root, check_id(wishes.container_id))
    path = os.path.join(folder, "control.sock")
    _check_created(root, folder, wishes.container_id)
    request, terminal, size = execspec.request(wishes, warn)
    fds, slave, relay = [0, 1, 2], -1, None
    if terminal or wishes.console_socket:
        from runsc.containers import console  # noqa: PLC0415  most have no terminal

        console.check(terminal, wishes.detach, wishes.console_socket)
        slave = console.make(wishes.console_socket, size) if wishes.console_socket else -1
        relay = None if slave >= 0 else _relay(size)
        wire = max(slave, 0) if relay is None else relay.slave
        fds = [wire, wire, wire]
    fds += _preserved(wishes.preserve_fds)
    if not wishes.detach:  # the program may be heard before we are ready to forward
        hold_signals()
    process = None
    try:
        check_root(os.path.abspath(root))
        process = start(path, request, fds)
    except Stopped:
        raise RuntimeFailure(f'{STOPPED}: "{wishes.container_id}"') from None
    except (ConnectionRefusedError, FileNotFoundError):
        raise RuntimeFailure(_why_nobody_listens(root, wishes.container_id)) from None
    finally:
        if process is None and not wishes.detach:
            let_signals()
    if wishes.detach:
        process.stay_behind(slave, wishes.pid_file)
        return 0
    if not terminal:
        return foreground(process, wishes.pid_file)
    with console.settings_kept(0):
        if relay is None:
            return foreground(process, wishes.pid_file)
        process.on_resize = relay.resize
        relay.handed_over()
        relay.start()
        code = foreground(process, wishes.pid_file)
        relay.finish()
        return code


def _relay(size: tuple[int, int] | None) -> Relay | None:
    """Where the caller's streams are not the terminal that the process wants."""
    from runsc.containers import relay  # noqa: PLC0415

    return relay.Relay(size) if relay.is_needed() else None


def _check_created(root: str, folder: str, container_id: str) -> None:
    """Before it is there nobody answers, though there is a socket. Raises: NotRunning."""
    try:
        with open(os.path.join(folder, "state.json"), "rb") as file:
            if b'"phase":' in file.read():  # what is as at the beginning is left out
                return
    except OSError:
        return
    from runsc.containers.container import Store  # noqa: PLC0415  seldom
    from runsc.containers.state import status  # noqa: PLC0415
    from runsc.errors import NotRunning  # noqa: PLC0415

    if status(Store(root).load(container_id)) == "creating":
        raise NotRunning(container_id)


def _why_nobody_listens(root: str, container_id: str) -> str:
    from runsc.containers.container import Store  # noqa: PLC0415  only where it fails

    Store(root).load(container_id)
    return f'{STOPPED}: "{container_id}"'


def _preserved(count: int) -> list[int]:
    """The descriptors of --preserve-fds, none of ours. Raises: RuntimeFailure in runc's words."""
    for index in range(count):
        try:
            is_callers = os.get_inheritable(3 + index)
        except OSError:
            is_callers = False
        if not is_callers:
            raise RuntimeFailure(f"unable to stat preserved-fd {index} (of {count})") from None
    return list(range(3, 3 + count))


def start(path: str, request: bytes, fds: Sequence[int]) -> Process:
    """Start it in the sandbox that listens at `path`; `fds` become 0, 1, 2 and so on.

    Raises: RuntimeFailure with the Sentry's words, or if it has none in time; OSError when nobody
    listens.
    """
    try:
        sock = asking.connect(path)
    except TimeoutError:
        raise RuntimeFailure(NO_ANSWER) from None
    try:
        return Process(sock, *_ask(sock, request, fds))
    except BaseException:
        sock.close()
        raise


def _ask(sock: Socket, request: bytes, fds: Sequence[int]) -> tuple[bytes, bytes]:
    """A good answer, and what came after it."""
    deadline = monotonic() + ANSWER_S
    sock.settimeout(ANSWER_S)
    numbers = b"".join(fd.to_bytes(4, "little") for fd in fds)
    received = b""
    try:
        sent = sock.sendmsg([request[:CHUNK]], [(SOL_SOCKET, SCM_RIGHTS, numbers)], MSG_NOSIGNAL)
        if sent < len(request):  # who has all of it may have answered and gone: see listener.send
            sock.sendall(request[sent:], MSG_NOSIGNAL)
        import runsc.containers.signals  # noqa: F401, PLC0415  while the Sentry works

        while data := sock.recv(CHUNK):
            received += data
            answer, newline, rest = received.partition(b"\n")
            if not newline:
                if len(received) > LINE_MAX or monotonic() > deadline:
                    raise RuntimeFailure(NO_ANSWER)
                sock.settimeout(max(deadline - monotonic(), 0.001))
                continue
            if answer.startswith(ERROR):
                text = _error(answer)
                raise Stopped(text) if text == STOPPED else RuntimeFailure(text)
            sock.settimeout(None)
            return answer, rest
    except TimeoutError:
        raise RuntimeFailure(NO_ANSWER) from None
    except (BrokenPipeError, ConnectionResetError):
        pass
    raise Stopped(STOPPED)


def _error(answer: bytes) -> str:
    """What the Sentry says went wrong."""
    import json  # noqa: PLC0415  only where it fails

    try:
        text = json.loads(answer)["error"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return NO_ANSWER
    return text if isinstance(text, str) else NO_ANSWER


def hold_signals() -> None:
    """What comes from now on is forwarded by `foreground`."""
    import _signal  # type: ignore[import-not-found] # noqa: PLC0415

    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())


def let_signals() -> None:
    """They come again, and those that came meanwhile."""
    import _signal  # noqa: PLC0415

    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())


def foreground(process: Process, pid_file: str | None) -> int:
    """Stay with it: its exit code."""
    from runsc.containers import signals  # noqa: PLC0415

    wakeup = signals.catch_fd()
    let_signals()
    if pid_file is not None:
        from runsc.containers.processes import write_pid_file  # noqa: PLC0415

        write_pid_file(pid_file, os.getpid())
    return process.wait(wakeup)
