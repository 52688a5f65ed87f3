"""SECCOMP_FILTER_FLAG_NEW_LISTENER: a supervisor answers for calls, seccomp_unotify(2).

A call that the listener's filter stops is a `Notification`: made (INIT), read by the supervisor
(SENT), answered (REPLIED). Its task sleeps meanwhile; a signal ends that sleep as any other, after
which the supervisor's answer finds nobody. kernel/seccomp.c, seccomp_do_user_notification().
"""

from __future__ import annotations

import struct
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import seccomp
from sentry.abi.fcntl import O_CLOEXEC, O_RDWR
from sentry.abi.poll import EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDNORM, EPOLLWRNORM
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.seccomp import (
    SECCOMP_ADDFD_FLAG_SEND,
    SECCOMP_ADDFD_FLAG_SETFD,
    SECCOMP_IOCTL_NOTIF_ADDFD,
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
)
from sentry.errors import E2BIG, EAGAIN, EINPROGRESS, EINVAL, ENOENT, ENOSYS
from sentry.kernel.seccomp import Seccomp
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.file import FileDescription, Result
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.requests import Requests
from sentry.wait.fiber import Mode, park, this_fiber
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import now_or_later

if TYPE_CHECKING:
    from sentry.bpf.filter import CallFilter
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

NOTIF: Final = struct.Struct("<QIIiIQ6Q")
"""struct seccomp_notif: id, pid, flags, then struct seccomp_data."""
RESPONSE: Final = struct.Struct("<QqiI")
ADDFD: Final = struct.Struct("<QIIII")
ID: Final = struct.Struct("<Q")
MAX_WAITING: Final = 1 << 16

READ_BIT: Final = 2 << 30
"""_IOC_READ, which ADDFD may have set or not, as it may have any size."""
SIZE_MASK: Final = 0x3FFF << 16
OLD: Final = SimpleNamespace(SECCOMP_IOCTL_NOTIF_ID_VALID_WRONG_DIR=0x80082102)
"""Not among the headers for programs."""
LISTENERS: Final = Requests(names=(seccomp, OLD), unknown=EINVAL)


class State(Enum):
    """How far a notification has come."""

    INIT = 0
    SENT = 1
    REPLIED = 2


class Notification:
    """One stopped call."""

    __slots__ = ("answer", "data", "go_on", "number", "queue", "state", "task")

    def __init__(self, number: int, task: Task, data: tuple[int, ...]) -> None:
        self.number = number
        """The id that the supervisor names it by."""
        self.task = task
        self.data = data
        """struct seccomp_data."""
        self.state = State.INIT
        self.answer = -ENOSYS.number
        self.go_on = False
        """The answer is to make the call after all."""
        self.queue = WaitQueue()

    def reply(self, answer: int, go_on: bool = False) -> None:
        """Wake the task with its result."""
        self.state, self.answer, self.go_on = State.REPLIED, answer, go_on
        self.queue.notify()


class Listener(FileDescription):
    """The supervisor's descriptor: notifications of the calls that `program` stops."""

    __slots__ = (
        "_is_left", "_kernel", "_last", "_user", "_waiting", "closed", "killable", "program"
    )  # fmt: skip
    can_poll: ClassVar = True
    requests: ClassVar = LISTENERS

    def __init__(self, kernel: Kernel, program: CallFilter, killable: bool) -> None:
        vfs = kernel.vfs
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
        super().__init__(vfs.anon_location(inode, b"anon_inode:seccomp notify"), O_RDWR)
        self._kernel = kernel
        self._last = 0
        self._waiting: dict[int, Notification] = {}
        self.program = program
        self.killable = killable
        """SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: once read, only death ends the wait."""
        self.closed = False
        self._user: Task | None = None
        """A task under the filter, once one was looked for;"""
        self._is_left = False
        """none is there any more: who could make one has ended."""

    # The stopped task's side ---------------------------------------------------------------------

    async def ask(self, task: Task, data: tuple[int, ...]) -> Notification:
        """Sleep until the supervisor has answered. Raises: Interrupted, Killed."""
        fiber = await this_fiber()
        self._last += 1
        note = self._waiting[self._last] = Notification(self._last, task, data)
        entry = note.queue.add(fiber.wake)
        self.queue.notify(EPOLLIN | EPOLLRDNORM)
        try:
            while note.state is not State.REPLIED:
                bound = self.killable and note.state is State.SENT
                await park(Mode.KILLABLE if bound else Mode.INTERRUPTIBLE)
        finally:
            note.queue.remove(entry)
            self._waiting.pop(note.number, None)
        return note

    def has_room(self) -> bool:
        """As many calls as there may be tasks can wait."""
        return not self.closed and len(self._waiting) < MAX_WAITING

    def user_left(self) -> None:
        """A task under the filter has ended; the last one's end is a hang-up."""
        if not self._has_users():
            self.queue.notify(EPOLLHUP)

    def _has_users(self) -> bool:
        known = self._user
        if not self._is_left and (known is None or not self._is_used_by(known)):
            tasks = self._kernel.pids.tasks.values()
            self._user = next((task for task in tasks if self._is_used_by(task)), None)
            self._is_left = self._user is None and known is not None
        return self._user is not None

    def _is_used_by(self, task: Task) -> bool:
        found = task.seccomp
        return isinstance(found, Seccomp) and found.listener is self and not task.dead

    # The supervisor's side -----------------------------------------------------------------------

    def poll(self) -> int:
        """Something to read, something to answer, nobody left."""
        states = {note.state for note in self._waiting.values()}
        events = EPOLLIN | EPOLLRDNORM if State.INIT in states else 0
        if State.SENT in states:
            events |= EPOLLOUT | EPOLLWRNORM
        return events if self._has_users() else events | EPOLLHUP

    def release(self) -> None:
        """Closed: whoever waits, and whoever comes later, gets ENOSYS."""
        self.closed = True
        nobody = -ENOSYS.number
        self._kernel.vfs.leftovers.begin(self._waiting.values(), lambda note: note.reply(nobody))

    def ioctl(self, caller: Any, request: int, argument: int) -> Any:
        """seccomp_notify_ioctl()."""
        if request & ~(SIZE_MASK | READ_BIT) == SECCOMP_IOCTL_NOTIF_ADDFD & ~SIZE_MASK:
            return self._add_descriptor(caller, argument, (request & SIZE_MASK) >> 16)
        return super().ioctl(caller, request, argument)

    def check_valid(self, caller: Any, argument: int) -> None:
        """SECCOMP_IOCTL_NOTIF_ID_VALID."""
        (number,) = ID.unpack(caller.mm.read(argument, ID.size))
        if self._find(number).state is not State.SENT:
            raise ENOENT(f"notification {number}")

    def set_flags(self, caller: Any, argument: int) -> None:
        """SECCOMP_IOCTL_NOTIF_SET_FLAGS."""
        if argument & ~SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP:
            raise EINVAL(f"flags {argument:#x}")

    def add_descriptor(self, caller: Any, argument: int) -> int:
        """SECCOMP_IOCTL_NOTIF_ADDFD, of the usual size."""
        return self._add_descriptor(caller, argument, ADDFD.size)

    def _find(self, number: int) -> Notification:
        note = self._waiting.get(number)
        if note is None:
            raise ENOENT(f"notification {number}")
        return note

    def _sent(self, number: int) -> Notification:
        """A notification that was read and not answered. ENOENT, EINPROGRESS."""
        note = self._find(number)
        if note.state is not State.SENT:
            raise EINPROGRESS(f"notification {number}")
        return note

    def receive(self, caller: Any, argument: int) -> Result:
        """SECCOMP_IOCTL_NOTIF_RECV."""
        if any(caller.mm.read(argument, NOTIF.size)):
            raise EINVAL("struct seccomp_notif is not zero")

        def attempt() -> int:
            for note in self._waiting.values():
                if note.state is State.INIT:
                    pid = caller.pids.of(note.task.tid)
                    caller.mm.write(argument, NOTIF.pack(note.number, pid, 0, *note.data))
                    note.state = State.SENT
                    if self.killable:
                        note.queue.notify()
                    self.queue.notify(EPOLLOUT | EPOLLWRNORM)
                    return 0
            if not self._has_users():
                raise ENOENT("nobody is under the filter")
            raise EAGAIN("no notification")

        result: Result = now_or_later(attempt, (self.queue,), held=(self,))
        return result

    def send(self, caller: Any, argument: int) -> None:
        """SECCOMP_IOCTL_NOTIF_SEND."""
        number, value, error, flags = RESPONSE.unpack(caller.mm.read(argument, RESPONSE.size))
        if flags & ~SECCOMP_USER_NOTIF_FLAG_CONTINUE:
            raise EINVAL(f"flags {flags:#x}")
        if flags and (error or value):
            raise EINVAL("an answer, and the call")
        # syscall_set_return_value(): an error goes before the value
        self._sent(number).reply(error or value, bool(flags))

    def _add_descriptor(self, caller: Any, argument: int, size: int) -> int:
        """SECCOMP_IOCTL_NOTIF_ADDFD: a file of the supervisor for the stopped task."""
        if not ADDFD.size <= size < PAGE_SIZE:
            raise EINVAL(f"{size} bytes")
        data = caller.mm.read(argument, size)
        if any(data[ADDFD.size :]):
            raise E2BIG("unknown fields are set")
        number, flags, source, wanted, wanted_flags = ADDFD.unpack_from(data)
        known = SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND
        if wanted_flags & ~O_CLOEXEC or flags & ~known:
            raise EINVAL("flags")
        if wanted and not flags & SECCOMP_ADDFD_FLAG_SETFD:
            raise EINVAL("a number that is not asked for")
        file = caller.files.get(source)
        note = self._sent(number)
        task, cloexec = note.task, bool(wanted_flags)
        limit = task.rlimit(RLIMIT_NOFILE)
        if flags & SECCOMP_ADDFD_FLAG_SETFD:
            task.files.replace(task, wanted, file, limit, cloexec=cloexec)
        else:
            wanted = task.files.install(file, limit, cloexec=cloexec)
        if flags & SECCOMP_ADDFD_FLAG_SEND:
            note.reply(wanted)
        return int(wanted)


LISTENERS.row("SECCOMP_IOCTL_NOTIF_RECV", Listener.receive)
LISTENERS.row("SECCOMP_IOCTL_NOTIF_SEND", Listener.send)
LISTENERS.row("SECCOMP_IOCTL_NOTIF_ID_VALID", Listener.check_valid)
LISTENERS.row("SECCOMP_IOCTL_NOTIF_ID_VALID_WRONG_DIR", Listener.check_valid)
LISTENERS.row("SECCOMP_IOCTL_NOTIF_SET_FLAGS", Listener.set_flags)
LISTENERS.row("SECCOMP_IOCTL_NOTIF_ADDFD", Listener.add_descriptor)
