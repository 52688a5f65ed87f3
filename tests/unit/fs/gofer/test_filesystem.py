"""System calls on files of the host."""

from __future__ import annotations

import errno
import gc
import os
import socket
import stat
import struct
import types
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import sentry.syscalls.files.xattr  # noqa: F401  (registers its calls)
from gofer.attachment import Attachment
from gofer.native import list_directory_attr
from sentry.abi.mman import MAP_SHARED, PROT_READ
from sentry.abi.resource import RLIMIT_FSIZE
from sentry.abi.signal import SIGXFSZ
from sentry.auth.credentials import Credentials
from sentry.fs.gofer import session
from sentry.fs.gofer.filesystem import GoferFileSystem, Options
from sentry.fs.gofer.regular import GoferRegular
from sentry.fs.gofer.session import Session
from sentry.wait import steps
from sentry.wait.again import NotNow
from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World
from tests.unit.gofer.harness import serving
from tests.world import Died
from tests.world import World as Kernel

if TYPE_CHECKING:
    from sentry.platform.host_io import HostIO

pytestmark = pytest.mark.root
PAGE = 4096


@types.coroutine
def _for_ever() -> Generator[None]:
    while True:
        yield


class Slow:
    """Threads for host calls, of which none comes back."""

    async def truncate(self, fd: int, size: int) -> None:
        await _for_ever()


@pytest.fixture(params=["exclusive", "shared"])
def any_world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    return make_world(exclusive=request.param == "exclusive")


def test_read_gives_the_hosts_bytes(any_world: World) -> None:
    assert any_world.contents(b"/dir/inner") == b"inner"
    assert any_world.contents(b"/link") == b"inner"
    assert any_world.call("openat", AT_FDCWD, b"/nothing", 0, 0) == -errno.ENOENT
    assert any_world.call("openat", AT_FDCWD, b"/file/x", 0, 0) == -errno.ENOTDIR


def test_stat_shows_the_hosts_attributes(any_world: World, host: Path) -> None:
    for path in (b"/file", b"/dir", b"/"):
        mine, real = any_world.stat(path), os.stat(os.fsencode(host) + path)
        assert mine.st_ino == real.st_ino
        assert mine.st_mode == real.st_mode
        assert (mine.st_size, mine.st_nlink) == (real.st_size, real.st_nlink)


def test_created_file_is_the_hosts_with_owner_and_mode(any_world: World, host: Path) -> None:
    any_world.task.task.creds = Credentials.user(0, 0)
    fd = any_world.open(b"/new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    assert any_world.write(fd, b"data") == 4
    assert any_world.read(fd, 10, 0) == b"data"
    assert any_world.fstat(fd).st_size == 4
    assert (host / "new").read_bytes() == b"data"
    assert stat.S_IMODE(os.stat(host / "new").st_mode) == 0o640
    assert b"new" in any_world.listdir(b"/")


@pytest.mark.parametrize("name", [b"/dir/new", b"/file"])
def test_creating_open_at_the_ceiling_of_open_files_makes_nothing(
    any_world: World, host: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    counts = any_world.task.task.kernel.vfs.budget
    monkeypatch.setattr("sentry.vfs.budget.MAX_FILES", counts.files + counts.anonymous)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    assert any_world.call("openat", AT_FDCWD, name, flags, 0o644) == -errno.ENFILE
    assert not (host / "dir/new").exists()
    assert (host / "file").read_bytes() == b"contents"


def test_creating_open_at_the_ceiling_of_the_hosts_files_makes_nothing(
    any_world: World, host: Path
) -> None:
    any_world.task.task.creds = Credentials.user(0, 0)
    handles = any_world.fs.handles
    handles.limit = handles.bare_limit = 0
    new = AT_FDCWD, b"/dir/new", os.O_RDWR | os.O_CREAT, 0o644
    assert any_world.call("openat", *new) == -errno.ENFILE
    assert not (host / "dir/new").exists()
    handles.limit = 1
    any_world.ok("openat", *new)
    assert (host / "dir/new").exists()


def test_write_to_a_pipe_that_holds_bytes_of_a_file_leaves_the_file(
    any_world: World, host: Path
) -> None:
    """Which another has open to write: the descriptor of the host could."""
    any_world.open(b"/file", os.O_RDWR)
    reader, task = any_world.open(b"/file"), any_world.task
    ends = task.buffer(8)
    any_world.ok("pipe2", ends, 0)
    source, target = struct.unpack("<2i", task.read(ends, 8))
    pages = task.place(bytes(1 << 16))  # its buffers were written to once, and can be appended to
    assert any_world.ok("write", target, pages, 1 << 16) == 1 << 16
    assert any_world.ok("read", source, pages, 1 << 16) == 1 << 16
    offset = task.buffer(8)
    for at in range(3):
        task.write(offset, at.to_bytes(8, "little"))
        assert any_world.ok("splice", reader, offset, target, 0, 1, 0) == 1
        assert any_world.write(target, b"PIPE") == 4
        task.write(offset, at.to_bytes(8, "little"))
        assert any_world.ok("sendfile", target, reader, offset, 1) == 1
        assert any_world.write(target, b"PIPE") == 4
    assert any_world.read(source) == b"cPIPEcPIPEoPIPEoPIPEnPIPEnPIPE"
    assert (host / "file").read_bytes() == b"contents"


def test_append_and_truncate(any_world: World, host: Path) -> None:
    fd = any_world.open(b"/file", os.O_WRONLY | os.O_APPEND)
    any_world.write(fd, b"+")
    any_world.write(fd, b"+")
    assert (host / "file").read_bytes() == b"contents++"
    any_world.ok("ftruncate", fd, 3)
    any_world.ok("truncate", b"/dir/inner", 2)
    assert any_world.stat(b"/file").st_size == 3
    assert any_world.stat(b"/dir/inner").st_size == 2
    any_world.open(b"/file", os.O_WRONLY | os.O_TRUNC)
    assert any_world.stat(b"/file").st_size == 0


@pytest.mark.parametrize("call", ["ftruncate", "truncate", "open"])
def test_file_that_many_mappings_show_is_cut_in_steps(
    call: str, any_world: World, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host / "many").write_bytes(b"x" * 4 * PAGE)
    any_world.fs.windows = any_world.task.world.platform.ram.windows
    fd, task = any_world.open(b"/many", os.O_RDWR), any_world.task
    at = [task.ok("mmap", 0, PAGE, PROT_READ, MAP_SHARED, fd, PAGE) for _ in range(600)]
    other, child = task.thread(), task.fork()
    monkeypatch.setattr(steps, "STEP_NS", -1)
    arguments = {
        "ftruncate": (fd, 5), "truncate": (b"/many", 5), "open": (b"/many", os.O_RDWR | os.O_TRUNC),
    }  # fmt: skip
    cutting = task.begin(call, *arguments[call])
    assert not cutting.done
    assert other.ok("getpid") == task.task.tid
    if call == "ftruncate":  # by a name the Gofer may be asked first
        writing = other.begin("pwrite64", fd, b"then", 4, 0)
        assert not writing.done
        assert (cutting.wait(), writing.wait()) == (0, 4)
        assert (host / "many").read_bytes()[:4] == b"then"
    else:
        assert cutting.wait() >= 0
    for program in (other, child):
        for start in (at[0], at[-1]):
            assert program.task.mm.space.check(start, 1, False) == 0
    with pytest.raises(Died):
        child.read(at[300], 1)


def test_directories_links_and_special_files(any_world: World, host: Path) -> None:
    any_world.ok("mkdirat", AT_FDCWD, b"/d", 0o751)
    any_world.ok("symlinkat", b"file", AT_FDCWD, b"/d/l")
    any_world.ok("mknodat", AT_FDCWD, b"/d/p", stat.S_IFIFO | 0o600, 0)
    any_world.ok("linkat", AT_FDCWD, b"/file", AT_FDCWD, b"/d/h", 0)
    assert stat.S_IMODE(os.stat(host / "d").st_mode) == 0o751
    assert os.readlink(host / "d/l") == "file"
    assert stat.S_ISFIFO(os.stat(host / "d/p").st_mode)
    assert any_world.stat(b"/d/h").st_nlink == any_world.stat(b"/file").st_nlink == 2
    assert any_world.listdir(b"/d") == [b"h", b"l", b"p"]
    assert any_world.call("unlinkat", AT_FDCWD, b"/d", 0x200) == -errno.ENOTEMPTY
    for name in (b"/d/h", b"/d/l", b"/d/p"):
        any_world.ok("unlinkat", AT_FDCWD, name, 0)
    any_world.ok("unlinkat", AT_FDCWD, b"/d", 0x200)
    assert any_world.stat(b"/file").st_nlink == 1
    assert not (host / "d").exists()
    assert any_world.call("openat", AT_FDCWD, b"/d", 0, 0) == -errno.ENOENT


def test_rename_moves_files_and_directories(any_world: World, host: Path) -> None:
    assert any_world.contents(b"/dir/inner") == b"inner"
    any_world.ok("renameat2", AT_FDCWD, b"/dir", AT_FDCWD, b"/moved", 0)
    assert any_world.contents(b"/moved/inner") == b"inner"
    assert any_world.call("openat", AT_FDCWD, b"/dir/inner", 0, 0) == -errno.ENOENT
    any_world.ok("renameat2", AT_FDCWD, b"/moved/inner", AT_FDCWD, b"/file", 0)
    assert any_world.contents(b"/file") == b"inner"
    assert any_world.listdir(b"/moved") == [b"sub"]
    any_world.ok("renameat2", AT_FDCWD, b"/file", AT_FDCWD, b"/moved", 2)
    assert any_world.contents(b"/moved") == b"inner"
    assert (host / "file" / "sub").is_dir()
    assert any_world.call("renameat2", AT_FDCWD, b"/moved", AT_FDCWD, b"/file", 1) == -errno.EEXIST


def test_an_open_file_lives_on_without_a_name(any_world: World, host: Path) -> None:
    fd = any_world.open(b"/file", os.O_RDWR)
    other = any_world.open(b"/dir/inner", os.O_RDWR)
    any_world.ok("unlinkat", AT_FDCWD, b"/file", 0)
    any_world.ok("renameat2", AT_FDCWD, b"/link", AT_FDCWD, b"/dir/inner", 0)
    for each, text in ((fd, b"contents"), (other, b"inner")):
        assert any_world.read(each) == text
        any_world.ok("fchmod", each, 0o604)
        any_world.ok("ftruncate", each, 2)
        any_world.ok("fsync", each)
        st = any_world.fstat(each)
        assert (st.st_nlink, st.st_size, stat.S_IMODE(st.st_mode)) == (0, 2, 0o604)
        any_world.ok("close", each)
    assert any_world.call("openat", AT_FDCWD, b"/file", 0, 0) == -errno.ENOENT


def test_what_was_written_is_told_by_a_place_that_outlives_the_name(any_world: World) -> None:
    fd = any_world.open(b"/new", os.O_RDWR | os.O_CREAT)
    place = any_world.open(b"/new", os.O_PATH)
    any_world.write(fd, b"12345")

    any_world.ok("close", fd)
    any_world.ok("unlinkat", AT_FDCWD, b"/new", 0)

    assert (any_world.fstat(place).st_size, any_world.fstat(place).st_nlink) == (5, 0)


def test_a_new_file_with_a_reused_name_is_another_one(any_world: World) -> None:
    first = any_world.open(b"/n", os.O_RDWR | os.O_CREAT)
    any_world.write(first, b"one")
    any_world.ok("unlinkat", AT_FDCWD, b"/n", 0)
    second = any_world.open(b"/n", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    any_world.write(second, b"second")
    assert any_world.read(first, 10, 0) == b"one"
    assert any_world.contents(b"/n") == b"second"


def test_chmod_chown_and_times_reach_the_host(any_world: World, host: Path) -> None:
    any_world.ok("fchmodat", AT_FDCWD, b"/file", 0o600)
    any_world.ok("fchownat", AT_FDCWD, b"/link", 7, 8, 0x100)
    times = (5).to_bytes(8, "little") + (6).to_bytes(8, "little")
    any_world.ok("utimensat", AT_FDCWD, b"/file", any_world.task.place(times * 2), 0)
    real = os.stat(host / "file")
    assert stat.S_IMODE(real.st_mode) == 0o600
    assert real.st_mtime_ns == 5 * 10**9 + 6
    assert os.lstat(host / "link").st_uid == 7
    assert any_world.stat(b"/link", nofollow=True).st_gid == 8


def test_hard_links_are_one_inode(any_world: World, host: Path) -> None:
    os.link(host / "file", host / "dir" / "hard")
    one, other = any_world.open(b"/file"), any_world.open(b"/dir/hard")
    files = any_world.task.task.files
    assert files.get(one).inode is files.get(other).inode
    any_world.ok("unlinkat", AT_FDCWD, b"/file", 0)
    assert any_world.fstat(other).st_nlink == 1
    any_world.ok("fchmod", one, 0o611)
    assert any_world.stat(b"/dir/hard").st_mode & 0o777 == 0o611


def test_xattrs_reach_the_host(any_world: World, host: Path) -> None:
    value = any_world.task.place(b"value")
    assert any_world.call("getxattr", b"/file", b"user.k", value, 0) == -errno.ENODATA
    any_world.ok("setxattr", b"/file", b"user.k", value, 5, 0)
    assert os.getxattr(host / "file", "user.k") == b"value"
    assert any_world.ok("getxattr", b"/file", b"user.k", value, 0) == 5
    any_world.ok("removexattr", b"/file", b"user.k")
    assert any_world.call("getxattr", b"/file", b"user.k", value, 0) == -errno.ENODATA


def test_seek_finds_holes(any_world: World, host: Path) -> None:
    with open(host / "holes", "wb") as file:
        file.write(b"x" * 4096)
        file.truncate(1 << 20)
    fd = any_world.open(b"/holes")
    assert any_world.ok("lseek", fd, 0, os.SEEK_HOLE) == 4096
    assert any_world.call("lseek", fd, 8192, os.SEEK_DATA) == -errno.ENXIO


def test_a_large_directory_is_listed_whole(any_world: World, host: Path) -> None:
    names = [b"name-%05d" % i for i in range(9000)]
    for name in names:
        os.mknod(os.fsencode(host / "dir" / "sub") + b"/" + name)
    assert any_world.listdir(b"/dir/sub") == names


@pytest.mark.parametrize("exclusive", [True, False])
def test_name_whose_attributes_are_refused_is_listed(
    make_world: MakeWorld, host: Path, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    def as_nobody(*arguments: Any) -> bytes:
        os.seteuid(65534)
        try:
            return list_directory_attr(*arguments)
        finally:
            os.seteuid(0)

    monkeypatch.setattr("gofer.handlers.io.list_directory_attr", as_nobody)
    os.chmod(host / "dir", 0o744)
    world = make_world(exclusive=exclusive)
    assert world.listdir(b"/dir") == [b"inner", b"sub"]
    assert world.contents(b"/dir/inner") == b"inner"
    assert world.stat(b"/dir/sub").st_mode == 0o40755
    assert world.call("mkdirat", AT_FDCWD, b"/dir/inner", 0o755) == -errno.EEXIST


def test_a_readonly_attachment_is_erofs(make_world: MakeWorld) -> None:
    world = make_world(readonly=True)
    assert world.contents(b"/file") == b"contents"
    assert world.call("openat", AT_FDCWD, b"/file", os.O_RDWR, 0) == -errno.EROFS
    assert world.call("mkdirat", AT_FDCWD, b"/d", 0o755) == -errno.EROFS


# --- beyond the bound on descriptors data goes over 9P


def test_without_descriptors_data_goes_over_9p(make_world: MakeWorld, host: Path) -> None:
    world = make_world(descriptors=0)
    fd = world.open(b"/file", os.O_RDWR)
    assert world.read(fd) == b"contents"
    big = bytes(range(256)) * 1024
    assert world.write(fd, big) == len(big)
    assert (host / "file").read_bytes() == b"contents" + big
    assert world.read(fd, len(big), 8) == big
    assert world.fstat(fd).st_size == 8 + len(big)
    world.ok("fsync", fd)
    names = set(world.session.names())
    assert {"Tread", "Twrite", "Tfsync"} <= names
    world.ok("unlinkat", AT_FDCWD, b"/file", 0)
    world.write(fd, b"more")
    world.ok("fchmod", fd, 0o600)
    st = world.fstat(fd)
    assert (st.st_size, st.st_nlink, st.st_mode & 0o777) == (12 + len(big), 0, 0o600)
    world.session.names()
    world.ok("close", fd)
    assert "Tclunk" in world.session.names()


def test_long_write_in_small_messages_writes_each_byte_once(tmp_path: Path) -> None:
    big = bytes(range(251)) * 4096
    with Kernel() as kernel:
        fs: Any = kernel.export(tmp_path, exclusive=True)
        fs.handles.limit, fs.session.msize = 0, 1 << 16
        kernel.attach(fs, b"/m")
        program = kernel.program()
        fd = program.ok("open", b"/m/f", os.O_RDWR | os.O_CREAT, 0o600)
        addr = program.ok("mmap", 0, len(big), 3, 0x22, (1 << 64) - 1, 0)
        program.write(addr, big)
        assert program.call("write", fd, addr, len(big)) == len(big)
    assert (tmp_path / "f").read_bytes() == big


def test_descriptors_stay_within_their_bound(make_world: MakeWorld, host: Path) -> None:
    world = make_world(descriptors=5)
    for i in range(20):
        (host / f"f{i}").write_bytes(b"%d" % i)
    for i in range(20):
        assert world.contents(b"/f%d" % i) == b"%d" % i
        assert world.fs.handles.open <= 5
    held = [world.open(b"/f%d" % i) for i in range(20)]
    assert world.fs.handles.open == 5
    assert [world.read(fd) for fd in held] == [b"%d" % i for i in range(20)]


# --- what is cached


def test_exclusive_mode_asks_once(world: World) -> None:
    world.stat(b"/dir/inner")
    world.call("openat", AT_FDCWD, b"/dir/nothing", 0, 0)
    fd = world.open(b"/dir/inner")
    world.ok("close", fd)
    world.session.names()
    world.stat(b"/dir/inner")
    assert world.call("openat", AT_FDCWD, b"/dir/nothing", 0, 0) == -errno.ENOENT
    assert world.contents(b"/dir/inner") == b"inner"
    assert world.session.names() == []


def test_exclusive_mode_walks_by_a_listing(world: World) -> None:
    assert world.listdir(b"/dir") == [b"inner", b"sub"]
    world.session.names()
    assert world.stat(b"/dir/inner").st_size == 5
    assert world.call("openat", AT_FDCWD, b"/dir/nothing", 0, 0) == -errno.ENOENT
    assert world.listdir(b"/dir") == [b"inner", b"sub"]
    assert world.session.names() == []
    world.ok("unlinkat", AT_FDCWD, b"/dir/inner", 0)
    world.ok("mkdirat", AT_FDCWD, b"/dir/made", 0o755)
    assert world.listdir(b"/dir") == [b"made", b"sub"]


def test_attributes_of_a_file_that_nobody_has_open_hold_until_somebody_has(world: World) -> None:
    for size in (3, 7):
        fd = world.open(b"/file", os.O_RDWR | os.O_TRUNC)
        world.write(fd, b"x" * size)
        world.ok("close", fd)
        assert [world.stat(b"/file").st_size for _ in range(3)] == [size] * 3
    one, other = world.open(b"/file", os.O_RDONLY), world.open(b"/file", os.O_WRONLY)
    assert world.stat(b"/file").st_size == 7
    world.ok("close", one)
    world.write(other, b"x" * 11)
    assert world.stat(b"/file").st_size == 11
    world.ok("ftruncate", other, 2)
    assert world.stat(b"/file").st_size == 2
    world.ok("close", other)
    assert world.stat(b"/file").st_size == 2
    world.ok("truncate", b"/file", 5)
    assert world.stat(b"/file").st_size == 5
    world.ok("chmod", b"/file", 0o4711)
    assert world.stat(b"/file").st_mode == 0o104711


def test_attributes_of_a_file_that_somebody_reads_are_asked_for(world: World) -> None:
    """The host may note each read(2)."""
    reader = world.open(b"/file", os.O_RDONLY)
    world.ok("close", world.open(b"/file", os.O_WRONLY))
    assert world.stat(b"/file").st_size == 8
    os.truncate(world.host / "file", 3)  # as much as that
    assert world.stat(b"/file").st_size == 3
    world.ok("close", reader)


def test_attributes_of_a_file_that_a_thread_may_still_change_are_asked_for(world: World) -> None:
    """Who wanted it is killed, and nobody hears when it is done."""
    file, path = world.open(b"/file", os.O_WRONLY), world.host / "file"
    inode = world.fs.inodes.known((path.stat().st_dev, path.stat().st_ino))
    assert isinstance(inode, GoferRegular) and inode.write_handle is not None
    inode.write_handle.io = cast("HostIO", Slow())
    with pytest.raises(NotNow) as need:
        inode.write_handle.truncate(3)
    waits = need.value.wait()
    waits.send(None)
    waits.close()
    world.ok("close", file)
    assert world.stat(b"/file").st_size == 8
    assert not inode.is_idle(inode.attributes)  # nor is it emptied for another file
    os.truncate(path, 3)
    assert world.stat(b"/file").st_size == 3


def test_descriptor_that_a_thread_is_to_change_is_not_closed_before(world: World) -> None:
    """Another file would have its number."""
    world.ok("close", world.open(b"/file", os.O_WRONLY))
    status = (world.host / "file").stat()
    inode = world.fs.inodes.known((status.st_dev, status.st_ino))
    assert isinstance(inode, GoferRegular) and inode.write_handle is not None
    handle = inode.write_handle
    handle.io = cast("HostIO", Slow())
    with pytest.raises(NotNow) as need:
        handle.truncate(3)
    waits = need.value.wait()
    waits.send(None)
    world.ok("unlink", b"/file")
    assert handle.fd >= 0
    waits.close()
    assert handle.fd < 0


def test_exclusive_mode_sees_its_own_writes(world: World) -> None:
    fd = world.open(b"/file", os.O_RDWR)
    assert world.stat(b"/file").st_size == 8
    world.write(fd, b"x" * 100)
    assert world.stat(b"/file").st_size == 100
    world.ok("close", fd)
    assert world.stat(b"/file").st_size == 100


def test_shared_mode_sees_what_the_host_changes(shared: World, host: Path) -> None:
    assert shared.stat(b"/file").st_size == 8
    assert shared.call("openat", AT_FDCWD, b"/new", 0, 0) == -errno.ENOENT
    assert shared.listdir(b"/dir") == [b"inner", b"sub"]
    (host / "file").write_bytes(b"longer contents")
    (host / "new").write_bytes(b"new")
    (host / "dir" / "inner").unlink()
    assert shared.stat(b"/file").st_size == 15
    assert shared.contents(b"/new") == b"new"
    assert shared.listdir(b"/dir") == [b"sub"]
    (host / "new").rename(host / "newer")
    assert shared.call("openat", AT_FDCWD, b"/new", 0, 0) == -errno.ENOENT


def test_shared_mode_sees_a_file_replaced(shared: World, host: Path) -> None:
    old = shared.open(b"/file")
    (host / "tmp").write_bytes(b"replaced")
    (host / "tmp").rename(host / "file")
    assert shared.contents(b"/file") == b"replaced"
    assert shared.read(old) == b"contents"
    (host / "file").unlink()
    (host / "file").mkdir()
    assert stat.S_ISDIR(shared.stat(b"/file").st_mode)


def descriptors_below(path: Path) -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [target for target in found if target.startswith(str(path))]


def test_nothing_is_left_open_when_files_are_forgotten(make_world: MakeWorld, host: Path) -> None:
    world = make_world(exclusive=False)
    for _ in range(3):
        world.contents(b"/file")
        fd = world.open(b"/n", os.O_RDWR | os.O_CREAT)
        world.ok("unlinkat", AT_FDCWD, b"/n", 0)
        world.ok("close", fd)
    assert world.fs.lingering is not None
    for _ in range(2):  # as time goes by
        world.fs.lingering.turn()
    assert world.fs.handles.open == 0
    assert descriptors_below(host) == []


def test_descriptors_without_users_go_with_the_file_system(world: World, host: Path) -> None:
    world.contents(b"/file")
    held = world.open(b"/dir/inner")
    assert world.fs.handles.open == 2
    world.fs.shutdown()
    assert descriptors_below(host).count(str(host / "file")) == 0
    assert world.fs.handles.open == 1
    assert world.read(held) == b"inner"


def test_descriptors_of_what_is_unmounted_are_closed_one_by_one(world: World, host: Path) -> None:
    (host / "other").write_bytes(b"other")
    for path in (b"/file", b"/other", b"/dir/inner"):
        world.contents(path)
    steps = world.fs.forgetting()
    next(steps)
    assert world.fs.handles.kept == 2
    held = world.open(b"/other")
    assert not list(steps)[1:]
    assert world.fs.handles.open == 1
    assert world.read(held) == b"other"


@pytest.mark.parametrize("patience_ms", [60_000, 0], ids=["in place", "later"])
def test_closed_handles_leave_no_cycles(
    patience_ms: int, make_world: MakeWorld, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(descriptors=5)
    monkeypatch.setattr(session, "PATIENCE_MS", patience_ms)
    for i in range(20):
        (host / f"f{i}").write_bytes(b"%d" % i)
    gc.collect()
    gc.disable()
    try:
        for i in range(20):
            world.contents(b"/f%d" % i)
        world.task.task.kernel.vfs.dentries.forget()
        ours = [each for each in gc.get_objects() if isinstance(each, GoferRegular)]
        left = sum(each.fs is world.fs for each in ours)
    finally:
        gc.enable()
    assert left == world.fs.handles.open == 5


@pytest.mark.parametrize("call", ["sync", "syncfs"])
def test_sync_reaches_the_file_system_of_the_host(call: str, any_world: World) -> None:
    fd = any_world.open(b"/file", os.O_RDWR)
    any_world.write(fd, b"new")
    any_world.session.names()
    any_world.ok(call, fd)
    assert any_world.session.names() == ["Tsyncx"]


def test_sync_of_what_cannot_be_written_asks_nobody(make_world: MakeWorld) -> None:
    world = make_world(readonly=True)
    world.ok("syncfs", world.open(b"/file"))
    assert "Tsyncx" not in world.session.names()


# --- the Gofer dies


def test_death_of_the_gofer_is_eio_and_not_the_end(world: World) -> None:
    fd = world.open(b"/file")
    world.session.sock.shutdown(2)
    assert world.call("openat", AT_FDCWD, b"/dir/inner", 0, 0) == -errno.EIO
    assert world.call("mkdirat", AT_FDCWD, b"/d", 0o755) == -errno.EIO
    assert world.session.dead
    assert world.read(fd) == b"contents"
    assert world.call("syncfs", fd) == -errno.EIO
    assert world.call("sync") == 0
    world.ok("close", fd)


# --- an attachment that is one file, a session that is duplicated


@pytest.mark.parametrize("readonly", [False, True])
def test_an_attachment_of_one_file_is_read_and_written(
    host: Path, kernel: Any, task: Any, readonly: bool
) -> None:
    fd = os.open(host / "file", os.O_RDONLY if readonly else os.O_RDWR)
    with serving([Attachment(b"7", fd, readonly)]) as sock:
        os.close(fd)
        session = Session(sock, kernel.loop)
        session.negotiate()
        fs = GoferFileSystem(kernel.vfs.new_dev(), session, b"7", Options(False, readonly))
        task.ok("openat", AT_FDCWD, b"/file", os.O_CREAT | os.O_RDWR, 0o644)
        task.world.attach(fs, b"/file")
        opened = task.ok("openat", AT_FDCWD, b"/file", os.O_RDONLY, 0)
        buffer = task.buffer(16)
        assert task.read(buffer, task.ok("read", opened, buffer, 16)) == b"contents"
        written = task.call("openat", AT_FDCWD, b"/file", os.O_WRONLY | os.O_TRUNC, 0)
        if readonly:
            assert written == -errno.EROFS
        else:
            task.ok("write", written, task.place(b"new"), 3)
            task.ok("fchmod", written, 0o600)
            task.ok("fsync", written)
            assert (host / "file").read_bytes() == b"new"
            assert os.stat(host / "file").st_mode & 0o777 == 0o600
            task.ok("close", written)
        task.ok("close", opened)


def test_a_duplicated_session_goes_on_with_the_same_fids(world: World) -> None:
    assert world.contents(b"/dir/inner") == b"inner"
    copy = Session(socket.socket(fileno=world.session.duplicate()), world.task.world.loop)
    copy.adopt(world.session)
    world.fs.session = copy
    world.session.sock.shutdown(socket.SHUT_RDWR)
    assert world.stat(b"/dir/sub").st_nlink == 2
    world.ok("unlinkat", AT_FDCWD, b"/dir/inner", 0)
    assert world.listdir(b"/dir") == [b"sub"]
    copy.close()


def test_rename_without_replacing_moves_to_a_free_name(any_world: World, host: Path) -> None:
    any_world.ok("renameat2", AT_FDCWD, b"/file", AT_FDCWD, b"/free", 1)
    assert (host / "free").read_bytes() == b"contents"


def test_append_waits_behind_one_that_sleeps(shared: World, host: Path) -> None:
    """Else both would find the same end of the file."""
    fd = shared.open(b"/file", os.O_WRONLY | os.O_APPEND)
    lock = shared.task.task.files.get(fd).inode.lock
    shared.task.world.run(lock.__aenter__())

    waiting = shared.task.begin("write", fd, shared.task.place(b"+"), 1)

    assert (host / "file").read_bytes() == b"contents"
    assert not waiting.done
    shared.task.world.run(lock.__aexit__())
    assert waiting.wait() == 1
    assert (host / "file").read_bytes() == b"contents+"


def test_fallocate_makes_a_file_no_larger_than_the_limit(any_world: World, host: Path) -> None:
    task = any_world.task
    fd = any_world.open(b"/file", os.O_RDWR)
    task.task.group.limits.set(RLIMIT_FSIZE, 4096, 4096)
    task.block(SIGXFSZ)
    any_world.ok("fallocate", fd, 0, 0, 4096)
    assert any_world.call("fallocate", fd, 0, 0, 4097) == -errno.EFBIG
    assert task.take_signals() == [SIGXFSZ]
    assert (host / "file").stat().st_size == 4096
