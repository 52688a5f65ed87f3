"""What a signal is, how it waits, and what a process does about it.

`SigInfo` is one signal with its details, `PendingSignals` the set that waits for a task or for a
process, `SignalActions` the table of sigaction(2). Sending and delivering are in task_signals.py.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.layout import Record
from sentry.abi.signal import (
    SI_KERNEL,
    SI_TIMER,
    SI_TKILL,
    SI_USER,
    SIGABRT,
    SIGBUS,
    SIGCHLD,
    SIGCONT,
    SIGFPE,
    SIGILL,
    SIGKILL,
    SIGQUIT,
    SIGSEGV,
    SIGSTOP,
    SIGSYS,
    SIGTRAP,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGURG,
    SIGWINCH,
    SIGXCPU,
    SIGXFSZ,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NSIG: Final = 64
SIG_DFL: Final = 0
SIG_IGN: Final = 1
MAX_QUEUED: Final = 1 << 16
"""Ceiling of queued signals in one sandbox, whatever RLIMIT_SIGPENDING says."""


def mask_of(signals: Iterable[int]) -> int:
    """The sigset_t of some signals: bit n-1 is signal n."""
    result = 0
    for signo in signals:
        result |= 1 << (signo - 1)
    return result


EVERY: Final = (1 << 64) - 1
"""The sigset_t of all signals."""
UNBLOCKABLE: Final = mask_of((SIGKILL, SIGSTOP))
SYNCHRONOUS: Final = mask_of((SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS))
"""Delivered before all others (SYNCHRONOUS_MASK, kernel/signal.c)."""
STOPPING: Final = mask_of((SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU))
IGNORED_BY_DEFAULT: Final = mask_of((SIGCONT, SIGCHLD, SIGWINCH, SIGURG))
DUMPING: Final = mask_of(
    (SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ)
)
"""Signals whose default action is to dump core, signal(7)."""

_head = struct.Struct("<iii4x112s").pack
_pid_uid = struct.Struct("<iI").pack
_queued = struct.Struct("<iIQ").pack
_timer = struct.Struct("<iiQ").pack
_child = struct.Struct("<iIi4xqq").pack
_fault = struct.Struct("<Qh").pack
_poll = struct.Struct("<qi").pack
_sigsys = struct.Struct("<QiI").pack
CLOCK_TICK_NS: Final = 10_000_000
"""USER_HZ is 100: the unit of si_utime and times(2)."""


class SigInfo:
    """siginfo_t: `body` are the bytes of its union, from offset 16 on."""

    __slots__ = ("body", "code", "errno", "names_sender", "signo")

    def __init__(
        self, signo: int, code: int, body: bytes = b"", errno: int = 0, names_sender: bool = False
    ) -> None:
        self.names_sender = names_sender
        """The body begins with kernel ids of a process and a user: the receiver sees its own."""
        self.signo = signo
        self.code = code
        self.errno = errno
        self.body = body

    def __repr__(self) -> str:
        return f"<signal {self.signo} code {self.code}>"

    def pack(self) -> bytes:
        """The 128 bytes that a program sees."""
        return _head(self.signo, self.errno, self.code, self.body)

    @staticmethod
    def user(signo: int, pid: int, uid: int) -> SigInfo:
        """kill(2)."""
        return SigInfo(signo, SI_USER, _pid_uid(pid, uid), names_sender=True)

    @staticmethod
    def tkill(signo: int, pid: int, uid: int) -> SigInfo:
        """tgkill(2)."""
        return SigInfo(signo, SI_TKILL, _pid_uid(pid, uid), names_sender=True)

    @staticmethod
    def kernel(signo: int) -> SigInfo:
        """From the kernel itself."""
        return SigInfo(signo, SI_KERNEL)

    @staticmethod
    def queue(signo: int, code: int, pid: int, uid: int, value: int) -> SigInfo:
        """sigqueue(3), mq_notify(3): with a value (64 bits)."""
        body = _queued(pid, uid, value & 0xFFFFFFFFFFFFFFFF)
        return SigInfo(signo, code, body, names_sender=True)

    @staticmethod
    def timer(signo: int, timer_id: int, overrun: int, value: int) -> SigInfo:
        """timer_create(2)."""
        return SigInfo(
            signo, SI_TIMER, _timer(timer_id, overrun & 0x7FFFFFFF, value & 0xFFFFFFFFFFFFFFFF)
        )

    @staticmethod
    def child(
        signo: int, code: int, child: tuple[int, int], value: int, ran_ns: tuple[int, int]
    ) -> SigInfo:
        """A child (tgid, uid) changed state: CLD_*; `value` is its exit code or signal.

        `ran_ns`: its user and system time.
        """
        user, system = (ns // CLOCK_TICK_NS for ns in ran_ns)
        return SigInfo(signo, code, _child(*child, value, user, system), names_sender=True)

    @staticmethod
    def waitid(code: int, pid: int, uid: int, value: int) -> SigInfo:
        """What waitid(2) reports."""
        return SigInfo(SIGCHLD, code, _child(pid, uid, value, 0, 0), names_sender=True)

    @staticmethod
    def fault(signo: int, code: int, addr: int) -> SigInfo:
        """An exception at an address."""
        return SigInfo(signo, code, _fault(addr, 0))

    @staticmethod
    def poll(signo: int, code: int, band: int, fd: int) -> SigInfo:
        """fcntl(2) F_SETSIG."""
        return SigInfo(signo, code, _poll(band, fd))

    @staticmethod
    def sigsys(code: int, call_addr: int, number: int, arch: int, errno: int) -> SigInfo:
        """seccomp(2) SECCOMP_RET_TRAP."""
        return SigInfo(SIGSYS, code, _sigsys(call_addr, number, arch), errno)

    @staticmethod
    def raw(signo: int, data: bytes) -> SigInfo:
        """As rt_sigqueueinfo(2) and ptrace(2) give it: 128 bytes, the number apart."""
        _, errno, code = struct.unpack_from("<iii", data)
        return SigInfo(signo, code, bytes(data[16:128]), errno)


class Quota:
    """How many signals of each real user are queued, for RLIMIT_SIGPENDING and the ceiling."""

    __slots__ = ("_by_uid", "_total")

    def __init__(self) -> None:
        self._by_uid: dict[int, int] = {}
        self._total = 0

    def take(self, uid: int, limit: int, *, override: bool = False) -> bool:
        """One more; False when there is no room (`override` minds the ceiling alone)."""
        mine = self._by_uid.get(uid, 0)
        if self._total >= MAX_QUEUED or (mine >= limit and not override):
            return False
        self._by_uid[uid] = mine + 1
        self._total += 1
        return True

    def give(self, uid: int) -> None:
        """One less."""
        left = self._by_uid[uid] - 1
        if left:
            self._by_uid[uid] = left
        else:
            del self._by_uid[uid]
        self._total -= 1

    def of(self, uid: int) -> int:
        """How many a user has (SigQ of /proc/pid/status)."""
        return self._by_uid.get(uid, 0)


class Queued(Record):
    """One entry of a queue."""

    info: "SigInfo"
    forced: bool = False
    """An exception: it acts on init too."""
    quota: Quota | None = None
    uid: int = 0
    """Whose quota it is charged to."""
    on_taken: Callable[[SigInfo], SigInfo] | None = None
    """A timer's: says at the delivery what the program shall see (its overruns)."""


class PendingSignals:
    """Signals that wait: a standard one at most once, real-time ones in order."""

    __slots__ = ("_infos", "mask")

    def __init__(self) -> None:
        self.mask = 0
        """sigset_t of the signals that wait."""
        self._infos: dict[int, list[Queued]] = {}

    def __contains__(self, signo: int) -> bool:
        return bool(self.mask >> (signo - 1) & 1)

    def add(self, entry: Queued) -> None:
        """Queue it behind those of its number."""
        signo = entry.info.signo
        self.mask |= 1 << (signo - 1)
        self._infos.setdefault(signo, []).append(entry)

    def add_bare(self, signo: int) -> None:
        """Only note the number: there is no room for the details."""
        self.mask |= 1 << (signo - 1)

    def put_back(self, entry: Queued) -> None:
        """Undo a `take`: the entry becomes the next of its number."""
        signo = entry.info.signo
        self.mask |= 1 << (signo - 1)
        self._infos.setdefault(signo, []).insert(0, Queued(entry.info, entry.forced))

    def take(self, wanted: int) -> Queued | None:
        """Remove the next signal of the set `wanted`: synchronous ones, then the lowest number."""
        found = self.mask & wanted
        if not found:
            return None
        found = found & SYNCHRONOUS or found
        signo = (found & -found).bit_length()
        queue = self._infos.get(signo)
        if queue is None:
            self.mask &= ~(1 << (signo - 1))
            return Queued(SigInfo.user(signo, 0, 0))
        entry = queue.pop(0)
        if not queue:
            del self._infos[signo]
            self.mask &= ~(1 << (signo - 1))
        if entry.quota is not None:
            entry.quota.give(entry.uid)
        return entry

    def peek(self, signo: int) -> SigInfo | None:
        """The next one of a number, left where it is."""
        queue = self._infos.get(signo)
        return queue[0].info if queue else None

    def infos(self) -> list[SigInfo]:
        """All that wait with details, for PTRACE_PEEKSIGINFO and checkpoints."""
        return [entry.info for queue in self._infos.values() for entry in queue]

    def discard(self, mask: int) -> None:
        """Forget the signals of a set."""
        found = self.mask & mask
        if not found:
            return
        self.mask &= ~mask
        for signo in [s for s in self._infos if found >> (s - 1) & 1]:
            for entry in self._infos.pop(signo):
                if entry.quota is not None:
                    entry.quota.give(entry.uid)
                if entry.on_taken is not None:
                    entry.on_taken(entry.info)

    def forget_timers(self) -> None:
        """What timers of timer_create(2) have sent: flush_itimer_signals()."""
        for signo, queue in list(self._infos.items()):
            queue[:] = [entry for entry in queue if entry.on_taken is None]
            if not queue:
                del self._infos[signo]
                self.mask &= ~(1 << (signo - 1))


class Action(Record):
    """struct kernel_sigaction of <asm/signal.h>."""

    handler: int
    flags: int
    restorer: int
    mask: int


DEFAULT_ACTION: Final = Action(SIG_DFL, 0, 0, 0)


class SignalActions:
    """The actions of a process; shared by processes made with CLONE_SIGHAND."""

    __slots__ = ("_actions", "users")

    def __init__(self, actions: list[Action] | None = None) -> None:
        self._actions = [DEFAULT_ACTION] * (NSIG + 1) if actions is None else actions
        self.users = 1

    def __getitem__(self, signo: int) -> Action:
        return self._actions[signo]

    def __setitem__(self, signo: int, action: Action) -> None:
        self._actions[signo] = action

    def share(self) -> SignalActions:
        """One more process uses this table."""
        self.users += 1
        return self

    def copy(self) -> SignalActions:
        """Another table with the same actions: fork(2)."""
        return SignalActions(list(self._actions))

    def reset_for_exec(self) -> SignalActions:
        """A table where handlers became default and ignored signals stay so: execve(2)."""
        return SignalActions(
            [
                Action(SIG_IGN, 0, 0, 0) if action.handler == SIG_IGN else DEFAULT_ACTION
                for action in self._actions
            ]
        )

    def ignores(self, signo: int) -> bool:
        """The signal would do nothing: ignored, or so by default."""
        handler = self._actions[signo].handler
        return handler == SIG_IGN or (
            handler == SIG_DFL and bool(IGNORED_BY_DEFAULT >> (signo - 1) & 1)
        )

    def is_fatal(self, signo: int) -> bool:
        """The signal would end the process (sig_fatal, include/linux/signal.h)."""
        return self._actions[signo].handler == SIG_DFL and not (
            (IGNORED_BY_DEFAULT | STOPPING) >> (signo - 1) & 1
        )
