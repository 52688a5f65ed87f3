"""The older calls of ioctl_tty(2): struct termio of System V, locked termios, the carrier.

drivers/tty/tty_ioctl.c. A table of their own, which `ioctls.COMMON` takes up.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.ioctl import (
    CLOCAL,
    TERMIOS,
    Termios,
)
from sentry.errors import EINVAL, EPERM

if TYPE_CHECKING:
    from sentry.fs.devpts.terminal import Terminal
    from sentry.vfs.file import Caller

TERMIO: Final = struct.Struct("<4HB8sx")
LOW: Final = 0xFFFF
"""What a struct termio says of the flags."""


def get_termio(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCGETA."""
    *flags, line, cc = terminal.discipline.termios
    caller.mm.write(argument, TERMIO.pack(*(flag & LOW for flag in flags), line, cc[:8]))


def set_termio(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCSETA, TCSETAW: the upper halves of the flags stay."""
    terminal.check_change(caller)
    *low, line, cc = TERMIO.unpack(caller.mm.read(argument, TERMIO.size))
    old = terminal.discipline.termios
    flags = [was & ~LOW | new for was, new in zip(old[:4], low, strict=True)]
    terminal.change(Termios._make((*flags, line, cc + old.c_cc[8:])))


def set_termio_flush(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCSETAF."""
    terminal.check_change(caller)
    terminal.forget_typed()
    set_termio(terminal, caller, argument)


def get_locked(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCGLCKTRMIOS."""
    caller.mm.write(argument, TERMIOS.pack(*terminal.discipline.locked))


def set_locked(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCSLCKTRMIOS: what is set here cannot be changed."""
    if not caller.creds.has(CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    terminal.discipline.locked = TERMIOS.unpack(caller.mm.read(argument, TERMIOS.size))


def get_soft_carrier(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCGSOFTCAR: CLOCAL."""
    local = bool(terminal.discipline.termios.c_cflag & CLOCAL)
    caller.mm.write(argument, struct.pack("<i", local))


def set_soft_carrier(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCSSOFTCAR."""
    old = terminal.discipline.termios
    local = CLOCAL if any(caller.mm.read(argument, 4)) else 0
    terminal.change(old._replace(c_cflag=old.c_cflag & ~CLOCAL | local))


def get_device(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCGDEV."""
    caller.mm.write(argument, struct.pack("<I", terminal.rdev))


def set_discipline(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCSETD: there is N_TTY alone."""
    if any(caller.mm.read(argument, 4)):
        raise EINVAL("line discipline")


TABLE: Final[dict[str, Any]] = {
    "TCGETA": get_termio,
    "TCSETA": set_termio,
    "TCSETAW": set_termio,
    "TCSETAF": set_termio_flush,
    "TIOCGLCKTRMIOS": get_locked,
    "TIOCSLCKTRMIOS": set_locked,
    "TIOCGSOFTCAR": get_soft_carrier,
    "TIOCSSOFTCAR": set_soft_carrier,
    "TIOCGDEV": get_device,
    "TIOCSETD": set_discipline,
}
