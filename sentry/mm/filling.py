"""Page-table entries made ahead, so that programs take few faults.

Anonymous memory is filled when it is mapped, as far as one step goes; huge and MAP_NORESERVE
mappings by 2 MiB on a fault, thread stacks from their top. Files are mapped ahead up to 16 MiB and
around a fault. Private pages of files are mapped read-only and copied on a store.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from sentry.abi.signal import BUS_ADRERR
from sentry.errors import ENOMEM, ENOSPC, Errno
from sentry.mm.address_map import AddressMap
from sentry.mm.backing import HostBacking
from sentry.mm.errors import BusError, NeedsFault, NeedsPage
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.constants import BLOCK_SIZE
from sentry.wait.steps import Pace

FILL_AT_ONCE: Final = 256 << 20
FILL_PIECE: Final = 8 << 20
FILE_AT_ONCE: Final = 16 << 20
STACK_CHUNK: Final = 128 << 10
NEW_STACK: Final = 20 << 10
"""What glibc keeps of a stack when its thread ends, the first page and PTHREAD_STACK_MIN below: all
that is filled beyond has to be taken away again."""
FILE_AROUND: Final = 256 << 10


def fill_new(amap: AddressMap, vma: Vma, start: int, end: int) -> None:
    """Map ahead what faults would map: after mmap, mprotect, brk. What fails faults later."""
    if not vma.prot & 7:
        return
    try:
        if vma.backing is None:
            _fill_new_anonymous(amap, vma, start, end)
        elif isinstance(vma.backing, RamFile):
            _map_ram(amap, vma, start, min(end, start + FILE_AT_ONCE))
        else:
            _map_window(amap, vma, start, min(end, start + FILE_AT_ONCE))
    except (Errno, BusError, NeedsFault):
        pass


def _fill_new_anonymous(amap: AddressMap, vma: Vma, start: int, end: int) -> None:
    if vma.flags & VmFlag.NORESERVE or vma.end - vma.start > FILL_AT_ONCE:
        return
    if amap.space.ram.crowded:
        return
    if vma.flags & VmFlag.STACK:
        start = max(start, end - NEW_STACK)
    pace = Pace() if end - start > FILL_PIECE else None
    while True:  # frames that others had are zeroed
        stop = min(end, (start | (FILL_PIECE - 1)) + 1) if pace is not None else end
        amap.space.map_anonymous(start, (stop - start) >> 12, vma.prot)
        start = stop
        if start == end or (pace is not None and pace.over):
            return


def fill_around(amap: AddressMap, vma: Vma, page: int) -> None:
    """Map a page that faulted, and some around it. Raises: BusError, NeedsFault, ENOMEM."""
    backing = vma.backing
    if backing is None:
        size = STACK_CHUNK if vma.flags & (VmFlag.STACK | VmFlag.GROWSDOWN) else BLOCK_SIZE
        start = max(vma.start, page & ~(size - 1))
        end = min(vma.end, (page & ~(size - 1)) + size)
        amap.space.map_anonymous(start, (end - start) >> 12, vma.prot)
        return
    start = max(vma.start, page & ~(FILE_AROUND - 1))
    end = min(vma.end, start + FILE_AROUND)
    if isinstance(backing, HostBacking):
        if vma.file_offset(page) >= backing.size:
            raise BusError(page, BUS_ADRERR)
        try:
            _map_window(amap, vma, start, end)
        except ENOMEM:
            raise
        except Errno:  # the host's file refuses
            raise BusError(page, BUS_ADRERR) from None
        return
    offset = vma.file_offset(page)
    if offset >= backing.size:
        raise BusError(page, BUS_ADRERR)
    if backing.loader is not None and not backing.peek(offset >> 12):
        raise NeedsPage(partial(backing.loader, offset >> 12, FILE_AROUND >> 12))
    if backing.transient:
        some = min(end - start, backing.size - vma.file_offset(start))
        backing.fill(vma.file_offset(start) >> 12, (some + 4095) >> 12)
    else:
        try:
            backing.page(offset >> 12)
        except ENOSPC:
            raise BusError(page, BUS_ADRERR) from None
    _map_ram(amap, vma, start, end)


def _map_ram(amap: AddressMap, vma: Vma, start: int, end: int) -> None:
    """Entries for the pages of a RamFile that exist."""
    backing = vma.backing
    assert isinstance(backing, RamFile)
    offset = vma.file_offset(start)
    pages = min(end - start, ((backing.size + 4095) & ~0xFFF) - offset) >> 12
    if pages <= 0:
        return
    if backing.transient and pages << 12 == vma.end - vma.start:
        backing.fill(offset >> 12, pages)
    frames = backing.frames(offset >> 12, pages)
    amap.space.map_list(start, frames, pages, vma.prot, not vma.shared)


def _map_window(amap: AddressMap, vma: Vma, start: int, end: int) -> None:
    """Entries for a host file's pages, up to its end."""
    backing = vma.backing
    assert isinstance(backing, HostBacking)
    room = ((backing.size + 4095) & ~0xFFF) - vma.file_offset(start)
    pages = min(end - start, room) >> 12
    if pages > 0:
        _, gpa = vma.window(start, pages)
        amap.space.map_frames(start, gpa, pages, vma.prot, not vma.shared)


def show_instead(amap: AddressMap, vma: Vma) -> bool:
    """Map a private mapping of a host file in one go with the removal of what is there.

    Preconditions: the VMA is not inserted yet, and what it replaces is removed afterwards.
    False: nothing has been done.
    """
    backing = vma.backing
    if not isinstance(backing, HostBacking) or vma.shared or not vma.prot & 7:
        return False
    room = ((backing.size + 4095) & ~0xFFF) - vma.offset
    if vma.end - vma.start > min(room, FILE_AT_ONCE):
        return False
    replaced = amap.vmas.overlapping(vma.start, vma.end)
    if all(each.backing is not backing for each in replaced):
        return False
    try:
        amap.check_count(2)  # what the removal may need
        if any(each.flags & VmFlag.SEALED for each in replaced):
            return False
        _, gpa = vma.window(vma.start, vma.pages)
        amap.space.map_over(vma.start, gpa, vma.pages, vma.prot)
    except (Errno, NeedsFault):
        return False
    return True
