"""Overlays over layers that somebody else has made, or changes; what is left of them."""

from __future__ import annotations

import errno
import gc

import pytest

from sentry.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, O_DIRECTORY, O_RDONLY, O_TRUNC, O_WRONLY
from sentry.abi.mount import FSCONFIG_SET_STRING, MNT_DETACH
from sentry.fs.fsopen import MAX_OPTIONS
from sentry.fs.layers.inode import LayeredInode
from sentry.fs.layers.listing import COST
from sentry.vfs.budget import MAX_MOUNTS, MAX_SMALL_BYTES
from sentry.vfs.dirents import split
from tests.contract.filesystems.calls import Files
from tests.world import World

LAYERS = b"lowerdir=/one:/two,upperdir=/up,workdir=/work"
REDIRECT = b"trusted.overlay.redirect"


@pytest.fixture
def files(world: World) -> Files:
    """A program with every right, and directories for layers."""
    found = Files(world.program())
    for path in (b"/one", b"/two", b"/up", b"/work", b"/m"):
        found.ok("mkdir", path, 0o755)
    return found


def mount(files: Files, options: bytes = LAYERS) -> int:
    return files.call("mount", b"none", b"/m", b"overlay", 0, options)


def mark(files: Files, path: bytes, name: bytes, value: bytes) -> None:
    files.ok("setxattr", path, name, value, len(value), 0)


@pytest.mark.parametrize(
    "redirect", [b"..", b".", b"/", b"//one", b"/one/../two", b"a/b", b"x" * 300, b"/x" * 2049]
)
def test_redirect_that_is_no_name_is_refused(files: Files, redirect: bytes) -> None:
    files.ok("mkdir", b"/up/d", 0o755)
    mark(files, b"/up/d", REDIRECT, redirect)
    assert mount(files) == 0
    assert files.missing(b"/m/d") == -errno.EINVAL


def test_directories_on_the_way_of_a_redirect_may_be_elsewhere_too(files: Files) -> None:
    for path in (b"/two/a", b"/two/a/b", b"/one/x", b"/up/y"):
        files.ok("mkdir", path, 0o755)
    files.fill(b"/two/a/b/file", b"found")
    mark(files, b"/one/x", REDIRECT, b"/a")
    mark(files, b"/up/y", REDIRECT, b"/x/b")
    assert mount(files) == 0
    assert files.contents(b"/m/y/file") == b"found"
    assert files.names(b"/m/x") == [b"b"]


def test_redirects_in_a_circle_end(files: Files) -> None:
    for layer in (b"/one", b"/two"):
        for name, other in ((b"/p", b"/q"), (b"/q", b"/p")):
            files.ok("mkdir", layer + name, 0o755)
            mark(files, layer + name, REDIRECT, other)
    assert mount(files) == 0
    assert files.names(b"/m/p") == []


def test_whiteouts_may_be_empty_files_where_the_directory_says_so(files: Files) -> None:
    for path in (b"/one/d", b"/two/d"):
        files.ok("mkdir", path, 0o755)
    for path in (b"/two/d/a", b"/two/d/b", b"/two/d/c"):
        files.fill(path, b"below")
    for path in (b"/one/d/a", b"/one/d/b"):
        files.fill(path)
    files.fill(b"/one/d/c", b"not empty")
    for path in (b"/one/d/a", b"/one/d/c"):
        mark(files, path, b"trusted.overlay.whiteout", b"y")
    for value, names in ((b"n", [b"a", b"b", b"c"]), (b"x", [b"b", b"c"])):
        mark(files, b"/one/d", b"trusted.overlay.opaque", value)
        assert mount(files) == 0
        assert files.names(b"/m/d") == names
        assert [files.missing(b"/m/d/" + name) for name in names] == [0] * len(names)
        files.ok("umount2", b"/m", 0)
    assert mount(files) == 0
    assert files.missing(b"/m/d/a") == -errno.ENOENT
    files.fill(b"/m/d/a", b"new")
    assert files.contents(b"/m/d/a") == b"new"


def test_layer_is_not_found_below_another(files: Files) -> None:
    assert mount(files, b"lowerdir=/,upperdir=/up,workdir=/work") == 0
    assert files.missing(b"/m/up") == -errno.ELOOP
    assert files.missing(b"/m/work") == -errno.ELOOP
    assert files.missing(b"/m/one") == 0


def test_overlay_lies_over_one_other_at_most(files: Files) -> None:
    for path in (b"/n", b"/o"):
        files.ok("mkdir", path, 0o755)
    files.fill(b"/two/file", b"x")
    assert mount(files, b"lowerdir=/one:/two") == 0
    assert files.call("mount", b"none", b"/n", b"overlay", 0, b"lowerdir=/m:/up") == 0
    assert files.contents(b"/n/file") == b"x"
    deep = files.call("mount", b"none", b"/o", b"overlay", 0, b"lowerdir=/n:/work")
    assert deep == -errno.EINVAL
    above = files.call(
        "mount", b"none", b"/o", b"overlay", 0, b"lowerdir=/up,upperdir=/m,workdir=/m"
    )
    assert above == -errno.EINVAL


def test_change_of_a_layer_behind_the_overlay_is_found(files: Files) -> None:
    files.fill(b"/one/file", b"lower")
    assert mount(files) == 0
    held = files.opened(b"/m/file")
    files.fill(b"/up/file", b"upper")
    assert files.call("unlink", b"/m/file") == -errno.ESTALE
    assert files.call("chmod", b"/m/file", 0o600) == -errno.ESTALE
    files.ok("close", held)
    assert files.contents(b"/up/file") == b"upper"


def test_directory_in_place_of_an_empty_one(files: Files) -> None:
    for path in (b"/one/d", b"/one/e", b"/one/f"):
        files.ok("mkdir", path, 0o755)
    files.fill(b"/one/d/file", b"below")
    files.fill(b"/one/f/file", b"below")
    assert mount(files) == 0
    files.ok("mkdir", b"/m/new", 0o755)
    files.fill(b"/m/new/inner", b"inner")
    held = files.opened(b"/m/d")
    assert files.call("rename", b"/m/new", b"/m/d") == -errno.ENOTEMPTY
    files.ok("unlink", b"/m/d/file")
    for place in (b"/m/d", b"/m/e"):  # of both layers, of a lower one
        files.ok("rename", b"/m/new", place)
        assert files.names(place) == [b"inner"]
        files.ok("rename", place, b"/m/new")
        assert files.missing(place) == -errno.ENOENT
    files.ok("close", held)
    assert files.names(b"/m") == [b"f", b"new"]
    assert len(files.names(b"/work/work")) == 1
    assert files.call("rename", b"/m/new", b"/m/f") == -errno.ENOTEMPTY
    assert files.names(b"/m/new") == [b"inner"]


def test_path_through_what_was_moved_is_looked_at_once(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a call that has slept since."""
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    assert mount(files, LAYERS + b",redirect_dir=on") == 0
    for path in (b"/m/a", b"/m/b"):
        files.ok("mkdir", path, 0o755)
    files.ok("renameat2", AT_FDCWD, b"/m/a/", AT_FDCWD, b"/m/a/../c", 0)
    files.ok("rmdir", b"/m/b/../b")
    assert files.names(b"/m") == [b"c"]


def test_upper_layer_without_extended_attributes_has_no_opaque_directories(files: Files) -> None:
    files.ok("mkdir", b"/one/d", 0o755)
    files.ok("mkdir", b"/r", 0o755)
    files.ok("mount", b"none", b"/r", b"ramfs", 0, 0)
    for path in (b"/r/up", b"/r/work"):
        files.ok("mkdir", path, 0o755)
    assert mount(files, b"lowerdir=/one,upperdir=/r/up,workdir=/r/work") == 0
    files.ok("rmdir", b"/m/d")
    assert files.call("mkdir", b"/m/d", 0o755) == -errno.EIO
    assert files.missing(b"/m/d") == -errno.ENOENT
    files.fill(b"/m/d", b"a file needs none")


def test_layer_that_was_unmounted_is_in_use_until_the_overlay_goes(
    files: Files, world: World
) -> None:
    files.ok("mkdir", b"/s", 0o755)
    files.ok("mount", b"none", b"/s", b"tmpfs", 0, 0)
    for path in (b"/s/low", b"/s/up", b"/s/work"):
        files.ok("mkdir", path, 0o755)
    files.fill(b"/s/low/file", b"lower")
    assert mount(files, b"lowerdir=/s/low,upperdir=/s/up,workdir=/s/work") == 0
    files.ok("umount2", b"/s", 0)
    files.fill(b"/m/new", b"new")
    assert files.contents(b"/m/file") == b"lower"
    before = world.vfs.budget.inodes
    files.ok("umount2", b"/m", 0)
    assert before - world.vfs.budget.inodes >= 6  # what is in /s, and whiteouts


def test_place_that_is_mounted_nowhere_is_no_layer(files: Files) -> None:
    files.ok("mkdir", b"/s", 0o755)
    files.ok("mount", b"none", b"/s", b"tmpfs", 0, 0)
    files.ok("mkdir", b"/s/low", 0o755)
    files.ok("chdir", b"/s/low")
    files.ok("umount2", b"/s", MNT_DETACH)
    assert mount(files, b"lowerdir=.:/one") == -errno.EINVAL


def test_work_directory_is_emptied_by_the_next_mount(files: Files) -> None:
    assert mount(files) == 0
    files.fill(b"/m/new")
    files.ok("umount2", b"/m", 0)
    files.ok("mkdir", b"/work/work/left", 0o755)
    files.fill(b"/work/work/left/file")
    assert len(files.names(b"/work/work")) == 2
    assert mount(files) == 0
    assert len(files.names(b"/work/work")) == 1


def test_work_directory_that_cannot_be_emptied_makes_it_read_only(files: Files) -> None:
    for path in (b"/work/work", b"/work/work/a", b"/work/work/a/b", b"/work/work/a/b/c"):
        files.ok("mkdir", path, 0o755)
    files.fill(b"/one/file", b"lower")
    assert mount(files) == 0
    assert files.contents(b"/m/file") == b"lower"
    assert files.open(b"/m/file", O_WRONLY) == -errno.EROFS
    assert files.call("mkdir", b"/m/d", 0o755) == -errno.EROFS


def test_volatile_overlay_is_not_mounted_again(files: Files) -> None:
    assert mount(files, LAYERS + b",volatile") == 0
    files.ok("umount2", b"/m", 0)
    assert mount(files) == -errno.EINVAL
    files.ok("rmdir", b"/work/work/incompat/volatile")
    assert mount(files) == 0


def test_layers_count_as_mounts(files: Files, world: World) -> None:
    budget = world.vfs.budget
    before = budget.mounts
    assert mount(files) == 0
    assert budget.mounts == before + 4
    files.ok("umount2", b"/m", 0)
    assert budget.mounts == before
    taken = MAX_MOUNTS - before - 2
    budget.mounts += taken
    assert mount(files) == -errno.ENOSPC
    budget.mounts -= taken
    assert mount(files) == 0


def test_parameters_of_one_context_have_a_ceiling(files: Files) -> None:
    fd = files.ok("fsopen", b"overlay", 0)
    one = "fsconfig", fd, FSCONFIG_SET_STRING, b"lowerdir+", b"/one", 0
    for _ in range(MAX_OPTIONS):
        files.ok(*one)
    assert files.call(*one) == -errno.EINVAL


def test_proc_is_no_layer(files: Files, world: World) -> None:
    world.mount("proc", b"/proc")
    assert mount(files, b"lowerdir=/proc:/one") == -errno.EINVAL


def test_failed_copy_leaves_nothing(files: Files) -> None:
    files.fill(b"/one/file", b"x" * 20_000)
    files.ok("mkdir", b"/s", 0o755)
    files.ok("mount", b"none", b"/s", b"tmpfs", 0, b"size=8k")
    for path in (b"/s/up", b"/s/work"):
        files.ok("mkdir", path, 0o755)
    assert mount(files, b"lowerdir=/one,upperdir=/s/up,workdir=/s/work") == 0
    assert files.call("chmod", b"/m/file", 0o600) == -errno.ENOSPC
    assert files.stat(b"/m/file").st_mode == 0o100644
    assert files.names(b"/s/up") == []
    assert len(files.contents(b"/m/file")) == 20_000


@pytest.mark.parametrize("value", [b"x", b"no list", b"\2\0\0\0short", b"\2\0\0\0" + bytes(8)])
def test_access_control_list_of_a_layer_that_is_none_is_not_copied(
    files: Files, world: World, value: bytes
) -> None:
    """As the server of a file system may say it."""
    files.ok("mkdir", b"/one/d", 0o755)
    lower = world.root.root.lookup(b"one").lookup(b"d")
    lower.setxattr(b"system.posix_acl_default", value, 0)
    assert mount(files) == 0
    assert files.call("mkdir", b"/m/d/new", 0o755) in (-errno.EINVAL, -errno.EOPNOTSUPP)
    assert files.names(b"/up") == []


def numbers(files: Files, path: bytes) -> dict[bytes, int]:
    """What a listing says."""
    fd = files.opened(path, O_RDONLY | O_DIRECTORY)
    buffer = files.program.buffer(4096)
    raw = files.program.read(buffer, files.ok("getdents64", fd, buffer, 4096))
    files.ok("close", fd)
    return {name: ino for name, ino, _ in split(raw)}


@pytest.mark.parametrize("more", [b"", b",xino=on"])
def test_number_of_a_copy_is_that_of_the_file_also_when_nobody_has_it(
    files: Files, world: World, more: bytes
) -> None:
    files.ok("mkdir", b"/s", 0o755)
    files.ok("mount", b"none", b"/s", b"tmpfs", 0, 0)
    files.fill(b"/s/file", b"lower")
    files.ok("mkdir", b"/s/d", 0o755)
    for options in (b"lowerdir=/one,upperdir=/up,workdir=/work",
                    b"lowerdir=/s,upperdir=/up,workdir=/work" + more):  # fmt: skip
        files.fill(b"/one/file", b"lower")
        assert mount(files, options) == 0
        before = files.stat(b"/m/file")
        files.ok("chmod", b"/m/file", 0o600)
        world.vfs.dentries.forget()
        after = files.stat(b"/m/file")
        assert (after.st_ino, after.st_dev) == (before.st_ino, before.st_dev)
        if more or b"/one" in options:
            assert numbers(files, b"/m")[b"file"] == after.st_ino
        files.ok("umount2", b"/m", 0)
        files.ok("unlink", b"/up/file")


def test_copy_of_one_of_several_names_is_another_file(files: Files) -> None:
    files.fill(b"/one/a", b"lower")
    files.ok("link", b"/one/a", b"/one/b")
    assert mount(files) == 0
    assert files.is_same(b"/m/a", b"/m/b")
    files.ok("chmod", b"/m/a", 0o600)
    assert not files.is_same(b"/m/a", b"/m/b")
    assert (files.stat(b"/m/a").st_nlink, files.stat(b"/m/b").st_nlink) == (1, 2)


@pytest.mark.parametrize(
    "value", [b"", b"\0" * 33, b"\0\xfb\x21\0\x01" + b"\xff" * 28, b"x" * 500]
)
def test_origin_that_means_nothing_is_none(files: Files, value: bytes) -> None:
    files.fill(b"/up/file")
    mark(files, b"/up/file", b"trusted.overlay.origin", value)
    assert mount(files) == 0
    assert files.stat(b"/m/file").st_ino == files.stat(b"/up/file").st_ino


def test_listing_is_shared_and_counted_while_it_is_read(files: Files, world: World) -> None:
    for number in range(100):
        files.fill(b"/one/%d" % number)
    assert mount(files) == 0
    before = world.vfs.budget.small_bytes
    fds = [files.opened(b"/m", O_RDONLY | O_DIRECTORY) for _ in range(3)]
    for fd in fds:
        assert len(files.rest(fd, 512)) == 102
    counted = world.vfs.budget.small_bytes - before
    assert 100 * COST < counted < 200 * COST
    for fd in fds:
        files.ok("close", fd)
    assert world.vfs.budget.small_bytes == before


def test_listing_that_would_take_too_much_is_refused(files: Files, world: World) -> None:
    files.fill(b"/one/file")
    assert mount(files) == 0
    budget = world.vfs.budget
    taken = MAX_SMALL_BYTES - budget.small_bytes
    budget.small_bytes += taken
    fd = files.opened(b"/m", O_RDONLY | O_DIRECTORY)
    assert files.call("getdents64", fd, files.program.buffer(512), 512) == -errno.ENOMEM
    budget.small_bytes -= taken
    assert len(files.rest(fd)) == 3


def test_lower_file_without_a_name_stays_as_it_is(files: Files) -> None:
    files.fill(b"/one/file", b"lower")
    files.ok("mkdir", b"/one/d", 0o755)
    assert mount(files) == 0
    file, folder = files.opened(b"/m/file"), files.opened(b"/m/d")
    files.ok("unlink", b"/m/file")
    files.ok("rmdir", b"/m/d")
    assert files.read(file, 9) == b"lower"
    assert files.fstat(file).st_nlink == 1
    assert files.call("fchmod", file, 0o600) == -errno.EEXIST
    assert files.call("fchmod", folder, 0o700) == -errno.ENOTDIR
    place = AT_FDCWD, b"/m/new", AT_EMPTY_PATH
    assert files.call("linkat", file, b"", *place) == -errno.ENOENT
    buffer = files.program.buffer(512)
    assert files.call("getdents64", folder, buffer, 512) == -errno.ENOENT


def test_bytes_of_a_file_that_is_emptied_are_not_copied(files: Files) -> None:
    files.fill(b"/one/file", b"x" * 20_000)
    files.ok("mkdir", b"/s", 0o755)
    files.ok("mount", b"none", b"/s", b"tmpfs", 0, b"size=8k")
    for path in (b"/s/up", b"/s/work"):
        files.ok("mkdir", path, 0o755)
    assert mount(files, b"lowerdir=/one,upperdir=/s/up,workdir=/s/work") == 0
    assert files.open(b"/m/file", O_WRONLY) == -errno.ENOSPC
    files.ok("close", files.opened(b"/m/file", O_WRONLY | O_TRUNC))
    assert files.contents(b"/m/file") == b""


def test_nothing_is_left_when_it_is_unmounted(files: Files) -> None:
    files.fill(b"/one/file", b"lower")
    files.ok("mkdir", b"/one/d", 0o755)
    gc.collect()
    gc.disable()
    try:
        assert mount(files) == 0
        files.ok("chmod", b"/m/file", 0o600)
        files.fill(b"/m/d/new", b"new")
        files.ok("link", b"/m/d/new", b"/m/d/second")
        files.ok("unlink", b"/m/d/new")
        files.ok("umount2", b"/m", 0)
        assert not [each for each in gc.get_objects() if isinstance(each, LayeredInode)]
    finally:
        gc.enable()
