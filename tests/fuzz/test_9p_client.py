"""Whatever a Gofer answers, the Sentry lives: a program gets an errno, and nothing is held up.

A real Gofer answers, and something between it and the Sentry changes what the example says, once or
several times. It ends the connection when nobody has asked for a while afterwards: who waits for a
reply that was spoilt must not wait for ever here.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from gofer.attachment import Attachment, CacheMode
from runsc.launch.boot_gofer import sealed_memory
from sentry.errors import Errno
from sentry.fs.gofer.changes import HostChanges
from sentry.fs.gofer.filesystem import GoferFileSystem, Options
from sentry.fs.gofer.handles import HandleCache, Lingering
from sentry.fs.gofer.session import Session
from tests.fuzz.inside import Step
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.fuzz.sockets import words
from tests.fuzz.spoiling import in_the_middle
from tests.unit.gofer.harness import serving, spawn
from tests.world import Died, Program, World

pytestmark = pytest.mark.root

AT_FDCWD = -100


@contextmanager
def served(
    folder: Path, spoilt: dict[int, list[Step]], exclusive: bool, behind: bool
) -> Iterator[World]:
    """A world with a tree in it that comes over a spoilt connection. Raises: Errno."""
    with ExitStack() as ends:
        fd = os.open(folder, os.O_PATH)
        cache = CacheMode.EXCLUSIVE if exclusive else CacheMode.SHARED
        ring = sealed_memory(8192)
        tree = Attachment(b"0", fd, False, cache)
        gofer = ends.enter_context(serving([tree], journal=ring))
        os.close(fd)
        os.close(ring)
        ours, theirs = socket.socketpair()

        def between() -> None:
            ours.close()
            in_the_middle(theirs, gofer, spoilt)

        pid = spawn(between)
        theirs.close()
        ends.callback(lambda: _ended(pid))
        ends.callback(ours.close)

        world = World()
        try:
            session = Session(ours, world.loop)
            world.stack.callback(session.close)
            world.attach(_tree(world, session, exclusive, behind), b"/m")
            yield world
        except BaseException:
            world.abandon()
            raise
        world.close()


def _tree(world: World, session: Session, exclusive: bool, behind: bool) -> GoferFileSystem:
    session.negotiate()
    handles = HandleCache(4)
    timers = world.loop if behind else None
    options = Options(exclusive, False, handles=handles, writes_behind=timers)
    fs = GoferFileSystem(world.vfs.new_dev(), session, b"0", options)
    if fs.hearing is not None:
        world.stack.callback(fs.hearing.close)
    if fs.journal is not None:
        world.stack.callback(fs.journal.close)
    if not exclusive:  # wherever the tree of the test lies
        fs.changes = HostChanges.of(session)
        if fs.changes is not None:
            fs.lingering = Lingering(handles, world.loop)
            world.stack.callback(fs.changes.close)
    world.stack.callback(lambda: handles.forget(fs))
    return fs


def _ended(pid: int) -> None:
    assert os.waitpid(pid, 0)[1] == 0


class Operations:
    """What a program does with files. Errors are of no interest."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.fds = [AT_FDCWD] * 3

    def run(self, name: str, *values: Any) -> None:
        with bounded((name, values)):
            getattr(self, f"_{name}")(*values)

    def _open(self, slot: int, path: bytes, flags: int) -> None:
        fd = self.program.call("openat", AT_FDCWD, path, flags, 0o644)
        if fd >= 0:
            self.fds[slot] = fd

    def _io(self, name: str, slot: int, count: int) -> None:
        self.program.call(name, self.fds[slot], self.program.buffer(count), count)

    def _path(self, name: str, *values: int | bytes) -> None:
        self.program.call(name, *values)

    def _stat(self, path: bytes) -> None:
        self.program.call("newfstatat", AT_FDCWD, path, self.program.buffer(144), 0x100)

    def _fd(self, name: str, slot: int, number: int) -> None:
        self.program.call(name, self.fds[slot], number)

    def _map(self, slot: int, write: int) -> None:
        at = self.program.call("mmap", 0, 8192, 1 | write, 1, self.fds[slot], 0)
        if at > 0:
            self.program.read(at, 4097)
            if write:
                self.program.write(at, b"x")


PATHS = st.sampled_from(b".|a|d|d/b|d/e|l|n|n/m|x/y|d/..".split(b"|"))
SLOTS = st.integers(0, 2)
OPERATIONS = st.one_of(
    st.tuples(
        st.just("open"), SLOTS, PATHS, st.sampled_from([0, 2, 0o102, 0o302, 0o1002, 0o200000])
    ),
    st.tuples(
        st.just("io"),
        st.sampled_from(["read", "write", "getdents64"]),
        SLOTS,
        st.sampled_from([1, 100, 5000]),
    ),
    st.tuples(st.just("stat"), PATHS),
    st.tuples(st.just("map"), SLOTS, st.sampled_from([0, 2])),
    st.tuples(
        st.just("fd"),
        st.sampled_from(["ftruncate", "fsync", "fchmod", "fstatfs", "close", "lseek"]),
        SLOTS,
        words(2),
    ),
    st.tuples(
        st.just("path"),
        st.sampled_from(["mkdir", "chmod", "truncate", "rmdir", "unlink"]),
        PATHS,
        st.integers(0, 511),
    ),
    st.tuples(st.just("path"), st.sampled_from(["rename", "link", "symlink"]), PATHS, PATHS),
    st.tuples(st.just("path"), st.just("readlink"), PATHS, PATHS, st.just(8)),
    st.tuples(
        st.just("path"),
        st.just("setxattr"),
        PATHS,
        st.just(b"user.a"),
        PATHS,
        st.just(1),
        st.just(0),
    ),
    st.tuples(
        st.just("path"),
        st.just("getxattr"),
        PATHS,
        st.just(b"user.a"),
        st.just(bytes(64)),
        st.just(64),
    ),
    st.tuples(st.just("path"), st.just("listxattr"), PATHS, st.just(bytes(64)), st.just(64)),
)
DESCRIPTORS = st.sampled_from(
    [
        "pipe",
        "open pipe",
        "empty memory",
        "memory",
        "nonblocking socket",
        "folder",
        "path",
        "socket",
        "/dev/null",
        "/dev/zero",
        "/dev/full",
    ]
)
CHANGES = st.one_of(
    st.tuples(st.just("field"), st.integers(0, 6), words(8), st.binary(max_size=40)),
    st.tuples(
        st.just("field"),
        st.integers(0, 6),
        words(8),
        st.sampled_from([b".", b"..", b"/", b"a/b", b"", b"a\0", b"x" * 300, bytes(96)]),
    ),
    st.tuples(st.just("flip"), st.integers(0, 200), st.integers(1, 255)),
    st.tuples(st.just("error"), words(4) | st.integers(0, 140)),
    st.tuples(st.just("type"), st.integers(0, 60), st.binary(max_size=30)),
    st.tuples(st.just("tag"), words(2) | st.integers(0, 3)),
    st.tuples(st.just("cut"), st.integers(0, 200)),
    st.tuples(st.just("more"), st.binary(max_size=20)),
    st.tuples(st.just("fd"), DESCRIPTORS),
    st.just(("no fd",)),
)
SPOILT = st.dictionaries(
    st.integers(0, 8) | st.integers(0, 40),
    st.lists(CHANGES, min_size=1, max_size=2),
    min_size=1,
    max_size=4,
)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[], Path]:
    """Makes a tree to serve, each time another."""
    made = iter(range(1 << 30))

    def make() -> Path:
        root = tmp_path / f"{next(made)}"
        (root / "d" / "e").mkdir(parents=True)
        (root / "a").write_bytes(b"contents" * 1000)
        (root / "d" / "b").write_bytes(b"inner")
        (root / "l").symlink_to("d/b")
        return root

    return make


def descriptors() -> list[str]:
    """What is open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(found)


def check(
    folder: Path,
    spoilt: dict[int, list[Step]],
    steps: list[Step],
    exclusive: bool,
    behind: bool = False,
) -> None:
    gc.collect()
    before = descriptors()
    try:
        with served(folder, spoilt, exclusive, behind) as world:
            operations = Operations(world.program())
            operations.run("path", "chdir", b"/m")
            for step in steps:
                operations.run(*step)
    except (Errno, Died):
        pass
    gc.collect()
    assert descriptors() == before


@for_a_while(10)
def test_answers_are_taken_or_end_the_session(seconds: float, folder: Callable[[], Path]) -> None:
    def body(**values: Any) -> None:
        check(folder(), **values)

    steps = st.lists(OPERATIONS, min_size=1, max_size=12)
    way = {"exclusive": st.booleans(), "behind": st.booleans()}
    explore(seconds, body, spoilt=SPOILT, steps=steps, **way)


@kept("9p_client")
def test_kept_case_is_taken_or_ends_the_session(case: Any, folder: Callable[[], Path]) -> None:
    check(folder(), *case)
