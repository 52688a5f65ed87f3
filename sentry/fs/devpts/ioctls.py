"""ioctl_tty(2) on either side of a pseudo-terminal."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.ioctl import (
    TCIFLUSH,
    TCIOFF,
    TCIOFLUSH,
    TCION,
    TCOFLUSH,
    TCOOFF,
    TCOON,
    TERMIOS,
    TIOCPKT_FLUSHWRITE,
    VSTART,
    VSTOP,
)
from sentry.abi.signal import SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTSTP
from sentry.errors import EINVAL, EIO, ENOTTY, EPERM
from sentry.fs.devpts import termio
from sentry.fs.devpts.discipline import CONTROL_CHARACTERS
from sentry.fs.devpts.terminal import MASTER_INPUT, SCREEN
from sentry.vfs.requests import Requests, put_int

if TYPE_CHECKING:
    from sentry.fs.devpts.terminal import Terminal
    from sentry.vfs.file import Caller

SPEEDS: Final = struct.pack("<II", 38400, 38400)
Handler = Callable[["Terminal", Any, int], None]


def get_termios(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCGETS."""
    caller.mm.write(argument, TERMIOS.pack(*terminal.discipline.termios))


def get_termios2(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCGETS2: with speeds."""
    caller.mm.write(argument, TERMIOS.pack(*terminal.discipline.termios) + SPEEDS)


def set_termios(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCSETS, TCSETSW: what was written has always reached the master's buffer."""
    terminal.check_change(caller)
    terminal.change(TERMIOS.unpack(caller.mm.read(argument, TERMIOS.size)))


def set_termios_flush(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCSETSF."""
    terminal.check_change(caller)
    terminal.forget_typed()
    set_termios(terminal, caller, argument)


def get_winsize(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCGWINSZ."""
    caller.mm.write(argument, terminal.winsize)


def set_winsize(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCSWINSZ."""
    terminal.resized(caller.mm.read(argument, 8))


def flush(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCFLSH of the slave. What the master's side has taken in is no output any more."""
    terminal.check_change(caller)
    if argument not in (TCIFLUSH, TCOFLUSH, TCIOFLUSH):
        raise EINVAL(f"queue {argument}")
    if argument != TCOFLUSH:
        terminal.ahead.clear()
        terminal.forget_typed()
    if argument != TCIFLUSH:
        terminal.forget_shown(MASTER_INPUT)
        terminal.tell(TIOCPKT_FLUSHWRITE)


def flush_master(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCFLSH of the master: its input is what the screen shows, what it typed has arrived."""
    if argument not in (TCIFLUSH, TCOFLUSH, TCIOFLUSH):
        raise EINVAL(f"queue {argument}")
    if argument != TCOFLUSH:
        terminal.forget_shown()


def flow(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCXONC of the slave: hold its output, or ask the master to stop typing."""
    terminal.check_change(caller)
    if argument not in (TCOOFF, TCOON, TCIOFF, TCION):
        raise EINVAL(f"action {argument}")
    discipline = terminal.discipline
    if argument in (TCOOFF, TCOON):
        was_stopped = discipline.stopped
        if argument == TCOOFF:
            discipline.hold()
        else:
            discipline.let_go()
        if discipline.stopped != was_stopped:
            terminal.tell_stop()
        terminal.slave_queue.notify()
        return
    key = discipline.termios.c_cc[VSTOP if argument == TCIOFF else VSTART]
    if key:
        terminal.show(bytes((key,)))


def flow_master(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCXONC of the master, whose own settings are always the initial ones."""
    if argument not in (TCOOFF, TCOON, TCIOFF, TCION):
        raise EINVAL(f"action {argument}")
    if argument in (TCOOFF, TCOON):
        terminal.master_stopped = argument == TCOOFF
        terminal.master_queue.notify()
        return
    key = CONTROL_CHARACTERS[VSTOP if argument == TCIOFF else VSTART]
    terminal.typed(bytes((key,)))


def drain(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TCSBRK: nothing to wait for."""
    terminal.check_change(caller)


def count_output(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCOUTQ."""
    caller.mm.write(argument, struct.pack("<i", len(terminal.screen)))


def discipline_number(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCGETD: N_TTY."""
    caller.mm.write(argument, bytes(4))


def set_lock(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCSPTLCK."""
    terminal.locked = any(caller.mm.read(argument, 4))


def signal_foreground(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCSIG: pty_signal(). Raises: EINVAL for a signal that no key sends."""
    signo = argument & 0xFFFFFFFF
    if signo not in (SIGINT, SIGQUIT, SIGTSTP):
        raise EINVAL(f"signal {signo}")
    terminal.signal_foreground(signo)


def set_packet(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCPKT."""
    terminal.set_packet(any(caller.mm.read(argument, 4)))


def _check_simulated(terminal: Any, caller: Any) -> None:
    """tiocsti(), drivers/tty/tty_io.c. Raises: EIO, EPERM."""
    if caller.creds.has(CAP_SYS_ADMIN):
        return
    if caller.kernel.services.sysctls.get("dev/tty/legacy_tiocsti", "0") == "0":
        raise EIO("dev.tty.legacy_tiocsti is 0")
    if caller.group.terminal is not terminal:
        raise EPERM("not the controlling terminal")


def simulate_input(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCSTI: a byte as if it were typed; lost where there is no room."""
    _check_simulated(terminal, caller)
    byte = caller.mm.read(argument, 1)
    if terminal.typing_room:
        terminal.typed(byte)


def simulate_screen(terminal: Terminal, caller: Caller, argument: int) -> None:
    """TIOCSTI of the master: its input is the screen."""
    _check_simulated(None, caller)
    byte = caller.mm.read(argument, 1)
    if len(terminal.screen) < SCREEN:
        terminal.show(byte)


# --- job control


def _session(caller: Any) -> Any:
    return caller.group.process_group.session


def _check_ours(terminal: Terminal, caller: Any) -> Any:
    if caller.group.terminal is not terminal:
        raise ENOTTY("not the controlling terminal")
    return _session(caller)


def get_foreground(terminal: Terminal, caller: Any, argument: int) -> None:
    """TIOCGPGRP."""
    _check_ours(terminal, caller)
    get_foreground_of_slave(terminal, caller, argument)


def get_foreground_of_slave(terminal: Terminal, caller: Any, argument: int) -> None:
    """TIOCGPGRP on the master: anybody may ask, and 0 is nobody."""
    group = terminal.session.foreground if terminal.session is not None else None
    shown = caller.group.pids.of(group.pgid) if group is not None else 0
    caller.mm.write(argument, struct.pack("<i", shown))


def set_foreground(terminal: Terminal, caller: Any, argument: int) -> None:
    """TIOCSPGRP. Raises: ENOTTY, EINVAL, ESRCH, EPERM."""
    try:
        terminal.check_change(caller)
    except EIO:
        raise ENOTTY("an orphaned background process") from None
    (pgid,) = struct.unpack("<i", caller.mm.read(argument, 4))
    if pgid < 0:
        raise EINVAL(f"process group {pgid}")
    session = _check_ours(terminal, caller)
    session.foreground = caller.group.pids.to_foreground(pgid, session)


def get_session(terminal: Terminal, caller: Any, argument: int) -> None:
    """TIOCGSID."""
    _check_ours(terminal, caller)
    get_session_of_slave(terminal, caller, argument)


def get_session_of_slave(terminal: Terminal, caller: Any, argument: int) -> None:
    """TIOCGSID on the master: anybody may ask. Raises: ENOTTY."""
    if terminal.session is None:
        raise ENOTTY("nobody's terminal")
    caller.mm.write(argument, struct.pack("<i", caller.group.pids.of(terminal.session.sid)))


def set_controlling(side: Any, caller: Any, argument: int) -> None:
    """TIOCSCTTY: tiocsctty(). 1 steals it, with CAP_SYS_ADMIN; who may only write needs that, too.

    Raises: EPERM.
    """
    terminal, session = side.terminal, _session(caller)
    if terminal.session is session and session.leader is caller.group:
        return
    if session.leader is not caller.group or caller.group.terminal is not None:
        raise EPERM("not the leader of a session without a terminal")
    owner = terminal.session
    if owner is not None:
        if argument != 1 or not caller.creds.has(CAP_SYS_ADMIN):
            raise EPERM("somebody else's terminal")
        terminal.disassociate(owner)
    if not side.readable and not caller.creds.has(CAP_SYS_ADMIN):
        raise EPERM("it is open for writing alone")
    terminal.take(session, caller.group.process_group)


def not_of_masters(terminal: Terminal, caller: Any, argument: int) -> None:
    """TIOCNOTTY: a master controls nobody."""
    raise ENOTTY("a master")


def drop_controlling(terminal: Terminal, caller: Any, argument: int) -> None:
    """TIOCNOTTY: the caller loses it; if that is the session's leader, everybody does."""
    session = _check_ours(terminal, caller)
    if session.leader is caller.group:
        terminal.signal_foreground(SIGHUP)
        terminal.signal_foreground(SIGCONT)
        terminal.disassociate(session)
    caller.group.terminal = None


def hang_up(terminal: Terminal, caller: Any, argument: int) -> None:
    """TIOCVHANGUP. Raises: EPERM."""
    if not caller.creds.has(CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    terminal.hang_up_slaves()


def _of_terminal(handler: Handler) -> Callable[[Any, Caller, int], None]:
    """What is done to the terminal behind an open side of it."""
    return lambda side, caller, argument: handler(side.terminal, caller, argument)


def _exclusive_rows(requests: Requests, attribute: str) -> None:
    """TIOCEXCL and its like: each side has its own flag."""

    def to(value: bool) -> Callable[[Any, Caller, int], None]:
        return lambda side, caller, argument: setattr(side.terminal, attribute, value)

    requests.row("TIOCEXCL", to(True))
    requests.row("TIOCNXCL", to(False))
    requests.row("TIOCGEXCL", put_int(lambda side: getattr(side.terminal, attribute)))


EITHER: Final = Requests()
for _name, _handler in {
    "TCGETS": get_termios,
    "TCGETS2": get_termios2,
    "TCSETS": set_termios,
    "TCSETSW": set_termios,
    "TCSETSF": set_termios_flush,
    "TCSETS2": set_termios,
    "TCSETSW2": set_termios,
    "TCSETSF2": set_termios_flush,
    "TIOCGWINSZ": get_winsize,
    "TIOCSWINSZ": set_winsize,
    "TCFLSH": flush,
    "TCXONC": flow,
    "TCSBRK": drain,
    "TCSBRKP": drain,
    "TIOCOUTQ": count_output,
    "TIOCGETD": discipline_number,
    "TIOCGPGRP": get_foreground,
    "TIOCSPGRP": set_foreground,
    "TIOCSTI": simulate_input,
    "TIOCGSID": get_session,
    "TIOCNOTTY": drop_controlling,
    **termio.TABLE,
}.items():
    EITHER.row(_name, _of_terminal(_handler))
EITHER.row("TIOCSCTTY", set_controlling)

SLAVES: Final = Requests(EITHER)
_exclusive_rows(SLAVES, "exclusive")
SLAVES.row("TIOCVHANGUP", _of_terminal(hang_up))
SLAVES.row("FIONREAD", put_int(lambda slave: slave.terminal.discipline.available))

MASTERS: Final = Requests(EITHER)
for _name, _handler in {
    "TCFLSH": flush_master,
    "TCXONC": flow_master,
    "TIOCGPGRP": get_foreground_of_slave,
    "TIOCGSID": get_session_of_slave,
    "TIOCNOTTY": not_of_masters,
    "TIOCSPTLCK": set_lock,
    "TIOCSTI": simulate_screen,
    "TIOCPKT": set_packet,
    "TIOCSIG": signal_foreground,
}.items():
    MASTERS.row(_name, _of_terminal(_handler))
_exclusive_rows(MASTERS, "master_exclusive")
MASTERS.row("TIOCGPTPEER", lambda master, caller, flags: master.open_peer(caller, flags))
MASTERS.row("TIOCGPTN", put_int(lambda master: master.terminal.index))
MASTERS.row("TIOCGPTLCK", put_int(lambda master: master.terminal.locked))
MASTERS.row("TIOCGPKT", put_int(lambda master: master.terminal.packet))
MASTERS.row("FIONREAD", put_int(lambda master: len(master.terminal.screen)))
