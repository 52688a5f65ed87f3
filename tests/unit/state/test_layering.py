"""Overlays of an image: files have the numbers that they had, and hostile ones are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from sentry.abi.capability import CAP_MKNOD, CAP_SETUID, CAP_SYS_ADMIN
from sentry.abi.fcntl import O_CREAT
from sentry.abi.mount import MS_BIND, MS_RDONLY, MS_RELATIME, MS_REMOUNT
from sentry.abi.stat import S_IFCHR
from sentry.auth.credentials import Credentials
from sentry.errors import EINVAL, ELOOP
from sentry.fs.erofs.filesystem import ErofsFs
from sentry.fs.layers.filesystem import LayersFs
from sentry.fs.layers.stack import LOCAL_INOS
from sentry.state import growing
from sentry.state.loader import Loader
from sentry.state.namespaces import MadeNamespaces
from sentry.state.pages import Damaged
from sentry.state.records import (
    FileSystem,
    Image,
    LayeredFile,
    MadeMount,
    MountNamespace,
    MountTable,
    Namespaces,
    Overlay,
    Sharing,
    Tree,
    Where,
)
from tests.unit.state.test_namespaces import OWN, rights
from tests.unit.state.test_pages import run
from tests.world import World

ROOT, GIVEN, FIRST = range(3)
"""What the container begins with; /given can only be read, and has a mount on /given/hidden."""
MASK = 2
DEVICES = (201, 202)
OVERLAY = FileSystem("overlay", "it", 200, devices=[*DEVICES])
DATA = b"lowerdir=/one:/two,upperdir=/up,workdir=/work"
WORK, WHITEOUT, LOST, BASE, ELSEWHERE = range(5)
"""Files of the only tree."""
ROOT_FILE = LayeredFile(LOCAL_INOS + 5)
GOOD = Overlay(
    DATA, "auto", 0, [Where(ROOT, root=name) for name in (b"up", b"one", b"two")],
    [(0, BASE)], (0, WORK), (0, WHITEOUT), marks=True, next_ino=LOCAL_INOS + 9,
    files=[
        ROOT_FILE,
        LayeredFile(77, parent=3, name=b"inner"),
        LayeredFile(78, lost=True, upper=(0, LOST)),
        LayeredFile(LOCAL_INOS + 7, 0, 0, b"dir"),
        LayeredFile(79, parent=3, name=b"gone", lost=True, gone=True, lowers=[2]),
    ],
)  # fmt: skip


def but(**fields: Any) -> Overlay:
    """The good one with something else in it."""
    return msgspec.structs.replace(GOOD, **fields)


def files(at: int, **fields: Any) -> Overlay:
    """With another file."""
    found = [*GOOD.files]
    found[at] = msgspec.structs.replace(found[at], **fields)
    return but(files=found)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        program = made.program()
        for path in (b"/one", b"/two", b"/up", b"/work", b"/work/work", b"/given", b"/two/dir"):
            program.ok("mkdir", path, 0o755)
        for path in (b"/two/dir/inner", b"/two/dir/gone", b"/up/lost", b"/image"):
            program.ok("close", program.ok("open", path, O_CREAT, 0o644))
        program.ok("mknod", b"/work/work/#1", S_IFCHR, 0)
        program.ok("mount", b"tmpfs", b"/given", b"tmpfs", 0, 0)
        for path in (b"/given/up", b"/given/hidden"):
            program.ok("mkdir", path, 0o755)
        program.ok("close", program.ok("open", b"/given/file", O_CREAT, 0o644))
        program.ok("mount", b"tmpfs", b"/given/hidden", b"tmpfs", 0, 0)
        program.ok("mount", 0, b"/given", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0)
        yield made


def loaded(
    world: World, overlay: Overlay | None = GOOD, system: FileSystem = OVERLAY,
    capabilities: tuple[int, ...] = (CAP_SYS_ADMIN, CAP_SETUID, CAP_MKNOD), **tree: Any,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """The file system, and the files that its tree has."""
    held, kernel = rights(*capabilities), world.kernel
    mounts = [MadeMount(91, 0, fs=0, sharing=Sharing(MS_RELATIME))]
    found = MadeNamespaces(
        kernel, Namespaces(users=[OWN]), held,
        MountTable([system], [MountNamespace(0)], mounts=mounts),
    )  # fmt: skip
    loader = Loader.__new__(Loader)
    loader.kernel, loader.rights, loader.namespaces = kernel, held, found
    loader.first, loader.mounts = found.mounts.first, found.mounts.all
    loader.creds = [Credentials.root()]
    root, given = (loader.mounts[at].root.inode for at in (ROOT, GIVEN))
    work: Any = run(loader.walk(loader.mounts[ROOT].root, b"work/work")).inode
    up: Any = run(loader.walk(loader.mounts[ROOT].root, b"up")).inode
    tops: Any = root
    loader.inodes = [
        [work, work.children[b"#1"], up.children[b"lost"], tops.children[b"work"], given]
    ]
    record = Tree(3, overlay=overlay, **tree)
    inodes = run(growing.load(loader, record))
    loader.inodes.append(inodes)
    run(found.mounts.place(loader))
    return loader.mounts[3].fs, inodes


def test_files_have_the_numbers_and_names_that_they_had(world: World) -> None:
    fs, (root, inner, lost, directory, gone) = loaded(world)
    assert isinstance(fs, LayersFs) and fs.root is root and fs.dev == 200
    assert [each.ino for each in (root, inner, lost, directory, gone)] == [
        LOCAL_INOS + 5, 77, 78, LOCAL_INOS + 7, 79
    ]  # fmt: skip
    assert directory.stat().dev == 201 and not inner.gone and gone.gone
    assert [root.lookup_cached(b"dir"), directory.lookup_cached(b"inner")] == [directory, inner]
    assert directory.lookup_cached(b"gone") is None
    assert fs.stack.work is not None and fs.stack.marks and not fs.read_only
    assert fs.stack.next_ino == LOCAL_INOS + 9 and fs.stack.devices[:1] == [201]
    assert fs.show_options() == "," + DATA.decode()


def test_a_layer_is_in_use_as_long_as_the_overlay(world: World) -> None:
    fs, _ = loaded(world)
    (below,) = {layer.root.fs for layer in fs.stack.layers.values()}
    before = below.mount_count
    assert [*fs.let_go_below()] == [below] and below.mount_count == before - 1


def test_without_a_work_directory_it_can_only_be_read(world: World) -> None:
    fs, _ = loaded(world, but(work=None, whiteout=None))
    assert fs.read_only and fs.stack.work is None


ONE = Where(ROOT, root=b"one")
HOSTILE: list[tuple[str, Overlay]] = [
    ("other layers than it says", but(layers=GOOD.layers[:2])),
    ("other layers than it says", but(data=b"lowerdir=/one:/two")),
    ("9p as a layer|container has no", but(layers=[*GOOD.layers[:2], Where(ROOT, root=b"none")])),
    ("as a layer", but(layers=[*GOOD.layers[:2], Where(ROOT, root=b"image")])),
    ("no path of a snapshot", but(layers=[*GOOD.layers[:2], Where(ROOT, root=b"one/../two")])),
    ("no file system 7", but(layers=[*GOOD.layers[:2], Where(fs=7)])),
    ("of no file system", but(layers=[*GOOD.layers[:2], Where()])),
    ("no mount 7", but(layers=[*GOOD.layers[:2], Where(7)])),
    ("not there yet", but(layers=[*GOOD.layers[:2], Where(fs=0)])),
    ("no tree 7", but(layers=[*GOOD.layers[:2], Where(ROOT, tree=7)])),
    ("no user 3", but(creds=3)),
    ("no tree 9", but(work=(9, 0))),
    ("no file 9", but(whiteout=(0, 9))),
    ("cannot be written to", but(work=(0, LOST))),
    ("cannot be written to", but(whiteout=(0, LOST))),
    ("another file system", but(work=(0, ELSEWHERE))),
    ("number of a directory", but(next_ino=5)),
    ("number of a directory", but(next_ino=(1 << 64) - 1)),
    ("without a root", but(files=[])),
    ("no file 9", files(1, parent=9)),
    ("nowhere", files(1, parent=None)),
    ("container has no", files(1, name=b"none")),
    ("no path of a snapshot", files(1, name=b"..")),
    ("in itself", files(3, parent=3)),
    ("no directory", files(4, parent=1)),
    ("no device 5", files(1, device=5)),
    ("another file system", files(2, upper=(0, ELSEWHERE))),
    ("no file 9", files(2, upper=(0, 9))),
    ("no layer, or of several", files(2, upper=None)),
    ("no layer, or of several", files(4, upper=(0, LOST))),
    ("layer that there is not", files(4, lowers=[1])),
    ("layer that there is not", files(4, parent=None)),
]  # fmt: skip


@pytest.mark.parametrize(("why", "overlay"), HOSTILE)
def test_what_makes_no_sense_is_damaged(world: World, why: str, overlay: Overlay) -> None:
    with pytest.raises(Damaged, match=why):
        loaded(world, overlay)


def test_what_mount_refuses_is_refused(world: World) -> None:
    with pytest.raises(EINVAL):
        loaded(world, but(data=b"lowerdir=/one:/two,what"))
    with pytest.raises(ELOOP):
        loaded(world, but(layers=[*GOOD.layers[:2], ONE]))


def test_an_overlay_without_layers_is_damaged(world: World) -> None:
    with pytest.raises(Damaged, match="another kind"):
        loaded(world, None)
    with pytest.raises(Damaged, match="another kind"):
        loaded(world, GOOD, FileSystem("tmpfs", "it", 200))
    with pytest.raises(Damaged, match="no file system 5"):
        loaded(world, GOOD, fs=5)


LOWERS = [Where(ROOT, root=b"up"), ONE]
BOUND: list[tuple[str, list[Where]]] = [
    ("shows what the container's", [*LOWERS, Where(GIVEN)]),
    ("shows what the container's", [*LOWERS, Where(ROOT)]),
    ("a mount hides", [*LOWERS, Where(ROOT, root=b"given")]),
    ("a mount hides", [*LOWERS, Where(GIVEN, root=b"hidden")]),
    ("a directory on which a mount lies", [*LOWERS, Where(GIVEN, tree=0, inode=ELSEWHERE)]),
    ("what the container's mounts do not", [Where(GIVEN, root=b"up"), *LOWERS]),
]


@pytest.mark.parametrize(("why", "layers"), BOUND)
def test_who_has_no_rights_sees_nothing_by_it_that_is_hidden(
    world: World, why: str, layers: list[Where]
) -> None:
    owned = msgspec.structs.replace(OVERLAY, owner=0)
    assert loaded(world, GOOD, owned, ())[0].owner is not None
    with pytest.raises(Damaged, match=why):
        loaded(world, but(layers=layers, work=None, others=[], files=[ROOT_FILE]), owned, ())


def test_an_image_is_read_again(world: World) -> None:
    system = FileSystem("erofs", "/image", 200)
    with pytest.raises(EINVAL, match="too short"):
        loaded(world, None, system, image=Image(Where(ROOT, root=b"image"), ROOT))
    with pytest.raises(Damaged, match="no file"):
        loaded(world, None, system, image=Image(Where(ROOT, root=b"one")))
    with pytest.raises(Damaged, match="no mount 9"):
        loaded(world, None, system, image=Image(Where(ROOT, root=b"image"), 9))
    with pytest.raises(Damaged, match="no program of this container"):
        loaded(world, None, msgspec.structs.replace(system, owner=0), (), image=Image(ONE))
    assert not any(isinstance(each.fs, ErofsFs) for each in world.mounts)
