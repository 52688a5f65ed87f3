"""A donated terminal: its settings are the host's, its foreground process group is ours.

ioctl_tty(2). TIOCSTI is never passed on: it would type into the caller's shell.
"""

from __future__ import annotations

import fcntl
import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.ioctl import (
    FIONREAD,
    TCGETS,
    TCSETS,
    TCSETSF,
    TCSETSW,
    TIOCGPGRP,
    TIOCGSID,
    TIOCGWINSZ,
    TIOCNOTTY,
    TIOCSCTTY,
    TIOCSPGRP,
    TIOCSWINSZ,
)
from sentry.errors import EINVAL, ENOTTY, EPERM, ESRCH, from_host

if TYPE_CHECKING:
    from sentry.vfs.file import Caller

TERMIOS_SIZE: Final = 36
WINSIZE_SIZE: Final = 8
GETTERS: Final = {TCGETS: TERMIOS_SIZE, TIOCGWINSZ: WINSIZE_SIZE, FIONREAD: 4}
SETTERS: Final = {
    TCSETS: TERMIOS_SIZE,
    TCSETSW: TERMIOS_SIZE,
    TCSETSF: TERMIOS_SIZE,
    TIOCSWINSZ: WINSIZE_SIZE,
}


class HostTerminal:
    """The terminal behind a donated descriptor."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def ioctl(self, caller: Caller, request: int, argument: int) -> int:
        """ioctl(2)."""
        if request in GETTERS:
            caller.mm.write(argument, self._host(request, bytes(GETTERS[request])))
            return 0
        if request in SETTERS:
            self._host(request, caller.mm.read(argument, SETTERS[request]))
            return 0
        job_control = JOB_CONTROL.get(request)
        if job_control is None:
            raise ENOTTY(f"{request:#x}")
        job_control(caller, argument)
        return 0

    def _host(self, request: int, data: bytes) -> bytes:
        try:
            return fcntl.ioctl(self.fd, request, data)
        except OSError as error:
            raise from_host(error) from None

    @staticmethod
    def count_ready(fd: int, caller: Caller, request: int, argument: int) -> int:
        """FIONREAD of something that is no terminal."""
        if request != FIONREAD:
            raise ENOTTY(f"{request:#x}")
        try:
            data = fcntl.ioctl(fd, FIONREAD, bytes(4))
        except OSError as error:
            raise from_host(error) from None
        caller.mm.write(argument, data)
        return 0


def _session(caller: Any) -> Any:
    return caller.group.process_group.session


def get_foreground(caller: Any, argument: int) -> None:
    """TIOCGPGRP."""
    session = _session(caller)
    foreground = session.foreground
    if foreground is None:
        leader = session.leader
        foreground = leader.process_group if leader is not None else caller.group.process_group
    caller.mm.write(argument, struct.pack("<i", caller.group.pids.of(foreground.pgid)))


def set_foreground(caller: Any, argument: int) -> None:
    """TIOCSPGRP. Raises: EINVAL, ESRCH, EPERM."""
    (pgid,) = struct.unpack("<i", caller.mm.read(argument, 4))
    if pgid < 0:
        raise EINVAL(f"process group {pgid}")
    group = caller.group.pids.process_group(pgid)
    if group is None:
        raise ESRCH(f"process group {pgid}")
    if group.session is not _session(caller):
        raise EPERM("another session")
    _session(caller).foreground = group


def get_session(caller: Any, argument: int) -> None:
    """TIOCGSID."""
    caller.mm.write(argument, struct.pack("<i", caller.group.pids.of(_session(caller).sid)))


def set_controlling(caller: Any, argument: int) -> None:
    """TIOCSCTTY. Raises: EPERM unless the leader of a session asks."""
    session = _session(caller)
    if session.leader is not caller.group:
        raise EPERM("not the leader of a session")
    if session.foreground is None:
        session.foreground = caller.group.process_group


def drop_controlling(caller: Any, argument: int) -> None:
    """TIOCNOTTY."""
    _session(caller).foreground = None


JOB_CONTROL: Final = {
    TIOCGPGRP: get_foreground,
    TIOCSPGRP: set_foreground,
    TIOCGSID: get_session,
    TIOCSCTTY: set_controlling,
    TIOCNOTTY: drop_controlling,
}
