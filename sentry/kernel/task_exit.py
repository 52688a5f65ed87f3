"""How tasks and processes end: _exit(2), exit_group(2), death by signal, reparenting."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi.signal import (
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    SA_NOCLDWAIT,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGKILL,
)
from sentry.auth.credentials import Credentials
from sentry.errors import EAGAIN, Errno
from sentry.kernel import (
    futex,
    futex_robust,
    namespaces,
    signal_send,
    signals,
    sysv_ipc,
    task_stops,
)
from sentry.mm.errors import NeedsFault, NeedsPage
from sentry.suppress import suppress
from sentry.wait.again import again
from sentry.wait.fiber import Mode
from sentry.wait.steps import Pace, Steps, driven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sentry.kernel.pids import PidNamespace
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ProcessGroup, ThreadGroup, Usage


def exit_task(task: Task) -> None:
    """The task is out of ring 3 and its call is unwound: take it apart."""
    if task.dead or (task.trace is not None and task.trace.exit_stop(status_of(task))):
        return
    if task.group.core_dump is not None:
        task.group.core_dump.thread_ends(task)
    task.dead = True
    task.kernel.loop.spawn(_leave(task), "exit")


def status_of(task: Task) -> int:
    """wait(2) status of a thread that ends."""
    return task.group.exit_status if task.group.exiting else task.exit_code


async def _leave(task: Task) -> None:
    kernel = task.kernel
    size_kib = task.mm.map.total_pages * 4
    try:
        for observer in list(task.observers):
            observer.exited(task, task.group.exit_status)
        if kernel.watch is not None:
            kernel.watch.exits(task, status_of(task))
        pace = Pace()
        while task.tracees:  # a sibling may wait for one meanwhile, and their children come to them
            task.tracees[0].tracer_exits()
            await pace.rest(Mode.UNINTERRUPTIBLE)
        if task.trace is not None:
            task.trace.task_exits(task)
        await _release_memory(task)
        await sysv_ipc.give_back_semaphores(task)
        await sysv_ipc.give_up_segments(task)
        if task.keys is not None:
            task.keys.release()
        await driven(task.files.left(task))
        if not task.files.users:
            await again(kernel.vfs.leftovers.awaited)
        namespaces.leave(task)
    except Exception as error:
        kernel.log.bug(f"exit of {task!r}", error)
    task_stops.thread_leaves(task)
    group = task.group
    group.used.count_bytes(task)
    task.ctx.destroy()
    task.ctx.owner = None
    task.fiber = None
    kernel.pids.tasks.pop(task.tid, None)
    kernel.pids.release(task.tid)
    kernel.held.discard(task)
    if kernel.standing is not None:
        kernel.standing.stood(task)
    group.ending = len(group.tasks) == 1
    group.tasks.remove(task)
    group.cgroup.thread_ends(group)
    if group.job is not None:
        group.job.thread_ends(group)
    group.last_uid = task.creds.uid
    group.pid_queue.notify()
    if group.execing is not None:
        group.child_queue.notify()
    if group.tasks:
        _hand_children_on(task)
    else:
        if group.pids.recorded():
            from sentry.kernel import accounting  # noqa: PLC0415  few are

            accounting.process_ends(task, status_of(task), size_kib)
        await driven(_last_thread_gone(group))


async def _release_memory(task: Task) -> None:
    await leave_memory(task)
    vfork_release(task)
    if len(task.group.tasks) == 1:  # looking at all of the memory takes long: as Linux at the end
        remember_peak(task)
    sysv_ipc.memory_moves(task)
    await driven(task.mm.releasing())


def remember_peak(task: Task) -> None:
    """setmax_mm_hiwater_rss(): the process keeps what its address space has had at most."""
    usage = task.group.used
    usage.maxrss = max(usage.maxrss, task.mm.resident.peak_pages() * 4)


async def memory_is_free(task: Task) -> None:
    """Before stores that must not fail for somebody's long operation."""
    while task.mm.map.lock.holder is not None:
        await task.mm.map.lock.until_free()


async def leave_memory(task: Task) -> None:
    """The task will not see this address space again: its robust futexes, its joiner's futex.

    Nobody has the lock of that afterwards.
    """
    pace = Pace()
    await memory_is_free(task)
    for wait in futex_robust.exit_robust(task):
        try:
            await (pace.rest(Mode.UNINTERRUPTIBLE) if wait is None else wait(Mode.UNINTERRUPTIBLE))
        except Errno:  # no room comes
            task.robust_list = 0
        await memory_is_free(task)
    try:
        while task.clear_child_tid and task.mm.users > 1:
            try:
                _tell_joiner(task)
            except NeedsPage:  # it may never come, and nothing ends a sleep of who ends
                break
            except NeedsFault as need:
                if task.group.exiting:
                    break
                await need.wait()
                await memory_is_free(task)
    except Errno:  # no room comes
        await memory_is_free(task)
    task.clear_child_tid = 0


def _tell_joiner(task: Task) -> None:
    """CLONE_CHILD_CLEARTID: mm_release(). Raises: NeedsFault where RAM is full: somebody dies for
    the page of the word, else who joins would sleep for ever."""
    with suppress(Errno):
        task.mm.write(task.clear_child_tid, struct.pack("<i", 0))
        futex.wake(task, task.clear_child_tid, 1)
    task.clear_child_tid = 0


def vfork_release(task: Task) -> None:
    """The parent of a vfork may go on: the child has left its memory."""
    if task.vfork_done is not None:
        done, task.vfork_done = task.vfork_done, None
        done()


def _last_thread_gone(group: ThreadGroup) -> Steps[None]:
    kernel = group.kernel
    yield from _kill_orphaned_groups(group)
    yield from _leave_session(group)
    group.drop_keyring()
    group.allowed_tracer = None, None
    yield from delete_timers(group)
    if group.timers is not None:
        group.timers.cancel()
    group.shared_pending.discard(signals.EVERY)
    yield from reparent(group)
    if group is kernel.init:
        group.ending = False
        yield from _end_sandbox(group)
        return
    if group.pids.init is group and not (yield from _end_namespace(group.pids)):
        yield from _end_container(group)  # who lingers may be of another one
        return
    _announce_or_hold(group)
    yield from _end_container(group)
    if kernel.init is not None and kernel.init.is_zombie:
        yield from _end_sandbox(kernel.init)


def delete_timers(group: ThreadGroup) -> Steps[None]:
    """exit_itimers(): those of timer_create(2), of which there may be as many as signals."""
    for timer in list(group.posix_timers.values()):
        timer.delete()
        yield


def _announce_or_hold(group: ThreadGroup) -> None:
    group.ending = False
    if (watch := group.kernel.watch) is not None:
        watch.ended(group)
    if group.kernel.standing is not None:
        group.kernel.standing.ended()
    group.pid_queue.notify()
    leader = group.leader
    tracee = leader.trace if leader is not None and is_held(group) else None
    if tracee is None or not tracee.group_ends():
        announce(group)


def _kill_all(others: Callable[[], Iterable[ThreadGroup]]) -> Steps[None]:
    """Also those that are forked meanwhile, or end already and do not come to it."""
    for group in list(others()):
        if group.exiting:
            group.hurry()
            yield
    while found := [group for group in others() if group.tasks and not group.exiting]:
        for group in found:
            group.exit(SIGKILL)
            yield


def _end_namespace(pids: PidNamespace) -> Steps[bool]:
    """zap_pid_ns_processes(): the first process has ended, all others die. True: none is left.

    The first process can be waited for once nobody else is there.
    """
    pids.ended = True
    init = pids.init
    assert init is not None and init.leader is not None
    if pids.accounting is not None:
        from sentry.kernel import accounting  # noqa: PLC0415  few are

        accounting.turn_off(init.leader)  # and nobody turns it on any more
    yield from _kill_all(lambda: (group for group in pids.members() if group is not init))
    pids.lingers = pids.has_others(init)
    return not pids.lingers


def _leave_namespaces(group: ThreadGroup) -> None:
    """The last process that went after the first one of a namespace lets that one go, too."""
    pids: PidNamespace | None = group.pids
    while pids is not None:
        if pids.lingers and pids.init is not None and not pids.has_others(pids.init):
            pids.lingers = False
            _announce_or_hold(pids.init)
        pids = pids.parent


def is_held(group: ThreadGroup) -> bool:
    """Its tracer, which is not its parent, has to wait for the process before its parent may."""
    leader = group.leader
    return leader is not None and leader.trace is not None and bool(leader.trace.holds_group())


def announce(group: ThreadGroup) -> None:
    """Tell the parent, or disappear at once if it does not care (SIGCHLD ignored, SA_NOCLDWAIT)."""
    parent = group.parent
    group.pid_queue.notify()
    autoreap = parent is None or (group.exit_signal == 0 and parent.is_zombie)
    if parent is not None:
        parent.child_queue.notify()  # before the signal: a wait that is satisfied wins over it
        action = parent.actions[SIGCHLD]
        if group.exit_signal == SIGCHLD and (
            action.handler == signals.SIG_IGN or action.flags & SA_NOCLDWAIT
        ):
            autoreap = True
        ignored = autoreap and action.handler == signals.SIG_IGN
        if 0 < group.exit_signal <= signals.NSIG and not ignored:
            with suppress(EAGAIN):  # a real-time signal that has no room is lost, as on Linux
                signal_send.send_to_group(parent, child_info(group, group.exit_signal))
    if autoreap:
        reap(group)


def child_info(group: ThreadGroup, signo: int) -> signals.SigInfo:
    """The siginfo that says how a child ended."""
    status = group.exit_status
    if status & 0x7F == 0:
        code, value = CLD_EXITED, status >> 8 & 0xFF
    else:
        code, value = (CLD_DUMPED if status & 0x80 else CLD_KILLED), status & 0x7F
    return group.told(signo, code, value)


def reap(group: ThreadGroup, account: Usage | None = None) -> None:
    """The zombie is gone: its number is free again. What it has used goes to `account`."""
    if account is not None:
        account.add(group.usage())
        account.add(group.reaped_usage)
    parent = group.parent
    if group.leader is not None and group.leader.trace is not None:
        group.leader.trace.drop()
    if parent is not None:
        parent.children.pop(group, None)
    group.parent = None
    process_group = group.process_group
    process_group.members.discard(group)
    pids = group.kernel.pids
    pids.groups.pop(group.tgid, None)
    group.cgroup.reaped()
    if group.job is not None:
        group.job.reaped()
    pids.forget_if_empty(process_group)
    pids.release(group.tgid)
    _leave_namespaces(group)
    if group.pids is not pids and group.pids.init is group:
        group.pids.init = group.pids.charge = None
    if group.leader is not None and group.leader.creds.user_ns is not None:
        group.leader.creds = Credentials.user(group.last_uid, group.last_uid)
    group.leader = None


def _living(group: ThreadGroup) -> Task | None:
    """find_alive_thread()."""
    return next((task for task in group.tasks if not task.dead), None)


def _hand_children_on(task: Task) -> None:
    """forget_original_parent() of a thread: another one of the process has its children now."""
    group = task.group
    heir = _living(group) if group.children and not group.exiting else None
    if heir is None:  # the last one to go has them all
        return
    for child in group.children:
        if child.parent_thread is task:
            child.parent_thread = heir
            _tell_of_death(task, child)


def _tell_of_death(dying: Task, child: ThreadGroup) -> None:
    """PR_SET_PDEATHSIG of the threads of a child: the thread that made it has ended.

    It must have the right to send the signal.
    """
    parent = dying.group
    for task in child.tasks:
        if task.parent_death_signal and signal_send.may_signal(dying.creds, task):
            info = signals.SigInfo.user(task.parent_death_signal, parent.tgid, parent.uid)
            with suppress(EAGAIN):
                signal_send.send_to_group(child, info, force=not child.pids.sees(parent))


def reparent(group: ThreadGroup) -> Steps[None]:
    """Children go to the nearest living subreaper, else to init: prctl(2). Also those that others
    of them make meanwhile (CLONE_PARENT)."""
    heir = _reaper(group) if group.children else None
    while group.children:
        children, group.children = group.children, {}
        for child in children:
            if child.parent is group:
                if heir is not None and not heir.tasks:
                    heir = _reaper(group)
                _hand_on(child, group, heir)
                yield


def _reaper(group: ThreadGroup) -> ThreadGroup | None:
    """find_new_reaper(); None where init has ended as well."""
    init = group.pids.init
    heir = group.parent if group is not init else None
    while heir is not None and not (heir.child_subreaper and heir.tasks):
        heir = heir.parent if heir.pids is group.pids else None
    if heir is None or heir.pids is not group.pids:
        heir = init
    return heir if heir is not None and heir.tasks else None


def _hand_on(child: ThreadGroup, group: ThreadGroup, heir: ThreadGroup | None) -> None:
    """A child of a process that has ended has another parent, or none."""
    child.parent_thread = _living(heir) if heir is not None else None
    if group.leader is not None:
        _tell_of_death(group.leader, child)
    child.parent = heir
    if heir is None:
        if child.is_zombie:
            reap(child)
        return
    heir.children[child] = None
    child.exit_signal = SIGCHLD  # reparent_leader(): whatever clone(2) was told
    if child.is_zombie and not is_held(child):
        announce(child)


def _kill_orphaned_groups(group: ThreadGroup) -> Steps[None]:
    """setpgid(2): a group orphaned with stopped members gets SIGHUP and SIGCONT."""
    own = group.process_group
    affected = {each.process_group for each in group.children if each.process_group is not own}
    if group.ties_group:
        affected.add(own)
    for pg in affected:
        if _orphans(group, pg) and any(m.stopping for m in pg.members if m is not group):
            for member in pg.members - {group}:
                signal_send.send_to_group(member, signals.SigInfo.kernel(SIGHUP))
                signal_send.send_to_group(member, signals.SigInfo.kernel(SIGCONT))
                yield


def _orphans(group: ThreadGroup, pg: ProcessGroup) -> bool:
    """The end of a process takes the last tie from a process group: will_become_orphaned_pgrp()."""
    init, was_tied = group.pids.init, False
    for member in pg.members:
        ours = member.parent is group
        if member is not group and member.is_tied_by(init if ours else member.parent):
            return False
        was_tied |= (ours or member is group) and member.ties_group
    return was_tied


def _leave_session(group: ThreadGroup) -> Steps[None]:
    """A session leader's end: the foreground group hears of it, now or after a hang-up.

    disassociate_ctty() of a pseudo-terminal.
    """
    session = group.session
    if session.leader is not group:
        return
    session.leader = None
    if (terminal := session.terminal) is not None:
        yield from _tell(session.foreground, SIGHUP)
        if session.terminal is terminal:  # nobody has taken it meanwhile
            terminal.disassociate(session)
    else:
        yield from _tell(session.old_foreground, SIGHUP, SIGCONT)
        session.old_foreground = None


def _tell(process_group: ProcessGroup | None, *numbers: int) -> Steps[None]:
    for member in list(process_group.members) if process_group is not None else ():
        for signo in numbers:
            signal_send.send_to_group(member, signals.SigInfo.kernel(signo))
        yield


def _end_container(group: ThreadGroup) -> Steps[None]:
    """When the first process of a further container ends, so do all others of it; then it is over.

    As an engine does it that kills whoever is left in the cgroup of a container.
    """
    container = group.container
    init = container.init
    if init is None or init.tasks or container.on_end is None:
        return
    if not container.ending:
        container.ending = True
        yield from _kill_all(lambda: (each for each in container.processes() if each is not init))
    on_end = container.on_end
    if on_end is not None and not container.cgroup.populated:  # else they have been here
        container.on_end = None
        on_end(init.exit_status)


def _end_sandbox(init: ThreadGroup) -> Steps[None]:
    """pid_namespaces(7): when init ends, everybody gets SIGKILL; then the sandbox is over."""
    pids = init.kernel.pids
    if not pids.ended:
        pids.ended = True
        yield from _kill_all(lambda: [g for g in pids.groups.values() if g is not init])
    if not any(group.tasks for group in pids.groups.values() if group is not init):
        init.kernel.finish(init.exit_status)
