"""signalfd(2): pending signals are read instead of delivered.

What is read are the signals of whoever reads: a child that inherited the descriptor gets its own.
poll cannot know who asks, so it looks at the process that made the descriptor or read it last.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from sentry.abi.fcntl import O_NONBLOCK, O_RDWR, RWF_NOWAIT
from sentry.abi.poll import EPOLLIN, EPOLLRDNORM
from sentry.abi.signal import (
    SI_KERNEL,
    SI_TIMER,
    SIGBUS,
    SIGCHLD,
    SIGFPE,
    SIGILL,
    SIGNALFD_SIGINFO,
    SIGPOLL,
    SIGSEGV,
    SIGSYS,
    SIGTRAP,
)
from sentry.errors import EAGAIN, EFAULT, EINVAL
from sentry.vfs.file import FileDescription
from sentry.vfs.interface import Inode, Owner
from sentry.wait.again import NotNow
from sentry.wait.queue import ALL
from sentry.wait.sleep import Retry

if TYPE_CHECKING:
    from sentry.vfs.file import Dest, Result


class Signal(Protocol):
    """A signal's details (SigInfo)."""

    signo: int
    code: int
    errno: int
    body: bytes


Take = Callable[[Any, int, Callable[[Any], int]], int]
"""(task, set, tell): dequeues a pending signal of the set for `tell`, which may raise NotNow; what
that gives, or 0 if there is none."""

FAULTS: Final = (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP)
_kill = struct.Struct("<iI").unpack_from
_timer = struct.Struct("<IIQ").unpack_from
_child = struct.Struct("<iIi4xQQ").unpack_from
_fault = struct.Struct("<QH").unpack_from
_poll = struct.Struct("<qi").unpack_from
_sigsys = struct.Struct("<QiI").unpack_from


def convert(info: Signal) -> bytes:
    """struct signalfd_siginfo of a signal: signalfd_copyinfo(), fs/signalfd.c."""
    body = info.body.ljust(112, b"\0")
    signo, code = info.signo, info.code
    found: dict[str, Any] = {"ssi_signo": signo, "ssi_errno": info.errno, "ssi_code": code}
    if code == SI_TIMER:
        number, overrun, value = _timer(body)
        found |= {"ssi_tid": number, "ssi_overrun": overrun, "ssi_ptr": value}
        found["ssi_int"] = _s32(value)
    elif 0 < code < SI_KERNEL and signo == SIGCHLD:
        pid, uid, status, utime, stime = _child(body)
        found |= {"ssi_pid": pid, "ssi_uid": uid, "ssi_status": status, "ssi_utime": utime}
        found["ssi_stime"] = stime
    elif 0 < code < SI_KERNEL and signo in FAULTS:
        found["ssi_addr"], found["ssi_addr_lsb"] = _fault(body)
    elif 0 < code < SI_KERNEL and signo == SIGPOLL:
        band, fd = _poll(body)
        found |= {"ssi_band": band & 0xFFFFFFFF, "ssi_fd": fd}
    elif 0 < code < SI_KERNEL and signo == SIGSYS:
        addr, number, arch = _sigsys(body)
        found |= {"ssi_call_addr": addr, "ssi_syscall": number, "ssi_arch": arch}
    else:
        found["ssi_pid"], found["ssi_uid"] = _kill(body)
        if code < 0:
            value = int.from_bytes(body[8:16], "little")
            found |= {"ssi_ptr": value, "ssi_int": _s32(value)}
    for name in ("ssi_pid", "ssi_trapno"):
        if name in found:
            found[name] &= 0xFFFFFFFF
    zero = {"pad": b""}
    return SIGNALFD_SIGINFO.pack(*(found.get(name, zero.get(name, 0)) for name in SIGNALFD_FIELDS))


def _s32(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


SIGNALFD_FIELDS: Final = SIGNALFD_SIGINFO.unpack(bytes(SIGNALFD_SIGINFO.size))._fields


class SignalFile(FileDescription):
    """An open signalfd."""

    __slots__ = ("_group", "_take", "mask")
    has_write: ClassVar = False
    splice_read: ClassVar = False
    splice_write: ClassVar = False
    seeks_nowhere: ClassVar = True
    can_poll: ClassVar = True

    def __init__(self, task: Any, mask: int, flags: int, take: Take) -> None:
        vfs = task.kernel.vfs
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
        location = vfs.anon_location(inode, b"anon_inode:[signalfd]")
        super().__init__(location, O_RDWR | flags, task.group.signal_queue)
        self.mask = mask
        self._take = take
        self._group: Any = task.group
        """Whose signals poll looks at, while the file is open."""

    def change(self, mask: int) -> None:
        """signalfd(2) on an open one: another set."""
        self.mask = mask
        self.queue.notify(EPOLLIN)

    def read(self, caller: Any, dest: Dest, rwf: int = 0) -> Result:
        """read(2): as many signals as there are and fit; sleep for the first."""
        if dest.count < SIGNALFD_SIGINFO.size:
            raise EINVAL("room for less than one signal")
        self._group = caller.group
        try:
            return self._receive(caller, dest)
        except EAGAIN:
            if self.flags & O_NONBLOCK or rwf & RWF_NOWAIT:
                raise
        return Retry(partial(self._receive, caller, dest), caller.group.signal_queue, ALL, self)

    def _receive(self, caller: Any, dest: Dest) -> int:
        done = 0
        while dest.count >= SIGNALFD_SIGINFO.size:
            try:
                told = self._take(caller, self.mask, lambda info: dest.put(convert(info)))
            except (EFAULT, NotNow):  # those before it are told
                if not done:
                    raise
                break
            if not told:
                break
            done += told
        if not done:
            raise EAGAIN("no signal")
        return done

    def seek(self, caller: Any, offset: int, whence: int) -> int:
        """lseek(2): noop_llseek(), the position stays 0."""
        return 0

    def poll(self) -> int:
        """Readable when a signal of the set is pending."""
        pending = self._group.shared_pending.mask
        for task in self._group.tasks:
            pending |= task.pending.mask
        return EPOLLIN | EPOLLRDNORM if pending & self.mask else 0

    def release(self) -> None:
        """The last descriptor is closed."""
        self._group = None

    def fdinfo(self) -> str:
        """The mask."""
        return f"sigmask:\t{self.mask:016x}\n"
