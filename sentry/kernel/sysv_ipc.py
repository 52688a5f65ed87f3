"""What fork, exit and exec do to System V objects, and where a task finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.wait.eager import eager
from sentry.wait.lock import Lock
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sentry.kernel.ipc_namespace import IpcObjects
    from sentry.kernel.sysv_undo import UndoList
    from sentry.kernel.task import Task


def ipc_of(task: Task) -> IpcObjects:
    """The objects of a task's namespace."""
    return task.ns.ipc.objects


def memory_moves(task: Task) -> None:
    """An address space is about to be copied or dropped on behalf of this task: fork, exit, exec.

    shm_lpid of the segments in it becomes its process.
    """
    found = task.ns.ipc.made
    if found is not None:
        found.segments.actor = task.group.tgid


def leave_semaphores(task: Task) -> Lock:
    """unshare(CLONE_SYSVSEM): SEM_UNDO is done, if nobody shares the list. What is much goes on,
    whatever becomes of the task, until the lock is free."""
    return _going(task, give_back_semaphores(task), "SEM_UNDO")


def _going(task: Task, work: Coroutine[Any, Any, None], name: str) -> Lock:
    going, rest = Lock(), eager(work)
    if rest is not None:
        going.take()
        task.kernel.loop.spawn(_finish(rest, going), name)
    return going


async def _finish(rest: Coroutine[Any, Any, None], going: Lock) -> None:
    try:
        await rest
    finally:
        going.let_go()


async def give_back_semaphores(task: Task) -> None:
    """exit_sem(): the same, to its end."""
    undo, task.sem_undo = task.sem_undo, None
    if undo is not None:
        await undo.leave(task.group.tgid)


def leave_segments(task: Task) -> Lock:
    """unshare(CLONE_NEWIPC): as if it exited. Likewise."""
    return _going(task, give_up_segments(task), "shm_rmid_forced")


async def give_up_segments(task: Task) -> None:
    """exit_shm()."""
    found = task.ns.ipc.made
    if found is not None:
        await driven(found.segments.creator_exits(task))


def undo_list(task: Task) -> UndoList:
    """The list of a task, made when first needed."""
    if task.sem_undo is None:
        from sentry.kernel.sysv_undo import UndoList  # noqa: PLC0415  few programs need one

        task.sem_undo = UndoList(task.kernel.vfs.budget)
    return task.sem_undo


def shared_undo(task: Task) -> UndoList:
    """CLONE_SYSVSEM: one more user of the list."""
    found = undo_list(task)
    found.users += 1
    return found
