"""Mounts of an image: none that no program could have made, and none that shows what is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.fcntl import O_CREAT
from sentry.abi.mount import MS_BIND, MS_NOATIME, MS_NOSUID, MS_RDONLY, MS_RELATIME, MS_REMOUNT
from sentry.abi.seccomp import SECCOMP_RET_ERRNO
from sentry.fs.proc.filesystem import INVISIBLE, ProcFs
from sentry.state.loader import Loader
from sentry.state.namespaces import MadeNamespaces
from sentry.state.pages import Damaged
from sentry.state.records import (
    Changed,
    FileSystem,
    MadeMount,
    MemoryLimits,
    MountNamespace,
    MountTable,
    NamedNamespace,
    Namespaces,
    PidNamespace,
    Sharing,
)
from sentry.state.remounting import MadeMounts
from tests.unit.state.test_namespaces import OWN, rights
from tests.unit.state.test_pages import run
from tests.world import World

ROOT, GIVEN, MASK, FIRST = range(4)
"""What the container begins with; the mask lies on /given/hidden."""
READS = MS_RDONLY | MS_NOSUID | MS_RELATIME
OWNED = MountNamespace(0)
TMPFS = FileSystem("tmpfs", "it", 200, owner=0)
PROC = FileSystem("proc", "proc", 200, owner=0, shows=0)


def mount(number: int, parent: int | None = None, place: bytes = b"", **fields: Any) -> MadeMount:
    fields = {"namespace": 0, "sharing": Sharing(MS_RELATIME), **fields}
    return MadeMount(number, parent=parent, place=place, **fields)


COPY = (
    mount(91, model=ROOT),
    mount(92, FIRST, b"given", model=GIVEN, sharing=Sharing(READS), locked=True),
    mount(93, FIRST + 1, b"hidden", model=MASK, locked=True),
)
"""What a namespace of mounts begins with that a user namespace owns."""


def but(at: int, *more: MadeMount, **fields: Any) -> list[MadeMount]:
    """The copy with something else in one place."""
    found = [*COPY, *more]
    found[at] = msgspec.structs.replace(found[at], **fields)
    return found


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        program = made.program()
        for path in (b"/given", b"/dir", b"/proc"):
            program.ok("mkdir", path, 0o755)
        program.ok("close", program.ok("open", b"/file", O_CREAT, 0o644))
        program.ok("mount", b"tmpfs", b"/given", b"tmpfs", MS_NOSUID, 0)
        program.ok("mkdir", b"/given/hidden", 0o755)
        program.ok("mkdir", b"/given/hidden/secret", 0o755)
        program.ok("mount", b"tmpfs", b"/given/hidden", b"tmpfs", 0, 0)
        flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID
        program.ok("mount", 0, b"/given", 0, flags, 0)
        yield made


def made(
    world: World, mounts: list[MadeMount], *capabilities: int, **table: Any
) -> MadeMounts:
    kernel, verdict = world.kernel, table.pop("verdict", None)
    table = {"namespaces": [OWNED], **table}
    found = MadeNamespaces(
        kernel, Namespaces(users=[OWN], pids=[PidNamespace(0)]),
        rights(*capabilities, verdict=verdict), MountTable(mounts=mounts, **table),
    )  # fmt: skip
    files: Any = SimpleNamespace(kernel=kernel, first=found.mounts.first, inodes=[])
    files._check_seen = lambda *where: Loader._check_seen(files, *where)
    files.walk = lambda *where: Loader.walk(files, *where)
    files.in_tree = lambda *where: Loader.in_tree(files, *where)
    files.nameless = lambda *where: Loader.nameless(files, *where)
    run(found.mounts.place(files))
    return found.mounts


def test_who_has_no_rights_has_a_copy_that_hides_what_was_hidden(world: World) -> None:
    own = mount(94, FIRST, b"dir", fs=0, sharing=Sharing(MS_RELATIME, group=7))
    again = mount(95, FIRST, b"proc", model=ROOT, root=b"dir", sharing=Sharing(MS_RELATIME, 0, 7))
    found = made(world, [*COPY, own, again], file_systems=[TMPFS])
    namespace = found.held[0].mounts
    assert [each.id for each in namespace] == [91, 92, 93, 94, 95]
    assert all(each.namespace is namespace for each in namespace)
    assert namespace.owner is not None and namespace is not world.mounts
    _, given, mask, tmpfs, bound = namespace
    assert given.locked_flags & READS == READS and mask.parent is not None
    assert tmpfs.group is not None and tmpfs.group.id == 7 and bound.master is tmpfs.group
    assert tmpfs.fs.dev == 200 and tmpfs.fs.owner is namespace.owner
    assert world.vfs.new_dev() != 200 and next(world.vfs.mount_ids) > 95


def test_a_copy_of_a_mount_that_another_one_covers_is_covered(world: World) -> None:
    world.program().ok("mount", b"tmpfs", b"/given/hidden", b"tmpfs", 0, 0)
    first, *others = COPY
    moved = [msgspec.structs.replace(each, parent=(each.parent or 0) + 1) for each in others]
    over = mount(94, FIRST + 3, model=MASK + 1, locked=True)
    found = made(world, [first, *moved, over])
    *_, mask, above = found.held[0].mounts
    assert mask.overmount is above


def test_what_covers_a_mount_is_not_left_out_of_a_copy(world: World) -> None:
    world.program().ok("mount", b"tmpfs", b"/given/hidden", b"tmpfs", 0, 0)
    first, *others = COPY
    moved = [msgspec.structs.replace(each, parent=(each.parent or 0) + 1) for each in others]
    with pytest.raises(Damaged, match="shows what the container's hide"):
        made(world, [first, *moved])


def test_who_may_mount_takes_off_what_hides(world: World) -> None:
    flags = Sharing(MS_RELATIME)
    shown = mount(94, FIRST, b"dir", model=GIVEN, root=b"hidden/secret")
    bare = [*but(1, sharing=flags)[:2], shown]
    outside = mount(96, ROOT, b"dir", namespace=None, fs=0)
    changed = [Changed(GIVEN, Sharing(MS_NOSUID | MS_RELATIME))]
    found = made(
        world, [*bare, outside], CAP_SYS_ADMIN, file_systems=[TMPFS], changed=changed
    )
    assert [each.id for each in found.held[0].mounts] == [91, 92, 94]
    assert 96 in [each.id for each in world.mounts] and not found.first[GIVEN].read_only


HOSTILE: list[tuple[str, list[MadeMount], dict[str, Any]]] = [
    ("no program of this container", [mount(91, ROOT, b"dir", namespace=None, model=ROOT)],
     {"namespaces": []}),
    ("no program of this container", [*COPY], {"changed": [Changed(GIVEN, Sharing(MS_RELATIME))]}),
    ("no program of this container", [*COPY], {"namespaces": [MountNamespace()]}),
    ("may do what the container's may not", but(1, sharing=Sharing(MS_RELATIME)), {}),
    ("may do what the container's may not", but(1, sharing=Sharing(READS | MS_NOATIME)), {}),
    ("shows what the container's hide", [*COPY[:2]], {}),
    ("shows what the container's hide", but(2, locked=False), {}),
    ("a mount hides", but(0, mount(94, FIRST, b"dir", model=GIVEN, root=b"hidden/secret",
                                   sharing=Sharing(READS))), {}),
    ("mount of proc that no program", but(0, mount(94, FIRST, b"dir", fs=0)),
     {"file_systems": [PROC]}),
    ("mount of tmpfs that no program", but(0, mount(94, FIRST, b"dir", fs=0)),
     {"file_systems": [msgspec.structs.replace(TMPFS, owner=None)]}),
]


@pytest.mark.parametrize(("why", "mounts", "table"), HOSTILE)
def test_what_no_program_could_have_mounted_is_refused(
    world: World, why: str, mounts: list[MadeMount], table: dict[str, Any]
) -> None:
    with pytest.raises(Damaged, match=why):
        made(world, mounts, **table)


BROKEN: list[tuple[str, list[MadeMount], dict[str, Any]]] = [
    ("without a root", [], {}),
    ("without a root", but(0, model=ROOT, root=b"file"), {}),
    ("nowhere", but(1, parent=None), {}),
    ("nowhere", but(1, parent=FIRST + 2), {}),
    ("nowhere", but(1, parent=99), {}),
    ("nowhere", but(0, namespace=None), {}),
    ("on none of its namespace", but(1, parent=ROOT), {}),
    ("there is no mount namespace 5", but(1, namespace=5), {}),
    ("namespace that there is not", but(0, mount(94, namespace=5, model=ROOT)), {}),
    ("nothing, or of two", but(1, model=None), {}),
    ("nothing, or of two", but(1, fs=0), {"file_systems": [TMPFS]}),
    ("no mount 9", but(1, model=9), {}),
    ("no file system 9", but(1, model=None, fs=9), {}),
    ("no namespace 9", but(1, model=None, shows=NamedNamespace("uts", 9)), {}),
    ("no namespace 9", [*COPY], {"namespaces": [MountNamespace(9)]}),
    ("no namespace 9", but(0), {"file_systems": [msgspec.structs.replace(PROC, shows=9)]}),
    ("loop of mount namespaces",
     but(0, mount(94, FIRST, b"file", shows=NamedNamespace("mnt", 0))), {}),
    ("loop of mount namespaces",
     but(0, mount(94, FIRST, b"file", shows=NamedNamespace("mnt"))), {}),
    ("where none can be", but(1, place=b"file"), {}),
    ("where none can be", but(0, COPY[1]), {}),
    ("the container has no /none", but(1, place=b"none"), {}),
    ("no path of a snapshot", but(1, place=b"dir/../given"), {}),
    ("no tree 3", but(0, tree=3), {}),
    ("more groups", but(0, sharing=Sharing(MS_RELATIME, group=1 << 40)), {}),
    ("follows none", but(0, sharing=Sharing(MS_RELATIME, master=3)), {}),
    ("follow each other", but(0, sharing=Sharing(MS_RELATIME, 3, 3)), {}),
    ("changed twice", [*COPY], {"changed": [Changed(GIVEN, Sharing(READS))] * 2}),
    ("no mount 9", [*COPY], {"changed": [Changed(9, Sharing(READS))]}),
    ("devpts: what", [*COPY], {"file_systems": [
        FileSystem("devpts", "pts", 200, options="what=1")]}),
    ("hidepid=3", [*COPY], {"file_systems": [
        msgspec.structs.replace(PROC, options="hidepid=3")]}),
    ("policy of memory", but(0), {"file_systems": [
        msgspec.structs.replace(TMPFS, limits=MemoryLimits(mpol="\n"))]}),
]


@pytest.mark.parametrize(("why", "mounts", "table"), BROKEN)
def test_what_makes_no_sense_is_damaged(
    world: World, why: str, mounts: list[MadeMount], table: dict[str, Any]
) -> None:
    with pytest.raises(Damaged, match=why):
        made(world, mounts, CAP_SYS_ADMIN, **table)


def test_proc_goes_on_hiding(world: World) -> None:
    record = msgspec.structs.replace(PROC, options="gid=5,hidepid=invisible,subset=pid")
    own = mount(94, FIRST, b"dir", fs=0)
    found = made(world, [*COPY, own], CAP_SYS_ADMIN, file_systems=[record])
    fs = list(found.held[0].mounts)[-1].fs
    assert isinstance(fs, ProcFs) and (fs.hides, fs.gid) == (INVISIBLE, 5)


def test_a_profile_that_forbids_mounts_forbids_them_to_an_image(world: World) -> None:
    with pytest.raises(Damaged, match="profile forbids"):
        made(
            world, [*COPY], CAP_SYS_ADMIN, file_systems=[TMPFS], verdict=SECCOMP_RET_ERRNO | 1
        )


def test_more_mounts_than_there_may_be_are_refused(world: World) -> None:
    world.vfs.budget.mount_max = 4
    with pytest.raises(Damaged, match=r"fs\.mount-max"):
        made(world, [*COPY, *(mount(94 + n, FIRST + 2 + n, model=ROOT) for n in range(3))])
