"""Random calls on a served tree, and the same on another tree by Linux itself: no difference."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.fs.gofer.conftest import AT_FDCWD, MakeWorld, World

pytestmark = pytest.mark.root

_NAMES = b"a b d d/a d/b d/e d/e/a l l/a n n/m d/n d/n/m d/e/n o d/o x/y".split()
_PATHS = st.sampled_from(_NAMES)
_FLAGS = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_RDWR,
        os.O_RDWR | os.O_CREAT,
        os.O_RDWR | os.O_CREAT | os.O_EXCL,
        os.O_RDWR | os.O_TRUNC,
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        os.O_RDONLY | os.O_NOFOLLOW,
    ]
)
_SLOTS = st.integers(0, 2)
_MODES = st.sampled_from([0o600, 0o644, 0o755])
_OPERATIONS = st.one_of(
    st.tuples(st.just("open"), _SLOTS, _PATHS, _FLAGS, _MODES),
    st.tuples(st.just("close"), _SLOTS),
    st.tuples(st.just("write"), _SLOTS, st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("read"), _SLOTS),
    st.tuples(st.just("ftruncate"), _SLOTS, st.integers(0, 30)),
    st.tuples(st.just("fchmod"), _SLOTS, _MODES),
    st.tuples(st.just("fstat"), _SLOTS),
    st.tuples(st.just("truncate"), _PATHS, st.integers(0, 30)),
    st.tuples(st.just("chmod"), _PATHS, _MODES),
    st.tuples(st.just("mkdir"), _PATHS, _MODES),
    st.tuples(st.just("rmdir"), _PATHS),
    st.tuples(st.just("unlink"), _PATHS),
    st.tuples(st.just("symlink"), _PATHS, _PATHS),
    st.tuples(st.just("link"), _PATHS, _PATHS),
    st.tuples(st.just("rename"), _PATHS, _PATHS, st.sampled_from([0, 0, 1, 1, 2])),
    st.tuples(st.just("stat"), _PATHS),
    st.tuples(st.just("lstat"), _PATHS),
    st.tuples(st.just("list"), _PATHS),
)


def shape(st_: os.stat_result) -> tuple[int, ...]:
    size = st_.st_size if not stat.S_ISDIR(st_.st_mode) else 0
    return st_.st_mode, st_.st_nlink, size


class Native:
    """The calls on a directory of the host."""

    def __init__(self, root: Path, rename: Callable[..., Any]) -> None:
        self.root = os.fsencode(root)
        self.fds: dict[int, int] = {}
        self._rename = rename

    def _at(self, path: bytes) -> bytes:
        return self.root + b"/" + path

    def run(self, name: str, *values: Any) -> Any:
        try:
            return getattr(self, name)(*values)
        except OSError as problem:
            return problem.errno
        except KeyError:
            return "no such slot"

    def open(self, slot: int, path: bytes, flags: int, mode: int) -> None:
        fd = os.open(self._at(path), flags, mode)
        if slot in self.fds:
            os.close(self.fds[slot])
        self.fds[slot] = fd

    def close(self, slot: int) -> None:
        os.close(self.fds.pop(slot))

    def close_all(self) -> None:
        for slot in list(self.fds):
            self.close(slot)

    def write(self, slot: int, data: bytes) -> int:
        return os.write(self.fds[slot], data)

    def read(self, slot: int) -> bytes:
        return os.pread(self.fds[slot], 100, 0)

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.fds[slot], size)

    def fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self.fds[slot], mode)

    def fstat(self, slot: int) -> tuple[int, ...]:
        return shape(os.fstat(self.fds[slot]))

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._at(path), size)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._at(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self._at(path))

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._at(path))

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self._at(old), self._at(new), follow_symlinks=False)

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        rc = self._rename(AT_FDCWD, self._at(old), AT_FDCWD, self._at(new), flags)
        if rc < 0:
            raise OSError(-rc, "")

    def stat(self, path: bytes) -> tuple[int, ...]:
        return shape(os.stat(self._at(path)))

    def lstat(self, path: bytes) -> tuple[int, ...]:
        return shape(os.lstat(self._at(path)))

    def list(self, path: bytes) -> list[bytes]:
        return sorted(os.listdir(self._at(path)))


class Served:
    """The same calls as system calls of the task."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.fds: dict[int, int] = {}

    def run(self, name: str, *values: Any) -> Any:
        try:
            return getattr(self, name)(*values)
        except AssertionError as problem:
            text = str(problem).rsplit(": ", 1)[-1].split("\n")[0]
            numbers = [n for n in range(1, 134) if os.strerror(n) == text]
            if not numbers:
                raise
            return numbers[0]
        except KeyError:
            return "no such slot"

    def open(self, slot: int, path: bytes, flags: int, mode: int) -> None:
        fd = self.world.ok("openat", AT_FDCWD, path, flags, mode)
        if slot in self.fds:
            self.world.ok("close", self.fds[slot])
        self.fds[slot] = fd

    def close(self, slot: int) -> None:
        self.world.ok("close", self.fds.pop(slot))

    def close_all(self) -> None:
        for slot in list(self.fds):
            self.close(slot)

    def write(self, slot: int, data: bytes) -> int:
        return self.world.write(self.fds[slot], data)

    def read(self, slot: int) -> bytes:
        return self.world.read(self.fds[slot], 100, 0)

    def ftruncate(self, slot: int, size: int) -> None:
        self.world.ok("ftruncate", self.fds[slot], size)

    def fchmod(self, slot: int, mode: int) -> None:
        self.world.ok("fchmod", self.fds[slot], mode)

    def fstat(self, slot: int) -> tuple[int, ...]:
        return shape(self.world.fstat(self.fds[slot]))

    def truncate(self, path: bytes, size: int) -> None:
        self.world.ok("truncate", path, size)

    def chmod(self, path: bytes, mode: int) -> None:
        self.world.ok("fchmodat", AT_FDCWD, path, mode)

    def mkdir(self, path: bytes, mode: int) -> None:
        self.world.ok("mkdirat", AT_FDCWD, path, mode)

    def rmdir(self, path: bytes) -> None:
        self.world.ok("unlinkat", AT_FDCWD, path, 0x200)

    def unlink(self, path: bytes) -> None:
        self.world.ok("unlinkat", AT_FDCWD, path, 0)

    def symlink(self, target: bytes, path: bytes) -> None:
        self.world.ok("symlinkat", target, AT_FDCWD, path)

    def link(self, old: bytes, new: bytes) -> None:
        self.world.ok("linkat", AT_FDCWD, old, AT_FDCWD, new, 0)

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        self.world.ok("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)

    def stat(self, path: bytes) -> tuple[int, ...]:
        return shape(self.world.stat(path))

    def lstat(self, path: bytes) -> tuple[int, ...]:
        return shape(self.world.stat(path, nofollow=True))

    def list(self, path: bytes) -> list[bytes]:
        return self.world.listdir(path)


def populate(root: Path) -> None:
    """What both trees start with."""
    (root / "d" / "e").mkdir(parents=True)
    for name in ("a", "b", "d/a", "d/e/a"):
        (root / name).write_bytes(b"contents of " + name.encode())
    (root / "l").symlink_to("d/a")
    os.link(root / "b", root / "d" / "b")
    for path in (root, root / "d", root / "d" / "e"):
        os.chmod(path, 0o755)


def tree_of(root: Path) -> dict[str, tuple[object, ...]]:
    """What the host has: names, what stat(2) says, which are the same file, contents."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name, seen = str(path.relative_to(root)), path.lstat()
        data = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
        found[name] = *shape(seen), first.setdefault(seen.st_ino, name), data
    return found


def empty(root: Path) -> None:
    for name in os.listdir(root):
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.mark.parametrize("mode", ["exclusive", "shared", "no descriptors", "written behind"])
def test_random_calls_do_what_linux_does(
    mode: str,
    host: Path,
    tmp_path: Path,
    make_world: MakeWorld,
    request: pytest.FixtureRequest,
) -> None:
    from gofer._native import lib  # noqa: PLC0415  renameat2(2), which os lacks

    model = tmp_path / "model"
    request.addfinalizer(partial(os.umask, os.umask(0)))

    @settings(
        deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(st.lists(_OPERATIONS, min_size=15, max_size=60))
    def check(operations: list[tuple[Any, ...]]) -> None:
        model.mkdir(exist_ok=True)
        empty(host)
        empty(model)
        populate(host)
        populate(model)
        first = [("open", slot, path, os.O_RDWR, 0) for slot, path in enumerate((b"a", b"d/b"))]
        with ExitStack() as stack:
            descriptors = 0 if mode == "no descriptors" else 50
            journal = 4096 if mode == "written behind" else 0
            world = make_world(mode != "shared", descriptors, journal=journal)
            reference = Native(model, lib.gofer_renameat2)
            served = Served(world)
            for each in (reference, served):
                stack.callback(each.close_all)
            for i, (name, *values) in enumerate([*first, *operations]):
                expected = reference.run(name, *values)
                assert served.run(name, *values) == expected, (i, name, values)
            for path in (b".", b"d", b"d/e", b"a", b"b", b"d/a"):
                assert served.run("lstat", path) == reference.run("lstat", path), path
                assert served.run("list", path) == reference.run("list", path), path
            world.ok("sync")
            assert tree_of(host) == tree_of(model)

    check()
