"""`MemoryManager`: the address space of a process.

It is put together from layers, lowest first: map (VMAs), faults, mapping (mmap), protect, locking,
remap, usermem, report; this file adds its life: sharing, fork, exec, the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sentry.abi.mman import OVERCOMMIT_NEVER
from sentry.abi.prctl import PR_MDWE_NO_INHERIT
from sentry.errors import ENOMEM, Errno
from sentry.mm.layout import TASK_END
from sentry.mm.map import MAX_MAPS_ALL, Limits, NoLimits
from sentry.mm.report import Report
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.memory import AddressSpace, Exhausted

COPIES: Final = 128
"""Pages that fork copies at once: those of small mappings, where parent and child store next."""
COPY_SMALL: Final = 64
"""Pages of a mapping that counts as small: data segments, the first heap, the stack."""


class MemoryManager(Report):
    """One address space. `users` counts the tasks and others that keep it."""

    def __init__(
        self,
        new_space: Callable[[], AddressSpace],
        limits: Limits | None = None,
        randomize: bool = True,
    ) -> None:
        super().__init__(new_space(), limits or NoLimits(), randomize)
        self.new_space = new_space
        self.users = 1
        self.barriers = 0
        """Commands of membarrier(2) that were registered."""
        self.aio: Any = None
        """The contexts of io_setup(2), once there are any."""

    def share(self) -> MemoryManager:
        """CLONE_VM: one more user."""
        self.users += 1
        return self

    def release(self) -> None:
        """One user less; the last one gives everything back."""
        self.users -= 1
        if self.users == 0:
            self._destroy()

    def new_for_exec(self, limits: Limits, randomize: bool = True) -> MemoryManager:
        """An empty address space for a new program."""
        return MemoryManager(self.new_space, limits, randomize)

    def _destroy(self) -> None:
        if self.aio is not None:
            self.aio.close()
        doomed = list(self.vmas)
        self.space.destroy()
        self.layout.program = None
        for vma in doomed:
            self.vmas.remove(vma)
            vma.drop()
            self._mapped(vma, -1)
        self.space.ram.commitment.pages -= self.committed_pages
        self.committed_pages = 0
        self.total_pages = self.data_pages = self.stack_pages = self.locked_pages = 0

    def fork(self, limits: Limits | None = None) -> MemoryManager:
        """A copy: private memory copy on write, shared memory shared. Raises: ENOMEM."""
        child = MemoryManager(self.new_space, limits or self.limits, self.randomize)
        child.mmap_base = self.mmap_base
        child._forget_holes()
        child.brk_start, child.brk_end = self.brk_start, self.brk_end
        child.layout = self._copied_layout()
        child.ipc_lock = self.ipc_lock
        child.barriers = self.barriers
        child.mdwe = 0 if self.mdwe & PR_MDWE_NO_INHERIT else self.mdwe
        try:
            # Not under the feet of other threads: a page must not be copied while they store to it.
            copies = COPIES if self.users == 1 else 0
            for vma in self.vmas:
                if not vma.flags & VmFlag.DONTCOPY:
                    copies -= self._fork_vma(child, vma, copies)
        except Exhausted:
            child.release()
            raise
        except Errno:
            child.release()
            raise ENOMEM("fork") from None
        child.peak_total_pages = child.total_pages
        return child

    def _fork_vma(self, child: MemoryManager, vma: Vma, copies: int) -> int:
        if self.space.ram.vmas >= MAX_MAPS_ALL:
            raise ENOMEM("the sandbox's mappings")
        if vma.accountable and self.space.ram.commitment.mode == OVERCOMMIT_NEVER:
            self._check_promise(vma.pages)
        copy = vma.part(vma.start, vma.end)
        copy.flags &= ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT)
        if vma.backing is None and vma.private_writable and not vma.flags & VmFlag.HEAP:
            copy.flags |= VmFlag.FORKED
        child.vmas.add(copy)
        child._account(copy, 1)
        child._mapped(copy, 1)
        if vma.flags & VmFlag.WIPEONFORK:
            child.populate_new(copy, copy.start, copy.end)
        elif vma.shared:
            self.space.share(child.space, vma.start, vma.pages)
        else:
            some = copies if vma.pages <= COPY_SMALL else 0
            return self.space.fork(child.space, vma.start, vma.pages, vma.prot, some)
        return 0

    def clear(self) -> None:
        """Unmap everything (a process that is being killed for lack of memory)."""
        for vma in self.vmas:
            vma.flags &= ~VmFlag.SEALED
        self.remove(0, TASK_END)
