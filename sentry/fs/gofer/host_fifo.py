"""`GoferFifo`: a FIFO of the host. Only one that is a mount itself is opened.

The Gofer opens it without waiting and donates the descriptor; whoever has to wait for the other
side waits here, by asking again: Linux tells nobody that somebody has come. fifo(7), fifo_open().
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from gofer.p9.extensions import Tfifox
from sentry.abi.fcntl import O_ACCMODE, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY
from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from sentry.abi.stat import S_IFIFO
from sentry.errors import EAGAIN, EINVAL, ENFILE, ENXIO, EOPNOTSUPP
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.known import Key
from sentry.fs.gofer.session import Asked
from sentry.fs.host.file import HostFile
from sentry.platform.host_io import has_writer
from sentry.vfs.file import READ_EVENTS, Caller, Dest, FileDescription, Source
from sentry.vfs.mount import MountUse
from sentry.vfs.open import WAITED
from sentry.wait.again import Call, NotNow, again, kept
from sentry.wait.fiber import TimedOut
from sentry.wait.host_queue import HostQueue
from sentry.wait.queue import ALL
from sentry.wait.sleep import never, until

if TYPE_CHECKING:
    from sentry.fs.gofer.attachment import Attachment
    from sentry.vfs.interface import Attributes
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import Vfs

FIRST_PAUSE_NS: Final = 1_000_000
LONGEST_PAUSE_NS: Final = 64_000_000
"""Between two looks for the other side: each is twice as long as the one before."""


class GoferFifo(GoferInode):
    """Its name is the host's. What is behind it, too, if a mount is this file."""

    __slots__ = ("_is_served",)

    opens_itself: ClassVar = True

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        super().__init__(fs, key, attributes)
        self._is_served = False

    def is_served(self) -> None:
        """It is the root of a mount: the other side may be outside."""
        self._is_served = True

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """open(2). Raises: NotNow, ENXIO, EINVAL, ENFILE."""
        opened: FileDescription | None = kept(WAITED)
        if opened is not None:
            return opened
        if self._is_served:
            raise self._waiting(location, flags, caller)
        file: FileDescription = caller.kernel.vfs.openers[S_IFIFO](location, flags, caller)
        return file

    def _waiting(self, location: Location, flags: int, caller: Caller) -> NotNow:
        need = NotNow(never)
        need.wait = partial(self._wait, need.call, (location, flags, caller))
        need.call.hold(MountUse(location.mount))
        return need

    async def _wait(self, call: Call, how: tuple[Location, int, Caller]) -> None:
        """What it has opened is the call's, whatever the name leads to by then."""
        try:
            file = await self._open(*how)
        except EOPNOTSUPP:  # --host-fifo=none
            self._is_served = False
            return
        call.answers[WAITED] = file
        call.hold_files(file)

    async def _open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        access, waits = flags & O_ACCMODE, not flags & O_NONBLOCK
        if access not in (O_RDONLY, O_WRONLY, O_RDWR):
            raise EINVAL("access mode 3")
        vfs = caller.kernel.vfs
        pause = Pause(vfs)
        while True:
            vfs.budget.check_host_descriptor()
            try:
                fd = await again(self._ask, access)
                break
            except ENXIO:
                if not waits:
                    raise
            await pause.over()
        file = HostFifo(location, fd, flags, vfs)
        try:
            await again(self._ask_attributes)  # once it is answered the Gofer has closed its own
            if access == O_RDONLY and waits:
                await file.until_writer(pause)
        except BaseException:
            file.release()
            raise
        return file

    def _ask(self, access: int) -> int:
        session = self.sb.session
        asked: Asked = kept((self, access)) or Asked(session.send(Tfifox(self.fid, access)))
        session.complete(asked, (self, access))
        asked.pending.result()
        fd = asked.pending.take_fd()
        if fd < 0:
            raise ENFILE("no room for the descriptor")
        return fd


class Pause:
    """How long to wait until one looks again."""

    __slots__ = ("_length_ns", "_vfs")

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._length_ns = FIRST_PAUSE_NS

    def end_ns(self) -> int:
        """When the next one ends."""
        length, self._length_ns = self._length_ns, min(2 * self._length_ns, LONGEST_PAUSE_NS)
        return int(self._vfs.loop.now_ns()) + length

    async def over(self) -> None:
        """It has passed. Raises: Interrupted."""
        try:
            await until(never, (), deadline_ns=self.end_ns())
        except TimedOut:
            return


class HostFifo(HostFile):
    """Open: a description of the host of its own, which does not block."""

    __slots__ = ("_vfs",)

    def __init__(self, location: Location, fd: int, flags: int, vfs: Vfs) -> None:
        super().__init__(location, fd, flags, HostQueue(vfs.loop, fd, True), None)
        self._vfs = vfs
        vfs.donated.add(self)
        vfs.budget.host_descriptors += 1

    def release(self) -> None:
        """Closed: the other side learns of it."""
        self.host_queue.close()
        os.close(self.fd)
        self._vfs.donated.discard(self)
        self._vfs.budget.host_descriptors -= 1

    def cut(self, null: int, silent: int) -> None:
        """In a forked sandbox: as `HostInode.cut`."""
        self.host_queue.close()
        waits = self.flags & O_ACCMODE == O_RDONLY
        os.dup2(silent if waits else null, self.fd, inheritable=False)
        if waits:
            self.host_queue.reopen()
        self.host_queue.notify(ALL)

    async def until_writer(self, pause: Pause) -> None:
        """One has come, who may have gone again. Data and ends are told of, a mere open is not."""

        def came() -> None:
            if not self.host_queue.ready() & (EPOLLIN | EPOLLHUP) and not has_writer(self.fd):
                raise EAGAIN("no writer yet")

        while True:
            try:
                await until(came, (self.queue,), READ_EVENTS, deadline_ns=pause.end_ns())
                return
            except TimedOut:
                continue

    def receive(self, dest: Dest) -> int:
        """Read what is there; nothing where nobody writes. Raises: EAGAIN."""
        if not dest.count:
            return 0
        try:
            return dest.from_host(self.fd, None)
        except EAGAIN:
            self.host_queue.arm(EPOLLIN)
            raise

    def _send(self, source: Source) -> int:
        try:
            return source.to_host(self.fd, None)
        except EAGAIN:
            self.host_queue.arm(EPOLLOUT | EPOLLERR)
            raise
