"""timerfd_create(2): a timer that is read.

A timer runs only until the first expiry that nobody has read; how many periods went
by is computed from the clock when it is read, as in fs/timerfd.c, so a short period costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import time
from sentry.abi.fcntl import O_RDWR
from sentry.abi.poll import EPOLLIN, EPOLLRDNORM
from sentry.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
)
from sentry.errors import EAGAIN, ECANCELED, EINVAL
from sentry.vfs.file import StreamFile
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.requests import Requests
from sentry.wait.again import NotNow

if TYPE_CHECKING:
    from sentry.clock import ProgramClock
    from sentry.vfs.file import Caller, Dest
    from sentry.vfs.vfs import Vfs
    from sentry.wait.queue import WaitQueue

CLOCKS: Final = (
    CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM,
)  # fmt: skip
WALL_CLOCKS: Final = (CLOCK_REALTIME, CLOCK_REALTIME_ALARM)
TICKS_SIZE: Final = 8
TIMERS: Final = Requests(names=(time,))


class TimerFile(StreamFile):
    """An open timer."""

    requests: ClassVar = TIMERS

    __slots__ = (
        "_again", "_at_ns", "_canceled", "_cancels", "_expired", "_interval_ns", "_programs",
        "_step", "_steps", "_ticks", "_timer", "absolute", "clock",
    )  # fmt: skip
    has_write: ClassVar = False
    splice_read: ClassVar = False
    splice_write: ClassVar = False
    seeks_nowhere: ClassVar = True

    def __init__(
        self, vfs: Vfs, programs: ProgramClock, steps: WaitQueue, clock: int, flags: int
    ) -> None:
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
        super().__init__(vfs.anon_location(inode, b"anon_inode:[timerfd]"), O_RDWR | flags)
        self._programs = programs
        self._steps = steps
        """Notified when the wall clock was set."""
        self._step: Any = None
        self._again: Callable[[], int] | None = None
        """Where an absolute time on the wall clock lies now, on CLOCK_MONOTONIC."""
        self._cancels = False
        self._canceled = False
        self.clock = clock
        self.absolute = False
        """It was set to a point on its clock."""
        self._timer: Any = None
        self._interval_ns = 0
        self._at_ns = 0
        """The next expiry (or the first unread one), CLOCK_MONOTONIC; 0: not set."""
        self._expired = False
        self._ticks = 0
        """Expiries told by TFD_IOC_SET_TICKS."""

    def get(self) -> tuple[int, int]:
        """(interval, time left) in ns."""
        if not self._at_ns:
            return self._interval_ns, 0
        left = self._at_ns - self._programs.now_ns()
        if left > 0:
            return self._interval_ns, left
        if not self._interval_ns:
            return 0, 0
        return self._interval_ns, self._interval_ns - -left % self._interval_ns

    def set(
        self,
        interval_ns: int,
        at_ns: int,
        again: Callable[[], int] | None = None,
        cancels: bool = False,
    ) -> None:
        """Start with a point on CLOCK_MONOTONIC, or stop with 0; what has expired is forgotten.

        `again` finds the point anew when the wall clock was set; `cancels`: reads then fail.
        """
        self._cancel()
        self._expired = self._canceled = False
        self._ticks = 0
        self._interval_ns = interval_ns
        self._at_ns = at_ns
        self._again = again
        self._cancels = cancels
        if again is not None:
            self._step = self._steps.add(self._clock_was_set)
        if at_ns:
            self._start()

    def _clock_was_set(self, _events: int) -> None:
        if self._timer is not None and self._again is not None:
            self._timer.cancel()
            self._at_ns = self._again()
            self._start()
        if self._cancels:
            self._canceled = True
            self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def _start(self) -> None:
        self._timer = self._programs.call_at(self._at_ns, self._expire)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._step is not None:
            self._steps.remove(self._step)
            self._step = None

    def _expire(self) -> None:
        self._timer = None
        self._expired = True
        self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def _count(self) -> int:
        """How many expiries there are to read; the next period begins."""
        count, self._ticks = self._ticks, 0
        if self._expired:
            self._expired = False
            count += 1
            if self._interval_ns:
                missed = (self._programs.now_ns() - self._at_ns) // self._interval_ns
                count += missed
                self._at_ns += (missed + 1) * self._interval_ns
                self._start()
            else:
                self._at_ns = 0
        return count

    def receive(self, dest: Dest) -> int:
        """The number of expiries since the last read, 8 bytes."""
        if dest.wanted < TICKS_SIZE:
            raise EINVAL("room for fewer than 8 bytes")
        if self._canceled:
            self._canceled = False
            raise ECANCELED("the clock was set")
        if not (self._expired or self._ticks):
            raise EAGAIN("not expired")
        count = self._count()
        count &= (1 << 8 * TICKS_SIZE) - 1  # those of TFD_IOC_SET_TICKS may be as many as fit
        try:
            return dest.put(count.to_bytes(TICKS_SIZE, "little"))
        except NotNow:
            self._ticks += count
            raise

    def seek(self, caller: Any, offset: int, whence: int) -> int:
        """lseek(2): noop_llseek(), the position stays 0."""
        return 0

    def poll(self) -> int:
        """Readable once it has expired."""
        ready = self._expired or self._ticks or self._canceled
        return EPOLLIN | EPOLLRDNORM if ready else 0

    def set_ticks(self, caller: Caller, argument: int) -> None:
        """TFD_IOC_SET_TICKS."""
        ticks = int.from_bytes(caller.mm.read(argument, TICKS_SIZE), "little")
        if not ticks:
            raise EINVAL("no ticks")
        self._ticks = ticks - self._expired  # the expiry itself is counted by `_count`
        self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def release(self) -> None:
        """Closed."""
        self._cancel()

    def fdinfo(self) -> str:
        """As fs/timerfd.c: timerfd_show()."""
        interval, value = self.get()
        return (
            f"clockid: {self.clock}\nticks: {self._ticks + self._expired}\nsettime flags: 00\n"
            f"it_value: ({value // 10**9}, {value % 10**9})\n"
            f"it_interval: ({interval // 10**9}, {interval % 10**9})\n"
        )


TIMERS.row("TFD_IOC_SET_TICKS", TimerFile.set_ticks)
