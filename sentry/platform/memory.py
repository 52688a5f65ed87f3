"""RAM and address spaces: typed wrappers of the native memory half.

`Ram` is the guest-physical memory of the sandbox, one per process (the C side keeps it in globals).
`AddressSpace` is one tree of page tables and the Sentry's accesses through it. Both are mechanism;
what lies where is decided in sentry.mm. User memory never becomes a Python buffer: bytes go in and
out by copies that survive faults (native/usercopy.c).
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.layout import Record
from sentry.abi.limits import UIO_MAXIOV
from sentry.ahead import mypyc_attr
from sentry.errors import EINVAL, ENOMEM, Errno, from_number
from sentry.platform._native import ffi, lib
from sentry.platform.commitment import Commitment
from sentry.platform.constants import PAGE_SIZE, RAM_SPAN
from sentry.platform.frames import Bytes, frames_of
from sentry.platform.windows import Windows

if TYPE_CHECKING:
    from sentry.platform._native import Iovec, Uint64

SCRATCH: Final = 1 << 16


class Exhausted(ENOMEM):
    """RAM has reached its limit."""


def check(result: int) -> int:
    """Raise the errno class of a negative result."""
    if result >= 0:
        return result
    if result == -errno.ENOMEM:
        raise Exhausted("no frames or page tables left")
    raise from_number(-result)


class Counters(Record):
    """What is in use; for tests, leak checks and `events`."""

    frames: int
    """Data frames: anonymous memory and files in RAM."""
    kernel_frames: int
    tables: int
    quarantined: int
    """Page-table pages that wait for a flush of everything."""
    pooled: int
    dirty: int
    """Free frames that may still hold host memory."""
    pins: int
    flush_calls: int
    flushed_frames: int
    flush_alls: int
    spaces: int


class Resident(Record):
    """Resident pages: struct resident."""

    ram: int
    """Pages by what is behind them,"""
    windows: int
    alone: int
    """and the same pages by the number of owners that their frame has."""
    several: int


def _at_once(things: Collection[Any], end: Callable[[Any], object]) -> None:
    for thing in things:
        end(thing)


class Ram:
    """Guest-physical memory. Preconditions: one at a time; the execution half set its hooks."""

    on_disk: Final = 0

    def __init__(self, fd: int, vm_fd: int = -1, span: int = RAM_SPAN) -> None:
        check(lib.ram_open(fd, vm_fd, span))
        self.fd = fd
        self.span = span
        self.limit = span
        """The sandbox's memory in bytes: all that programs and the Sentry for them may use."""
        self.template = 0
        """Bytes of `populated` of which this process makes copies, in memory of its own, where it
        writes: it has been forked."""
        self.inherited = 0
        """Of a fork: bytes of what it is a copy of, which are in no file of its own."""
        self._most = 0
        self.commitment = Commitment()
        self.exhausted: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Makes room when a system call meets the limit (the out-of-memory killer)."""
        self.let_go: Callable[[Collection[Any], Callable[[Any], object]], None] = _at_once
        """Ends each of many things, such as pages of a file that is gone: what is long, in its
        turn."""
        self.leaving = 0
        """Frames of files that are gone, which are given back in their turn."""
        self.windows = Windows()
        self.file_pages = 0
        """Frames of files: tmpfs, memfds, shared memory; sentry.mm counts them."""
        self.vmas = 0
        """Mappings in all address spaces; sentry.mm counts them."""

    @property
    def crowded(self) -> bool:
        """Frames of twice the memory are promised: map no more before it is touched."""
        return lib.ram_counters.frames > self.limit >> 11

    @property
    def promised(self) -> int:
        """Bytes of the frames that programs can fill without an exit, if they have not yet."""
        now = lib.ram_counters
        return (now.frames + now.kernel_frames) * PAGE_SIZE

    @classmethod
    def from_memfd(cls, span: int = RAM_SPAN, vm_fd: int = -1) -> Ram:
        """RAM without a tmpfs of its own: tests, and the fallback."""
        return cls(os.memfd_create("ram", os.MFD_CLOEXEC), vm_fd, span)

    def limit_to(self, size: int) -> None:
        """Set the limit; it is never more than the first time."""
        self._most = self._most or size
        self.limit = min(size, self._most)

    def close(self) -> None:
        """Unmap everything. What used it may only be let go of afterwards."""
        self.windows.closed = True
        lib.ram_close()
        os.close(self.fd)

    def counters(self) -> Counters:
        """What is in use now."""
        now = lib.ram_counters
        return Counters(*(getattr(now, name) for name in Counters._fields))

    def populated(self) -> int:
        """Bytes of RAM that the host has given."""
        return os.fstat(self.fd).st_blocks * 512

    def trim(self, keep: int = 0, max_blocks: int = 1 << 16) -> int:
        """Give free memory back to the host, all but `keep` bytes; how much it was."""
        lib.aspace_reap()
        return lib.ram_trim(keep, max_blocks)

    def watch_changes(self, pagemap_fd: int) -> None:
        """From the first snapshot on the host tells what changes, if it can; /proc/self/pagemap
        is ours from now on. Until a `freeze`: a private mapping is not watched."""
        lib.changes_open(pagemap_fd)

    def freeze(self) -> None:
        """Make everything so far a template: nothing of it is punched, and from now on this process
        has copies of the frames that it writes.

        Preconditions: no vCPU runs, no I/O is in flight, no flush of everything is outstanding.
        """
        check(lib.ram_freeze())
        self.template = self.populated()

    def adopt(self, fd: int, pages: int) -> int:
        """New frames, each with one reference, for whole blocks of the first `pages` of a file of
        pages; the first one, 0 if they are too few. They are read when they are touched, and what
        is done to the file meanwhile may show in them. It is a `freeze` of all that there was.
        Raises: ENOMEM, EBUSY."""
        return check(lib.ram_adopt(fd, pages))

    def thaw(self, fd: int, vm_fd: int = -1) -> None:
        """In a forked sandbox: keep the template's frames, take new ones from `fd`."""
        check(lib.ram_thaw(fd, vm_fd))
        os.close(self.fd)
        self.fd = fd
        self.inherited += self.template
        self.template = 0

    def alloc(self) -> int:
        """A zeroed data frame with one reference. Raises: ENOMEM."""
        gpa = lib.data_alloc(0)
        if not gpa:
            raise Exhausted("no frame left")
        return gpa

    def fill(self, gpas: array[int], first: int, count: int) -> int:
        """Frames for the zeros of a part of an array of u64; how many. Raises: ENOMEM."""
        at = ffi.from_buffer("uint64_t[]", gpas) + first
        return check(lib.data_fill(at, min(count, len(gpas) - first), 0))

    def put_list(self, gpas: array[int], first: int, count: int) -> int:
        """Drop a reference of each frame in a part of an array, which becomes zeros; how many."""
        at = ffi.from_buffer("uint64_t[]", gpas) + first
        return int(lib.data_put_list(at, min(count, len(gpas) - first)))

    def get(self, gpa: int) -> None:
        """One more reference of a frame."""
        lib.frame_get(gpa)

    def put(self, gpa: int) -> None:
        """One reference less; the last one flushes and frees the frame."""
        lib.frame_put(gpa)

    def references(self, gpa: int) -> int:
        """How many references a frame has."""
        return lib.frame_references(gpa)

    def peek(self, gpa: int, count: int) -> bytes:
        """Bytes of guest-physical memory, for tests and dumps of page tables."""
        return bytes(ffi.buffer(lib.frame_host(gpa), count))


def keep_heap() -> None:
    """What is free in the Sentry's own heap is for what it allocates next, until `trim_heap`."""
    lib.heap_keep()


def trim_heap() -> None:
    """Give the host back what is free in the Sentry's heap, and now and then code that has run."""
    lib.heap_trim()


class Pinned:
    """Host memory of a user range, for I/O on another thread; its frames are not reused."""

    def __init__(self, iov: Iovec, pieces: int, count: int) -> None:
        self.iov = iov
        self.pieces = pieces
        self.count = count

    def release(self) -> None:
        """Drop the pins: the I/O is over."""
        lib.user_unpin(self.iov, self.pieces)
        self.pieces = 0


_scratch: Final = ffi.new("char[]", SCRATCH)
"""Where small copies pass through; only the kernel thread copies."""
_user_read: Final = lib.user_read
_user_write: Final = lib.user_write
_user_string: Final = lib.user_string
_user_check: Final = lib.user_check
_ranges_read: Final = lib.ranges_read
_user_load32: Final = lib.user_load32
_from_frames: Final = lib.user_from_frames
_to_frames: Final = lib.user_to_frames
_unpack: Final = ffi.unpack
_ranges: Final = ffi.new("uint64_t[]", 2 * UIO_MAXIOV)
_filled: Final = ffi.new("uint64_t *")
_loaded: Final = ffi.new("uint32_t *")


@mypyc_attr(allow_interpreted_subclasses=True)
class AddressSpace:
    """One tree of page tables.

    The copies stop where a page is missing or must not be accessed: they say how far they came, and
    `fault_addr`, `fault_write`, `fault_gone` say why (gone: mapped, but the host has no page).
    """

    __slots__ = ("_scratch", "fault", "native", "ram")

    def __init__(self, ram: Ram) -> None:
        native = lib.aspace_new()
        if native == ffi.NULL:
            raise Exhausted("no page table left")
        self.ram = ram
        self.native = native
        self.fault = ffi.new("struct fault *")
        self._scratch = _scratch

    # --- mapping

    def map_anonymous(self, addr: int, pages: int, prot: int) -> None:
        """Fill what is not mapped with zeroed frames, 2 MiB entries where they fit."""
        check(lib.aspace_map_anonymous(self.native, addr, pages, prot))

    def map_frames(self, addr: int, gpa: int, pages: int, prot: int, cow: bool = False) -> None:
        """Map consecutive frames (a reference each) or a part of a window; `cow`: privately."""
        check(lib.aspace_map_frames(self.native, addr, gpa, pages, prot, cow))

    def map_over(self, addr: int, gpa: int, pages: int, prot: int) -> None:
        """Map a part of a window privately instead of what is there, which may be the same."""
        check(lib.aspace_map_over(self.native, addr, gpa, pages, prot))

    def map_list(
        self, addr: int, gpas: array[int], pages: int, prot: int, cow: bool = False
    ) -> None:
        """Map frames given by an array of u64; zeros are skipped."""
        view = ffi.from_buffer("uint64_t[]", gpas)
        check(lib.aspace_map_list(self.native, addr, view, min(pages, len(view)), prot, cow))

    def protect(self, addr: int, pages: int, prot: int) -> None:
        """Change the rights of what is mapped; flushed before it returns."""
        check(lib.aspace_protect(self.native, addr, pages, prot))

    def unmap(self, addr: int, pages: int) -> None:
        """Drop entries and their references; flushed before a frame can be reused."""
        check(lib.aspace_unmap(self.native, addr, pages))

    def forget_window(self, addr: int, pages: int, gpa: int, size: int) -> None:
        """Drop the entries that show a part of a FILES window; copies of its pages stay."""
        check(lib.aspace_forget_window(self.native, addr, pages, gpa, size))

    def forget_list(self, addr: int, gpas: array[int]) -> None:
        """Drop the entries that show the frame that the array has for their page; copies stay."""
        view = ffi.from_buffer("uint64_t[]", gpas)
        check(lib.aspace_forget_list(self.native, addr, view, len(view)))

    def prepare_move(self, old: int, new: int, pages: int) -> None:
        """Make the tables for `move`, which cannot fail then. Raises: Exhausted."""
        check(lib.aspace_prepare_move(self.native, old, new, pages))

    def move(self, old: int, new: int, pages: int) -> None:
        """Move entries; nothing may be mapped at `new`."""
        check(lib.aspace_move(self.native, old, new, pages))

    def fork(self, child: AddressSpace, addr: int, pages: int, prot: int, copies: int) -> int:
        """Give the child this range copy on write, up to `copies` pages copied now; how many."""
        return check(lib.aspace_fork(self.native, child.native, addr, pages, False, prot, copies))

    def fork_all(self, child: AddressSpace, rows: array[int], copies: int, small: int) -> int:
        """`fork` of many ranges (a start with rights in the lowest bits, and an end, for each).

        Pages are copied of ranges that have no more than `small`.
        """
        view, count = ffi.from_buffer("uint64_t[]", rows), len(rows) // 2
        return check(
            lib.aspace_fork_all(self.native, child.native, view, count, copies, small)
        )

    def share(self, child: AddressSpace, addr: int, pages: int) -> None:
        """Give the child the same frames."""
        check(lib.aspace_fork(self.native, child.native, addr, pages, True, 0, 0))

    def break_cow(self, addr: int, low: int, high: int, prot: int) -> int:
        """Own frames for shared pages around `addr` within [low, high).

        0, or -ENOENT (nothing to do), -EFAULT (the file behind it ended), -ENOMEM.
        """
        return lib.aspace_break_cow(self.native, addr, low, high, prot)

    def discard(self, addr: int, pages: int) -> None:
        """Throw private contents away: frames of our own stay mapped and read as zero."""
        check(lib.aspace_discard(self.native, addr, pages))

    def populate(self, addr: int, pages: int) -> bool:
        """Have the host give memory for what is mapped; False: it could not."""
        return lib.aspace_populate(self.native, addr, pages) == 0

    def destroy(self) -> None:
        """Give everything back when no vCPU is inside any more."""
        if self.native != ffi.NULL:
            lib.aspace_destroy(self.native)
            self.native = ffi.NULL

    # --- looking

    @property
    def is_gone(self) -> bool:
        """It has no entries any more, and nothing may be asked of it."""
        return bool(self.native == ffi.NULL)

    @property
    def root(self) -> int:
        """Guest-physical address of the top table (CR3)."""
        return self.native.root

    @property
    def tables(self) -> int:
        """Page-table pages in use."""
        return self.native.tables

    @property
    def empty_tables(self) -> int:
        """Of these: without entries, still linked."""
        return self.native.empty_tables

    def entry(self, addr: int) -> int:
        """The page-table entry that translates `addr`, 0 if none."""
        return lib.aspace_entry(self.native, addr)

    def next(self, start: int, end: int) -> int:
        """Where in a range, or before, something is mapped first; `end` if nothing is."""
        return lib.aspace_next(self.native, start, (end - start) >> 12)

    def translate(self, addr: int) -> int:
        """Guest-physical address of a present page, 0 if it is not."""
        return lib.aspace_translate(self.native, addr)

    def resident(self, addr: int, pages: int) -> bytes:
        """One byte per page: 1 if it is mapped and in the host's memory."""
        vector = ffi.new("uint8_t[]", pages)
        check(lib.aspace_resident(self.native, addr, pages, vector))
        return bytes(ffi.buffer(vector))

    def count(self, addr: int, pages: int) -> Resident:
        """How many of these pages are mapped and in the host's memory."""
        counts = ffi.new("struct resident *")
        lib.aspace_count(self.native, addr, pages, counts)
        return Resident(counts.ram, counts.windows, counts.alone, counts.several)

    def resident_ram(self) -> int:
        """Resident pages of RAM in the whole address space: a tenth of what `count` costs."""
        return lib.aspace_resident_ram(self.native)

    # --- copies

    @property
    def fault_addr(self) -> int:
        """Where the last copy stopped."""
        return self.fault.addr

    @property
    def fault_write(self) -> bool:
        """It stopped at a store."""
        return bool(self.fault.write)

    @property
    def fault_gone(self) -> bool:
        """The page is mapped, but the host has none: truncated file, or the memory limit."""
        return bool(self.fault.gone)

    def read(self, addr: int, count: int) -> bytes:
        """Up to `count` bytes, fewer if a fault stopped the copy."""
        if count <= SCRATCH:
            buffer = self._scratch
            done = _user_read(self.native, addr, buffer, count, self.fault)
            return _unpack(buffer, done)
        large = bytearray(count)
        done = _user_read(self.native, addr, ffi.from_buffer(large), count, self.fault)
        return bytes(large) if done == count else bytes(memoryview(large)[:done])

    def write(self, addr: int, data: Bytes) -> int:
        """Copy bytes in; how many were copied."""
        if isinstance(data, bytes):
            return _user_write(self.native, addr, data, len(data), self.fault)
        view = ffi.from_buffer(data)
        return _user_write(self.native, addr, view, len(view), self.fault)

    def zero(self, addr: int, count: int) -> int:
        """Clear bytes; how many were cleared."""
        return lib.user_zero(self.native, addr, count, self.fault)

    def string(self, addr: int, limit: int) -> bytes:
        """Up to `limit` bytes, the first NUL included; fewer without one: a fault."""
        limit = min(limit, SCRATCH)
        found = _user_string(self.native, addr, self._scratch, limit, self.fault)
        return _unpack(self._scratch, found)

    def check(self, addr: int, count: int, write: bool) -> int:
        """How many bytes from `addr` on may be accessed."""
        return _user_check(self.native, addr, count, write, self.fault)

    def from_host(self, fd: int, offset: int, addr: int, count: int, flags: int = 0) -> int:
        """preadv2 of a host descriptor into user memory; offset -1: its position. Or -errno."""
        return lib.user_preadv(self.native, fd, offset, addr, count, flags, self.fault)

    def to_host(self, fd: int, offset: int, addr: int, count: int, flags: int = 0) -> int:
        """pwritev2 from user memory to a host descriptor. Or -errno."""
        return lib.user_pwritev(self.native, fd, offset, addr, count, flags, self.fault)

    def ranges(
        self, addr: int, count: int, room: int, write: bool
    ) -> tuple[list[tuple[int, int]], bool] | None:
        """What an array of struct iovec stands for, `room` bytes at most: addresses and lengths,
        but not of 0. False: one of them cannot be accessed as it is, and it is what was read. None:
        that could not be. Preconditions: the array is no longer than UIO_MAXIOV."""
        found = _ranges_read(self.native, addr, count, room, write, _ranges, self.fault)
        if found == -1:
            return None
        numbers = _unpack(_ranges, 2 * (found if found >= 0 else count))
        pairs = [(numbers[at], numbers[at + 1]) for at in range(0, len(numbers), 2)]
        return pairs, found >= 0

    def ranges_from_host(self, fd: int, offset: int, ranges: array[int], flags: int = 0) -> int:
        """`from_host` into many ranges, in one call."""
        at = frames_of(ranges)
        many = len(ranges) // 2
        return lib.ranges_preadv(self.native, fd, offset, at, many, flags, self.fault)

    def ranges_to_host(self, fd: int, offset: int, ranges: array[int], flags: int = 0) -> int:
        """`to_host` from many ranges, in one call."""
        at = frames_of(ranges)
        many = len(ranges) // 2
        return lib.ranges_pwritev(self.native, fd, offset, at, many, flags, self.fault)

    def ranges_from_frames(
        self, ranges: array[int], frames: Uint64, offset: int, count: int
    ) -> int:
        """`from_frames` into many ranges."""
        at, many = frames_of(ranges), len(ranges) // 2
        return lib.ranges_from_frames(self.native, at, many, frames, offset, count, self.fault)

    def from_frames(self, addr: int, frames: Uint64, offset: int, count: int) -> int:
        """Copy bytes of frames (`frames_of`) in; how many. Preconditions: they are in the array."""
        return _from_frames(self.native, addr, frames, offset, count, self.fault)

    def to_frames(
        self, addr: int, frames: Uint64, offset: int, count: int, on_disk: int = 0
    ) -> tuple[int, int]:
        """Copy bytes out to frames, made where there are none yet: (bytes, new frames).

        `on_disk`: 1 for those of a `Disk`.

        If it stopped because no frame was left, `fault_addr` is 0 and `fault_gone` is set: with
        `fault_addr` alone it is the program's NULL.
        """
        done = _to_frames(self.native, addr, frames, offset, count, on_disk, _filled, self.fault)
        return done, _filled[0]

    def pin(self, addr: int, count: int, write: bool, pieces: int = 256) -> Pinned:
        """Host memory for I/O on another thread: of less than `count` bytes if a fault stops it."""
        iov = ffi.new("struct iovec[]", pieces)
        covered = ffi.new("uint64_t *")
        got = lib.user_pin(self.native, addr, count, write, iov, pieces, covered, self.fault)
        return Pinned(iov, got, covered[0])

    # --- atomics

    def load32(self, addr: int) -> int | None:
        """An aligned 32-bit word; None after a fault. Raises: EINVAL."""
        error = _user_load32(self.native, addr, _loaded, self.fault)
        if error and self._faulted(error):
            return None
        return _loaded[0]

    def cmpxchg32(self, addr: int, expected: int, desired: int) -> int | None:
        """Compare and swap; the old value; None after a fault. Raises: EINVAL."""
        value = ffi.new("uint32_t *", expected & 0xFFFFFFFF)
        error = lib.user_cmpxchg32(self.native, addr, value, desired & 0xFFFFFFFF, self.fault)
        return None if self._faulted(error) else value[0]

    def futex_op(self, addr: int, op: int, operand: int) -> int | None:
        """The read-modify-write of FUTEX_WAKE_OP; the old value; None after a fault."""
        old = ffi.new("uint32_t *")
        error = lib.user_futex_op(self.native, addr, op, operand & 0xFFFFFFFF, old, self.fault)
        return None if self._faulted(error) else old[0]

    @staticmethod
    def _faulted(error: int) -> bool:
        if error == -errno.EINVAL:
            raise EINVAL("misaligned word")
        if error not in (0, -errno.EFAULT):
            check(error)
        return error != 0


__all__ = [
    "AddressSpace",
    "Counters",
    "Errno",
    "Pinned",
    "Ram",
    "keep_heap",
    "trim_heap",
]
