"""/sys/fs/cgroup: what Linux's own tests cannot show here, limits that the Sentry holds."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from sentry.abi.fcntl import AT_FDCWD, O_RDONLY, O_WRONLY
from sentry.fs.cgroup.container import CONTAINER
from sentry.kernel.cgroup import MAX_DEPTH
from tests.world import Program, World

TOP = b"/sys/fs/cgroup"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.kernel.container.cpu_quota = (50_000, 100_000)
        world.kernel.container.cpu_weight = 39
        world.mount("cgroup2", TOP)
        yield world


def text(program: Program, name: bytes) -> str:
    """The content of a file below the top."""
    fd = program.ok("open", TOP + b"/" + name, O_RDONLY)
    buffer = program.buffer(4096)
    found = program.read(buffer, program.ok("read", fd, buffer, 4096))
    program.ok("close", fd)
    return found.decode()


def put(program: Program, name: bytes, value: bytes) -> int:
    """Write a file below the top: 0, or -errno."""
    fd = program.ok("open", TOP + b"/" + name, O_WRONLY)
    given = program.call("write", fd, program.place(value), len(value))
    program.ok("close", fd)
    return min(given, 0)


def test_top_says_what_counts_for_the_container(world: World) -> None:
    init = world.init
    world.kernel.container.pids_limit = 40

    assert set(CONTAINER) >= {"cpu.max", "memory.max", "pids.max"}
    assert text(init, b"cpu.max") == "50000 100000\n"
    assert (text(init, b"cpu.weight"), text(init, b"cpu.weight.nice")) == ("39\n", "4\n")
    assert int(text(init, b"memory.max")) == world.platform.ram.limit
    assert (text(init, b"pids.max"), text(init, b"pids.current")) == ("40\n", "1\n")
    assert text(init, b"cgroup.procs") == f"{init.task.group.tgid}\n"
    assert "\noom_kill 0\n" in text(init, b"memory.events")


def test_out_of_memory_kills_one_or_all(world: World) -> None:
    init, kernel = world.init, world.kernel
    child = init.fork()
    assert text(init, b"memory.oom.group") == "0\n"

    child.task.group.oom_score_adj = 1000
    assert kernel.out_of_memory(None, trim=False)
    assert child.task.group.exiting
    assert not init.task.group.exiting
    world.settle()
    init.ok("wait4", -1, 0, 0, 0)
    assert "\noom_kill 1\noom_group_kill 0\n" in text(init, b"memory.events")

    kernel.container.oom_group = True
    init.fork().task.group.oom_score_adj = 1000
    assert text(init, b"memory.oom.group") == "1\n"
    assert kernel.out_of_memory(None, trim=False)
    assert init.task.group.exiting


def test_limits_of_the_container_are_not_set_from_inside(world: World) -> None:
    init = world.init

    assert put(init, b"cgroup.freeze", b"1") == -errno.EPERM
    assert put(init, b"cgroup.kill", b"1") == -errno.EPERM
    assert put(init, b"pids.max", b"max") == -errno.EINVAL


def test_controllers_that_nobody_can_hold_below_cannot_be_given(world: World) -> None:
    init = world.init
    init.ok("mkdir", TOP + b"/a", 0o755)

    assert put(init, b"cgroup.subtree_control", b"+memory") == -errno.ENOENT
    assert put(init, b"cgroup.subtree_control", b"+nothing") == -errno.EINVAL
    assert init.call("access", TOP + b"/a/pids.max", 0) == -errno.ENOENT
    assert text(init, b"a/cgroup.controllers") == "\n"
    assert put(init, b"cgroup.subtree_control", b"+pids") == 0
    assert text(init, b"a/cgroup.controllers") == "pids\n"
    assert text(init, b"a/pids.max") == "max\n"
    assert put(init, b"a/cgroup.subtree_control", b"+pids") == 0
    assert put(init, b"cgroup.subtree_control", b"-pids") == -errno.EBUSY


def test_pids_max_holds_for_all_below(world: World) -> None:
    init = world.init
    for name in (b"/a", b"/a/b"):
        init.ok("mkdir", TOP + name, 0o755)
    assert put(init, b"cgroup.subtree_control", b"+pids") == 0
    child = init.fork()
    assert put(child, b"a/b/cgroup.procs", b"0") == 0
    assert put(init, b"a/pids.max", b"2") == 0

    grandchild = child.fork()
    assert child.call("fork") == -errno.EAGAIN
    assert text(init, b"a/pids.current") == "2\n"
    assert text(init, b"a/pids.events") == text(init, b"a/pids.events.local") == "max 1\n"
    assert text(init, b"pids.current") == "3\n"
    grandchild.begin("exit", 0)
    world.settle()
    assert child.call("fork") == -errno.EAGAIN  # a zombie counts
    child.ok("wait4", -1, 0, 0, 0)
    assert text(init, b"a/pids.current") == "1\n"
    assert text(init, b"a/pids.peak") == "2\n"
    assert child.thread() is not None
    assert text(init, b"a/pids.current") == "2\n"
    assert put(init, b"a/pids.max", b"-1") == -errno.EINVAL


def test_processes_here_and_below_are_not_both_controlled(world: World) -> None:
    init = world.init
    for name in (b"/a", b"/a/b"):
        init.ok("mkdir", TOP + name, 0o755)
    put(init, b"cgroup.subtree_control", b"+pids")
    child, other = init.fork(), init.fork()
    assert put(child, b"a/b/cgroup.procs", b"0") == 0
    assert put(init, b"a/cgroup.subtree_control", b"+pids") == 0

    assert put(other, b"a/cgroup.procs", b"0") == -errno.EBUSY
    assert put(init, b"a/cgroup.subtree_control", b"-pids") == 0
    assert put(other, b"a/cgroup.procs", b"0") == 0
    assert put(init, b"a/cgroup.subtree_control", b"+pids") == -errno.EBUSY


def test_cgroup_of_a_namespace_is_delegated_to_it(world: World) -> None:
    from sentry.abi.sched import CLONE_NEWCGROUP  # noqa: PLC0415

    init = world.init
    init.ok("mkdir", TOP + b"/a", 0o755)
    child = init.fork()
    assert put(child, b"a/cgroup.procs", b"0") == 0
    child.ok("unshare", CLONE_NEWCGROUP)

    assert put(child, b"a/cgroup.freeze", b"1") == -errno.EPERM
    assert put(child, b"cgroup.procs", b"0") == -errno.ENOENT
    assert put(init, b"a/cgroup.max.depth", b"3") == 0


def test_attributes_of_a_cgroup_are_gone_with_it(world: World) -> None:
    init, budget = world.init, world.vfs.budget
    init.ok("mkdir", TOP + b"/a", 0o755)
    before = budget.small_bytes
    value = init.place(b"value")
    init.ok("setxattr", TOP + b"/a", b"user.name", value, 5, 0)
    assert budget.small_bytes == before + len(b"user.name") + 5

    held = init.ok("open", TOP + b"/a", O_RDONLY)
    init.ok("unlinkat", AT_FDCWD, TOP + b"/a", 0x200)
    assert init.call("fremovexattr", held, b"user.name") == -errno.ENODATA
    assert init.call("fsetxattr", held, b"user.name", value, 5, 0) == -errno.ENODEV
    init.ok("mkdir", TOP + b"/a", 0o755)
    assert budget.small_bytes == before
    buffer = init.buffer(16)
    assert init.call("getxattr", TOP + b"/a", b"user.name", buffer, 16) == -errno.ENODATA


def test_depth_has_a_ceiling_and_a_freeze_reaches_the_ground(world: World) -> None:
    init, path = world.init, b""
    for _ in range(MAX_DEPTH):
        path += b"/d"
        init.ok("mkdir", TOP + path, 0o755)
    assert init.call("mkdir", TOP + path + b"/d", 0o755) == -errno.EAGAIN

    deepest = path[1:] + b"/cgroup.events"
    assert put(init, b"d/cgroup.freeze", b"1") == 0
    assert "frozen 1" in text(init, deepest)
    assert put(init, b"d/d/cgroup.freeze", b"1") == 0
    assert put(init, b"d/cgroup.freeze", b"0") == 0
    assert "frozen 1" in text(init, deepest)
    assert "frozen 0" in text(init, b"d/cgroup.events")
    assert put(init, b"d/d/cgroup.freeze", b"0") == 0
    assert "frozen 0" in text(init, deepest)
