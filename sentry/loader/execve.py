"""execve(2): the program of a process is replaced.

The loader builds the new address space beside the old one; until the point of no return (`_commit`)
every failure leaves the caller as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.personality import READ_IMPLIES_EXEC
from sentry.abi.signal import SIGCHLD
from sentry.errors import EAGAIN
from sentry.kernel.identity import child_identity
from sentry.kernel.sysv_ipc import memory_moves
from sentry.kernel.task import RESUME, Task
from sentry.kernel.task_exit import (
    delete_timers,
    leave_memory,
    remember_peak,
    vfork_release,
)
from sentry.kernel.thread_group import condemn
from sentry.kernel.time_namespace import join_for_children
from sentry.loader.image import CLEARED_ON_SETID
from sentry.loader.load import load
from sentry.platform.constants import NUM_REGS
from sentry.platform.interface import Reg
from sentry.wait.again import again
from sentry.wait.fiber import Killed, Mode
from sentry.wait.sleep import until
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.loader.image import Image

USER_CS, USER_DS = 0x33, 0x2B


async def execve(
    task: Task,
    file: Any,
    path: bytes,
    argv: list[bytes],
    envp: list[bytes],
    *,
    unreachable: bool = False,
) -> object:
    """Load `file` and become it (`unreachable`: see `load`).

    Raises what the loader raises, and RestartNoIntr at a signal while another thread executes
    (cred_guard_mutex, prepare_bprm_creds()); afterwards there is no way back.
    """
    watch = task.kernel.watch
    digest = b""
    lock = task.group.exec_lock
    if lock.holder is not None:
        await lock.until_free(Mode.INTERRUPTIBLE)
    async with lock:
        image = await load(task, file, path, argv, envp, unreachable=unreachable)
        tracer = task.trace.tracer if task.trace is not None else task
        old_tid = tracer.pids.of(task.tid)
        try:
            if watch is not None:
                digest = await watch.digest(task, file)
            await _become_single_threaded(task)
            if task.files.users > 1:
                await driven(task.unshare_files())
            await driven(delete_timers(task.group))
            await leave_memory(task)
        except BaseException:
            image.mm.release()
            raise
        old = task.mm
        _commit(task, image)
    if watch is not None:
        watch.execed(task, file, argv, envp, digest)
    await driven(old.releasing())
    await driven(task.files.close_on_exec(task))
    await again(task.kernel.vfs.leftovers.awaited)
    if task.trace is not None:
        await task.trace.exec_stop(old_tid)
    return RESUME


async def _become_single_threaded(task: Task) -> None:
    """The other threads of the process die; the caller takes the leader's id."""
    group = task.group
    if group.exiting or group.execing is not None:
        raise Killed
    if len(group.tasks) > 1:
        group.execing = task
        others = [other for other in group.tasks if other is not task]
        task.kernel.loop.call_for_each(others, condemn)

        def alone() -> None:
            if len(group.tasks) > 1:
                raise EAGAIN

        try:
            await until(alone, [group.child_queue], mode=Mode.KILLABLE)
        finally:
            group.execing = None
    if task.tid != group.tgid:
        pids = task.kernel.pids
        old_tid = task.tid
        del pids.tasks[old_tid]
        task.tid = group.tgid
        pids.tasks[task.tid] = task
        pids.release(old_tid)
        old, group.leader = group.leader, task
        if old is not None and old.trace is not None:
            old.trace.drop()
    group.exit_signal = SIGCHLD  # de_thread(), fs/exec.c: whatever clone(2) was told


def _commit(task: Task, image: Image) -> None:
    group = task.group
    old = task.mm
    if old.users == 1:  # who comes from vfork(2) has not had the memory of its parent
        remember_peak(task)
    task.mm = image.mm
    task.ctx.bind(image.mm.space)
    vfork_release(task)
    memory_moves(task)
    task.fs = task.fs.copy()
    if group.actions.users > 1:
        group.actions.users -= 1
        group.actions = group.actions.copy()
    group.actions = group.actions.reset_for_exec()
    task.pending.forget_timers()
    group.shared_pending.forget_timers()
    task.altstack = (0, task.altstack[1], 0)
    task.restart_block = None
    leave_keyrings(task)
    task.parent_death_signal = 0 if image.secure else task.parent_death_signal
    gains = image.secure or image.creds.permitted & ~task.creds.permitted
    group.personality &= ~(CLEARED_ON_SETID if gains else READ_IMPLIES_EXEC)
    task.creds = image.creds
    task.comm = image.comm
    group.exe = image.exe
    group.argv = tuple(image.argv)
    group.dumpable = 1 if image.dumpable else task.kernel.services.suid_dumpable
    group.has_execed = True
    group.exec_user_ns = image.memory_ns
    join_for_children(task)
    start_registers(task, image)
    child_identity(task)
    for observer in list(task.observers):
        observer.execed(task)


def leave_keyrings(task: Task) -> None:
    """The keyring of the session alone stays."""
    if (old := task.keys) is not None:
        task.keys = old.for_child()
        old.release()
    task.group.drop_keyring()


def start_registers(task: Task, image: Image) -> None:
    """All zero but where to start and the stack (ELF_PLAT_INIT of arch/x86); a clean FPU."""
    regs = task.ctx.regs
    for i in range(NUM_REGS):
        if i != Reg.ORIG_RAX:  # a tracer sees that this is an execve
            regs[i] = 0
    regs[Reg.RIP] = image.entry
    regs[Reg.RSP] = image.stack_pointer
    regs[Reg.RFLAGS] = 0x202
    regs[Reg.CS] = USER_CS
    regs[Reg.SS] = USER_DS
    task.ctx.set_fpu(b"")
