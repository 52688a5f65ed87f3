"""The caller's side: have a program run in a fork of the zygote, and stand for it to its end.

The fork takes on what this process has (`traits`); this one stays what its own caller started, and
waits for: it forwards signals, gives the exit code, and makes the processes that have to be its
children (`standing`). When it is killed, so is the fork. Nothing has happened yet when `run` says
that it cannot be so: the caller goes on by itself, as without a zygote.

On the way of every command that makes a sandbox, so the C halves of socket and signal are used.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import select

from runsc.containers import signals
from runsc.zygote import place
from runsc.zygote.protocol import BOUND, ENDED, GO, STAND_IN, STANDS, TAKEN, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_S = 10.0
"""How long a zygote may take to say that it has a process for us."""
PACKET_MAX = 1 << 16
FDS_MAX = 250
"""Below SCM_MAX_FD of the kernel."""


class Unserved(Exception):
    """No zygote does it; why."""


class Unheard(Unserved):
    """There is none."""


def ask(packet: bytes, fds: Sequence[int]) -> _socket.socket:
    """Send a request to the zygote; what it answers can be read. Raises: Unserved."""
    path = place.socket_path()
    folder = os.path.dirname(path)
    if not place.is_own(folder):
        if not os.path.lexists(folder):
            raise Unheard("none has begun")
        raise Unserved("its folder is not this user's own")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        sock.setblocking(False)  # one that accepts nobody any more must not hold us up
        sock.connect(path)
        given = b"".join(fd.to_bytes(4, "little") for fd in fds)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, given)] if given else []
        sock.sendmsg([packet], rights, _socket.MSG_NOSIGNAL)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        raise Unheard(error.strerror) from None
    except OSError as error:
        sock.close()
        raise Unserved(error.strerror or "no connection") from None
    sock.setblocking(True)
    return sock


def answer(sock: _socket.socket) -> int:
    """What it says: a pidfd of the fork. Raises: Unserved."""
    try:
        said, fds = _receive(sock, _socket.MSG_DONTWAIT)
    except OSError as error:
        raise Unserved(error.strerror or "no answer") from None
    if said == TAKEN and len(fds) == 1:
        return fds[0]
    for fd in fds:
        os.close(fd)
    raise Unserved(said[1:].decode(errors="replace") or "it has ended")


def run(program: str, words: Sequence[str], *, stands: bool) -> int:
    """Have it run with all that this process has; its exit code.

    `stands`: stand-ins have to be children of this process. Raises: Unserved.
    """
    if _has_terminal():
        raise Unserved("a terminal is one session's")
    if "LISTEN_FDS" in os.environ:
        raise Unserved("what a service manager has opened is for one process")
    try:
        numbers = inherited()
        if len(numbers) >= FDS_MAX:
            raise Unserved("too many descriptors")
        held, life = os.pipe2(os.O_CLOEXEC)  # the fork has one end, is killed when ours closes
    except OSError as error:  # no /proc, no descriptors left: that is for who goes on to say
        raise Unserved(error.strerror or "no descriptors") from None
    packet = pack(program, words, numbers, os.environb, STANDS if stands else BOUND)
    sock = None
    try:
        sock = ask(packet, [held, *numbers])
        if stands:
            from runsc.launch import stand_in  # noqa: F401, PLC0415  while the other side begins
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        if not poll.poll(ANSWER_S * 1000):
            raise Unserved("it does not answer")
        pidfd = answer(sock)
        before = _dispositions()
        wakeup = signals.catch_fd()
        try:
            sock.send(GO)
        except OSError:
            _restore(before)
            raise Unserved("it has ended") from None
    except BaseException:
        os.close(life)
        if sock is not None:
            sock.close()
        raise
    finally:
        os.close(held)
    return _stay(sock, pidfd, wakeup)


def _stay(sock: _socket.socket, pidfd: int, wakeup: int) -> int:
    """Until the fork has ended."""
    code, fatal = None, _signal.SIGKILL
    poll = select.poll()
    for fd in (sock.fileno(), pidfd, wakeup):
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wakeup in ready:
            for number in os.read(wakeup, 64):
                _forward(pidfd, number)
                if number in signals.ENDING:
                    fatal = number
        if sock.fileno() in ready:
            said, fds = _receive(sock)
            if not said:
                poll.unregister(sock.fileno())
            elif said[:1] == ENDED:
                code = int(said[1:])
            elif said == STAND_IN:
                from runsc.zygote import standing  # noqa: PLC0415  only for `create`

                standing.serve(*fds)
        elif pidfd in ready:
            break
    if code is None:  # it was killed, and so is who stands for it
        if fatal != _signal.SIGKILL:
            _signal.signal(fatal, _signal.SIG_DFL)
        os.kill(os.getpid(), fatal)
    assert code is not None
    return code


def _forward(pidfd: int, number: int) -> None:
    try:  # noqa: SIM105  contextlib costs more
        _signal.pidfd_send_signal(pidfd, number)
    except OSError:  # it has ended
        pass


def _receive(sock: _socket.socket, flags: int = 0) -> tuple[bytes, list[int]]:
    """A packet, and descriptors; b"" at the end."""
    flags |= _socket.MSG_CMSG_CLOEXEC
    try:
        said, control, _, _ = sock.recvmsg(PACKET_MAX, _socket.CMSG_SPACE(4), flags)
    except ConnectionResetError:
        return b"", []
    fds = [
        int.from_bytes(data[at : at + 4], "little")
        for level, kind, data in control
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
        for at in range(0, len(data) - 3, 4)
    ]
    return said, fds


def _has_terminal() -> bool:
    """Whether signals and job control of a terminal are this process's."""
    return any(os.isatty(fd) for fd in (0, 1, 2))


def inherited() -> list[int]:
    """Descriptors that the caller has given, which are not closed by execve(2)."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:  # that of the folder
            continue
    return sorted(found)


def _dispositions() -> dict[int, object]:
    return {number: _signal.getsignal(number) for number in _signal.valid_signals()}


def _restore(before: dict[int, object]) -> None:
    _signal.set_wakeup_fd(-1)
    for number, how in before.items():
        if number not in signals.KEPT and how is not None:
            _signal.signal(number, how)
