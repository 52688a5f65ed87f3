"""/dev/null, /dev/zero, /dev/full, /dev/random, /dev/urandom: mem(4), null(4), random(4)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import random
from sentry.abi.stat import S_IFCHR
from sentry.ahead import mypyc_attr
from sentry.errors import EINVAL, ENOSPC
from sentry.vfs.file import Caller, Dest, FileDescription, Result, Source
from sentry.vfs.pieces import in_pieces, is_long
from sentry.vfs.requests import Requests, put_int
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import Vfs

PIECE: Final = 1 << 20


@mypyc_attr(allow_interpreted_subclasses=True)
class MemoryDevice(FileDescription):
    """What they have in common: positions that mean nothing, writes that vanish."""

    __slots__ = ()
    seekable: ClassVar = True

    def fill(self, dest: Dest) -> int:
        """What a read gives."""
        return 0

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2). A signal ends a long one early."""
        if is_long(dest):
            return in_pieces(self._fill_at, dest, 0, Mode.INTERRUPTIBLE)
        return self.fill(dest)

    def _fill_at(self, dest: Dest, _: int) -> int:
        return self.fill(dest)

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """pread(2)."""
        return self.read(caller, dest, rwf)

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2): gone."""
        return source.wanted

    def write_at(self, caller: Caller, source: Source, offset: int, rwf: int = 0) -> Result:
        """pwrite(2): gone."""
        return self.write(caller, source)

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """lseek(2): always at 0, null_lseek()."""
        return 0


@mypyc_attr(allow_interpreted_subclasses=True)
class NullDevice(MemoryDevice):
    """/dev/null."""

    __slots__ = ()
    splice_read: ClassVar = False


@mypyc_attr(allow_interpreted_subclasses=True)
class ZeroDevice(MemoryDevice):
    """/dev/zero: endless zeros; a mapping of it is anonymous memory."""

    __slots__ = ()
    is_zeros: ClassVar = True

    def fill(self, dest: Dest) -> int:
        """Zeros."""
        done = 0
        while dest.count:
            done += dest.zero(min(dest.count, PIECE))
        return done


@mypyc_attr(allow_interpreted_subclasses=True)
class FullDevice(ZeroDevice):
    """/dev/full: a disk without room."""

    __slots__ = ()
    is_zeros: ClassVar = False
    write_flags: ClassVar = False
    nowait: ClassVar = False
    splice_write: ClassVar = False

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """Raises: ENOSPC."""
        raise ENOSPC("/dev/full")


RANDOM: Final = Requests(names=(random,), unknown=EINVAL)
RANDOM.row("RNDGETENTCNT", put_int(lambda file: 256))


@RANDOM.handles("RNDADDENTROPY", "RNDADDTOENTCNT", "RNDZAPENTCNT", "RNDCLEARPOOL")
def _keep_full(file: UrandomDevice, caller: Caller, argument: int) -> None:
    """random(4): the pool is full; what is added is not needed."""


@mypyc_attr(allow_interpreted_subclasses=True)
class UrandomDevice(MemoryDevice):
    """/dev/urandom."""

    requests: ClassVar = RANDOM
    __slots__ = ()
    can_async: ClassVar = True

    def fill(self, dest: Dest) -> int:
        """Random bytes."""
        done = 0
        while dest.count:
            done += dest.put(os.urandom(min(dest.count, 1 << 16)))
        return done

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """Mixed into the pool, which needs none of it."""
        if is_long(source):
            return in_pieces(self._take, source, 0, Mode.INTERRUPTIBLE)
        return self._take(source, 0)

    def _take(self, source: Source, _: int) -> int:
        return len(source.get(source.count))


@mypyc_attr(allow_interpreted_subclasses=True)
class RandomDevice(UrandomDevice):
    """/dev/random: the same since Linux 5.6, but it can be polled."""

    __slots__ = ()
    can_poll: ClassVar = True


KINDS: Final = {
    3: NullDevice,
    5: ZeroDevice,
    7: FullDevice,
    8: RandomDevice,
    9: UrandomDevice,
}
"""By the minor number of major 1."""


def register(vfs: Vfs) -> None:
    """Make them known by their numbers."""
    for minor, kind in KINDS.items():
        vfs.devices[S_IFCHR, 1 << 8 | minor] = _opener(kind)


def _opener(kind: type[MemoryDevice]) -> Any:
    def open_device(location: Location, flags: int, caller: Caller) -> MemoryDevice:
        return kind(location, flags)

    return open_device
