"""The host changes a shared tree while the Sentry remembers it: the next call sees that."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gofer.main
from gofer.shared import Limits
from sentry.abi.inotify import IN_Q_OVERFLOW
from sentry.auth.credentials import Credentials
from sentry.fs.gofer import known, regular
from sentry.fs.gofer.changes import HostChanges
from sentry.fs.gofer.directory import GoferDirectory
from sentry.fs.gofer.handles import Storage
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.unit.fs.gofer.test_model import _MODES, _PATHS, Native, Served, empty, populate

pytestmark = pytest.mark.root

INNER = b"/dir/inner"


@pytest.fixture
def warm(shared: World) -> World:
    """A tree that was looked at so often that looking again makes no request."""
    settle(shared)
    return shared


def settle(world: World) -> None:
    for _ in range(3):
        assert world.stat(INNER).st_size == 5
        assert world.call("newfstatat", AT_FDCWD, b"/dir/none", world.task.buffer(144), 0) < 0
        assert world.stat(b"/link").st_size == 5
    world.session.names()


def changes_of(world: World) -> HostChanges:
    assert world.fs.changes is not None
    return world.fs.changes


def status(world: World, path: bytes) -> int:
    return world.call("newfstatat", AT_FDCWD, path, world.task.buffer(144), 0)


def test_what_is_looked_at_again_and_again_is_not_asked_for(warm: World) -> None:
    warm.stat(INNER)
    warm.stat(b"/link")
    assert status(warm, b"/dir/none") == -errno.ENOENT
    assert warm.contents(INNER) == b"inner"
    assert warm.session.names() == []


def test_extended_attributes_are_asked_for_again_when_the_host_has_changed_them(
    warm: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regular, "SETTLED_NS", 0)
    monkeypatch.setattr(regular, "storage_at", lambda *_: Storage.DISK)
    value = warm.task.buffer(16)

    def asked() -> int:
        return warm.call("getxattr", INNER, b"user.k", value, 16)

    assert (asked(), warm.session.names()) == (-errno.ENODATA, ["Tgetxattrx"])
    assert (asked(), warm.session.names()) == (-errno.ENODATA, [])
    before = os.stat(host / "dir" / "inner").st_ctime_ns
    while os.stat(host / "dir" / "inner").st_ctime_ns == before:
        os.setxattr(host / "dir" / "inner", "user.k", b"value")
    assert (asked(), warm.session.names()) == (5, ["Tgetxattrx"])
    assert (asked(), warm.session.names()) == (5, [])


CHANGES: dict[str, tuple[Callable[[Path], Any], Callable[[World], bool]]] = {
    "a file grows": (
        lambda host: (host / "dir/inner").write_bytes(b"longer than before"),
        lambda world: world.stat(INNER).st_size == 18,
    ),
    "a file is replaced": (
        lambda host: os.rename(host / "file", host / "dir/inner"),
        lambda world: world.contents(INNER) == b"contents",
    ),
    "a file is removed": (
        lambda host: os.unlink(host / "dir/inner"),
        lambda world: status(world, INNER) == -errno.ENOENT,
    ),
    "a name appears": (
        lambda host: (host / "dir/none").mkdir(),
        lambda world: status(world, b"/dir/none") == 0,
    ),
    "the mode of a file": (
        lambda host: os.chmod(host / "dir/inner", 0o600),
        lambda world: stat.S_IMODE(world.stat(INNER).st_mode) == 0o600,
    ),
    "the owner of a file": (
        lambda host: os.chown(host / "dir/inner", 1234, 4321),
        lambda world: world.stat(INNER).st_uid == 1234,
    ),
    "a hard link elsewhere": (
        lambda host: os.link(host / "dir/inner", host / "other"),
        lambda world: world.stat(INNER).st_nlink == 2,
    ),
    "a directory is moved away": (
        lambda host: os.rename(host / "dir", host / "moved"),
        lambda world: status(world, INNER) == -errno.ENOENT,
    ),
    "a directory is replaced by a link": (
        lambda host: (os.rename(host / "dir", host / "moved"), os.symlink(".", host / "dir")),
        lambda world: status(world, b"/dir/file") == 0,
    ),
    "a link points elsewhere": (
        lambda host: (os.unlink(host / "link"), os.symlink("file", host / "link")),
        lambda world: world.contents(b"/link") == b"contents",
    ),
    "two names are exchanged": (
        lambda host: (
            os.rename(host / "file", host / "x"),
            os.rename(host / "dir/inner", host / "file"),
            os.rename(host / "x", host / "dir/inner"),
        ),
        lambda world: (world.contents(INNER), world.contents(b"/file")) == (b"contents", b"inner"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_next_call_sees_what_the_host_has_changed(warm: World, host: Path, change: str) -> None:
    make, seen = CHANGES[change]

    make(host)

    assert seen(warm)


def test_rights_to_a_directory_taken_by_the_host_hold_at_once(warm: World, host: Path) -> None:
    warm.task.task.creds = Credentials.user(1000, 1000)
    assert status(warm, INNER) == 0

    os.chmod(host / "dir", 0o700)

    assert status(warm, INNER) == -errno.EACCES


def test_rights_to_the_root_taken_by_the_host_hold_at_once(warm: World, host: Path) -> None:
    """Of a directory where walks begin nobody asks by a name."""
    user = warm.task.sibling(uid=1000, gid=1000)
    user.ok("chdir", b"/dir")
    for path in (b"/file", b"inner", b"/none", b"none"):
        user.call("newfstatat", AT_FDCWD, path, user.buffer(144), 0)

    os.chmod(host, 0o700)
    assert user.call("newfstatat", AT_FDCWD, b"/file", user.buffer(144), 0) == -errno.EACCES
    assert user.call("newfstatat", AT_FDCWD, b"/none", user.buffer(144), 0) == -errno.EACCES
    os.chmod(host / "dir", 0o600)
    assert user.call("newfstatat", AT_FDCWD, b"inner", user.buffer(144), 0) == -errno.EACCES


def test_rights_to_the_root_given_by_the_host_hold_at_once(warm: World, host: Path) -> None:
    user = warm.task.sibling(uid=1000, gid=1000)
    user.ok("chdir", b"/dir")
    warm.task.ok("chmod", b"/dir", 0o600)
    warm.task.ok("chmod", b"/", 0o600)
    assert user.call("newfstatat", AT_FDCWD, b"inner", user.buffer(144), 0) == -errno.EACCES
    assert user.call("newfstatat", AT_FDCWD, b"/file", user.buffer(144), 0) == -errno.EACCES

    os.chmod(host, 0o777)
    os.chmod(host / "dir", 0o777)

    user.ok("newfstatat", AT_FDCWD, b"inner", user.buffer(144), 0)
    user.ok("newfstatat", AT_FDCWD, b"/file", user.buffer(144), 0)
    user.ok("mkdir", b"/made", 0o700)
    user.ok("mkdir", b"made", 0o700)


@pytest.mark.parametrize("path", [b"/made", b"made"])
def test_writing_to_the_root_is_allowed_by_the_host(warm: World, host: Path, path: bytes) -> None:
    user = warm.task.sibling(uid=1000, gid=1000)
    user.ok("chdir", b"/")
    warm.task.ok("chmod", b"/", 0o755)
    assert user.call("mkdir", path, 0o700) == -errno.EACCES
    assert user.call("open", b"/", os.O_RDONLY | os.O_DIRECTORY) >= 0
    warm.task.ok("chmod", b"/", 0o711)
    assert user.call("open", b"/", os.O_RDONLY | os.O_DIRECTORY) == -errno.EACCES

    os.chmod(host, 0o777)

    user.ok("mkdir", path, 0o700)
    user.ok("open", b"/", os.O_RDONLY | os.O_DIRECTORY)


def test_file_is_reached_by_its_other_name_when_the_host_removes_one(
    warm: World, host: Path
) -> None:
    os.link(host / "dir/inner", host / "other")
    settle(warm)
    assert warm.stat(b"/other").st_nlink == 2

    os.unlink(host / "other")

    warm.ok("fchmodat", AT_FDCWD, INNER, 0o640)
    assert stat.S_IMODE(os.stat(host / "dir/inner").st_mode) == 0o640


def test_directory_that_the_host_has_moved_is_reached_by_its_new_name(
    host: Path, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the Gofer has no descriptor of it any more."""
    monkeypatch.setattr(gofer.main, "limits_for_this_process", lambda: Limits(max_node_fds=2))
    world = make_world(exclusive=False)
    for name in ("p", "q", "r"):
        (host / name).mkdir()
    assert world.stat(INNER).st_size == 5
    for name in (b"/p/x", b"/q/x", b"/r/x"):
        assert status(world, name) == -errno.ENOENT

    os.rename(host / "dir", host / "moved")

    assert status(world, b"/moved") == 0
    world.ok("fchmodat", AT_FDCWD, b"/moved", 0o751)
    assert stat.S_IMODE(os.stat(host / "moved").st_mode) == 0o751


def test_write_by_a_name_outside_the_tree_is_seen(warm: World, host: Path, tmp_path: Path) -> None:
    """Nothing in a watched directory is an event here."""
    os.link(host / "dir/inner", tmp_path / "outside")
    with open(tmp_path / "outside", "ab") as file:
        os.unlink(tmp_path / "outside")
        settle(warm)
        file.write(b" and more")

    assert warm.stat(INNER).st_size == 14


def test_own_changes_cost_no_trust(warm: World, host: Path) -> None:
    for _ in range(3):
        warm.session.names()
        warm.ok("close", warm.open(b"/dir/none", os.O_RDWR | os.O_CREAT))
        warm.ok("unlinkat", AT_FDCWD, b"/dir/none", 0)
        assert warm.session.names() == ["Tcreatex", "Tunlinkat"]
        assert warm.stat(INNER).st_size == 5


def test_change_of_the_host_between_own_ones_is_seen(warm: World, host: Path) -> None:
    """As long as one of ours, and for the same name."""
    for number in range(5):
        warm.ok("close", warm.open(b"/dir/none", os.O_RDWR | os.O_CREAT))
        (host / "dir/none").unlink()
        assert status(warm, b"/dir/none") == -errno.ENOENT, number
        (host / "dir/none").write_bytes(b"x" * number)
        assert warm.stat(b"/dir/none").st_size == number
        warm.ok("unlinkat", AT_FDCWD, b"/dir/none", 0)


def test_new_file_of_a_name_that_nobody_has_asked_for_is_one_request(
    warm: World, host: Path
) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    warm.ok("close", warm.open(b"/dir/temporary", flags))
    assert warm.session.names() == ["Tcreatex"]

    (host / "dir/of the host").write_bytes(b"of the host")
    for _ in range(2):
        assert warm.call("openat", AT_FDCWD, b"/dir/of the host", flags, 0o644) == -errno.EEXIST
    assert warm.contents(b"/dir/of the host") == b"of the host"
    os.symlink("nowhere", host / "dir/a link")
    assert warm.call("openat", AT_FDCWD, b"/dir/a link", flags, 0o644) == -errno.EEXIST


def test_new_file_of_who_may_not_make_it_is_looked_for(warm: World, host: Path) -> None:
    """It may be there: then that is what is wrong."""
    (host / "dir/there").touch()
    warm.task.task.creds = Credentials.user(1000, 1000)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL

    assert warm.call("openat", AT_FDCWD, b"/dir/there", flags, 0o644) == -errno.EEXIST
    assert warm.call("openat", AT_FDCWD, b"/dir/not there", flags, 0o644) == -errno.EACCES


def test_new_files_are_looked_for_no_more_once_a_small_directory_is_listed(
    still: World, host: Path
) -> None:
    """As `tar x` and `cp -r` make them, in directories that they have made."""
    still.ok("mkdirat", AT_FDCWD, b"/dir/made", 0o755)
    asked = []
    for number in range(12):
        still.session.names()
        still.ok("close", still.open(b"/dir/made/f%d" % number, os.O_RDWR | os.O_CREAT))
        asked.append(still.session.names())

    assert asked[-4:] == [["Tcreatex"]] * 4
    (host / "dir/made/f12").write_bytes(b"of the host")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    assert still.call("openat", AT_FDCWD, b"/dir/made/f12", flags, 0o644) == -errno.EEXIST
    assert still.contents(b"/dir/made/f12") == b"of the host"


def test_own_move_is_seen(warm: World, host: Path) -> None:
    warm.ok("renameat2", AT_FDCWD, INNER, AT_FDCWD, b"/dir/none", 0)

    assert status(warm, INNER) == -errno.ENOENT
    assert warm.contents(b"/dir/none") == b"inner"


def test_failed_creation_leaves_the_truth(warm: World, host: Path) -> None:
    """The host was faster, and its event looks like that of the guest."""
    changes = changes_of(warm)
    look = changes.look

    def late() -> None:
        look()
        (host / "dir/none").touch()
        changes.look = look  # type: ignore[method-assign]

    changes.look = late  # type: ignore[method-assign]
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    for _ in range(2):
        assert warm.call("openat", AT_FDCWD, b"/dir/none", flags, 0o644) == -errno.EEXIST
    assert warm.stat(b"/dir/none").st_size == 0


@pytest.mark.parametrize("exclusive", [False, True])
def test_file_that_the_host_was_faster_to_make_is_opened_with_the_rights_that_it_has(
    make_world: MakeWorld, host: Path, exclusive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(host / "dir", 0o777)
    world = make_world(exclusive=exclusive)
    settle(world)
    create = GoferDirectory.create

    def late(directory: GoferDirectory, name: bytes, *values: Any) -> Any:
        (host / "dir" / os.fsdecode(name)).write_bytes(b"of the host")
        (host / "dir" / os.fsdecode(name)).chmod(0o600)
        return create(directory, name, *values)

    monkeypatch.setattr(GoferDirectory, "create", late)
    flags = os.O_RDWR | os.O_CREAT
    assert world.read(world.open(b"/dir/none", flags)) == b"of the host"
    world.task.task.creds = Credentials.user(1000, 1000)
    assert world.call("openat", AT_FDCWD, b"/dir/none too", flags, 0o644) == -errno.EACCES


def test_lost_events_are_no_silence(warm: World, host: Path) -> None:
    """The queue of the host has run over."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 1 << 17:
        pytest.skip("the queue is too long to be filled here")
    for i in range(limit // 2 + 2):
        (host / "dir" / str(i & 1)).touch()
        (host / "dir" / str(i & 1)).unlink()
    (host / "dir/none").touch()
    os.unlink(host / "dir/inner")

    assert status(warm, b"/dir/none") == 0
    assert status(warm, INNER) == -errno.ENOENT


def test_without_watches_everything_is_asked_for(shared: World, host: Path) -> None:
    changes_of(shared).exhausted()
    settle(shared)
    assert len(changes_of(shared)) == 0

    os.unlink(host / "dir/inner")

    assert status(shared, INNER) == -errno.ENOENT


def test_directories_used_least_lose_their_watches(shared: World, host: Path) -> None:
    changes_of(shared).limit = 2
    for name in ("p", "q", "r"):
        (host / name).mkdir()
        (host / name / "f").write_bytes(name.encode())
    for name in (b"p", b"q", b"r", b"p"):
        for _ in range(3):
            assert shared.contents(b"/" + name + b"/f") == name
        assert len(changes_of(shared)) <= 2
    (host / "p" / "f").unlink()
    assert status(shared, b"/p/f") == -errno.ENOENT


def test_removed_directory_gives_its_watch_back(warm: World, host: Path) -> None:
    (host / "gone").mkdir()
    for _ in range(3):
        assert status(warm, b"/gone/x") == -errno.ENOENT
    before = len(changes_of(warm))

    warm.ok("unlinkat", AT_FDCWD, b"/gone", 0x200)

    assert len(changes_of(warm)) == before - 1


KINDS = (b"/dir", b"/dir/sub", b"/link", b"/dir/fifo")


@pytest.fixture
def still(shared: World, host: Path) -> World:
    """A tree of which attributes, listings and absent names were asked for again and again; the
    clock stands."""
    changes_of(shared).now_ns = lambda: 0  # type: ignore[method-assign]
    os.mkfifo(host / "dir/fifo")
    settle(shared)
    for _ in range(4):
        look(shared)
    shared.session.names()
    return shared


def look(world: World) -> dict[bytes, tuple[int, int, int, int]]:
    """Mode, links, owner and size that are seen, and what is in a directory."""
    assert status(world, b"/dir/sub/none") == -errno.ENOENT
    world.listdir(b"/dir")
    found = {path: world.stat(path, nofollow=True) for path in KINDS}
    return {path: (at.st_mode, at.st_nlink, at.st_uid, at.st_size) for path, at in found.items()}


def natively(host: Path) -> dict[bytes, tuple[int, int, int, int]]:
    found = {path: os.lstat(os.fsencode(host) + path) for path in KINDS}
    return {path: (at.st_mode, at.st_nlink, at.st_uid, at.st_size) for path, at in found.items()}


def test_attributes_and_listings_are_not_asked_for_while_nothing_changes(
    still: World, host: Path
) -> None:
    assert look(still) == natively(host)
    assert still.session.names() == []


ATTRIBUTES: dict[str, Callable[[Path], Any]] = {
    "the mode of a directory": lambda host: os.chmod(host / "dir/sub", 0o700),
    "the owner of a directory": lambda host: os.chown(host / "dir/sub", 1234, 4321),
    "a directory in a directory": lambda host: (host / "dir/sub/more").mkdir(),
    "many names in a directory": lambda host: [
        (host / f"dir/sub/{'long' * 50}{i}").touch() for i in range(30)
    ],
    "the owner of a link": lambda host: os.lchown(host / "link", 1234, 4321),
    "another name of a link": lambda host: os.link(
        host / "link", host.parent / "aside", follow_symlinks=False
    ),
    "another link": lambda host: (
        os.symlink("other/text", host / "new"), os.rename(host / "new", host / "link")
    ),
    "the mode of a fifo": lambda host: os.chmod(host / "dir/fifo", 0o600),
    "another name of a fifo": lambda host: os.link(host / "dir/fifo", host.parent / "aside"),
    "another fifo": lambda host: (
        os.mkfifo(host / "new", 0o600), os.rename(host / "new", host / "dir/fifo")
    ),
    "another directory": lambda host: (
        os.rename(host / "dir/sub", host / "old"), os.mkdir(host / "dir/sub", 0o711)
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", ATTRIBUTES)
def test_next_call_sees_attributes_that_the_host_has_changed(
    still: World, host: Path, change: str
) -> None:
    ATTRIBUTES[change](host)

    assert look(still) == natively(host)
    assert look(still) == natively(host)


LISTINGS: dict[str, Callable[[Path], Any]] = {
    "a name comes": lambda host: (host / "dir/new").touch(),
    "a name goes": lambda host: (host / "dir/inner").unlink(),
    "a name moves": lambda host: os.rename(host / "dir/inner", host / "dir/moved"),
    "a name moves away": lambda host: os.rename(host / "dir/inner", host / "moved"),
    "another directory": lambda host: (
        os.rename(host / "dir", host / "old"), (host / "dir").mkdir(), (host / "dir/a").touch()
    ),
    "again and again": lambda host: [
        ((host / "dir/new").touch(), os.rename(host / "dir/new", host / f"dir/n{i}"))
        for i in range(300)
    ],
}  # fmt: skip


@pytest.mark.parametrize("change", LISTINGS)
def test_next_listing_shows_what_the_host_has_changed(
    still: World, host: Path, change: str
) -> None:
    LISTINGS[change](host)

    for _ in range(2):
        assert still.listdir(b"/dir") == sorted(os.listdir(os.fsencode(host / "dir")))


def test_own_changes_are_in_a_listing_that_is_kept(still: World, host: Path) -> None:
    still.ok("close", still.open(b"/dir/new", os.O_RDWR | os.O_CREAT))
    still.ok("mkdirat", AT_FDCWD, b"/dir/more", 0o755)
    still.ok("unlinkat", AT_FDCWD, b"/dir/inner", 0)
    still.session.names()

    assert still.listdir(b"/dir") == [b"fifo", b"more", b"new", b"sub"]
    assert still.session.names() == []
    assert still.stat(b"/dir").st_nlink == os.stat(host / "dir").st_nlink


def test_name_that_no_listing_has_is_absent_until_it_is_made(still: World, host: Path) -> None:
    assert status(still, b"/dir/never asked for") == -errno.ENOENT
    assert still.session.names() == []

    (host / "dir/never asked for").touch()

    assert status(still, b"/dir/never asked for") == 0


def test_directory_that_the_host_has_removed_has_no_links(still: World, host: Path) -> None:
    """Nothing happens to the directory itself."""
    fd = still.open(b"/dir/sub", os.O_RDONLY | os.O_DIRECTORY)
    assert still.fstat(fd).st_nlink == 2

    (host / "dir/sub").rmdir()

    assert still.fstat(fd).st_nlink == 0


def test_attributes_are_asked_for_again_after_a_while(still: World, host: Path) -> None:
    """No event tells of access times."""
    changes_of(still).now_ns = lambda: known.LATE_NS  # type: ignore[method-assign]
    look(still)
    assert "Twalkx" in still.session.names()
    look(still)
    assert still.session.names() == []


def test_lost_events_are_no_silence_for_attributes_and_listings(still: World, host: Path) -> None:
    changes_of(still)._heard(-1, IN_Q_OVERFLOW, b"")
    look(still)
    asked = still.session.names()
    assert "Treaddirx" in asked
    assert asked.count("Twalkx") >= len(KINDS)


def test_answer_from_before_an_own_change_is_not_kept(still: World, host: Path) -> None:
    """Somebody asks for attributes and sleeps; meanwhile another one changes them."""
    directory = still.fs.inodes.known((os.stat(host / "dir").st_dev, os.stat(host / "dir").st_ino))
    assert directory is not None
    moment = directory.moment
    before = directory.attributes
    still.ok("mkdirat", AT_FDCWD, b"/dir/more", 0o755)

    directory.take(before)
    directory.taken(moment)

    assert still.stat(b"/dir").st_nlink == os.stat(host / "dir").st_nlink


_WHO = st.sampled_from(["inside", "outside"])
_CHANGES = st.one_of(
    st.tuples(_WHO, st.just("mkdir"), _PATHS, _MODES),
    st.tuples(_WHO, st.just("chmod"), _PATHS, _MODES),
    st.tuples(_WHO, st.just("rmdir"), _PATHS),
    st.tuples(_WHO, st.just("unlink"), _PATHS),
    st.tuples(_WHO, st.just("symlink"), _PATHS, _PATHS),
    st.tuples(_WHO, st.just("link"), _PATHS, _PATHS),
    st.tuples(_WHO, st.just("rename"), _PATHS, _PATHS, st.sampled_from([0, 0, 1, 2])),
    st.tuples(_WHO, st.just("truncate"), _PATHS, st.integers(0, 30)),
    st.tuples(st.just("inside"), st.sampled_from(["stat", "lstat", "list"]), _PATHS),
)


def test_random_changes_from_inside_and_outside_are_seen_inside(
    host: Path, tmp_path: Path, make_world: MakeWorld, request: pytest.FixtureRequest
) -> None:
    from gofer._native import lib  # noqa: PLC0415  renameat2(2), which os lacks

    model = tmp_path / "model"
    request.addfinalizer(partial(os.umask, os.umask(0)))

    @settings(
        deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(st.lists(_CHANGES, min_size=10, max_size=40), st.lists(_PATHS, min_size=2, max_size=4))
    def check(changes: list[tuple[Any, ...]], looked_at: list[bytes]) -> None:
        model.mkdir(exist_ok=True)
        for tree in (host, model):
            empty(tree)
            populate(tree)
        reference = Native(model, lib.gofer_renameat2)
        world = make_world(False)
        sides = {
            "inside": Served(world),
            "outside": Native(host, lib.gofer_renameat2),
        }
        for i, (who, name, *values) in enumerate(changes):
            expected = reference.run(name, *values)
            assert sides[who].run(name, *values) == expected, (i, who, name, values)
            for path in looked_at:
                for _ in range(2):
                    for call in ("lstat", "list"):
                        found = sides["inside"].run(call, path)
                        wanted = reference.run(call, path)
                        assert found == wanted, (i, who, name, values, call, path)
        world.close()

    check()


@pytest.fixture(params=["exclusive", "shared"])
def any_world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    return make_world(exclusive=request.param == "exclusive")


def test_first_open_to_read_is_one_request(any_world: World) -> None:
    any_world.session.names()
    assert any_world.contents(b"/file") == b"contents"
    assert any_world.session.names() == ["Twalkx"]
    any_world.ok("close", any_world.open(b"/link"))
    # The link, the directory, its fid, the file.
    assert any_world.session.names().count("Twalkx") == 4


def test_first_stat_is_one_request(shared: World) -> None:
    shared.session.names()
    assert shared.stat(b"/file").st_size == 8
    assert shared.session.names() == ["Twalkx"]


def test_in_a_fork_the_queue_is_nobody_s_and_nothing_is_trusted(warm: World) -> None:
    """Not what the Gofer had answered before, either, and no other descriptor is read as one."""
    changes = changes_of(warm)
    directory = warm.fs.root
    for change in changes._session.on_move:
        change()
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.write(writer, bytes(64))
    directory.trust = changes.watched(directory, 1)
    directory.trust.sure = True

    changes.look()

    assert not directory.trust.sure
    assert os.read(reader, 100) == bytes(64)
    settle(warm)
    os.close(reader)
    os.close(writer)


def move_to_and_fro(host: Path, times: int) -> None:
    """Events, two for each move, of which none is the same as the one before."""
    for _ in range(times):
        os.rename(host / "dir", host / "elsewhere")
        os.rename(host / "elsewhere", host / "dir")


def test_more_events_than_are_heard_leave_nothing_trusted(warm: World, host: Path) -> None:
    """Who has the same tree makes them as fast as he likes; directories that are gone are heard of
    all the same."""
    (host / "gone").mkdir()
    for _ in range(3):
        assert status(warm, b"/gone/x") == -errno.ENOENT
    watched = len(changes_of(warm))

    move_to_and_fro(host, 1500)
    (host / "gone").rmdir()
    (host / "file").unlink()

    assert status(warm, b"/file") == -errno.ENOENT
    assert status(warm, b"/gone") == -errno.ENOENT
    assert status(warm, b"/dir") == 0
    assert len(changes_of(warm)) <= watched


def test_look_takes_no_more_than_there_was(warm: World, host: Path) -> None:
    """What comes meanwhile has happened after it."""
    read = os.read
    reads = []

    def and_more(fd: int, size: int) -> bytes:
        data = read(fd, size)
        reads.append(len(data))
        move_to_and_fro(host, 300)
        return data

    move_to_and_fro(host, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "read", and_more)
        changes_of(warm).look()

    assert len(reads) == 1
