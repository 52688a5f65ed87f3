"""The Sentry's accesses to the program's memory: bytes, strings, buffers, atomics.

Each does its copy in C and, where that stops at a page that is not there, faults it in and goes on.
Nothing here changes state before the whole range was seen to be accessible, but for copies whose
partial effect Linux has, too.
"""

from __future__ import annotations

import struct
from typing import Final

from sentry.abi.limits import PATH_MAX, UIO_MAXIOV
from sentry.errors import EFAULT, EINVAL, ENAMETOOLONG, Errno
from sentry.mm.backing import HostBacking
from sentry.mm.buffers import Segment, UserDest, UserSource
from sentry.mm.errors import NeedsFault
from sentry.mm.layout import TASK_END
from sentry.mm.remap import Remapping
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.memory import Bytes, Pinned

MAX_RW_COUNT: Final = 0x7FFFF000
UINT64: Final = (1 << 64) - 1


def total(segments: list[Segment]) -> int:
    """The bytes of all segments."""
    return sum(length for _, length in segments)


class UserMemory(Remapping):
    """Reading and writing what is mapped."""

    def resolve(self, write: bool) -> None:
        """Repair what stopped the last copy. Raises: EFAULT, NeedsFault."""
        space = self.space
        addr = space.fault_addr
        if space.fault_gone:
            self._gone(addr)
        else:
            self.touch(addr, write or space.fault_write)

    def _gone(self, addr: int) -> None:
        """The host has no page behind a good entry: the file was cut, or memory is used up."""
        vma = self.vmas.find(addr)
        if vma is None:
            raise EFAULT("not mapped")
        if isinstance(vma.backing, HostBacking):
            self._check_gone_file(vma, addr)
        ram = self.space.ram
        if ram.trim():
            return
        if ram.exhausted is None:
            raise EFAULT("the memory limit is reached")
        raise NeedsFault(ram.exhausted)

    def _check_gone_file(self, vma: Vma, addr: int) -> None:
        assert isinstance(vma.backing, HostBacking)
        if vma.file_offset(addr & ~0xFFF) >= vma.backing.size:
            raise EFAULT("past the end of the file")

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
                self.touch(addr + done, write)
            except EFAULT:
                break
            more = self.space.check(addr + done, count - done, write)
            if not more:
                break
            done += more
        return done

    def _range(self, addr: int, count: int, write: bool) -> list[Segment]:
        if count < 0 or not 0 <= addr <= TASK_END - count:
            raise EFAULT(f"{addr:#x}")
        if not count:
            return []
        return [(addr, self.accessible(addr, count, write) or count)]

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
        count = min(count, MAX_RW_COUNT)
        segments = self._range(addr, count, True)
        return UserDest(self, segments, total(segments), count)

    def buffer_in(self, addr: int, count: int) -> UserSource:
        """User memory to be taken. Raises: EFAULT, NeedsFault."""
        within = 0 < count <= MAX_RW_COUNT and 0 <= addr <= TASK_END - count
        if within and self.space.check(addr, count, False) == count:
            return UserSource(self, ((addr, count),), count, count)
        count = min(count, MAX_RW_COUNT)
        segments = self._range(addr, count, False)
        return UserSource(self, segments, total(segments), count)

    def read_iov(self, addr: int, count: int) -> list[Segment]:
        """A struct iovec array: import_iovec(), lib/iov_iter.c. Raises: EINVAL, EFAULT."""
        if not 0 <= count <= UIO_MAXIOV:
            raise EINVAL("too many pieces")
        pieces = list(struct.iter_unpack("<QQ", self.read(addr, 16 * count))) if count else []
        total = 0
        segments: list[Segment] = []
        for base, length in pieces:
            if length >> 63:
                raise EINVAL("negative length")
            if length > TASK_END or base > TASK_END - length:
                raise EFAULT(f"{base:#x}")
            some = min(length, MAX_RW_COUNT - total)
            total += some
            segments.append((base, some))
        return segments

    def _ranges(self, segments: list[Segment], write: bool) -> tuple[list[Segment], int]:
        """The accessible part of a vector, and how much was asked for."""
        wanted = sum(length for _, length in segments)
        good: list[Segment] = []
        for addr, length in segments:
            if not length:
                continue
            some = self.accessible(addr, length, write)
            if some:
                good.append((addr, some))
            if some < length:
                break
        return good or [piece for piece in segments if piece[1]], wanted

    def buffer_out_iov(self, addr: int, count: int) -> UserDest:
        """User memory described by a struct iovec array. Raises: EINVAL, EFAULT, NeedsFault."""
        segments, wanted = self._ranges(self.read_iov(addr, count), True)
        return UserDest(self, segments, total(segments), wanted)

    def buffer_in_iov(self, addr: int, count: int) -> UserSource:
        """User memory described by a struct iovec array. Raises: EINVAL, EFAULT, NeedsFault."""
        segments, wanted = self._ranges(self.read_iov(addr, count), False)
        return UserSource(self, segments, total(segments), wanted)

    def pin(self, addr: int, count: int, write: bool) -> Pinned:
        """Host memory of a checked range for I/O on another thread; it may be shorter."""
        return self.space.pin(addr, count, write)

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
        vma = self.vmas.find(addr)
        if vma is None:
            raise EFAULT(f"{addr:#x}")
        if not vma.shared or vma.backing is None:
            if vma.backing is None and not vma.prot & 2:
                raise EFAULT("a word that never changes")
            return self, addr
        return vma.backing, vma.file_offset(addr)

    # --- for tracers

    def poke(self, addr: int, data: bytes) -> None:
        """Store although the mapping forbids it (ptrace, /proc/PID/mem): FOLL_FORCE, mm/gup.c.

        A private mapping gets a page of its own. Raises: EFAULT, NeedsFault.
        """
        done = 0
        while done < len(data):
            at = addr + done
            some = data[done : done + 4096 - (at & 0xFFF)]
            vma = self.vmas.find(at) if 0 <= at < TASK_END else None
            hidden = vma is not None and vma.flags & VmFlag.SECRET
            if vma is None or hidden or (not vma.prot & 2 and vma.shared):
                raise EFAULT(f"{at:#x}")
            if vma.prot & 2:
                self.write(at, some)
            else:
                self._poke_page(vma, at, some)
            done += len(some)

    def _poke_page(self, vma: Vma, addr: int, data: bytes) -> None:
        page = addr & ~0xFFF
        rights = vma.prot
        vma.prot = rights | 3
        try:
            self.space.protect(page, 1, vma.prot)
            self.write(addr, data)
        finally:
            vma.prot = rights
            self.space.protect(page, 1, rights)

    def peek(self, addr: int, count: int) -> bytes:
        """Bytes although the mapping forbids reading them. Raises: EFAULT, NeedsFault."""
        parts = []
        while count > 0:
            some = min(count, 4096 - (addr & 0xFFF))
            vma = self.vmas.find(addr) if 0 <= addr < TASK_END else None
            if vma is not None and vma.flags & VmFlag.SECRET:
                raise EFAULT(f"{addr:#x}")
            if vma is None or vma.prot:
                parts.append(self.read(addr, some))
            else:
                vma.prot = 1
                try:
                    self.space.protect(addr & ~0xFFF, 1, 1)
                    parts.append(self.read(addr, some))
                finally:
                    vma.prot = 0
                    self.space.protect(addr & ~0xFFF, 1, 0)
            addr += some
            count -= some
        return b"".join(parts)

    # --- numbers without sign, as registers hold them

    @staticmethod
    def is_user(addr: int) -> bool:
        """Whether an address can be the program's."""
        return 0 <= addr & UINT64 < TASK_END
