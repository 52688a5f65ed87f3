"""An open text file of /proc or /sys: its content is made when it is read."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import SEEK_CUR, SEEK_SET
from sentry.abi.poll import EPOLLERR, EPOLLIN, EPOLLPRI, EPOLLRDNORM
from sentry.errors import EINVAL, EIO
from sentry.vfs.file import ALWAYS_READY, Caller, Dest, Result, Source
from sentry.vfs.regular import RegularFile
from sentry.wait.again import again, begun
from sentry.wait.fiber import Mode
from sentry.wait.steps import Pace, Steps, in_steps

if TYPE_CHECKING:
    from sentry.vfs.location import Location
    from sentry.wait.queue import ChangeCount

Pieces = Generator[str | bytes, None, None]
"""A text whose length a program decides: others run between two pieces, which may be empty."""
Text = str | bytes | Pieces
"""What a file shows."""
Store = Callable[[Caller, bytes], Steps[None] | None]
"""What a write does; what takes long is work in steps."""
MAX_WRITE = 1 << 16
"""Bytes that one write may have."""


class TextFile(RegularFile):
    """A description whose bytes come from a function; a write goes to another."""

    __slots__ = ("_content", "_seen", "_show", "_store", "changes")

    def __init__(
        self,
        location: Location,
        flags: int,
        show: Callable[[], Text] | None,
        store: Store | None,
        changes: ChangeCount | None = None,
    ) -> None:
        super().__init__(location, flags)
        self._show = show
        self._store = store
        self._content: bytes | bytearray | None = None
        self.changes = changes
        """Counts changes of what it shows, if poll(2) tells of them."""
        self._seen = 0
        if changes is not None:
            self._seen, self.queue = changes.count, changes.queue

    @property
    def can_poll(self) -> bool:  # type: ignore[override]
        """Files of the whole system can be polled, most of those of a process cannot."""
        inode: Any = self.inode
        return bool(inode.pollable)

    @property
    def read_flags(self) -> bool:  # type: ignore[override]
        """Those of a process have no read_iter and no splice_read: seq_read()."""
        return self.can_poll

    write_flags = splice_read = splice_write = read_flags
    nowait = False
    can_direct = False

    @property
    def can_pwrite(self) -> bool:
        """A seq_file takes no FMODE_PWRITE."""
        inode: Any = self.inode
        return bool(inode.can_pwrite)

    @property
    def has_changed(self) -> bool:
        """Since the last look."""
        return self.changes is not None and self.changes.count != self._seen

    def seen_but(self, changed: bool) -> None:
        """All changes so far, or all but one."""
        if self.changes is not None:
            self._seen = self.changes.count - changed

    def poll(self) -> int:
        """What it shows has changed since the last look: mounts_poll(), proc_sys_poll()."""
        if self.changes is None:
            return ALWAYS_READY
        if self.has_changed:
            self.seen_but(False)
            return EPOLLIN | EPOLLRDNORM | EPOLLERR | EPOLLPRI
        inode: Any = self.inode
        ready: int = inode.ready
        return ready

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """lseek(2): mostly there is no end to count from, seq_lseek()."""
        inode: Any = self.inode
        if whence not in (SEEK_SET, SEEK_CUR) and not inode.has_end:
            raise EINVAL(f"whence {whence}")
        return super().seek(caller, offset, whence)

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2), of who may."""
        inode: Any = self.inode
        inode.check_reader(caller)
        return super().read(caller, dest, rwf)

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """pread(2), likewise."""
        inode: Any = self.inode
        inode.check_reader(caller)
        return super().read_at(caller, dest, offset, rwf)

    def pread(self, dest: Dest, offset: int) -> int:
        """From the text, which is made anew at the beginning."""
        content = self._content
        if content is None or offset == 0:
            content = self._content = begun((self, "text"), self._made)
            if self.counted is not None:
                self.counted.keep_text(self, len(content))
        return dest.put(content[offset : offset + dest.count])

    def forget_text(self) -> None:
        """It is made anew at the next read."""
        self._content = None

    def release(self) -> None:
        """Nobody reads it any more."""
        if self.counted is not None:
            self.counted.drop_text(self)
        super().release()

    async def _made(self) -> bytes | bytearray:
        """The text anew, with others in between if it is long. Raises: EINVAL, NotNow."""
        if self._show is None:
            raise EINVAL("not to be read")
        text: Text = await again(self._show)
        if isinstance(text, (str, bytes)):
            return _encoded(text)
        pace, content = Pace(), bytearray()
        for piece in text:
            content += _encoded(piece)
            await pace.rest(Mode.UNINTERRUPTIBLE)
        return content

    def sync(self, data_only: bool) -> None:
        """Raises: EINVAL."""
        raise EINVAL("nothing to sync")

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """RLIMIT_FSIZE does not hold here."""
        inode: Any = self.inode
        count = source.count
        result = self._write_text(caller, source, self.position)
        if not inode.from_start:
            self.position += count
        return result

    def write_at(self, caller: Caller, source: Source, offset: int, rwf: int = 0) -> Result:
        """Mostly the offset does not count."""
        return self._write_text(caller, source, offset)

    def _write_text(self, caller: Caller, source: Any, offset: int) -> Result:
        """All of it at once."""
        inode: Any = self.inode
        count: int = source.count
        if inode.from_start and offset:
            raise EINVAL(f"at {offset}")
        if not count and not (inode.from_start or inode.stores_nothing):
            return 0
        if self._store is None:
            raise EIO("not to be written")
        if count > MAX_WRITE:
            raise EINVAL(f"{count} bytes")
        rest = self._store(caller, inode.written(caller, offset, bytes(source.get(count))))
        self._content = None
        return count if rest is None else in_steps(_stored(rest, count))


def _stored(rest: Steps[None], count: int) -> Steps[int]:
    yield from rest
    return count


def _encoded(piece: str | bytes) -> bytes:
    """Names in it may be any bytes."""
    return piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece
