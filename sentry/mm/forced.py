"""Accesses although the mapping forbids them, for tracers and core files: FOLL_FORCE, mm/gup.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.errors import EFAULT
from sentry.mm.layout import TASK_END
from sentry.mm.vma import Vma, VmFlag

if TYPE_CHECKING:
    from sentry.mm.manager import MemoryManager


def poke(mm: MemoryManager, addr: int, data: bytes) -> None:
    """Store although the mapping forbids it (ptrace, /proc/PID/mem): FOLL_FORCE, mm/gup.c.

    A private mapping gets a page of its own. Raises: EFAULT, NeedsFault.
    """
    done = 0
    while done < len(data):
        at = addr + done
        some = data[done : done + 4096 - (at & 0xFFF)]
        vma = mm.map.vmas.find(at) if 0 <= at < TASK_END else None
        hidden = vma is not None and vma.flags & VmFlag.SECRET
        if vma is None or hidden or (not vma.prot & 2 and vma.shared):
            raise EFAULT(f"{at:#x}")
        if vma.prot & 2:
            mm.write(at, some)
        else:
            _poke_page(mm, vma, at, some)
        done += len(some)


def _poke_page(mm: MemoryManager, vma: Vma, addr: int, data: bytes) -> None:
    page = addr & ~0xFFF
    rights = vma.prot
    vma.prot = rights | 3
    try:
        mm.space.protect(page, 1, vma.prot)
        mm.write(addr, data)
    finally:
        vma.prot = rights
        mm.space.protect(page, 1, rights)


def peek(mm: MemoryManager, addr: int, count: int) -> bytes:
    """Bytes although the mapping forbids reading them. Raises: EFAULT, NeedsFault."""
    parts = []
    while count > 0:
        some = min(count, 4096 - (addr & 0xFFF))
        vma = mm.map.vmas.find(addr) if 0 <= addr < TASK_END else None
        if vma is not None and vma.flags & VmFlag.SECRET:
            raise EFAULT(f"{addr:#x}")
        if vma is None or vma.prot:
            parts.append(mm.read(addr, some))
        else:
            vma.prot = 1
            try:
                mm.space.protect(addr & ~0xFFF, 1, 1)
                parts.append(mm.read(addr, some))
            finally:
                vma.prot = 0
                mm.space.protect(addr & ~0xFFF, 1, 0)
        addr += some
        count -= some
    return b"".join(parts)
