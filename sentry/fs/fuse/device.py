"""/dev/fuse: where a server reads requests and writes answers. fs/fuse/dev.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import fuse as abi
from sentry.abi.fcntl import O_NONBLOCK, RWF_NOWAIT
from sentry.abi.fuse import FUSE_OUT_HEADER, FUSE_WRITE_IN
from sentry.abi.poll import EPOLLERR
from sentry.errors import EAGAIN, EFAULT, EINVAL, EPERM
from sentry.fs.fuse import notices
from sentry.fs.fuse.connection import MAX_DATA
from sentry.fs.fuse.request import HEADER
from sentry.vfs.file import Caller, Dest, Result, Source, StreamFile
from sentry.vfs.requests import Requests

if TYPE_CHECKING:
    from sentry.fs.fuse.connection import Connection
    from sentry.vfs.location import Location

MAX_MESSAGE: Final = HEADER + FUSE_WRITE_IN.size + MAX_DATA
"""Bytes of the longest answer or notice."""
DEVICES: Final = Requests(names=(abi,))


class FuseDevice(StreamFile):
    """An open device: first without a file system, then one of those that serve it."""

    __slots__ = ("connection", "fs", "unanswered")
    requests: ClassVar = DEVICES
    nowait = False

    def __init__(self, location: Location, flags: int) -> None:
        super().__init__(location, flags)
        self.connection: Connection | None = None
        self.fs: Any = None
        self.unanswered = 0

    def serve(self, connection: Connection, fs: Any) -> None:
        """A file system was mounted with it, or it is one more for one."""
        self.connection, self.fs = connection, fs
        self.queue = connection.queue
        connection.devices += 1

    def release(self) -> None:
        if self.connection is not None:
            self.connection.device_closed(self)
            self.connection = self.fs = None

    @property
    def _served(self) -> Connection:
        """Raises: EPERM before a file system is mounted."""
        if self.connection is None:
            raise EPERM("nothing is mounted with it")
        return self.connection

    def poll(self) -> int:
        connection = self.connection
        if connection is None:
            return EPOLLERR
        return connection.poll()

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        try:
            return self.receive(dest)
        except EAGAIN:
            if self.flags & O_NONBLOCK or rwf & RWF_NOWAIT:
                raise
        sleep = self.receive_sleep(dest)
        sleep.exclusive = True
        return sleep

    def receive(self, dest: Dest) -> int:
        """One message. Raises: EAGAIN, EINVAL if there is no room for the longest, ENODEV."""
        connection = self._served
        if dest.count < connection.least_buffer:
            raise EINVAL(f"room for {dest.count} bytes")
        message = connection.next_message(dest.count)
        try:
            size = dest.put(message.data)
        except EFAULT:
            message.spoiled()
            raise
        message.taken(self)
        return size

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """One answer or notice. Raises: EINVAL, ENOENT, EPERM."""
        connection = self._served
        size = source.wanted
        if size < FUSE_OUT_HEADER.size:
            raise EINVAL(f"{size} bytes")
        header = FUSE_OUT_HEADER.unpack(source.peek(FUSE_OUT_HEADER.size))
        if header.len != size or size > MAX_MESSAGE:
            raise EINVAL(f"{size} bytes that say {header.len}")
        data = source.get(source.count)[FUSE_OUT_HEADER.size :]
        if len(data) + FUSE_OUT_HEADER.size != size:
            raise EFAULT("not all can be read")
        if header.unique:
            connection.answer(self, header.unique, header.error, data)
        else:
            notices.take(self.fs, header.error, data)
        return size


@DEVICES.handles("FUSE_DEV_IOC_CLONE")
def clone(file: FuseDevice, caller: Caller, argument: int) -> None:
    """One more device for a mounted file system: what is read there is answered there."""
    number = int.from_bytes(caller.mm.read(argument, 4), "little")
    other = caller.files.get(number)
    if not isinstance(other, FuseDevice):
        raise EINVAL("not a device of FUSE")
    if other.connection is None:
        raise EPERM("nothing is mounted with it")
    if file.connection is not None:
        raise EINVAL("it serves one already")
    file.serve(other.connection, other.fs)
