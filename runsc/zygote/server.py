"""The zygote: listens, forks, and ends after a while, or when its program has changed on disk.

It reads nothing that a caller sends: that does the fork (`forked`), so nothing of a container, no
descriptor and no name, is ever here.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn

from runsc import host
from runsc.containers.container import Store
from runsc.errors import RuntimeFailure
from runsc.launch.programs import Body
from runsc.launch.title import set_title
from runsc.zygote import beginning, forked, place, warm
from runsc.zygote.files import Files, importable, stamp, stamps
from sentry.abi import prctl

IDLE_S = 300
AGAIN_S = 0.5
DAY_S = 86_400.0
BACKLOG = 64
LISTEN_FD = 3
"""sd_listen_fds(3): the first one."""


class Prepared(NamedTuple):
    """What forks are made of."""

    body: Body
    files: Files


def prepared() -> Prepared:
    """All is imported. Preconditions: one thread."""
    os.chdir("/")
    before = importable() | stamps()
    body = warm.prepared()
    return Prepared(body, Files(before))


@contextmanager
def listening(fd: int | None = None) -> Iterator[socket.socket]:
    """The socket: systemd's, or one that is removed in the end: that of the zygote before (`fd`),
    or made here. Raises: RuntimeFailure if somebody listens there.
    """
    if is_given():
        yield socket.socket(fileno=LISTEN_FD)
        return
    path = place.socket_path()
    store = Store(os.path.dirname(path))
    if fd is not None:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    else:
        with store.locked():
            sock = _bound(path)
    made = stamp(path)
    try:
        yield sock
    finally:
        with store.locked(), suppress(FileNotFoundError):
            if stamp(path) == made:
                os.unlink(path)
        sock.close()


def _bound(path: str) -> socket.socket:
    """Preconditions: the lock of the folder."""
    if not place.is_own(os.path.dirname(path)):
        raise RuntimeFailure(f"{os.path.dirname(path)}: not this user's own")
    if is_heard(path):
        raise RuntimeFailure("a zygote runs already")
    with suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def is_given() -> bool:
    """Whether systemd has opened the socket, so that somebody may be there already."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1"


def refuse(listener_fd: int) -> socket.socket:
    """Until `answer`, to which this is given, another process ends each connection: who asks goes
    on alone, for importing takes longer than a start. It ends with this one, too.

    Preconditions: one thread, which waits for no child. Raises: OSError.
    """
    ours, theirs = socket.socketpair()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with theirs:
        if not os.fork():
            try:
                _refuse(listener_fd, theirs)
            finally:
                os._exit(0)
    return ours


def _refuse(listener_fd: int, over: socket.socket) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    host.close_all_but({0, 1, 2, listener_fd, over.fileno()})
    listener = socket.socket(fileno=listener_fd)
    poll = select.poll()
    for sock in (listener, over):
        poll.register(sock, select.POLLIN)
    while over.fileno() not in dict(poll.poll()):
        try:
            listener.accept()[0].close()
        except (BlockingIOError, ConnectionError):
            continue
        except OSError:  # no descriptor is left
            time.sleep(AGAIN_S)


def answer(refusing: socket.socket) -> None:
    """Who asks from now on is this process's."""
    with refusing:
        refusing.shutdown(socket.SHUT_WR)
        refusing.recv(1)  # it has ended


def is_heard(path: str) -> bool:
    """Whether somebody listens there, who may accept nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.setblocking(False)
        return sock.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def serve(listener: socket.socket, idle_s: int = IDLE_S, warmed: Prepared | None = None) -> None:
    """To its end. Preconditions: one thread.

    Who is refused keeps nobody alive: one of which others can have no forks goes, and another
    begins. A signal is its number in the pipe, what has started from a fork is a zero.
    """
    told, telling = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(telling)
    signal.signal(signal.SIGTERM, _noted)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # its children are reaped by the host's kernel
    host.prctl(prctl.PR_SET_CHILD_SUBREAPER, 1)
    body, files = warmed or prepared()
    set_title("runsc-zygote", place.HOME)
    served, since = 0, time.time()
    with suppress(OSError):
        os.write(1, f"listening at {place.socket_path()}\n".encode())
    poll = select.poll()
    for fd in (listener.fileno(), told):
        poll.register(fd, select.POLLIN)
    until = time.monotonic() + idle_s
    while ready := _ready(poll, until):
        if told in ready:
            if any(os.read(told, 1 << 12)):
                break
            until = time.monotonic() + idle_s
            continue
        try:
            conn, _ = listener.accept()
        except (BlockingIOError, ConnectionError):  # who asked is gone
            continue
        except OSError:  # no descriptor is left: who looks again at once does nothing else
            time.sleep(AGAIN_S)
            continue
        if files.have_changed():
            claim = _claim()
            conn.close()  # who asks goes on alone, and the next one is answered by another
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # its successor would not hear of it
            if told in dict(poll.poll(0)) and any(os.read(told, 1 << 12)):
                break
            _replace(listener, idle_s, claim)
        about = f"{os.getpid()} {since:.0f} {served}"
        with conn, suppress(OSError):  # no process is left: who asks goes on alone
            if not os.fork():
                _serve(listener, conn, body, about, telling)
        served += 1


def _ready(poll: select.poll, until: float) -> dict[int, int]:
    """What there is to do; nothing: it is so late. poll(2) counts 24 days at most."""
    while True:
        left = max(0.0, until - time.monotonic())
        ready = dict(poll.poll(min(left, DAY_S) * 1000))
        if ready or left <= DAY_S:
            return ready


def _noted(number: int, frame: object) -> None:
    """By the descriptor that wakes us up: an exception would be lost in what fork(2) calls."""


def _serve(
    listener: socket.socket, conn: socket.socket, body: Body, about: str, telling: int
) -> NoReturn:
    code = 1
    try:
        listener.close()
        code = forked.serve(conn, body, about, telling)
    finally:
        os._exit(code)


def _claim() -> list[str]:
    """What a successor is given, so that who asks for it waits until it listens; nothing where
    somebody else has that."""
    try:
        return [f"--claim={beginning.claimed().detach()}"]
    except OSError:
        return []


def _replace(listener: socket.socket, idle_s: int, claim: list[str]) -> NoReturn:
    """By what is on disk now; its pid stays, and so does the socket."""
    listener.set_inheritable(True)
    given = [f"--listener={listener.fileno()}", f"--idle={idle_s}", *claim]
    with suppress(OSError):  # no process is left: who asks waits
        refusing = refuse(listener.fileno())
        refusing.set_inheritable(True)
        given.append(f"--refusing={refusing.fileno()}")
    os.execve(sys.executable, [*beginning.COMMAND, *given], beginning.environment())
