"""An open message queue: read(2) shows its state, the mq_* calls send and receive."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sentry.abi.fcntl import SEEK_CUR, SEEK_END, SEEK_SET
from sentry.errors import EINVAL
from sentry.vfs.file import FileDescription

if TYPE_CHECKING:
    from sentry.fs.mqueue.queue import MessageQueue
    from sentry.vfs.file import Caller, Dest, Result
    from sentry.vfs.location import Location


class QueueFile(FileDescription):
    """The description behind a message queue descriptor."""

    __slots__ = ("messages",)
    flushes: ClassVar = True
    has_write = False
    read_flags = False
    splice_read = False
    splice_write = False

    can_poll = True
    seekable = True

    def __init__(self, location: Location, flags: int, messages: MessageQueue) -> None:
        super().__init__(location, flags, messages.events)
        self.messages = messages

    def release(self) -> None:
        """The last descriptor is gone."""
        self.messages.closed()

    def flush(self, caller: Caller) -> None:
        """mq_close(3) takes the process's notification back, whichever descriptor it is."""
        if caller.group is not None:
            self.messages.unregister(caller.group)

    def poll(self) -> int:
        """Messages to receive, room to send."""
        return self.messages.poll()

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """The status text from the position on."""
        n = dest.put(self.messages.status()[self.position :][: dest.count])
        self.position += n
        return n

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """The status text from an offset on."""
        return dest.put(self.messages.status()[offset:][: dest.count])

    def write_at(self, caller: Caller, source: object, offset: int, rwf: int = 0) -> Result:
        """Messages are not sent by writing."""
        raise EINVAL("no write")

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """default_llseek(): the size is that of stat(2)."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence == SEEK_END:
            offset += self.messages.size_of()[0]
        elif whence != SEEK_SET:
            raise EINVAL(f"whence {whence}")
        if not 0 <= offset < 1 << 63:
            raise EINVAL(f"offset {offset}")
        self.position = offset
        return offset
