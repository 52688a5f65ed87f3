"""Making processes: what happens to the caller while its memory is copied."""

from __future__ import annotations

import errno
import struct

import pytest

from sentry.abi.resource import RLIMIT_NOFILE, RLIMIT_NPROC
from sentry.abi.sched import CLONE_PARENT, CLONE_PIDFD
from sentry.abi.signal import SIGCHLD, SIGKILL
from tests.world import AREA, World

PAGE = 4096
PIECES = 100


def test_who_is_killed_while_it_forks_has_no_more_children(monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        program = world.program()
        for at in range(AREA, AREA + PIECES * 2 * PAGE, 2 * PAGE):
            program.ok("mprotect", at, PAGE, 1)
        before = set(world.kernel.pids.groups) - {program.task.group.tgid}
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
        monkeypatch.setattr("sentry.mm.fork.LEND", 2 * PIECES + 1000)  # each is a step

        fork = program.begin("fork")
        world.loop.turn()
        assert not fork.done
        program.task.group.exit(SIGKILL)
        fork.wait()

        assert program.task.dead
        assert set(world.kernel.pids.groups) - {program.task.group.tgid} == before


def test_a_number_that_another_thread_takes_meanwhile_leaves_no_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World() as world:
        program = world.program()
        other = program.thread()
        for at in range(AREA, AREA + PIECES * 2 * PAGE, 2 * PAGE):
            program.ok("mprotect", at, PAGE, 1)
        words = AREA + PIECES * 2 * PAGE
        program.write(words, struct.pack("<8Q", CLONE_PIDFD, words + 64, 0, 0, SIGCHLD, 0, 0, 0))
        program.task.group.limits.set(RLIMIT_NOFILE, 1, 1)
        before = set(world.kernel.pids.tasks)
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
        monkeypatch.setattr("sentry.mm.fork.LEND", 2 * PIECES + 1000)  # each is a step

        fork = program.begin("clone3", words, 64)
        world.loop.turn()
        assert not fork.done
        assert other.ok("eventfd2", 0, 0) == 0
        assert fork.wait() == -errno.EMFILE

        assert set(world.kernel.pids.tasks) == before


def test_a_ceiling_of_open_files_that_a_pidfd_meets_leaves_no_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World() as world:
        program = world.program()
        words = AREA
        program.write(words, struct.pack("<8Q", CLONE_PIDFD, words + 64, 0, 0, SIGCHLD, 0, 0, 0))
        before = set(world.kernel.pids.tasks)
        monkeypatch.setattr("sentry.vfs.budget.MAX_FILES", 0)

        assert program.begin("clone3", words, 64).wait() == -errno.ENFILE

        assert set(world.kernel.pids.tasks) == before


def test_execve_fails_while_the_user_that_one_has_become_has_too_many_tasks() -> None:
    with World() as world:
        program = world.program()
        others = [program.sibling(uid=7) for _ in range(3)]
        program.task.group.limits.set(RLIMIT_NPROC, 2, 2)
        assert program.call("execve", b"/none", 0, 0) == -errno.ENOENT
        program.ok("setuid", 7)
        assert program.call("execve", b"/none", 0, 0) == -errno.EAGAIN
        for other, result in zip(others, (errno.EAGAIN, errno.ENOENT), strict=False):
            other.begin("exit_group", 0)
            world.settle()
            assert program.call("execve", b"/none", 0, 0) == -result
        program.sibling()  # too many again, but the limit has held meanwhile
        assert program.call("execve", b"/none", 0, 0) == -errno.ENOENT


def test_a_sibling_that_is_made_while_its_parent_hands_children_on_gets_a_living_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World() as world:
        init = world.init.task.group
        parent = world.init.fork()
        children = [parent.fork() for _ in range(PIECES)]
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        parent.begin("exit_group", 0)
        while children[0].task.group.parent is not init:
            world.loop.turn()

        made = children[-1].ok("clone", CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)

        sibling = world.kernel.pids.groups[made]
        assert sibling.parent is parent.task.group is children[-1].task.group.parent
        world.settle()
        assert sibling.parent is children[-1].task.group.parent is init
        assert sibling in init.children
