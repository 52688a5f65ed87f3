"""fork(2): dup_mmap(), kernel/fork.c."""

from __future__ import annotations

from typing import Final

from sentry.abi.mman import OVERCOMMIT_NEVER
from sentry.errors import ENOMEM, Errno
from sentry.mm.address_map import MAX_MAPS_ALL, AddressMap
from sentry.mm.filling import fill_new
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.memory import Exhausted
from sentry.wait.steps import Steps, Stepwise

COPIES: Final = 128
"""Pages that fork copies at once: those of small mappings, where parent and child store next."""
COPY_SMALL: Final = 64
"""Pages of a mapping that counts as small: data segments, the first heap, the stack."""


@Stepwise
def fork(parent: AddressMap, child: AddressMap, alone: bool) -> Steps[None]:
    """Fill the child: private memory copy on write, shared memory shared.

    `alone`: no other thread stores to the parent's pages meanwhile, so that some may be copied.
    Raises: ENOMEM, and the child is destroyed.
    """
    copies = COPIES if alone else 0
    try:
        for vma in parent.vmas:
            if not vma.flags & VmFlag.DONTCOPY:
                copies -= _fork_vma(parent, child, vma, copies)
                yield
    except Exhausted:
        child.destroy()
        raise
    except Errno:
        child.destroy()
        raise ENOMEM("fork") from None
    child.peak_total_pages = child.total_pages


def _fork_vma(parent: AddressMap, child: AddressMap, vma: Vma, copies: int) -> int:
    """One mapping; how many of its pages were copied."""
    ram = parent.space.ram
    if ram.vmas >= MAX_MAPS_ALL:
        raise ENOMEM("the sandbox's mappings")
    if vma.accountable and ram.commitment.mode == OVERCOMMIT_NEVER:
        parent.check_promise(vma.pages)
    copy = vma.part(vma.start, vma.end)
    copy.flags &= ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT)
    if vma.backing is None and vma.private_writable and not vma.flags & VmFlag.HEAP:
        copy.flags |= VmFlag.FORKED
    child.vmas.add(copy)
    child.account(copy, 1)
    child.count_mapping(copy, 1)
    if vma.flags & VmFlag.WIPEONFORK:
        fill_new(child, copy, copy.start, copy.end)
    elif vma.shared:
        parent.space.share(child.space, vma.start, vma.pages)
    else:
        some = copies if vma.pages <= COPY_SMALL else 0
        return parent.space.fork(child.space, vma.start, vma.pages, vma.prot, some)
    return 0
