"""Long work on mounts goes on in pieces: what others see meanwhile."""

from __future__ import annotations

import errno

import pytest

from sentry.abi.fcntl import O_CREAT, O_RDONLY, O_WRONLY
from sentry.abi.mount import MS_BIND, MS_REC, MS_SHARED
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.sched import CLONE_NEWNS, CLONE_NEWUSER
from tests.world import Call, Program, World

MNT_DETACH = 2
MANY = 20


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece is as little as it can be."""
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)


@pytest.fixture
def peers(task: Program) -> list[bytes]:
    """Places that share what is mounted on them, each with a directory `sub`."""
    task.ok("mkdir", b"/s", 0o755)
    task.ok("mount", b"x", b"/s", b"tmpfs", 0, 0)
    task.ok("mkdir", b"/s/sub", 0o755)
    task.ok("mount", 0, b"/s", 0, MS_SHARED, 0)
    places = [b"/s"]
    for number in range(MANY):
        places.append(b"/p%d" % number)
        task.ok("mkdir", places[-1], 0o755)
        task.ok("mount", b"/s", places[-1], 0, MS_BIND, 0)
    return places


@pytest.fixture
def many(task: Program) -> list[bytes]:
    task.world.mount("proc", b"/proc")
    """Mounts below /many, each with a directory `there`."""
    task.ok("mkdir", b"/many", 0o755)
    task.ok("mkdir", b"/copy", 0o755)
    task.ok("mount", b"x", b"/many", b"tmpfs", 0, 0)
    names = [b"/m%d" % number for number in range(MANY)]
    for name in names:
        task.ok("mkdir", b"/many" + name, 0o755)
        task.ok("mount", b"x", b"/many" + name, b"tmpfs", 0, 0)
        task.ok("mkdir", b"/many" + name + b"/there", 0o755)
    return names


def seen(other: Program, paths: list[bytes]) -> int:
    """How many of them there are: walks wait for nobody."""
    found = 0
    for path in paths:
        call = other.begin("access", path, 0)
        assert call.done
        found += call.result == 0
    return found


def pieces(world: World, call: Call, other: Program, paths: list[bytes]) -> list[int]:
    """How many there are after each piece of a call that succeeds."""
    found = [seen(other, paths)]
    while not call.done:
        world.loop.turn()
        found.append(seen(other, paths))
    assert call.result == 0
    return found


def test_locked_mounts_are_looked_at_one_by_one(
    world: World, task: Program, many: list[bytes]
) -> None:
    task.ok("mkdir", b"/many/bare", 0o755)
    user = task.sibling(1000, 1000)
    user.ok("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    call = user.begin("mount", b"/many/bare", b"/copy", 0, MS_BIND, 0)
    assert len(pieces(world, call, task, [])) > MANY
    assert user.call("mount", b"/many", b"/copy", 0, MS_BIND, 0) == -errno.EINVAL


def test_mount_appears_at_all_peers_in_one_moment(
    world: World, task: Program, peers: list[bytes]
) -> None:
    other = task.sibling()
    task.ok("mkdir", b"/t", 0o755)
    task.ok("mkdir", b"/t/new", 0o755)
    call = task.begin("mount", b"/t", b"/s/sub", 0, MS_BIND, 0)
    found = pieces(world, call, other, [place + b"/sub/new" for place in peers])
    assert len(found) > MANY
    assert set(found) == {0, len(peers)}


@pytest.mark.parametrize("flags", [0, MNT_DETACH])
def test_umount_takes_it_off_all_peers_in_one_moment(
    world: World, task: Program, peers: list[bytes], flags: int
) -> None:
    task.ok("mount", b"x", b"/s/sub", b"tmpfs", 0, 0)
    task.ok("mkdir", b"/s/sub/new", 0o755)
    other = task.sibling()
    call = task.begin("umount2", b"/s/sub", flags)
    found = pieces(world, call, other, [place + b"/sub/new" for place in peers])
    assert len(found) > MANY
    assert set(found) == {0, len(peers)}
    assert found == sorted(found, reverse=True)


def test_umount_of_what_is_opened_meanwhile_is_busy(
    world: World, task: Program, peers: list[bytes]
) -> None:
    task.ok("mount", b"x", b"/s/sub", b"tmpfs", 0, 0)
    other = task.sibling()
    call = task.begin("umount2", b"/s/sub", 0)
    assert not call.done
    fd = other.ok("open", b"/p1/sub/f", O_CREAT | O_WRONLY, 0o644)
    assert call.wait() == -errno.EBUSY
    assert seen(other, [place + b"/sub/f" for place in peers]) == len(peers)
    other.ok("close", fd)
    task.ok("umount2", b"/s/sub", 0)


def test_lazy_umount_takes_a_tree_away_in_one_moment(
    world: World, task: Program, many: list[bytes]
) -> None:
    other = task.sibling()
    inside = other.ok("open", b"/many", O_RDONLY, 0)
    other.ok("fchdir", inside)
    places = [name[1:] + b"/there" for name in many]
    call = task.begin("umount2", b"/many", MNT_DETACH)
    found = pieces(world, call, other, places)
    assert len(found) > MANY
    assert set(found) == {0, MANY}
    assert found == sorted(found, reverse=True)


def test_recursive_bind_appears_in_one_moment(
    world: World, task: Program, many: list[bytes]
) -> None:
    other = task.sibling()
    call = task.begin("mount", b"/many", b"/copy", 0, MS_BIND | MS_REC, 0)
    found = pieces(world, call, other, [b"/copy" + name + b"/there" for name in many])
    assert len(found) > MANY
    assert set(found) == {0, MANY}
    assert found == sorted(found)


def test_who_mounts_and_who_lists_mounts_waits_until_a_bind_is_done(
    task: Program, many: list[bytes]
) -> None:
    lister, mounter = task.sibling(), task.sibling()
    mounter.ok("mkdir", b"/x", 0o755)
    fd, room = lister.ok("open", b"/proc/self/mounts", O_RDONLY, 0), lister.buffer(1 << 16)
    call = task.begin("mount", b"/many", b"/copy", 0, MS_BIND | MS_REC, 0)
    listing = lister.begin("read", fd, room, 1 << 16)
    mounting = mounter.begin("mount", b"x", b"/x", b"tmpfs", 0, 0)
    assert not call.done
    assert not listing.done
    assert not mounting.done
    assert call.wait() == 0
    text = lister.read(room, listing.wait())
    assert text.count(b" /copy/m") == MANY
    assert mounting.wait() == 0


def test_place_of_a_bind_is_not_removed_meanwhile(task: Program, many: list[bytes]) -> None:
    other = task.sibling()
    call = task.begin("mount", b"/many", b"/copy", 0, MS_BIND | MS_REC, 0)
    while task.task.mounts.lock.holder is None or not _is_pinned(task):
        task.world.loop.turn()
    removing = other.begin("rmdir", b"/copy")
    assert not removing.done
    assert call.wait() == 0
    assert removing.wait() == -errno.EBUSY


def _is_pinned(task: Program) -> bool:
    known = task.task.fs.root.dentry.known_child(b"copy")
    return known is not None and known.mounts > 0


def test_place_that_is_removed_before_is_no_place(task: Program, many: list[bytes]) -> None:
    before = task.task.mounts.budget.mounts
    other = task.sibling()
    call = task.begin("mount", b"/many", b"/copy", 0, MS_BIND | MS_REC, 0)
    other.ok("rmdir", b"/copy")
    assert call.wait() == -errno.ENOENT
    assert task.task.mounts.budget.mounts == before
    assert all(not other.call("rmdir", b"/many" + name + b"/there") for name in many)


@pytest.mark.parametrize("how", ["unshare", "clone"])
def test_new_namespace_is_whole_and_its_end_leaves_nothing(
    world: World, task: Program, many: list[bytes], how: str
) -> None:
    budget, other, walker = task.task.mounts.budget, task.sibling(), task.sibling()
    other.ok("mkdir", b"/x", 0o755)
    before = budget.mounts, len(budget.namespaces)
    call = task.begin(how, CLONE_NEWNS, *([0] * 4 if how == "clone" else []))
    mounting = other.begin("mount", b"x", b"/x", b"tmpfs", 0, 0)
    assert not call.done
    assert not mounting.done
    assert seen(walker, [b"/many" + name + b"/there" for name in many]) == MANY
    result = call.wait()
    inside = task if how == "unshare" else task._made(result)
    assert mounting.wait() == 0
    assert inside.task.mounts is not other.task.mounts
    assert seen(inside, [b"/many" + name + b"/there" for name in many]) == MANY
    inside.begin("exit_group", 0)
    world.settle()
    assert (budget.mounts - 1, len(budget.namespaces)) == before


def test_tree_of_its_own_is_listed_with_all_that_is_on_it(
    task: Program, many: list[bytes]
) -> None:
    budget = task.task.mounts.budget
    before = budget.mounts
    fd = task.begin("open_tree", -100, b"/many", 1 | 0x8000).wait()
    assert fd >= 0
    assert budget.mounts == before + MANY + 1
    task.ok("close", fd)
    task.world.settle()
    assert budget.mounts == before


def test_tree_for_which_there_is_no_number_any_more_goes(task: Program, many: list[bytes]) -> None:
    budget = task.task.mounts.budget
    before = budget.mounts, budget.files
    call = task.begin("open_tree", -100, b"/many", 1 | 0x8000)
    assert not call.done
    task.task.group.limits.set(RLIMIT_NOFILE, 0, 0)
    assert call.wait() == -errno.EMFILE
    task.world.settle()
    assert (budget.mounts, budget.files) == before
