"""`Terminal`: what both sides of a pseudo-terminal share, and whose terminal it is.

Job control: a session has a controlling terminal, and one of its process groups is in the
foreground. Sessions and groups are the kernel's objects; here they are only looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.ioctl import (
    EXTPROC,
    NOFLSH,
    TIOCPKT_DOSTOP,
    TIOCPKT_FLUSHREAD,
    TIOCPKT_FLUSHWRITE,
    TIOCPKT_IOCTL,
    TIOCPKT_NOSTOP,
    TIOCPKT_START,
    TIOCPKT_STOP,
    TOSTOP,
    Termios,
)
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDNORM,
    EPOLLWRNORM,
)
from sentry.abi.signal import SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, SIGWINCH
from sentry.errors import EBUSY, EIO
from sentry.fs.devpts.discipline import LineDiscipline
from sentry.wait.fiber import Interrupted
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.vfs.file import Caller
    from sentry.vfs.vfs import Vfs

SCREEN: Final = 16_384
"""Bytes that wait for the master."""
AHEAD: Final = 8448
"""Bytes that wait until the line discipline has room: tty_buffer_set_limit() of 8,192, which one
buffer of 256 may exceed."""
PIECE: Final = 1024
"""Bytes that the line discipline takes at a time: others run in between."""
MASTER_INPUT: Final = 4095
"""How many of them lie in the master's own line discipline: the program cannot take them back."""
READABLE: Final = EPOLLIN | EPOLLRDNORM
WRITABLE: Final = EPOLLOUT | EPOLLWRNORM


class Terminal:
    """One pseudo-terminal."""

    __slots__ = (
        "_vfs", "ahead", "discipline", "exclusive", "hangups", "index", "locked",
        "master_exclusive", "master_open", "master_queue", "master_stopped", "packet",
        "packet_events", "screen", "session", "slave_opened", "slave_queue", "slaves", "taking",
        "winsize",
    )  # fmt: skip

    def __init__(self, vfs: Vfs, index: int) -> None:
        self._vfs = vfs
        self.index = index
        self.discipline = LineDiscipline()
        self.ahead = bytearray()
        """What was typed, and the line discipline has not taken yet."""
        self.taking = False
        """It goes on with it in the next turn of the loop."""
        self.screen = bytearray()
        """What the master has not read yet."""
        self.winsize = bytes(8)
        self.locked = True
        """TIOCSPTLCK: the slave cannot be opened."""
        self.exclusive = False
        """TIOCEXCL of the slave."""
        self.master_exclusive = False
        """TIOCEXCL of the master, which nobody can open again anyway."""
        self.master_open = True
        self.hangups = 0
        """How often the kernel has hung it up: what was open then is dead."""
        self.slaves = 0
        self.slave_opened = False
        self.packet = False
        self.packet_events = 0
        """TIOCPKT_*: what the master has not been told yet, in packet mode."""
        self.master_stopped = False
        """TCOOFF of the master: it cannot type."""
        self.session: Any = None
        """The session whose controlling terminal it is."""
        self.master_queue = WaitQueue()
        self.slave_queue = WaitQueue()

    @property
    def rdev(self) -> int:
        """The device number of the slave: major 136."""
        return 136 << 8 | self.index & 0xFF | (self.index & ~0xFF) << 12

    # --- bytes

    @property
    def typing_room(self) -> int:
        """How much can be typed without waiting."""
        return max(0, AHEAD - len(self.ahead))

    def typed(self, data: bytes) -> None:
        """The master writes."""
        self.ahead += data
        if not self.taking:
            self._take()

    def was_read(self) -> None:
        """There is room for what was typed meanwhile: the program has read, or others have run."""
        self._take()
        self.master_queue.notify(WRITABLE)

    def _take(self) -> None:
        """flush_to_ldisc(): echo, signals, and perhaps something to read. Much of it in pieces."""
        ahead, discipline = self.ahead, self.discipline
        if not ahead:
            return
        was_stopped = discipline.stopped
        echo = bytearray()
        signals: list[int] = []
        left = PIECE
        while ahead and (count := min(left, discipline.accepts)):
            signals += discipline.take(bytes(ahead[:count]), echo)
            del ahead[:count]
            left -= count
        if ahead and not left:
            self.take_soon()
        if echo:
            self.show(bytes(echo[: max(0, SCREEN - len(self.screen))]))  # n_tty.c drops echoes too
        for signo in dict.fromkeys(signals):
            self.signal_foreground(signo)
        if signals and not self.discipline.termios.c_lflag & NOFLSH:
            self.tell(TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE)
        if self.discipline.stopped != was_stopped:
            self.tell_stop()
        if discipline.available or discipline.readable:
            self.slave_queue.notify(READABLE)
        if not self.discipline.stopped:
            self.master_queue.notify(READABLE)
            self.slave_queue.notify(WRITABLE)

    def take_soon(self) -> None:
        """Go on with what was typed in the next turn."""
        if not self.taking:
            self.taking = True
            self._vfs.loop.call_soon(self._take_on)

    def _take_on(self) -> None:
        self.taking = False
        self.was_read()

    def show(self, data: bytes) -> None:
        """Bytes for the master."""
        self.screen += data
        self.master_queue.notify(READABLE)

    @property
    def room(self) -> int:
        """How much a program can write now."""
        return 0 if self.discipline.stopped else max(0, SCREEN - len(self.screen))

    def forget_typed(self) -> None:
        """TCIFLUSH of the program."""
        self.discipline.flush()
        self.was_read()
        self.tell(TIOCPKT_FLUSHREAD)

    def forget_shown(self, kept: int = 0) -> None:
        """The master has read enough of the screen."""
        del self.screen[kept:]
        self.slave_queue.notify(WRITABLE)

    def change(self, termios: Termios) -> None:
        """tcsetattr(3) from either side."""
        discipline = self.discipline
        before, keys, was_stopped = discipline.termios, discipline.flow_keys, discipline.stopped
        discipline.set(termios)
        if discipline.stopped != was_stopped:
            self.tell_stop()
        if discipline.flow_keys != keys:
            self.tell(TIOCPKT_NOSTOP if keys else TIOCPKT_DOSTOP, TIOCPKT_NOSTOP | TIOCPKT_DOSTOP)
        if (before.c_lflag | discipline.termios.c_lflag) & EXTPROC:
            self.tell(TIOCPKT_IOCTL)
        self._take()
        self.slave_queue.notify()
        self.master_queue.notify()

    # --- packet mode

    def set_packet(self, on: bool) -> None:
        """TIOCPKT: starts with nothing to tell."""
        if on and not self.packet:
            self.packet_events = 0
        self.packet = on

    def tell(self, events: int, instead_of: int = 0) -> None:
        """The master's next read says TIOCPKT_*."""
        if self.packet:
            self.packet_events = self.packet_events & ~instead_of | events
            self.master_queue.notify(READABLE | EPOLLPRI)

    def tell_stop(self) -> None:
        """Output has stopped, or goes on."""
        event = TIOCPKT_STOP if self.discipline.stopped else TIOCPKT_START
        self.tell(event, TIOCPKT_STOP | TIOCPKT_START)

    # --- ends

    def hang_up(self) -> None:
        """The master is gone: the session's leader hears of it, readers see the end.

        The foreground group hears when the leader ends: tty_signal_session_leader().
        """
        self.master_open = False
        self._leave()

    def hang_up_slaves(self) -> None:
        """vhangup(2): who has it open has nothing any more, but it can be opened again."""
        self.hangups += 1
        self._leave()
        self.discipline = LineDiscipline()

    def _leave(self) -> None:
        self.ahead.clear()
        self.discipline.flush()
        session, signal = self.session, self._vfs.signal_process
        if session is not None:
            if session.leader is not None and signal is not None:
                signal(session.leader, SIGHUP)
                signal(session.leader, SIGCONT)
            foreground = session.foreground
            self.disassociate(session)
            session.old_foreground = foreground
        self.slave_queue.notify(READABLE | WRITABLE | EPOLLERR | EPOLLHUP)

    def check_open(self, caller: Caller) -> None:
        """tty_reopen(): once more, or for the first time. Raises: EBUSY."""
        if self.exclusive and not caller.creds.has(CAP_SYS_ADMIN):
            raise EBUSY("TIOCEXCL")

    def slave_closed(self) -> None:
        """A description of the slave is gone."""
        self.slaves -= 1
        if not self.slaves:
            self.master_queue.notify(READABLE | EPOLLHUP)

    # --- job control

    def disassociate(self, session: Any) -> None:
        """The session lost its terminal (its leader ended or said TIOCNOTTY): all processes."""
        session.foreground = session.old_foreground = None
        session.terminal = self.session = None
        for group in session.groups:
            for member in group.members:
                member.terminal = None

    def take(self, session: Any, group: Any) -> None:
        """Become the controlling terminal of a session's leader."""
        session.terminal = session.leader.terminal = self
        session.foreground, session.old_foreground = group, None
        self.session = session

    def _signal(self, group: Any, signo: int) -> None:
        if self._vfs.signal_group is not None and group is not None:
            self._vfs.signal_group(group, signo)

    def signal_foreground(self, signo: int) -> None:
        """A key or a new size: the foreground group hears of it."""
        if self.session is not None:
            self._signal(self.session.foreground, signo)

    def resized(self, winsize: bytes) -> None:
        """TIOCSWINSZ."""
        if winsize != self.winsize:
            self.winsize = winsize
            self.signal_foreground(SIGWINCH)

    def check_background(self, caller: Any, signo: int) -> None:
        """A background process reads (SIGTTIN) or writes (SIGTTOU): __tty_check_change().

        Raises: Interrupted, so that the call starts again once the process is in the foreground;
        EIO when it could not be stopped.
        """
        group = caller.group
        if group is None:
            return
        process_group = group.process_group
        session = process_group.session
        if group.terminal is not self or session.foreground is None:
            return
        if session.foreground is process_group:
            return
        ignored = self._vfs.ignores_signal
        if ignored is not None and ignored(caller, signo):
            if signo == SIGTTIN:
                raise EIO("a background process")
            return
        if process_group.is_orphaned():
            raise EIO("an orphaned background process")
        if self._vfs.signal_process is not None:
            self._vfs.signal_process(group, signo)  # the others may hear later, if they are many
        self._signal(process_group, signo)
        raise Interrupted

    def check_read(self, caller: Any) -> None:
        """Before a read."""
        self.check_background(caller, SIGTTIN)

    def check_write(self, caller: Any) -> None:
        """Before a write, with TOSTOP."""
        if self.discipline.termios.c_lflag & TOSTOP:
            self.check_background(caller, SIGTTOU)

    def check_change(self, caller: Any) -> None:
        """Before a change of settings."""
        self.check_background(caller, SIGTTOU)
