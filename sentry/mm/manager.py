"""`MemoryManager`: the address space of a process, and the Sentry's accesses to its memory.

It holds the map that the operations change (`mmap(mm.map, …)`). Copies are made in C and, where
that stops at a page that is not there, fault it in and go on. Nothing here changes state before the
whole range was seen to be accessible, but for copies whose partial effect Linux has, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from sentry.abi.limits import PATH_MAX, UIO_MAXIOV
from sentry.errors import EFAULT, EINVAL, ENAMETOOLONG, Errno
from sentry.mm import faults
from sentry.mm.address_map import AddressMap, Limits, NoLimits
from sentry.mm.buffers import Segment, UserDest, UserSource
from sentry.mm.fork import fork
from sentry.mm.layout import TASK_END
from sentry.mm.residency import ResidentSet
from sentry.platform.frames import Bytes
from sentry.platform.memory import AddressSpace
from sentry.wait.steps import Steps, at_once

MAX_RW_COUNT: Final = 0x7FFFF000


def total(segments: list[Segment]) -> int:
    """The bytes of all segments."""
    return sum(length for _, length in segments)


def one_range(addr: int, count: int) -> list[Segment]:
    """A range of user space, cut as all transfers are. Raises: EFAULT."""
    count = min(count, MAX_RW_COUNT)
    if count < 0 or not 0 <= addr <= TASK_END - count:
        raise EFAULT(f"{addr:#x}")
    return [(addr, count)]


class MemoryManager:
    """One address space. `users` counts the tasks and others that keep it."""

    __slots__ = (
        "aio", "barriers", "iov_most", "map", "new_space", "no_huge_pages", "resident", "space",
        "users", "watched",
    )  # fmt: skip

    def __init__(self, new_space: Callable[[], AddressSpace], amap: AddressMap) -> None:
        self.new_space = new_space
        self.map = amap
        self.space = amap.space
        """The map's page tables."""
        self.resident = ResidentSet(amap)
        self.users = 1
        self.iov_most = -1
        """Bytes that a struct iovec array of the call of now stands for at most: sentry.inject."""
        self.barriers = 0
        """Commands of membarrier(2) that were registered."""
        self.aio: Any = None
        """The contexts of io_setup(2), once there are any."""
        self.no_huge_pages = False
        """PR_SET_THP_DISABLE, for the answer to PR_GET_THP_DISABLE alone."""
        self.watched: dict[tuple[int, int], bytes] = {}
        """What locations that a debugger watches held last: (address, length) → bytes."""

    # --- its life

    @classmethod
    def empty(
        cls,
        new_space: Callable[[], AddressSpace],
        limits: Limits | None = None,
        randomize: bool = True,
    ) -> MemoryManager:
        """An address space without mappings."""
        return cls(new_space, AddressMap(new_space(), limits or NoLimits(), randomize))

    def new_for_exec(self, limits: Limits, randomize: bool = True) -> MemoryManager:
        """An empty address space for a new program."""
        new = MemoryManager.empty(self.new_space, limits, randomize)
        new.map.mdwe, new.no_huge_pages = self.map.inherited_mdwe, self.no_huge_pages
        return new

    def fork(self, limits: Limits | None = None) -> MemoryManager:
        """A copy: private memory copy on write, shared memory shared. Raises: ENOMEM."""
        return at_once(self.forking(limits))

    def forking(self, limits: Limits | None = None) -> Steps[MemoryManager]:
        """`fork` in steps. Preconditions: the map's lock is held."""
        amap = self.map
        child = MemoryManager(
            self.new_space, amap.empty_like(self.new_space(), limits or amap.limits)
        )
        child.barriers, child.no_huge_pages = self.barriers, self.no_huge_pages
        yield from fork.steps(amap, child.map, self.users == 1)
        return child

    def share(self) -> MemoryManager:
        """CLONE_VM: one more user."""
        self.users += 1
        return self

    def release(self) -> None:
        """One user less; the last one gives everything back, what is much in its turn."""
        self.users -= 1
        if self.users == 0:
            self._end()
            self.map.destroy()

    def _end(self) -> None:
        if self.aio is not None:
            self.aio.close()

    def releasing(self) -> Steps[None]:
        """`release` in steps."""
        self.users -= 1
        if self.users == 0:
            self._end()
            yield from self.map.destroying()

    # --- bytes

    def resolve(self, write: bool) -> None:
        """Repair what stopped the last copy. Raises: EFAULT, NeedsFault."""
        faults.resolve(self.map, write)

    def read(self, addr: int, count: int) -> bytes:
        """Bytes of user memory. Raises: EFAULT, NeedsFault."""
        if not 0 <= addr <= TASK_END - count or count < 0:
            if not count:
                return b""
            raise EFAULT(f"{addr:#x}")
        data = self.space.read(addr, count)
        if len(data) == count:
            return data
        while len(data) < count:
            self.resolve(False)
            data += self.space.read(addr + len(data), count - len(data))
        return data

    def write(self, addr: int, data: Bytes) -> None:
        """Store bytes. Raises: EFAULT (what lies before the bad page is stored), NeedsFault."""
        count = len(data) if type(data) is bytes else memoryview(data).nbytes
        if not 0 <= addr <= TASK_END - count:
            if not count:
                return
            raise EFAULT(f"{addr:#x}")
        done = self.space.write(addr, data)
        if done == count:
            return
        view = memoryview(data).cast("B")
        while done < count:
            self.resolve(True)
            done += self.space.write(addr + done, view[done:])

    def zero(self, addr: int, count: int) -> None:
        """Clear bytes. Raises: EFAULT, NeedsFault."""
        if not 0 <= addr <= TASK_END - count:
            raise EFAULT(f"{addr:#x}")
        done = self.space.zero(addr, count)
        while done < count:
            self.resolve(True)
            done += self.space.zero(addr + done, count - done)

    def read_cstr(self, addr: int, limit: int, too_long: type[Errno] = ENAMETOOLONG) -> bytes:
        """A string without its NUL, which must be among the first `limit` bytes.

        Raises: EFAULT, NeedsFault, `too_long`.
        """
        found = b""
        if 0 <= addr <= TASK_END - limit:
            found = self.space.string(addr, limit)
            if found and found[-1] == 0:
                return found[:-1]
            found = b""
        while True:
            if not 0 <= addr + len(found) < TASK_END:
                raise EFAULT(f"{addr:#x}")
            want = min(limit - len(found), TASK_END - addr - len(found))
            part = self.space.string(addr + len(found), want)
            if part and part[-1] == 0:
                return found + part[:-1]
            found += part
            if len(found) >= limit:
                raise too_long(f"no end within {limit} bytes")
            if len(part) < min(want, 1 << 16):
                self.resolve(False)

    def read_path(self, addr: int) -> bytes:
        """A path name: getname(). An empty one is the walk's ENOENT. EFAULT, ENAMETOOLONG."""
        return self.read_cstr(addr, PATH_MAX)

    # --- buffers

    def accessible(self, addr: int, count: int, write: bool) -> int:
        """Fault a range in; how many bytes from its start can be accessed. Raises: NeedsFault."""
        done = self.space.check(addr, count, write)
        while done < count:
            try:
                faults.touch(self.map, addr + done, write)
            except EFAULT:
                break
            more = self.space.check(addr + done, count - done, write)
            if not more:
                break
            done += more
        return done

    def check_out(self, addr: int, count: int) -> None:
        """Fault in what will be stored to later. Raises: EFAULT, NeedsFault."""
        if not 0 <= addr <= TASK_END - count or self.accessible(addr, count, True) < count:
            raise EFAULT(f"{addr:#x}")

    def buffer_out(self, addr: int, count: int) -> UserDest:
        """User memory to be filled; as in Linux it may end early at a bad page.

        If not even its first byte can be written, the first `put` raises EFAULT: what is wrong with
        the file comes first. Raises: EFAULT (beyond user space), NeedsFault.
        """
        within = 0 < count <= MAX_RW_COUNT and 0 <= addr <= TASK_END - count
        if within and self.space.check(addr, count, True) == count:
            return UserDest(self, ((addr, count),), count, count)
        return UserDest(self, *self._accessible(one_range(addr, count), True))

    def buffer_in(self, addr: int, count: int) -> UserSource:
        """User memory to be taken. Raises: EFAULT, NeedsFault."""
        within = 0 < count <= MAX_RW_COUNT and 0 <= addr <= TASK_END - count
        if within and self.space.check(addr, count, False) == count:
            return UserSource(self, ((addr, count),), count, count)
        return UserSource(self, *self._accessible(one_range(addr, count), False))

    def read_iov(self, addr: int, count: int) -> list[Segment]:
        """A struct iovec array: import_iovec(), lib/iov_iter.c. Raises: EINVAL, EFAULT."""
        if not 0 <= count <= UIO_MAXIOV:
            raise EINVAL("too many pieces")
        return self._segments(struct.iter_unpack("<QQ", self.read(addr, 16 * count)))

    def _segments(self, pieces: Iterable[Any]) -> list[Segment]:
        """What was read of such an array, as far as it counts. Raises: EINVAL, EFAULT."""
        room = MAX_RW_COUNT if self.iov_most < 0 else self.iov_most
        segments: list[Segment] = []
        for base, length in pieces:
            if length >> 63:
                raise EINVAL("negative length")
            if length > TASK_END or base > TASK_END - length:
                raise EFAULT(f"{base:#x}")
            segments.append((base, min(length, room)))
            room -= segments[-1][1]
        return segments

    def _accessible(self, segments: list[Segment], write: bool) -> tuple[list[Segment], int, int]:
        """The accessible part of a vector, its bytes, and how many were asked for."""
        good = []
        for addr, length in segments:
            if not length:
                continue
            some = self.accessible(addr, length, write)
            if some:
                good.append((addr, some))
            if some < length:
                break
        good = good or [piece for piece in segments if piece[1]]
        return good, total(good), total(segments)

    def _vector(self, addr: int, count: int, write: bool) -> tuple[list[Segment], int, int]:
        """The same of a struct iovec array, mostly in one call."""
        if 0 <= count <= UIO_MAXIOV and 0 <= addr <= TASK_END:
            room = MAX_RW_COUNT if self.iov_most < 0 else self.iov_most
            found = self.space.ranges(addr, count, room, write)
            if found is not None:
                pieces, is_good = found
                if not is_good:
                    return self._accessible(self._segments(pieces), write)
                size = total(pieces)
                return pieces, size, size
        return self._accessible(self.read_iov(addr, count), write)

    def buffer_out_iov(self, addr: int, count: int) -> UserDest:
        """User memory described by a struct iovec array. Raises: EINVAL, EFAULT, NeedsFault."""
        return UserDest(self, *self._vector(addr, count, True))

    def buffer_in_iov(self, addr: int, count: int) -> UserSource:
        """User memory described by a struct iovec array. Raises: EINVAL, EFAULT, NeedsFault."""
        return UserSource(self, *self._vector(addr, count, False))

    # --- atomics

    def load_u32(self, addr: int) -> int:
        """An aligned word. Raises: EINVAL, EFAULT, NeedsFault."""
        self._word(addr)
        while (value := self.space.load32(addr)) is None:
            self.resolve(False)
        return value

    def cmpxchg_u32(self, addr: int, expected: int, desired: int) -> int:
        """Compare and swap an aligned word; its old value. Raises: EINVAL, EFAULT, NeedsFault."""
        self._word(addr)
        while (value := self.space.cmpxchg32(addr, expected, desired)) is None:
            self.resolve(True)
        return value

    def futex_op(self, addr: int, op: int, operand: int) -> int:
        """Read-modify-write of FUTEX_WAKE_OP; the old value. Raises: ENOSYS and as above."""
        self._word(addr)
        while (value := self.space.futex_op(addr, op, operand)) is None:
            self.resolve(True)
        return value

    @staticmethod
    def _word(addr: int) -> None:
        if addr & 3:
            raise EINVAL("misaligned word")
        if not 0 <= addr <= TASK_END - 4:
            raise EFAULT(f"{addr:#x}")

    def futex_key(self, addr: int, shared: bool) -> tuple[object, int]:
        """What identifies a futex word: (this address space, address), or (file, offset).

        get_futex_key(), kernel/futex/core.c. Raises: EINVAL, EFAULT, NeedsFault.
        """
        self._word(addr)
        if not shared:
            return self, addr
        self.load_u32(addr)
        vma = self.map.vmas.find(addr)
        if vma is None:
            raise EFAULT(f"{addr:#x}")
        if not vma.shared or vma.backing is None:
            if vma.backing is None and not vma.prot & 2:
                raise EFAULT("a word that never changes")
            return self, addr
        return vma.backing, vma.file_offset(addr)
