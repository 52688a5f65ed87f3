"""mprotect(2), mseal(2), names of anonymous memory."""

from __future__ import annotations

from collections.abc import Iterable

from sentry.abi.mman import PROT_EXEC, PROT_GROWSDOWN, PROT_GROWSUP, PROT_SEM, PROT_WRITE
from sentry.errors import EACCES, EBADF, EINVAL, ENOMEM, EPERM
from sentry.mm.address_map import AT_ONCE, AddressMap
from sentry.mm.faults import populate
from sentry.mm.filling import fill_new
from sentry.mm.layout import TASK_END
from sentry.mm.vma import PROT_ALL, Vma, VmFlag, page_align, page_up
from sentry.platform.constants import PAGE_MASK
from sentry.wait.steps import Steps, Stepwise


@Stepwise
def mprotect(amap: AddressMap, addr: int, length: int, prot: int, key: int = -1) -> Steps[None]:
    """mprotect(2). Parts before a hole or a forbidden mapping are changed, as on Linux.

    Raises: EINVAL, ENOMEM, EACCES. A protection key is EINVAL: there are none.
    """
    grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
    prot &= ~(PROT_GROWSDOWN | PROT_GROWSUP)
    if grows == PROT_GROWSDOWN | PROT_GROWSUP or addr & PAGE_MASK:
        raise EINVAL("address or flags")
    if not length:
        return
    end = addr + page_align(length)
    if end >> 64 or end <= addr:
        raise ENOMEM("range")
    if prot & ~(PROT_ALL | PROT_SEM) or key != -1:
        raise EINVAL("rights or key")
    first = amap.vmas.after(addr)
    if first is None:
        raise ENOMEM("not mapped")
    if grows == PROT_GROWSDOWN:
        if first.start >= end:
            raise ENOMEM("not mapped")
        if not first.flags & VmFlag.GROWSDOWN:
            raise EINVAL("not a stack")
        addr = first.start
    elif first.start > addr:
        raise ENOMEM("not mapped")
    elif grows:
        raise EINVAL("nothing grows up")
    yield from amap.changing(addr, end, lambda vma: _protect(amap, vma, prot & PROT_ALL))


def _protect(amap: AddressMap, vma: Vma, prot: int) -> Iterable[None]:
    if amap.mdwe and prot & PROT_EXEC and (prot & PROT_WRITE or not vma.prot & PROT_EXEC):
        raise EACCES("PR_SET_MDWE")
    if prot & PROT_WRITE and not vma.flags & VmFlag.MAYWRITE:
        raise EACCES("the file is not open for writing")
    if prot & PROT_EXEC and not vma.flags & VmFlag.MAYEXEC:
        raise EACCES("mounted noexec")
    if vma.flags & VmFlag.SEALED:
        raise EPERM("sealed")
    if prot == vma.prot:
        return ()
    becomes_data = bool(prot & PROT_WRITE) and not vma.prot & PROT_WRITE and not vma.shared
    if becomes_data and not vma.flags & (VmFlag.GROWSDOWN | VmFlag.SPECIAL):
        reserve = not vma.flags & VmFlag.NORESERVE
        _check_data(amap, vma.pages, reserve)
    had_rights = vma.prot & PROT_ALL
    amap.account(vma, -1)
    vma.prot = prot
    amap.account(vma, 1)
    if vma.end - vma.start > AT_ONCE or (becomes_data and vma.flags & VmFlag.LOCKED):
        return _protect_much(amap, vma, not had_rights, becomes_data)
    amap.space.protect(vma.start, vma.pages, prot)
    if prot and not had_rights:
        fill_new(amap, vma, vma.start, vma.end)
    return ()


def _protect_much(amap: AddressMap, vma: Vma, is_new: bool, becomes_data: bool) -> Steps[None]:
    for start, stop in amap.mapped_pieces(vma.start, vma.end):
        amap.space.protect(start, (stop - start) >> 12, vma.prot)
        yield
    if vma.prot and is_new:
        fill_new(amap, vma, vma.start, vma.end)
    if becomes_data and vma.flags & VmFlag.LOCKED:
        yield from populate.steps(amap, vma.start, vma.end)  # the copies are made now


def _check_data(amap: AddressMap, pages: int, charge: bool) -> None:
    amap.total_pages -= pages
    try:
        amap.check_expand(pages, True, charge)
    finally:
        amap.total_pages += pages


@Stepwise
def mseal(amap: AddressMap, addr: int, length: int) -> Steps[None]:
    """mseal(2): nothing of the range can be unmapped, moved or protected otherwise any more.

    Raises: EINVAL, ENOMEM.
    """
    size = page_align(length)
    if addr & PAGE_MASK or (length and not size) or (addr + size) >> 64:
        raise EINVAL("range")
    end = addr + size
    if end == addr:
        return
    yield from amap.check_whole(addr, end)
    yield from amap.changing(addr, end, _seal)


def _seal(vma: Vma) -> None:
    vma.flags |= VmFlag.SEALED


@Stepwise
def name_anonymous(amap: AddressMap, addr: int, length: int, name: bytes) -> Steps[None]:
    """prctl(PR_SET_VMA_ANON_NAME): what maps shows for anonymous memory; empty: nothing.

    Raises: EINVAL, ENOMEM, EBADF.
    """
    end = addr + page_up(length)
    if addr & PAGE_MASK or page_up(length) >> 64 or end >> 64:
        raise EINVAL("range")

    def change(vma: Vma) -> None:
        if vma.file is not None:
            raise EBADF("a file")
        kind = b"anon_shmem" if vma.shared else b"anon"
        vma.name = b"[%s:%s]" % (kind, name) if name else b""

    if length:
        yield from amap.changing(addr, min(end, TASK_END), change)
        if end > TASK_END:
            raise ENOMEM("range")
