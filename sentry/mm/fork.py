"""fork(2): dup_mmap(), kernel/fork.c."""

from __future__ import annotations

from typing import Final

from sentry.abi.mman import OVERCOMMIT_NEVER
from sentry.errors import ENOMEM, Errno
from sentry.mm.address_map import MAX_MAPS_ALL, AddressMap
from sentry.mm.filling import fill_new
from sentry.mm.vma import Vma, VmFlag
from sentry.mm.vma_run import Run, inherited
from sentry.platform.memory import Exhausted
from sentry.wait.steps import Steps, Stepwise

COPIES: Final = 128
"""Pages that fork copies at once: those of small mappings, where parent and child store next."""
COPY_SMALL: Final = 64
"""Pages of a mapping that counts as small: data segments, the first heap, the stack."""
LEND: Final = 32
"""Mappings of a run that is lent: fewer are copied as fast, and are those that are used."""
LEND_PAGES: Final = 16384
"""Pages of all of its mappings: its entries are made in one step."""


@Stepwise
def fork(parent: AddressMap, child: AddressMap, alone: bool) -> Steps[None]:
    """Fill the child: private memory copy on write, shared memory shared.

    `alone`: no other thread stores to the parent's pages meanwhile, so that some may be copied.
    Raises: ENOMEM, and the child is destroyed.
    """
    copies = COPIES if alone else 0
    ram = parent.space.ram
    try:
        if ram.commitment.mode == OVERCOMMIT_NEVER:
            parent.check_promise(_promised(parent))
        child.inherit_accounts(parent)
        for run in parent.vmas.runs:
            if ram.vmas + len(run.starts) > MAX_MAPS_ALL:
                raise ENOMEM("the sandbox's mappings")
            if _is_lent(run):
                child.vmas.borrow(run)
                copies -= parent.space.fork_all(child.space, run.rows(), copies, COPY_SMALL)
                yield
                continue
            if run.is_borrowed:
                run.settle()  # the lender may change his between two steps
            for vma in list(run.vmas):
                if vma.flags & VmFlag.DONTCOPY:
                    child.account(vma, -1)
                else:
                    copied = yield from _fork_vma(parent, child, vma, copies)
                    copies -= copied
                    yield
    except Exhausted:
        child.destroy()
        raise
    except Errno:
        child.destroy()
        raise ENOMEM("fork") from None
    child.locked_pages = 0
    child.peak_total_pages = child.total_pages


def _promised(parent: AddressMap) -> int:
    """Pages that count as committed in a child."""
    runs = parent.vmas.runs
    kept = (vma for run in runs for vma in run.seen if not vma.flags & VmFlag.DONTCOPY)
    return sum(vma.pages for vma in kept if vma.accountable)


def _is_lent(run: Run) -> bool:
    """Whether a child gets mappings of its own only when somebody looks at them."""
    return (
        len(run.starts) >= LEND
        and run.can_be_lent()
        and sum([vma.end - vma.start for vma in run.seen]) <= LEND_PAGES << 12
    )


def _fork_vma(parent: AddressMap, child: AddressMap, vma: Vma, copies: int) -> Steps[int]:
    """One mapping, a large one in pieces; how many of its pages were copied."""
    copy = inherited(vma)
    child.vmas.append(copy)
    child.count_mapping(copy, 1)
    if vma.flags & VmFlag.WIPEONFORK:
        fill_new(child, copy, copy.start, copy.end)
        return 0
    some = copies if vma.pages <= COPY_SMALL else 0
    copied = 0
    for start, stop in parent.mapped_pieces(vma.start, vma.end):
        if start > vma.start:
            yield
        if vma.shared:
            parent.space.share(child.space, start, (stop - start) >> 12)
        else:
            pages = (stop - start) >> 12
            copied += parent.space.fork(child.space, start, pages, vma.prot, some)
    return copied
