"""Open sides of a pseudo-terminal: `PtyMaster` (/dev/ptmx) and `PtySlave` (/dev/pts/N)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi.fcntl import F_OWNER_PGRP, O_ACCMODE, O_CLOEXEC, O_NOCTTY, O_NONBLOCK
from sentry.abi.ioctl import (
    ICANON,
    TIOCSPGRP,
    VMIN,
    VTIME,
)
from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLPRI
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.errors import EAGAIN, EIO, ENOTTY
from sentry.fs.devpts.ioctls import MASTERS, SLAVES
from sentry.fs.devpts.terminal import READABLE, WRITABLE, Terminal
from sentry.vfs.file import Caller, Dest, Result, Source, StreamFile
from sentry.vfs.location import Location
from sentry.vfs.notices import own_by_default, set_owner
from sentry.wait.again import Keeping, again, kept
from sentry.wait.fiber import Interrupted, TimedOut
from sentry.wait.sleep import Retry, instead, until

if TYPE_CHECKING:
    from sentry.fs.devpts.filesystem import DevPtsFs


TENTH_NS: Final = 100_000_000
"""The unit of VTIME."""


class PtyMaster(StreamFile):
    """The side of the terminal emulator."""

    requests: ClassVar = MASTERS
    __slots__ = ("_fs", "terminal")
    can_async = True
    async_room = False
    nowait = False

    def __init__(self, location: Location, flags: int, fs: DevPtsFs, terminal: Terminal) -> None:
        super().__init__(location, flags, terminal.master_queue)
        self._fs = fs
        self.terminal = terminal

    def release(self) -> None:
        """Hang up, and the name in /dev/pts is gone."""
        self.terminal.hang_up()
        self._fs.remove(self.terminal)

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2): nothing is asked for, nothing is waited for."""
        return super().read(caller, dest, rwf) if dest.wanted else 0

    def receive(self, dest: Dest) -> int:
        """What the screen shows. Raises: EIO once nobody has the slave open any more."""
        terminal = self.terminal
        if terminal.packet and terminal.packet_events:
            told = dest.put(bytes((terminal.packet_events,)))
            terminal.packet_events = 0
            return told
        if not terminal.screen:
            if terminal.slave_opened and not terminal.slaves:
                raise EIO("the slave is closed")
            raise EAGAIN("nothing on the screen")
        prefix = 0
        if terminal.packet:
            prefix = dest.put(b"\0")
        taken = dest.put(bytes(terminal.screen[: dest.count]))
        del terminal.screen[:taken]
        terminal.slave_queue.notify(WRITABLE)
        return taken + prefix

    def send(self, caller: Caller, source: Source) -> int:
        """Type."""
        terminal = self.terminal
        room = terminal.typing_room
        if terminal.master_stopped:
            raise EAGAIN("TCOOFF")
        if not room:
            raise EAGAIN("the program does not read")
        data = source.get(min(source.count, room))
        terminal.typed(data)
        return len(data)

    def poll(self) -> int:
        """Readable while something is on the screen."""
        terminal = self.terminal
        ready = READABLE if terminal.screen else 0
        if terminal.packet and terminal.packet_events:
            ready |= READABLE | EPOLLPRI
        if terminal.typing_room and not terminal.master_stopped:
            ready |= WRITABLE
        if terminal.slave_opened and not terminal.slaves:
            ready |= EPOLLHUP
        return ready

    def fdinfo(self) -> str:
        """The number of the terminal."""
        return f"tty-index:\t{self.terminal.index}\n"

    def open_peer(self, caller: Caller, flags: int) -> int:
        """TIOCGPTPEER: a descriptor of the other side. Raises: EMFILE, EBUSY."""
        limit = caller.rlimit(RLIMIT_NOFILE)
        caller.files.free_from(0, limit)
        self.terminal.check_open(caller)
        place = self._fs.location_of(self.terminal, self.location, caller)
        slave = PtySlave(place, flags & (O_ACCMODE | O_NONBLOCK), self.terminal)
        become_controlling(slave, caller, flags)
        return caller.files.install(slave, limit, cloexec=bool(flags & O_CLOEXEC))


class PtySlave(StreamFile):
    """The side of the programs."""

    requests: ClassVar = SLAVES
    __slots__ = ("_hangups", "terminal")
    can_async = True
    async_room = False
    nowait = False

    def __init__(self, location: Location, flags: int, terminal: Terminal) -> None:
        super().__init__(location, flags, terminal.slave_queue)
        self.terminal = terminal
        self._hangups = terminal.hangups
        terminal.slaves += 1
        terminal.slave_opened = True

    @property
    def hung(self) -> bool:
        """The master was closed, or the kernel hung up: hung_up_tty_fops."""
        return not self.terminal.master_open or self._hangups != self.terminal.hangups

    def before_async(self, caller: Caller) -> None:
        """__tty_fasync(): without an owner, the foreground process group gets the signals."""
        session = self.terminal.session
        foreground = session.foreground if session is not None else None
        if self.owner[1]:
            return
        if foreground is not None:
            set_owner(caller, self, F_OWNER_PGRP, foreground.pgid)
        else:
            own_by_default(caller, self)

    def release(self) -> None:
        """Closed."""
        self.terminal.slave_closed()

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2): background processes are stopped first."""
        self.terminal.check_read(caller)
        if not dest.wanted or self.hung:
            return 0
        discipline = self.terminal.discipline
        termios = discipline.termios
        timed = not termios.c_lflag & ICANON and termios.c_cc[VTIME]
        if timed and not self.flags & O_NONBLOCK and not discipline.has(dest.count):
            return self._read_timed(caller, dest)
        return super().read(caller, dest, rwf)

    async def _read_timed(self, caller: Caller, dest: Dest) -> int:
        """VTIME: for the first byte without VMIN, between bytes with it. termios(3)."""
        discipline = self.terminal.discipline
        cc = discipline.termios.c_cc

        def some(least: int) -> None:
            if discipline.available < least and not self.hung:
                raise EAGAIN("nothing typed")

        with self.held():
            least = 1
            if cc[VMIN]:
                await until(lambda: some(1), (self.queue,), READABLE)
                least = min(cc[VMIN], dest.count)
            try:
                while discipline.available < least and not self.hung:
                    deadline = caller.kernel.loop.now_ns() + cc[VTIME] * TENTH_NS
                    attempt = partial(some, discipline.available + 1)
                    await until(attempt, (self.queue,), READABLE, deadline_ns=deadline)
            except TimedOut:
                pass
            except Interrupted:
                if not discipline.available:
                    raise
        if not discipline.available:
            return 0
        taken = await again(dest.put, discipline.read(dest.count))
        self.terminal.was_read()
        return taken

    def receive(self, dest: Dest) -> int:
        """A line, or what is there."""
        discipline = self.terminal.discipline
        data: bytes | None = kept((self, "typed"))
        if data is None:
            if self.hung:
                return 0
            cc = discipline.termios.c_cc
            at_once = not discipline.termios.c_lflag & ICANON and not cc[VMIN]
            waitless = self.flags & O_NONBLOCK
            if at_once and not discipline.available and not (waitless and cc[VTIME]):
                return 0
            if not discipline.has(1 if waitless else dest.count):
                raise EAGAIN("nothing typed")
            data = discipline.read(dest.count)
        return self._give(dest, data)

    def _give(self, dest: Dest, data: bytes) -> int:
        with Keeping((self, "typed"), data):
            taken = dest.put(data)
        self.terminal.was_read()
        return taken

    def receive_sleep(self, dest: Dest) -> Retry:
        """A signal ends it with the bytes that came before: n_tty_read()."""
        sleep = super().receive_sleep(dest)
        sleep.ended(instead(Interrupted, partial(self._before_signal, dest)))
        return sleep

    def _before_signal(self, dest: Dest) -> int | Interrupted:
        discipline = self.terminal.discipline
        if self.hung or not discipline.available:
            return Interrupted()
        return self._give(dest, discipline.read(dest.count))

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2): with TOSTOP background processes are stopped first."""
        self.terminal.check_write(caller)
        return super().write(caller, source, rwf)

    def send(self, caller: Caller, source: Source) -> int:
        """Show."""
        terminal = self.terminal
        if self.hung:
            raise EIO("hung up")
        room = terminal.room
        if not room:
            raise EAGAIN("the screen is full")
        data = source.get(min(source.count, room))
        terminal.show(terminal.discipline.output(data))
        return len(data)

    def poll(self) -> int:
        """Readable when there is a line, writable when there is room."""
        if self.hung:
            return READABLE | WRITABLE | EPOLLERR | EPOLLHUP
        terminal = self.terminal
        ready = READABLE if terminal.discipline.readable else 0
        return ready | (WRITABLE if terminal.room else 0)

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """ioctl_tty(2)."""
        if self.hung:
            raise (ENOTTY if request == TIOCSPGRP else EIO)("hung up")
        return super().ioctl(caller, request, argument)


def become_controlling(slave: PtySlave, caller: Any, flags: int) -> None:
    """The leader of a session without a terminal gets the one that it opens, not for writing alone:
    tty_open_proc_set_tty()."""
    group = caller.group
    if flags & O_NOCTTY or group is None or not slave.readable:
        return
    session = group.process_group.session
    if session.leader is group and group.terminal is None and slave.terminal.session is None:
        slave.terminal.take(session, group.process_group)
