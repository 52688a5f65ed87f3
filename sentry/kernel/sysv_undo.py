"""SEM_UNDO: what a process gives back to semaphores when it ends: exit_sem(), ipc/sem.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.sysvipc import SEMVMX
from sentry.kernel.sysv_ids import now
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.kernel.sysv_sem import SemaphoreSet
    from sentry.vfs.budget import Budget
    from sentry.wait.steps import Steps


class UndoList:
    """struct sem_undo_list: shared by the tasks that clone with CLONE_SYSVSEM. What it holds is in
    the sets: number of the semaphore → what to add."""

    __slots__ = ("_budget", "sets", "users")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.users = 1
        self.sets: dict[SemaphoreSet, None] = {}

    def keep(self, found: SemaphoreSet, adjusted: dict[int, int]) -> None:
        """Remember the new adjustments. Raises: ENOMEM."""
        held = found.undos.get(self)
        more = len(adjusted.keys() - held.keys()) if held is not None else len(adjusted)
        self._budget.check_undos(more)
        self._budget.undos += more
        if held is None:
            held = found.undos[self] = {}
            self.sets[found] = None
        held.update(adjusted)

    def forget(self, found: SemaphoreSet, number: int) -> None:
        """SETVAL: nothing of this semaphore is given back."""
        if found.undos[self].pop(number, None) is not None:
            self._budget.undos -= 1

    def drop(self, found: SemaphoreSet) -> dict[int, int]:
        """SETALL, IPC_RMID, the end: nothing of this set any more; what there was."""
        del self.sets[found]
        held = found.undos.pop(self)
        self._budget.undos -= len(held)
        return held

    async def leave(self, pid: int) -> None:
        """One task less; the last one gives everything back, within what a semaphore can hold."""
        self.users -= 1
        if self.users:
            return
        for found in list(self.sets):
            async with found.lock:
                if found in self.sets:  # it was neither removed nor set meanwhile
                    await driven(self._give_back(found, pid))

    def _give_back(self, found: SemaphoreSet, pid: int) -> Steps[None]:
        """All of a set, then those who waited for that go on."""
        dirty = set()
        for number, adjust in self.drop(found).items():
            if adjust:
                found.values[number] = min(max(found.values[number] + adjust, 0), SEMVMX)
                found.pids[number] = pid
                dirty.add(number)
        if dirty:
            found.otime = now()
            yield from found.changed(dirty)
