"""The dialer: it connects a Sentry, which may make no socket, to the brokers of an egress policy.

Its root is empty but for the sockets that the policy names, its network namespace has nothing in
it, and its filter lets it make streams of Unix sockets alone: so it reaches these brokers, whoever
tells it what. It writes the line that a broker hears first, gives the stream to the Sentry, and
sees no data. There is one for each policy that has brokers: `egress set` makes another one, and
hands the Sentry the way to it. It ends when the other end of its socket closes.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from runsc import filters
from runsc.errors import RuntimeFailure
from runsc.launch import boot, isolation, landlock
from runsc.launch.frozen import freeze_imports
from runsc.launch.network import OPEN_FILES, send
from runsc.launch.sandbox import end_child
from runsc.launch.title import set_title
from sentry.abi.capability import CAP_DAC_OVERRIDE
from sentry.net.host import dial

READY: Final = b"ready"


class Dialing(msgspec.Struct, frozen=True):
    """What the process is given."""

    container_id: str
    sockets: tuple[str, ...]
    """Of the policy's brokers, by their places."""
    log_fd: int = 2


def check(sockets: tuple[str, ...]) -> None:
    """They are there. Raises: RuntimeFailure."""
    for path in sockets:
        try:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError as error:
            why = (error.strerror or "").lower()
            raise RuntimeFailure(f"broker {path}: {why}") from None
        if not is_socket:
            raise RuntimeFailure(f"broker {path}: not a socket")


def start(dialing: Dialing, switches: filters.Switches, terms: boot.Terms) -> tuple[int, int]:
    """Make the process: the Sentry's end of its socket, which is the caller's to close, and the
    pid. Raises: OSError, RuntimeFailure."""
    check(dialing.sockets)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            isolation.freeze_heap()
            fd = theirs.fileno()
            pid = isolation.spawn(lambda: dialer_main(dialing, fd, switches, terms))
    except BaseException:
        ours.close()
        raise
    if ours.recv(len(READY)) != READY:
        ours.close()
        end_child(pid)
        raise RuntimeFailure("the dialer has ended before it was ready")
    return ours.detach(), pid


def dialer_main(dialing: Dialing, sock: int, switches: filters.Switches, terms: boot.Terms) -> int:
    """The body of the process; gives its exit code."""
    tie = 0 if terms.outlives else signal.SIGKILL
    isolation.enter({sock, dialing.log_fd, *terms.joins}, tie)
    boot.join(terms.joins)
    set_title("runsc-dialer", dialing.container_id)
    os.dup2(dialing.log_fd, 2)
    program = filters.dialer_program(switches.trap)
    named = {str(place): path for place, path in enumerate(dialing.sockets)}
    put_on = terms.label.prepare()
    isolation.leave_root(named, more=terms.label.mount_option)
    # a broker's socket may be another user's, and there is nothing else to have rights over
    rights = isolation.Rights(os.getuid(), frozenset({CAP_DAC_OVERRIDE}), OPEN_FILES)
    isolation.drop_rights(rights, tie, put_on)
    isolation.limit_tasks(0)
    landlock.restrict_dialer()
    sentry = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=sock)
    freeze_imports()
    filters.install(program, switches, dialing.log_fd)
    try:
        with suppress(OSError):  # who made it may have gone
            sentry.sendmsg([READY], (), socket.MSG_NOSIGNAL)
        serve(sentry, [f"/{name}" for name in named], dialing.container_id)
    finally:
        sentry.detach()  # dropped open, it would be printed, and printing asks for its peer
    return 0


def serve(sentry: socket.socket, names: Sequence[str], container_id: str) -> None:
    """Answer until the other end has closed. The Sentry is not trusted: whatever it sends is
    answered, and nothing of it stays. `names`: of the sockets, as they are to be found here."""
    while True:
        try:
            data, *_ = sentry.recvmsg(dial.MAX_REQUEST)
        except OSError:
            return
        if not data:
            return
        made, number = -1, 0
        try:
            made = _dial(data, names, container_id)
        except OSError as error:
            number = error.errno or errno.EIO
        except ValueError:
            number = errno.EINVAL
        send(sentry, number, fd=made)
        if made >= 0:
            os.close(made)


def _dial(data: bytes, names: Sequence[str], container_id: str) -> int:
    """A stream to a broker, which has had its line. Raises: OSError, ValueError."""
    wanted = dial.unpack(data)
    if wanted.broker >= len(names):
        raise ValueError("no such broker")
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | flags)
    try:
        sock.connect(names[wanted.broker])
        line = dial.line(wanted, container_id)
        if sock.send(line, socket.MSG_NOSIGNAL) < len(line):
            raise OSError(errno.ENOBUFS, "no room for a line")
        return sock.detach()
    finally:
        sock.close()
