"""Pausing a container: no task of it sees ring 3 until it is resumed, whatever happens meanwhile.

A task that runs is taken out of ring 3; one that sleeps in a call sleeps on, and stands still when
the call ends, by a timer or by data. Signals queue; SIGKILL ends a task where it stands. It looks
to the rest of the kernel like a stopped task (`Task.stopped`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sentry.kernel import signal_send
from sentry.kernel.work import WORK_PAUSE

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup


def pause(container: Container, done: Callable[[], object]) -> None:
    """Hold all tasks; `done` is called once none of them is in ring 3."""
    container.paused = True
    _stop(container, done)


def stand(container: Container, done: Callable[[], object]) -> None:
    """The same while the sandbox is copied: nobody is told that it is paused, and who pauses or
    resumes it meanwhile is heard."""
    container.copied = True
    _stop(container, done)


def _stop(container: Container, done: Callable[[], object]) -> None:
    running = []
    for group in container.processes():
        for task in group.tasks:
            task.work |= WORK_PAUSE
            if task.fiber is None and not task.stopped and not task.dead:
                running.append(task)
    left = len(running)

    def out_of_ring3() -> None:
        nonlocal left
        left -= 1
        if not left:
            done()

    for task in running:
        task.ctx.stop(out_of_ring3)
    if not running:
        done()


def hold(task: Task) -> bool:
    """On the way back to ring 3: stand still, if that is still asked for."""
    kernel = task.kernel
    cgroup = task.group.cgroup
    frozen = cgroup.freezing
    if not task.group.container.holds(task.group) and not frozen:
        task.work &= ~WORK_PAUSE
        return False
    standing = kernel.standing
    if standing is not None and standing.passes(task):
        task.work &= ~WORK_PAUSE
        return False
    task.stopped = True
    kernel.held.add(task)
    if standing is not None:
        standing.stood(task)
    if frozen:
        cgroup.settle_frozen()
    return True


def halt(group: ThreadGroup) -> None:
    """The cgroup of a process is frozen. A call that sleeps is broken off, and made again later."""
    for task in group.tasks:
        task.work |= WORK_PAUSE
    group.kernel.loop.call_for_each(group.tasks, _look)


def _look(task: Task) -> None:
    """Stand still soon, unless that is over already."""
    if task.work & WORK_PAUSE and not task.stopped and not task.dead:
        task.interrupt()


def go_on(group: ThreadGroup) -> None:
    """It is no more. The threads stand still all the same if the whole container does."""
    kernel = group.kernel
    if group.container.holds(group):
        return
    for task in group.tasks:
        task.work &= ~WORK_PAUSE
        if task in kernel.held:
            kernel.held.discard(task)
            signal_send.resume_task(task)


def start(container: Container) -> None:
    """The first process, which stood before its first instruction, goes on."""
    container.unstarted = False
    _go_on(container)


def resume(container: Container) -> None:
    """All go on where they stood, but for those whose cgroup is frozen."""
    container.paused = False
    _go_on(container)


def stand_no_more(container: Container) -> None:
    """The copy has been made. All go on that nothing else holds."""
    container.copied = False
    _go_on(container)


def throttle(container: Container) -> None:
    """Its CPU time is used up: no task of it sees ring 3 until there is more."""
    container.throttled = True
    for group in container.processes():
        for task in group.tasks:
            task.work |= WORK_PAUSE
            if task.fiber is None and not task.stopped and not task.dead:
                task.ctx.kick()


def unthrottle(container: Container) -> None:
    """There is more. All go on that nothing else holds."""
    if container.throttled:
        container.throttled = False
        _go_on(container)


def _go_on(container: Container) -> None:
    for group in container.processes():
        if not group.cgroup.freezing:
            go_on(group)
