"""The Sentry's process, started before it is known for what container.

Importing the Sentry takes as long as all that the command line does before it has something to run,
so `begin` forks the process first: it imports beside the command line, on another core, in its
namespaces already, and waits. `Waiting.hand_over` gives it the configuration and the descriptors,
which it puts on the numbers that they have here, and it goes on in `boot`. What it hears comes
from the command line alone; when that ends, or calls `discard`, so does the process.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from contextlib import suppress

import msgspec

from gofer.p9 import codec, extensions, journal, messages  # noqa: F401  both import the journal
from runsc.errors import RuntimeFailure
from runsc.filters import Switches
from runsc.launch import isolation, programs, uncounted
from runsc.launch.boot import Terms
from sentry.config import SandboxConfig, descriptors

PLATFORM = "kvm"
"""What it is prepared for: the one that nobody has to name."""
HEAD = struct.Struct("<II")
"""Bytes of the message, number of descriptors."""
FDS_AT_ONCE = 250
"""Below SCM_MAX_FD of the kernel."""

OF_BOTH_ENDS = (
    messages.Tversion, messages.Rversion, messages.Tattach, messages.Rattach, messages.Rlerror,
    messages.Tstatfs, messages.Rstatfs, extensions.Twalkx, extensions.Rwalkx,
    extensions.Tgetxattrx, extensions.Tdupx, extensions.Rdupx, extensions.Thearx,
    extensions.Rhearx, extensions.Tjournalx, extensions.Rjournalx,
)  # fmt: skip
"""Messages with which the session of a root that is kept begins, and a program in it."""


class Handover(msgspec.Struct, frozen=True):
    """What the Sentry is told."""

    config: SandboxConfig
    switches: Switches
    terms: Terms
    """Without what is for the Gofer."""


class Waiting:
    """A Sentry that does not know yet what for, seen from the command line."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._sock = sock

    def hand_over(self, config: SandboxConfig, switches: Switches, terms: Terms) -> int:
        """Let it go on; its pid. If it has ended, that shows at its control socket."""
        terms = msgspec.structs.replace(terms, before_gofer=None)
        message = msgspec.msgpack.encode(Handover(config, switches, terms))
        fds = sorted(descriptors(config) | set(terms.joins))
        with self._sock, suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(HEAD.pack(len(message), len(fds)))
            for first in range(0, len(fds), FDS_AT_ONCE):
                socket.send_fds(self._sock, [b"\0"], fds[first : first + FDS_AT_ONCE])
            self._sock.sendall(message)
        return self.pid

    def end(self) -> None:
        """It is not needed."""
        self._sock.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


_waiting: list[Waiting] = []
"""At most one."""
_prepared: list[programs.Body] = []
"""That of a process which has imported everything: runsc/zygote."""


def prepare(body: programs.Body) -> None:
    """A Sentry is a fork of this process, from now on."""
    _prepared[:] = [body]


def begin() -> None:
    """Fork it. Preconditions: descriptors 0 to 2 are open, one thread.

    What both processes import is here by now, and stays in common: no references are counted.
    """
    if _prepared:
        return
    codec.compile_all(OF_BOTH_ENDS)
    uncounted.count_no_more()
    isolation.freeze_heap()
    ours, theirs = socket.socketpair()
    try:
        pid = isolation.spawn(lambda: _become(ours, theirs))
    except RuntimeFailure:  # said by the command, if it comes to need one
        ours.close()
        theirs.close()
        return
    theirs.close()
    _waiting.append(Waiting(pid, ours))


def claim(platform: str) -> programs.Start:
    """How to get the Sentry: the one that was begun, if it is for this platform, else a fork.

    Raises: RuntimeError.
    """
    if _waiting and platform == PLATFORM:
        return _waiting.pop().hand_over
    discard()
    if _prepared and platform == PLATFORM:
        return programs.forked(_prepared[0])
    return programs.forked(programs.sentry(platform))


def discard() -> bool:
    """End the one that nobody has claimed; whether there was one."""
    if not _waiting:
        return False
    _waiting.pop().end()
    return True


def _become(ours: socket.socket, sock: socket.socket) -> int:
    """The body of the process; gives its exit code."""
    isolation.tie_to_parent(signal.SIGKILL)
    isolation.leave_session()
    ours.close()
    body = programs.sentry(PLATFORM)
    isolation.freeze_heap()
    handed = _receive(sock)
    if handed is None:
        return 1
    return body(handed.config, handed.switches, handed.terms)


def _receive(sock: socket.socket) -> Handover | None:
    """Wait for what to do; None when the command line has ended."""
    head = _exactly(sock, HEAD.size)
    if head is None:
        return None
    size, count = HEAD.unpack(head)
    given: list[int] = []
    while len(given) < count:
        data, fds, _, _ = socket.recv_fds(sock, 1, FDS_AT_ONCE)
        given += fds
        if not data:
            return None
    message = _exactly(sock, size)
    if message is None:
        return None
    handed = msgspec.msgpack.decode(message, type=Handover)
    sock.close()
    _place(given, sorted(descriptors(handed.config) | set(handed.terms.joins)))
    return handed


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    """So many bytes; None at the end of the stream."""
    data = bytearray()
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return None
        data += more
    return bytes(data)


def _place(given: list[int], numbers: list[int]) -> None:
    """Give descriptors these numbers, whatever is there now."""
    above = max([*given, *numbers], default=0) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in given]
    for fd, number in zip(moved, numbers, strict=True):
        os.dup2(fd, number, inheritable=False)
