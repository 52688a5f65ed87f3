"""Layers that mean harm, and that are changed below an overlay: a program that uses it gets errors.

Directories are made and marked by hand (opaque, redirects, origins, whiteouts of both kinds), also
while the overlay is mounted, which Linux calls undefined. Whatever comes of that: every call ends
soon, with a number or an errno; and in an overlay that is mounted afterwards what is listed is
there, and what is not listed is not.
"""

from __future__ import annotations

import errno
import stat
from typing import Any

from hypothesis import strategies as st

from sentry.abi.fcntl import (
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_NOFOLLOW,
    O_APPEND,
    O_CREAT,
    O_DIRECTORY,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
)
from sentry.abi.mount import MNT_DETACH
from sentry.vfs.dirents import split
from tests.fuzz.inside import Inside, Step, many
from tests.fuzz.running import explore, for_a_while, kept
from tests.world import Program

ROOM = 8192
DEEPEST = 4
NAMES = (b"a", b"b", b"d", b"e")
INNER = [b"", *(b"/" + name for name in NAMES), b"/d/a", b"/d/e", b"/d/e/a", b"/e/d"]
LAYERS = (b"/one", b"/two", b"/up", b"/work/work")
OPTIONS = (
    b"lowerdir=/one:/two,upperdir=/up,workdir=/work",
    b"lowerdir=/one:/two,upperdir=/up,workdir=/work,redirect_dir=on",
    b"lowerdir=/two,upperdir=/up,workdir=/work,redirect_dir=nofollow,volatile",
    b"lowerdir=/one:/two,upperdir=/up,workdir=/work,userxattr",
    b"lowerdir=/up:/one:/two,xino=on",
    b"lowerdir=/one/d:/two,upperdir=/up/d,workdir=/work",
    b"lowerdir=/m:/two,upperdir=/up,workdir=/work",
)
FIRST = OPTIONS[1]


def below(path: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from([path + inner for inner in INNER])


MERGED = below(b"/m")
IN_LAYERS = st.sampled_from([layer + inner for layer in LAYERS for inner in INNER])
ANYWHERE = st.one_of(MERGED, MERGED, IN_LAYERS)
REDIRECTS = st.sampled_from(
    [*NAMES, b"/d", b"/e", b"/d/e", b"/e/d", b"/", b"..", b"/a/../d", b"", b"/d" * 200, b"x" * 300]
)
ORIGINS = st.builds(
    lambda uuid, ino: b"\0\xfb\x21\0\x01" + uuid + b"\0\0\0\0" + ino.to_bytes(8, "little"),
    st.sampled_from([bytes(16), b"\xff" * 16]),
    st.sampled_from([1, 5, 1 << 54, (1 << 64) - 1]),
)
MARKS = st.one_of(
    st.tuples(st.just(b"opaque"), st.sampled_from([b"y", b"x", b"z", b""])),
    st.tuples(st.just(b"redirect"), REDIRECTS),
    st.tuples(st.just(b"redirect"), REDIRECTS),
    st.tuples(st.just(b"origin"), ORIGINS),
    st.tuples(st.just(b"whiteout"), st.just(b"y")),
)
PREFIXES = st.sampled_from([b"trusted.overlay.", b"trusted.overlay.", b"user.overlay."])


def _step(*parts: Any) -> st.SearchStrategy[Step]:
    return st.tuples(*(p if isinstance(p, st.SearchStrategy) else st.just(p) for p in parts))


def _marked(path: bytes, prefix: bytes, mark: tuple[bytes, bytes]) -> Step:
    return "setxattr", path, prefix + mark[0], mark[1], len(mark[1]), 0


OPENS = st.sampled_from(
    [O_RDONLY, O_RDWR, O_WRONLY | O_CREAT, O_RDWR | O_TRUNC, O_WRONLY | O_APPEND,
     O_TMPFILE | O_RDWR]
)  # fmt: skip
STEP = st.one_of(
    _step("mkdir", IN_LAYERS, 0o755),
    _step("mkdir", IN_LAYERS, 0o755),
    _step("mknod", IN_LAYERS, st.sampled_from([stat.S_IFCHR, stat.S_IFREG | 0o644]), 0),
    st.builds(_marked, IN_LAYERS, PREFIXES, MARKS),
    st.builds(_marked, IN_LAYERS, PREFIXES, MARKS),
    _step("mkdir", ANYWHERE, 0o2755),
    _step("mknod", ANYWHERE, st.sampled_from([stat.S_IFREG | 0o644, stat.S_IFIFO]), 0),
    _step("symlink", b"d/a", ANYWHERE),
    _step("unlink", ANYWHERE),
    _step("unlinkat", AT_FDCWD, ANYWHERE, AT_REMOVEDIR),
    _step("rename", MERGED, MERGED),
    _step("rename", IN_LAYERS, IN_LAYERS),
    _step(
        "renameat2", AT_FDCWD, MERGED, AT_FDCWD, MERGED,
        st.sampled_from([RENAME_EXCHANGE, RENAME_NOREPLACE]),
    ),
    _step("link", ANYWHERE, ANYWHERE),
    _step("chmod", ANYWHERE, st.sampled_from([0o644, 0o2755, 0o1777, 0])),
    _step("truncate", ANYWHERE, st.sampled_from([0, 1, 5000])),
    _step("removexattr", ANYWHERE, st.sampled_from([b"trusted.overlay.opaque", b"user.a"])),
    _step("use", ANYWHERE, OPENS),
    _step("chdir", ANYWHERE),
    _step("look", MERGED),
    _step("mount", b"none", b"/m", b"overlay", 0, st.sampled_from(OPTIONS)),
    _step("umount2", b"/m", st.sampled_from([0, MNT_DETACH])),
)  # fmt: skip


def use(inside: Inside, path: bytes, flags: int) -> None:
    """Open, write and read; some stay open."""
    fd = inside.call("open", path, flags, 0o644)
    if fd is None or fd < 0:
        return
    buffer = inside.program.buffer(ROOM)
    inside.call("write", fd, b"text", 4)
    inside.call("pread64", fd, buffer, ROOM, 0)
    inside.call("getdents64", fd, buffer, ROOM)
    inside.call("fsync", fd)
    if fd > 8:
        inside.call("close", fd)


def kind_of(inside: Inside, path: bytes) -> int | None:
    """What lstat(2) gives: the type, or an error."""
    buffer = inside.program.buffer(256)
    failed = inside.call("newfstatat", AT_FDCWD, path, buffer, AT_SYMLINK_NOFOLLOW)
    if failed is None or failed < 0:
        return failed
    return stat.S_IFMT(int.from_bytes(inside.program.read(buffer + 24, 4), "little"))


def names(inside: Inside, path: bytes) -> set[bytes] | None:
    """What is listed; None for an error."""
    fd = inside.call("open", path, O_RDONLY | O_DIRECTORY, 0)
    if fd is None or fd < 0:
        return None
    buffer = inside.program.buffer(ROOM)
    found: set[bytes] = set()
    while got := inside.call("getdents64", fd, buffer, ROOM):
        if got < 0:
            break
        found |= {name for name, _, _ in split(inside.program.read(buffer, got))}
    inside.call("close", fd)
    return None if got else found - {b".", b".."}


def look(inside: Inside, path: bytes, depth: int = 0) -> None:
    """What is listed is there, or cannot be looked at; what is not listed is not."""
    found = names(inside, path)
    if found is None:
        return
    kinds = {name: kind_of(inside, path + b"/" + name) for name in {*found, *NAMES}}
    for name, kind in kinds.items():
        assert (kind == -errno.ENOENT) == (name not in found), (path, name, kind)
        if kind == stat.S_IFDIR and depth < DEEPEST:
            look(inside, path + b"/" + name, depth + 1)


def check(steps: list[Step]) -> None:
    with Inside(prepare) as inside:
        for name, *values in steps:
            if name == "use":
                use(inside, *values)
            elif name == "look":
                names(inside, *values)
            else:
                inside.call(name, *values)
        inside.call("chdir", b"/")
        while inside.call("umount2", b"/m", MNT_DETACH) == 0:
            pass
        inside.call("mkdir", b"/last", 0o755)
        options = b"lowerdir=/one:/two,upperdir=/up,workdir=/last"
        if inside.call("mount", b"none", b"/m", b"overlay", 0, options) == 0:
            look(inside, b"/m")


def prepare(program: Program) -> None:
    for path in (b"/one", b"/two", b"/up", b"/work", b"/m"):
        program.ok("mkdir", path, 0o755)
    for path in (b"/one/d", b"/two/d", b"/two/e"):
        program.ok("mkdir", path, 0o755)
    for path in (b"/one/a", b"/two/b", b"/one/d/a", b"/two/d/e"):
        program.ok("close", program.ok("open", path, O_CREAT | O_WRONLY, 0o644))
    program.ok("mount", b"none", b"/m", b"overlay", 0, FIRST)


@for_a_while()
def test_layers_that_mean_harm_give_errors(seconds: float) -> None:
    explore(seconds, check, steps=many(STEP))


@kept("layers")
def test_layers_that_meant_harm_give_errors(case: list[Step]) -> None:
    check(case)


def test_good_layers_are_looked_at() -> None:
    """So the fuzzer gets there."""
    with Inside(prepare) as inside:
        assert names(inside, b"/m") == {b"a", b"b", b"d", b"e"}
        assert names(inside, b"/m/d") == {b"a", b"e"}
        look(inside, b"/m")
