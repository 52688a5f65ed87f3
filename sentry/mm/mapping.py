"""mmap(2), munmap(2), and the kernel's own mappings. Checks in the order of mm/mmap.c."""

from __future__ import annotations

from typing import Final

from sentry.abi.mman import (
    MAP_32BIT,
    MAP_DENYWRITE,
    MAP_DROPPABLE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_HUGE_MASK,
    MAP_HUGE_SHIFT,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_TYPE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from sentry.abi.resource import RLIMIT_MEMLOCK
from sentry.errors import (
    EACCES,
    EEXIST,
    EINVAL,
    ENODEV,
    ENOMEM,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
)
from sentry.mm.address_map import AddressMap, alignment
from sentry.mm.backing import HostBacking, MappedFile
from sentry.mm.faults import populate
from sentry.mm.filling import fill_new, show_instead
from sentry.mm.layout import LINUX_TASK_END, MMAP_MIN_ADDR, TASK_END
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import MAX_OFFSET, PROT_ALL, Backing, Vma, VmFlag, page_up
from sentry.platform.constants import PAGE_MASK, PAGE_SIZE
from sentry.wait.steps import Steps, Stepwise

LEGACY_FLAGS: Final = 0x7C07F9F3
"""LEGACY_MAP_MASK of include/linux/mman.h: what MAP_SHARED_VALIDATE knows."""
COPY_AT_ONCE: Final = 64 << 10
HUGE_PAGE: Final = 2 << 20
HUGE_SIZES: Final = (0, 21, 30)
"""Logarithms of the sizes of huge pages; 0 is the default."""
ANON_SHARED_NAME: Final = b"/dev/zero (deleted)"


def check_huge(addr: int, flags: int, file: MappedFile | None, offset: int) -> None:
    """MAP_HUGETLB: no huge pages are reserved. Raises: EINVAL, ENOMEM."""
    if offset & (HUGE_PAGE - 1):
        raise EINVAL("offset within a huge page")
    if file is not None or flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK not in HUGE_SIZES:
        raise EINVAL("not a huge file, or no such size")
    if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) and addr & (HUGE_PAGE - 1):
        raise EINVAL("address within a huge page")
    if flags & MAP_GROWSDOWN:
        raise EINVAL("a stack of huge pages")
    raise ENOMEM("no huge pages are reserved")


@Stepwise
def mmap(
    amap: AddressMap,
    addr: int,
    length: int,
    prot: int,
    flags: int,
    file: MappedFile | None = None,
    offset: int = 0,
) -> Steps[int]:
    """mmap(2). `file` is an open file description, None with MAP_ANONYMOUS.

    Raises: EINVAL, ENOMEM, EACCES, EAGAIN, EEXIST, ENODEV, EOPNOTSUPP, EOVERFLOW, EPERM.
    """
    if offset & PAGE_MASK:
        raise EINVAL("offset")
    if flags & MAP_HUGETLB:
        check_huge(addr, flags, file, offset)
    if not length:
        raise EINVAL("length")
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if not flags & MAP_FIXED:
        addr = page_up(addr) if addr else 0
        if 0 < addr < MMAP_MIN_ADDR:
            addr = MMAP_MIN_ADDR
    length = page_up(length)
    if not 0 < length <= TASK_END:
        raise ENOMEM("length")
    amap.check_count(0)
    where = _choose(amap, addr, length, flags, file is None)
    if file is not None and file.has_max_offset and offset > MAX_OFFSET - length:
        raise EOVERFLOW("offset")
    vm_flags = _vm_flags(amap, prot, flags, file, length)
    if file is None or getattr(file, "is_zeros", False):  # mmap_zero() of /dev/zero
        file, offset = None, 0
    if flags & MAP_FIXED and where < MMAP_MIN_ADDR:
        raise EPERM("below mmap_min_addr")
    shared = bool(vm_flags & VmFlag.SHARED)
    data = bool(prot & PROT_WRITE) and not shared and not vm_flags & VmFlag.GROWSDOWN
    replaced = 0
    if flags & MAP_FIXED:
        for _, low, high in amap.parts(where, where + length):
            replaced += high - low
            yield
    amap.check_expand((length - replaced) >> 12, data, data and not vm_flags & VmFlag.NORESERVE)
    backing = _backing(amap, length, shared, file)
    name = ANON_SHARED_NAME if file is None and shared else b""
    vma = Vma(where, where + length, prot & PROT_ALL, vm_flags, backing, offset, file, name)
    shown = bool(replaced) and show_instead(amap, vma)
    if replaced:
        yield from amap.removing(where, where + length, not shown)
        if shared and file is not None:  # it may have been sealed meanwhile
            vma.flags = _vm_flags(amap, prot, flags, file, length)
    if file is not None:
        file.incref()
    whole = amap.insert(vma)
    if not shown:
        fill_new(amap, whole, where, where + length)
    if flags & (MAP_DENYWRITE | MAP_FIXED) and file and data and length <= COPY_AT_ONCE:
        # A program's data segment, as the loader and ld.so map it: relocations store at once.
        for page in (where, (where + length - 1) & ~PAGE_MASK):
            amap.space.break_cow(page, where, where + length, prot & PROT_ALL)
    if (flags & MAP_POPULATE and not flags & MAP_NONBLOCK) or vm_flags & VmFlag.LOCKED:
        yield from populate.steps(amap, where, where + length)
    return where


def _choose(amap: AddressMap, addr: int, length: int, flags: int, anonymous: bool) -> int:
    """get_unmapped_area()."""
    if flags & MAP_FIXED:
        if addr & PAGE_MASK:
            raise EINVAL("address")
        if addr + length > TASK_END:
            raise ENOMEM("address")
        if flags & MAP_FIXED_NOREPLACE and not amap.vmas.free(addr, addr + length):
            raise EEXIST("something is mapped there")
        return addr
    if addr and addr + length <= TASK_END and amap.clear_of_stacks(addr, addr + length):
        return addr
    if flags & MAP_32BIT:
        return amap.find_free(length, 4096, True)
    return amap.find_free(length, alignment(length, anonymous))


def _vm_flags(amap: AddressMap, prot: int, flags: int, file: MappedFile | None, length: int) -> int:
    """The rights checks of do_mmap(), and what the mapping is."""
    result = VmFlag.MAYWRITE | VmFlag.MAYEXEC
    if flags & MAP_LOCKED:
        if not amap.ipc_lock and not amap.limits.rlimit(RLIMIT_MEMLOCK):
            raise EPERM("RLIMIT_MEMLOCK")
        result |= VmFlag.LOCKED
    result |= amap.future_lock()
    if result & VmFlag.LOCKED:
        amap.check_locked(length >> 12)
    kind = flags & MAP_TYPE
    if file is None:
        if kind not in (MAP_SHARED, MAP_PRIVATE, MAP_DROPPABLE):
            raise EINVAL("neither shared nor private")
        if kind == MAP_DROPPABLE:
            if flags & (MAP_LOCKED | MAP_GROWSDOWN):
                raise EINVAL("neither locked nor a stack")
            result |= VmFlag.DROPPABLE | VmFlag.NORESERVE
            result |= VmFlag.WIPEONFORK | VmFlag.DONTDUMP
            result &= ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT)
        if kind == MAP_SHARED and flags & MAP_GROWSDOWN:
            raise EINVAL("a shared stack")
    else:
        if kind not in (MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE):
            raise EINVAL("neither shared nor private")
        if kind == MAP_SHARED_VALIDATE and flags & ~LEGACY_FLAGS:
            raise EOPNOTSUPP("flags")
        if kind != MAP_PRIVATE:
            if prot & PROT_WRITE and not file.writable:
                raise EACCES("a writable shared mapping of a file not open for writing")
            sealed = getattr(file, "write_sealed", False)
            if prot & PROT_WRITE and sealed:
                raise EPERM("sealed against writing")
            if not file.writable or sealed:
                result &= ~VmFlag.MAYWRITE
        if not file.readable:
            raise EACCES("the file is not open for reading")
        if flags & MAP_GROWSDOWN:
            raise EINVAL("a file as stack")
        if getattr(file, "secret", False):
            if kind == MAP_PRIVATE:
                raise EINVAL("a secret is shared")
            amap.check_locked(length >> 12)
            result |= VmFlag.LOCKED | VmFlag.DONTDUMP | VmFlag.SECRET
        if getattr(file, "no_exec", False):
            if prot & PROT_EXEC:
                raise EPERM("mounted noexec")
            result &= ~VmFlag.MAYEXEC
    if kind not in (MAP_PRIVATE, MAP_DROPPABLE):
        result |= VmFlag.SHARED
    if flags & MAP_GROWSDOWN:
        result |= VmFlag.GROWSDOWN
    if flags & MAP_STACK:
        result |= VmFlag.STACK | VmFlag.NOHUGEPAGE
    if flags & MAP_NORESERVE:
        result |= VmFlag.NORESERVE
    return result


def _backing(
    amap: AddressMap, length: int, shared: bool, file: MappedFile | None
) -> Backing | None:
    if file is not None:
        stores = shared and file.writable and not getattr(file, "write_sealed", False)
        backing: Backing | None = file.mmap_backing(stores)
        if backing is None:
            raise ENODEV("cannot be mapped")
        if isinstance(backing, HostBacking):
            backing.check(stores)
        return backing
    if not shared:
        return None
    anonymous = RamFile(amap.space.ram, length, ANON_SHARED_NAME)
    anonymous.transient = True
    return anonymous


@Stepwise
def munmap(amap: AddressMap, addr: int, length: int) -> Steps[None]:
    """munmap(2), up to where user space ends on Linux. Raises: EINVAL, ENOMEM."""
    if addr & PAGE_MASK or addr > LINUX_TASK_END or length > LINUX_TASK_END - addr:
        raise EINVAL("range")
    if not length:
        raise EINVAL("length")
    if addr < TASK_END:
        yield from amap.removing(addr, min(addr + page_up(length), TASK_END))


# --- the kernel's own


VVAR: Final = VmFlag.SPECIAL | VmFlag.SECRET
"""The clock page of the vDSO: a page of the kernel's, which only its own program reads."""


def map_vdso(amap: AddressMap, gpa: int) -> int:
    """Map the clock page and the vDSO behind it: every address space sees the same two frames.

    Gives the address of the vDSO.
    """
    start = amap.find_free(2 * PAGE_SIZE, PAGE_SIZE)
    where = start + PAGE_SIZE
    shared = VmFlag.SPECIAL | VmFlag.SHARED
    code, executable = PROT_READ | PROT_EXEC, shared | VmFlag.MAYEXEC
    amap.insert(Vma(start, where, PROT_READ, VVAR | VmFlag.SHARED, name=b"[vvar]"))
    amap.insert(Vma(where, where + PAGE_SIZE, code, executable, name=b"[vdso]"))
    amap.space.map_frames(start, gpa, 1, PROT_READ)
    amap.space.map_frames(where, gpa + PAGE_SIZE, 1, code)
    return where


def leave_clock_page(amap: AddressMap) -> None:
    """vdso_join_timens(): an empty clock page, with which the vDSO makes the calls."""
    for vma in [vma for vma in amap.vmas.backed() if vma.shared and vma.flags & VVAR == VVAR]:
        start, end = vma.start, vma.end
        amap.remove(start, end)
        amap.insert(Vma(start, end, PROT_READ, VVAR, name=b"[vvar]"))
