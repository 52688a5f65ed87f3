"""The Sentry's process, and the Gofer's, started before it is known for what container.

Importing the Sentry takes as long as all that the command line does before it has something to run,
so `begin` forks the process first: it imports beside the command line, on another core, in its
namespaces already, and waits. `Waiting.hand_over` gives it the configuration and the descriptors,
which it puts on the numbers that they have here, and it goes on in `boot`. What it hears comes
from the command line alone; when that ends, or calls `discard`, so does the process.

So does `begin_gofer` for the Gofer, which is then a fork of what both need, and not of a command
line that has read config.json.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from gofer.p9 import codec, extensions, journal, messages  # noqa: F401  both import the journal
from runsc.errors import RuntimeFailure
from runsc.filters import Switches
from runsc.launch import isolation, programs, uncounted
from runsc.launch.boot import Terms
from sentry.config import SandboxConfig, descriptors
from sentry.suppress import suppress

if TYPE_CHECKING:
    from runsc.launch.gofer_start import GoferStart

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


class Handed(Protocol):
    """What such a process is told: a struct."""

    def descriptors(self) -> set[int]:
        """All that come with it."""


H = TypeVar("H", bound=Handed)


class Handover(msgspec.Struct, frozen=True):
    """What the Sentry is told."""

    config: SandboxConfig
    switches: Switches
    terms: Terms
    """Without what is for the Gofer."""

    def descriptors(self) -> set[int]:
        """All that come with it."""
        return descriptors(self.config) | set(self.terms.joins)


class Waiting:
    """A process that does not know yet what for, seen from the command line."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._sock = sock

    def hand_over(self, handed: Handed) -> int:
        """Let it go on; its pid. If it has ended, that shows at the sockets that it is given."""
        message = msgspec.msgpack.encode(handed)
        fds = sorted(handed.descriptors())
        with self._sock, suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(HEAD.pack(len(message), len(fds)))
            for first in range(0, len(fds), FDS_AT_ONCE):
                socket.send_fds(self._sock, [b"\0"], fds[first : first + FDS_AT_ONCE])
            self._sock.sendall(message)
        return self.pid

    def leave(self) -> None:
        """In another process, which has nothing to say to it."""
        self._sock.close()

    def end(self) -> None:
        """It is not needed."""
        self._sock.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


_waiting: list[Waiting] = []
"""At most one: a Sentry."""
_gofers: list[Waiting] = []
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
    _waiting.extend(_spawned(_become))


def begin_gofer() -> None:
    """Fork that, too, right after `begin`, in a mount namespace of its own from then on.
    Preconditions: this process mounts nothing more that it is to serve."""
    if _waiting:
        _gofers.extend(_spawned(_become_gofer))


def _spawned(become: Callable[[socket.socket], int]) -> list[Waiting]:
    """A process that does this with its end of a socket. None if there can be none: that is said by
    the command, if it comes to need one."""
    ours, theirs = socket.socketpair()

    def body() -> int:
        isolation.tie_to_parent(signal.SIGKILL)
        isolation.leave_session()
        isolation.open_more()
        ours.close()
        for each in _waiting:
            each.leave()
        return become(theirs)

    try:
        pid = isolation.spawn(body)
    except RuntimeFailure:
        ours.close()
        return []
    finally:
        theirs.close()
    return [Waiting(pid, ours)]


def claim(platform: str) -> programs.Start:
    """How to get the Sentry: the one that was begun, if it is for this platform, else a fork.

    Raises: RuntimeError.
    """
    if _waiting and platform == PLATFORM:
        waiting = _waiting.pop()

        def start(config: SandboxConfig, switches: Switches, terms: Terms) -> int:
            terms = msgspec.structs.replace(terms, before_gofer=None)
            return waiting.hand_over(Handover(config, switches, terms))

        return start
    discard()
    if _prepared and platform == PLATFORM:
        return programs.forked(_prepared[0])
    return programs.forked(programs.sentry(platform))


def claim_gofer() -> programs.StartGofer:
    """The same of the Gofer. With hooks it is a fork, for they are a function of this process."""

    def start(gofer: GoferStart, switches: Switches, terms: Terms) -> int:
        if _gofers and terms.before_gofer is None:
            from runsc.launch.gofer_start import GoferHandover  # noqa: PLC0415

            return _gofers.pop().hand_over(GoferHandover(gofer, switches, terms))
        return programs.forked_gofer(programs.gofer())(gofer, switches, terms)

    return start


def discard() -> bool:
    """End what nobody has claimed; whether there was a Sentry."""
    if _gofers:
        _gofers.pop().end()
    if not _waiting:
        return False
    _waiting.pop().end()
    return True


def _become(sock: socket.socket) -> int:
    """The body of the Sentry's process; gives its exit code."""
    body = programs.sentry(PLATFORM)
    isolation.freeze_heap()
    handed = receive(sock, Handover)
    if handed is None:
        return 1
    return body(handed.config, handed.switches, handed.terms)


def _become_gofer(sock: socket.socket) -> int:
    """The same of the Gofer's."""
    from runsc.launch import boot_gofer  # noqa: PLC0415  only there
    from runsc.launch.gofer_start import GoferHandover  # noqa: PLC0415

    serve = programs.gofer()
    isolation.freeze_heap()
    handed = receive(sock, GoferHandover)
    if handed is None:
        return 1
    return boot_gofer.gofer_main(handed.start, serve, handed.switches, handed.terms)


def receive(sock: socket.socket, kind: type[H]) -> H | None:
    """Wait for what to do; None when the command line has ended."""
    decoder = msgspec.msgpack.Decoder(kind)  # for which nobody waits yet
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
    handed = decoder.decode(message)
    sock.close()
    _place(given, sorted(handed.descriptors()))
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
