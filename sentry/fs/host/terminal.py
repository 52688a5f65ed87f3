"""A donated terminal: its settings are the host's, its foreground process group is ours.

ioctl_tty(2). Never passed on are TIOCSTI, which would type into the caller's shell, TCXONC, with
which a program could leave a terminal that shows nothing to whoever has it afterwards, and breaks.
"""

from __future__ import annotations

import fcntl
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, Final, overload

from sentry.abi.ioctl import (
    FIONREAD,
    TCFLSH,
    TCGETS,
    TCGETS2,
    TCIFLUSH,
    TCIOFLUSH,
    TCOFLUSH,
    TCSBRK,
    TCSETS,
    TCSETS2,
    TCSETSF,
    TCSETSF2,
    TCSETSW,
    TCSETSW2,
    TIOCGWINSZ,
    TIOCOUTQ,
    TIOCSWINSZ,
)
from sentry.errors import EINVAL, EPERM, from_host
from sentry.vfs.requests import Requests

if TYPE_CHECKING:
    from sentry.fs.host.file import HostFile
    from sentry.vfs.file import Caller, Result

TERMIOS_SIZE: Final = 36
TERMIOS2_SIZE: Final = TERMIOS_SIZE + 8
"""With speeds; what the C library asks for since glibc 2.42."""
WINSIZE_SIZE: Final = 8
FILES: Final = Requests()
TERMINALS: Final = Requests()


@overload
def _host(fd: int, request: int, data: bytes) -> bytes: ...
@overload
def _host(fd: int, request: int, data: int) -> int: ...
def _host(fd: int, request: int, data: bytes | int) -> bytes | int:
    try:
        return fcntl.ioctl(fd, request, data)
    except OSError as error:
        raise from_host(error) from None


def _get(request: int, size: int, file: HostFile, caller: Caller, argument: int) -> None:
    caller.mm.write(argument, _host(file.fd, request, bytes(size)))


def _set(request: int, size: int, file: HostFile, caller: Caller, argument: int) -> None:
    _host(file.fd, request, caller.mm.read(argument, size))


def _set_later(
    request: int, size: int, file: HostFile, caller: Caller, argument: int
) -> Result:
    return file.when_written(request, caller.mm.read(argument, size))


def _drain(file: HostFile, caller: Caller, argument: int) -> Result:
    # the address of no data stands for an argument that is not 0, with which no break is sent
    return file.when_written(TCSBRK, b"")


def _flush(file: HostFile, caller: Caller, argument: int) -> None:
    if argument not in (TCIFLUSH, TCOFLUSH, TCIOFLUSH):
        raise EINVAL(f"queue {argument}")
    _host(file.fd, TCFLSH, argument)


FILES.row("FIONREAD", partial(_get, FIONREAD, 4))
TERMINALS.row("FIONREAD", partial(_get, FIONREAD, 4))
TERMINALS.row("TCGETS", partial(_get, TCGETS, TERMIOS_SIZE))
TERMINALS.row("TCGETS2", partial(_get, TCGETS2, TERMIOS2_SIZE))
TERMINALS.row("TIOCGWINSZ", partial(_get, TIOCGWINSZ, WINSIZE_SIZE))
TERMINALS.row("TIOCOUTQ", partial(_get, TIOCOUTQ, 4))
TERMINALS.row("TCSETS", partial(_set, TCSETS, TERMIOS_SIZE))
TERMINALS.row("TCSETS2", partial(_set, TCSETS2, TERMIOS2_SIZE))
TERMINALS.row("TCSETSW", partial(_set_later, TCSETSW, TERMIOS_SIZE))
TERMINALS.row("TCSETSW2", partial(_set_later, TCSETSW2, TERMIOS2_SIZE))
TERMINALS.row("TCSETSF", partial(_set_later, TCSETSF, TERMIOS_SIZE))
TERMINALS.row("TCSETSF2", partial(_set_later, TCSETSF2, TERMIOS2_SIZE))
TERMINALS.row("TIOCSWINSZ", partial(_set, TIOCSWINSZ, WINSIZE_SIZE))
TERMINALS.row("TCFLSH", _flush)
TERMINALS.row("TCSBRK", _drain, partial="no break is sent")
TERMINALS.row("TCSBRKP", _drain, partial="no break is sent")


def _session(caller: Any) -> Any:
    return caller.group.process_group.session


@TERMINALS.handles("TIOCGPGRP")
def get_foreground(file: HostFile, caller: Any, argument: int) -> None:
    """TIOCGPGRP."""
    session = _session(caller)
    foreground = session.foreground
    if foreground is None:
        leader = session.leader
        foreground = leader.process_group if leader is not None else caller.group.process_group
    caller.mm.write(argument, struct.pack("<i", caller.group.pids.of(foreground.pgid)))


@TERMINALS.handles("TIOCSPGRP")
def set_foreground(file: HostFile, caller: Any, argument: int) -> None:
    """TIOCSPGRP. Raises: EINVAL, ESRCH, EPERM."""
    (pgid,) = struct.unpack("<i", caller.mm.read(argument, 4))
    if pgid < 0:
        raise EINVAL(f"process group {pgid}")
    session = _session(caller)
    session.foreground = caller.group.pids.to_foreground(pgid, session)


@TERMINALS.handles("TIOCGSID")
def get_session(file: HostFile, caller: Any, argument: int) -> None:
    """TIOCGSID."""
    caller.mm.write(argument, struct.pack("<i", caller.group.pids.of(_session(caller).sid)))


@TERMINALS.handles("TIOCSCTTY")
def set_controlling(file: HostFile, caller: Any, argument: int) -> None:
    """TIOCSCTTY. Raises: EPERM unless the leader of a session asks."""
    session = _session(caller)
    if session.leader is not caller.group:
        raise EPERM("not the leader of a session")
    if session.foreground is None:
        session.foreground = caller.group.process_group


@TERMINALS.handles("TIOCNOTTY")
def drop_controlling(file: HostFile, caller: Any, argument: int) -> None:
    """TIOCNOTTY."""
    _session(caller).foreground = None
