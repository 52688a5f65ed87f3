"""What two processes do with files has the same results here as on Linux, and leaves the same tree.

Every file system that can be written to, against the host's own, call by call: what each call gave;
what is in the tree when all is flushed, and at the end: where it lies on the host, in the folder
there, after the Gofer has ended, else as a program sees it. A process of the host takes part, too,
where a folder is shared, and where the Sentry is told of what others change: then all is flushed
before its turn, and it is waited for what it has done. `-rP` shows how many calls were the same.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from sentry.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_NOFOLLOW,
    O_APPEND,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NONBLOCK,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_TRUNC,
    O_WRONLY,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    SEEK_DATA,
    SEEK_HOLE,
)
from sentry.abi.stat import STAT, UTIME_NOW, UTIME_OMIT
from tests.contract.filesystems.calls import Files
from tests.contract.filesystems.conftest import FILE_SYSTEMS
from tests.contract.filesystems.layers import layered, mounted
from tests.fuzz.inside import Step, many
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.fuzz.trees import (
    BEHIND,
    HEARD,
    IN_MEMORY,
    LAYERS,
    MERGED,
    ON_THE_HOST,
    OVER_THE_HOST,
    PAGE,
    SHARED,
    Probe,
    Trees,
    links,
    look,
    shown_time,
)
from tests.linux import NativeProgram
from tests.world import World

pytestmark = pytest.mark.root

USER = 1000
PROTECTED = ("protected_symlinks", "protected_hardlinks", "protected_regular", "protected_fifos")
"""Sysctls of fs: as this host has them."""
HOST = 2
"""Not inside."""
OPENED = ((b"a", O_RDWR), (b"d", O_RDONLY), (b"n", O_RDWR | O_CREAT))
MAP_SHARED, READ_WRITE = 1, 3


def grow(root: Path) -> None:
    """Files, one with two names, and a directory in another; anybody may change them."""
    (root / "d" / "e").mkdir(parents=True)
    (root / "a").write_bytes(b"contents")
    os.link(root / "a", root / "b")
    (root / "d" / "f").write_bytes(b"inner" * 2000)
    (root / "l").symlink_to("d/f")
    (root / "n").touch()
    for path in (root, root / "d", root / "d" / "e"):
        os.chmod(path, 0o777)
    for path in (root / "a", root / "n"):
        os.chmod(path, 0o666)
    os.utime(root / "d" / "f", (1, 2))


def grow_inside(files: Files) -> None:
    """The same by system calls."""
    for path in (b"/d", b"/d/e"):
        files.ok("mkdir", path, 0o777)
    files.fill(b"/a", b"contents")
    files.ok("link", b"/a", b"/b")
    files.fill(b"/d/f", b"inner" * 2000)
    files.ok("symlink", b"d/f", b"/l")
    files.fill(b"/n")
    for path in (b"/", b"/d", b"/d/e"):
        files.ok("chmod", path, 0o777)
    for path in (b"/a", b"/n"):
        files.ok("chmod", path, 0o666)
    times = struct.pack("<4q", 1, 0, 2, 0)
    files.ok("utimensat", AT_FDCWD, b"/d/f", files.place(times), 0)


def warm(files: Files) -> None:
    """Make one of each kind: the host is asked for the first one."""
    made = (("mkdir", 0o700), ("symlink", b""), ("mknod", stat.S_IFIFO), ("mknod", stat.S_IFSOCK))
    for number, (call, what) in enumerate(made):
        name = b"w%d" % number
        if call == "symlink":
            files.ok(call, b"text", name)
        else:
            files.ok(call, name, what, 0)
        files.ok("unlinkat", AT_FDCWD, name, AT_REMOVEDIR if call == "mkdir" else 0)


def copies_alone(step: Step) -> bool:
    """chown(2) that changes nothing: in layers it copies up the file, which breaks its link."""
    name, *values = step if step[0] != "fd" else step[1:]
    return str(name).startswith("fchown") and values.count((1 << 32) - 1) == 2


def is_unheard(step: Step) -> bool:
    """Nobody tells of these: docs/design.md, section 14."""
    return step[0] in ("truncate", "link")


def is_late(step: Step) -> bool:
    """One time set without the other: no event tells of that (`sentry.fs.gofer.known`)."""
    return step[0] == "times" and (step[4] == UTIME_OMIT) != (step[6] == UTIME_OMIT)


class Actor:
    """A process with three files."""

    def __init__(self, files: Files, kind: str) -> None:
        self.files = files
        self.kind = kind
        self.call = files.call
        self.fds = [files.opened(path, flags) for path, flags in OPENED]

    def run(self, name: str, *values: Any) -> object:
        found = getattr(self, f"_{name}", None)
        return self.call(name, *values) if found is None else found(*values)

    def _open(self, slot: int, path: bytes, flags: int, mode: int) -> int:
        fd = self.files.open(path, flags | O_NONBLOCK, mode)
        if fd >= 0:
            old, self.fds[slot] = self.fds[slot], fd
            if old >= 0:
                self.call("close", old)
        return fd

    def _close(self, slot: int) -> int:
        fd, self.fds[slot] = self.fds[slot], -1
        return int(self.call("close", fd))

    def _fd(self, name: str, slot: int, *values: int | bytes) -> int:
        return int(self.call(name, self.fds[slot], *values))

    def _seek(self, slot: int, *where: int) -> int:
        """What positions of directories are depends on the file system; so does whether what is
        allocated and was never written is a hole: on a tmpfs of Linux, not on ours."""
        found = self._fstat(slot)
        is_folder = not isinstance(found, int) and stat.S_ISDIR(found[0])
        if is_folder or (self.kind in IN_MEMORY and where[1] in (SEEK_DATA, SEEK_HOLE)):
            where = 0, 0
        return int(self.call("lseek", self.fds[slot], *where))

    def _read(self, slot: int, count: int) -> int | bytes:
        buffer = self.files.program.buffer(count)
        got = self.call("read", self.fds[slot], buffer, count)
        return got if got < 0 else self.files.program.read(buffer, got)

    def _write(self, slot: int, count: int) -> int:
        return self.files.write(self.fds[slot], b"%d" % slot * count)

    def _pwrite(self, slot: int, offset: int, count: int) -> int:
        return self.files.write(self.fds[slot], b"p" * count, offset)

    def _store(self, slot: int, offset: int) -> object:
        """Into a mapping, where the file is."""
        found = self._fstat(slot)
        if isinstance(found, int) or not stat.S_ISREG(found[0]) or found[4] <= offset:
            return found
        at = self.call("mmap", 0, 4 * PAGE, READ_WRITE, MAP_SHARED, self.fds[slot], 0)
        if at < 0:
            return at
        seen = self.files.program.read(at + offset, 1)
        self.files.program.write(at + offset, b"m")
        return seen, self.call("munmap", at, 4 * PAGE)

    def _stat(self, path: bytes, flags: int) -> Any:
        return self._told("newfstatat", AT_FDCWD, path, None, flags)

    def _fstat(self, slot: int) -> Any:
        return self._told("fstat", self.fds[slot], None)

    def _told(self, name: str, *values: Any) -> Any:
        buffer = self.files.program.buffer(STAT.size)
        failed = self.call(name, *(buffer if value is None else value for value in values))
        if failed:
            return failed
        found = STAT.unpack(self.files.program.read(buffer, STAT.size))
        size = -1 if stat.S_ISDIR(found.st_mode) else found.st_size
        modified = shown_time(found.st_mtime * 10**9 + found.st_mtime_nsec)
        nlink = links(self.kind, found.st_mode, found.st_nlink)
        return found.st_mode, nlink, found.st_uid, found.st_gid, size, modified

    def _same(self, one: bytes, other: bytes) -> object:
        """Whether two names are one file."""
        found = [self._number(AT_FDCWD, path) for path in (one, other)]
        return min(found) > 0 and found[0] == found[1]

    def _list(self, path: bytes) -> object:
        fd = self.files.open(path, O_RDONLY | O_DIRECTORY)
        found = fd if fd < 0 else self._entries(fd)
        if fd >= 0:
            self.call("close", fd)
        return found

    def _entries(self, fd: int) -> object:
        buffer, raw = self.files.program.buffer(8 * PAGE), b""
        while (got := self.call("getdents64", fd, buffer, 8 * PAGE)) > 0:
            raw += self.files.program.read(buffer, got)
        found = []
        while raw:
            size, kind = struct.unpack_from("<HB", raw, 16)
            found.append((raw[19:size].split(b"\0")[0], kind))
            raw = raw[size:]
        return got, sorted(found)

    def _numbers(self, path: bytes) -> object:
        """Whether a listing has the inode numbers that stat(2) tells."""
        fd = self.files.open(path, O_RDONLY | O_DIRECTORY)
        if fd < 0:
            return fd
        buffer, same = self.files.program.buffer(8 * PAGE), True
        while (got := self.call("getdents64", fd, buffer, 8 * PAGE)) > 0:
            raw = self.files.program.read(buffer, got)
            while raw:
                number, _, size = struct.unpack_from("<QqH", raw)
                name = raw[19:size].split(b"\0")[0]
                same = same and (name == b".." or self._number(fd, name) == number)
                raw = raw[size:]
        self.call("close", fd)
        return got, same

    def _number(self, at: int, path: bytes) -> int:
        buffer = self.files.program.buffer(STAT.size)
        failed = self.call("newfstatat", at, path, buffer, AT_SYMLINK_NOFOLLOW)
        if failed:
            return int(failed)
        return int(STAT.unpack(self.files.program.read(buffer, STAT.size)).st_ino)

    def _list_again(self, slot: int) -> object:
        """By a descriptor, all of it. What its position is then depends on the file system."""
        at = self.call("lseek", self.fds[slot], 0, 0)
        return at or (self._entries(self.fds[slot]), self.call("lseek", self.fds[slot], 0, 0))

    def _text(self, name: str, *values: int | bytes) -> object:
        """What comes into a buffer of 64 bytes."""
        buffer = self.files.program.buffer(64)
        got = self.call(name, *values, buffer, 64)
        return got if got < 0 else sorted(self.files.program.read(buffer, got).split(b"\0"))

    def _times(self, path: bytes, flags: int, *times: int) -> int:
        return int(self.call("utimensat", AT_FDCWD, path, struct.pack("<4q", *times), flags))

    def _truncate(self, path: bytes, size: int) -> int:
        """Times that it sets on a tmpfs of Linux only where the file has pages, or another size
        (shmem_setattr()): here always, as on other file systems."""
        before = self._stat(path, 0) if self.kind in IN_MEMORY else 0
        done = int(self.call("truncate", path, size))
        if not done and not isinstance(before, int) and before[4] == size:
            self._times(path, 0, 0, UTIME_NOW, 0, UTIME_NOW)
        return done

    def _put(self, path: bytes, count: int) -> int:
        """Into a file, from its beginning."""
        fd = self.files.open(path, O_WRONLY | O_CREAT | O_NONBLOCK, 0o666)
        if fd < 0:
            return fd
        done = self.files.write(fd, b"w" * count)
        self.call("close", fd)
        return done

    def _get(self, path: bytes) -> object:
        """What is in it."""
        fd = self.files.open(path, O_RDONLY | O_NONBLOCK)
        if fd < 0:
            return fd
        buffer = self.files.program.buffer(4 * PAGE)
        got = self.call("read", fd, buffer, 4 * PAGE)
        self.call("close", fd)
        return got if got < 0 else self.files.program.read(buffer, got)

    def _link_opened(self, slot: int, path: bytes) -> int:
        return int(
            self.call("linkat", self.fds[slot], b"", AT_FDCWD, path, AT_EMPTY_PATH)
        )


SLOTS = st.integers(0, 2)
PATHS = st.sampled_from(
    [*b"a b c d d/a d/c d/e d/e/c d/f".split(), *b"a c d /c /d/c n l d/ n/ a/x d/../c . ..".split()]
)
MODES = st.sampled_from([0o666, 0o777, 0o755, 0o600, 0o4755, 0o2777, 0o1777, 0])
IDS = st.sampled_from([0, USER, 5, (1 << 32) - 1])
SIZES = st.sampled_from([0, 1, 7, 5000, PAGE])
SECONDS = st.sampled_from([0, 9, 1000])
NANOSECONDS = st.sampled_from([0, 5, UTIME_NOW, UTIME_OMIT])
XATTR = st.sampled_from([b"user.a", b"user.b"])
ACCESS = st.sampled_from([O_RDWR, O_RDONLY, O_WRONLY])
MORE = st.sampled_from(
    [0, O_CREAT, O_CREAT, O_CREAT, O_CREAT | O_EXCL, O_CREAT | O_TRUNC, O_TRUNC, O_DIRECTORY,
     O_APPEND, O_PATH]
)  # fmt: skip
NOFOLLOW = st.sampled_from([0, AT_SYMLINK_NOFOLLOW])


def _step(*parts: Any) -> st.SearchStrategy[Step]:
    return st.tuples(*(p if isinstance(p, st.SearchStrategy) else st.just(p) for p in parts))


COPIED = _step("copied")
BY_DESCRIPTOR = (
    _step("open", SLOTS, PATHS, st.builds(lambda *flags: flags[0] | flags[1], ACCESS, MORE), MODES),
    _step("close", SLOTS),
    _step("read", SLOTS, SIZES),
    _step("write", SLOTS, SIZES),
    _step("pwrite", SLOTS, SIZES, SIZES),
    _step("store", SLOTS, SIZES),
    _step("seek", SLOTS, SIZES, st.integers(0, 4)),
    _step("fd", "ftruncate", SLOTS, SIZES),
    _step("fd", "fallocate", SLOTS, 0, SIZES, SIZES),
    _step("fd", "fchmod", SLOTS, MODES),
    _step("fd", "fchown", SLOTS, IDS, IDS),
    _step("fd", "fsync", SLOTS),
    _step("fd", "fchdir", SLOTS),
    _step("fd", "fsetxattr", SLOTS, XATTR, PATHS, 1, 0),
    _step("fstat", SLOTS),
    _step("list_again", SLOTS),
    _step("chdir", PATHS),
    _step("link_opened", SLOTS, PATHS),
    _step("sync"),
)  # fmt: skip
BY_PATH = (
    _step("stat", PATHS, NOFOLLOW),
    _step("same", PATHS, PATHS),
    _step("numbers", PATHS),
    _step("list", PATHS),
    _step("text", "readlink", PATHS),
    _step("text", "listxattr", PATHS),
    _step("text", "getxattr", PATHS, XATTR),
    _step("setxattr", PATHS, XATTR, PATHS, 1, st.integers(0, 2)),
    _step("removexattr", PATHS, XATTR),
    _step("access", PATHS, st.integers(0, 7)),
    _step("mkdir", PATHS, MODES),
    _step("mkdir", PATHS, MODES),
    _step("rmdir", PATHS),
    _step("unlinkat", AT_FDCWD, PATHS, st.sampled_from([0, AT_REMOVEDIR])),
    _step("unlink", PATHS),
    _step("link", PATHS, PATHS),
    _step("symlink", PATHS, PATHS),
    _step("mknod", PATHS, st.sampled_from([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK]), 0),
    _step("rename", PATHS, PATHS),
    _step(
        "renameat2", AT_FDCWD, PATHS, AT_FDCWD, PATHS,
        st.sampled_from([0, RENAME_NOREPLACE, RENAME_EXCHANGE]),
    ),
    _step("chmod", PATHS, MODES),
    _step("fchownat", AT_FDCWD, PATHS, IDS, IDS, NOFOLLOW),
    _step("truncate", PATHS, SIZES),
    _step("times", PATHS, NOFOLLOW, SECONDS, NANOSECONDS, SECONDS, NANOSECONDS),
    _step("umask", st.sampled_from([0o22, 0, 0o77])),
)  # fmt: skip
STEPS = many(st.tuples(st.integers(0, 1), st.one_of(*BY_DESCRIPTOR, *BY_PATH, COPIED)))
OF_ALL = many(
    st.tuples(
        st.sampled_from([0, 1, 0, HOST]),
        st.one_of(*BY_PATH, _step("put", PATHS, SIZES), _step("get", PATHS), COPIED),
    )
)
"""Of what is open one knows the name, which others may take from it: so by path only."""


def check(base: Path, kind: str, steps: list[tuple[int, Step]]) -> int:
    """Run the same on both; compare each result, and the trees. How many calls were the same."""
    roots = base / "linux", base / "here"
    try:
        with ExitStack() as ends:
            for root in roots:
                root.mkdir(parents=True)
                if kind in (*ON_THE_HOST, *OVER_THE_HOST):
                    grow(root)
                if kind == LAYERS:
                    put_layer(root, ends)
            if kind in MERGED:
                put_layer(roots[0], ends, ",redirect_dir=on")
            done = _compare(roots, kind, steps)
            if kind in ON_THE_HOST:
                assert look(roots[0], kind) == look(roots[1], kind)
            return done
    finally:
        shutil.rmtree(base)


def put_layer(root: Path, ends: ExitStack, more: str = "") -> None:
    """Mount an overlayfs over it, whose lower layer is what was there."""
    upper = root.with_name(f"{root.name}-upper")
    layered(root, [root], upper, ends, more)


def _compare(roots: tuple[Path, Path], kind: str, steps: list[tuple[int, Step]]) -> int:
    done = 0
    make = FILE_SYSTEMS[BEHIND if kind == LAYERS else kind]
    with ExitStack() as ends:
        first = Files(NativeProgram(roots[0], ends))
        is_grown = kind in (*ON_THE_HOST, *OVER_THE_HOST)
        if not is_grown:
            grow_inside(first)
        warm(first)
        linux = [Actor(first, kind), Actor(first.sibling(USER, USER), kind)]
        world = ends.enter_context(World(lambda world: make(world, roots[1])))
        for sysctl in PROTECTED:
            setattr(world.vfs, sysctl, int(Path(f"/proc/sys/fs/{sysctl}").read_text()))
        program = Files(world.program())
        if not is_grown:
            grow_inside(program)
        warm(program)
        here = [Actor(program, kind), Actor(program.sibling(USER, USER), kind)]
        if any(who == HOST for who, _ in steps):
            linux.append(Actor(first.sibling(), kind))
            here.append(Actor(Files(NativeProgram(roots[1], ends)), kind))
            if kind in HEARD and getattr(world.root, "hearing", None) is None:
                pytest.skip("the host tells of no changes")
        trees, probe = Trees(roots, kind, (first, program)), Probe(roots, world, program)
        for number, (who, step) in enumerate(steps):
            if kind == LAYERS and copies_alone(step):
                continue
            if who == HOST and (is_late(step) or (kind in HEARD and is_unheard(step))):
                continue
            if who == HOST and kind in HEARD:
                here[0].call("sync")
            if step[0] == "copied":  # what `cp` finds there
                here[0].call("sync")
                trees.compare(number)
                continue
            wanted = linux[who].run(*step)
            with bounded(step):
                got = here[who].run(*step)
            assert got == wanted, (number, who, step)
            done += 1
            if who == HOST and kind in HEARD:
                probe.wait()
        if kind in IN_MEMORY:
            trees.compare("at the end")
    return done


class Tally:
    """Counts the calls that were the same."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind
        self._count = itertools.count()
        self.operations = 0

    def __call__(self, steps: list[tuple[int, Step]]) -> None:
        self.operations += check(self._folder / f"{next(self._count)}", self._kind, steps)

    def tell(self) -> None:
        print(f"{self._kind}: {self.operations} operations without a difference")


@pytest.mark.parametrize("kind", [*ON_THE_HOST, *IN_MEMORY])
@for_a_while()
def test_files_are_as_on_linux(tmp_path: Path, kind: str, seconds: float) -> None:
    with ExitStack() as ends:
        if kind in IN_MEMORY:  # the host's is one, too
            tmp_path /= "memory"
            tmp_path.mkdir()
            mounted(ends, tmp_path, "-t", "tmpfs", "none")
        tally = Tally(tmp_path, kind)
        explore(seconds, tally, steps=STEPS)
    tally.tell()


@pytest.mark.parametrize("kind", [SHARED, *HEARD])
@for_a_while()
def test_files_that_the_host_changes_are_as_on_linux(
    tmp_path: Path, kind: str, seconds: float
) -> None:
    tally = Tally(tmp_path, kind)
    explore(seconds, tally, steps=OF_ALL)
    tally.tell()


@kept("files_shared")
def test_files_that_the_host_changes_are_still_as_on_linux(
    tmp_path: Path, case: list[tuple[int, Step]]
) -> None:
    check(tmp_path / "base", SHARED, case)


@pytest.mark.parametrize("kind", [*ON_THE_HOST, *IN_MEMORY])
@kept("files")
def test_files_are_still_as_on_linux(
    tmp_path: Path, kind: str, case: list[tuple[int, Step]]
) -> None:
    check(tmp_path / "base", kind, case)
