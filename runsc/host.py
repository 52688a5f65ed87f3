"""Linux calls that Python has no function for, with types and exceptions.

Thin: one function a call, over the C module `runsc._native`. Constants come from sentry.abi.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from runsc._native import ffi, lib
from sentry.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE
from sentry.abi.landlock import LANDLOCK_CREATE_RULESET_VERSION
from sentry.abi.mman import MADV_COLLAPSE, MADV_DONTNEED
from sentry.abi.mount import MOVE_MOUNT_F_EMPTY_PATH, OPEN_TREE_CLONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runsc._native import Null



def _check(value: int, what: str) -> int:
    if value < 0:
        raise OSError(-value, f"{what}: {os.strerror(-value)}")
    return value


def spawn(flags: int) -> int:
    """fork(2) into the namespaces of `flags` (CLONE_NEW*); 0 in the child.

    Preconditions: the process has one thread.
    """
    return _check(lib.rs_spawn(flags), "clone")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(lib.rs_unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    _check(lib.rs_setns(fd, kind), "setns")


def bind(fd: int, address: bytes) -> None:
    """bind(2) to an address of any family."""
    _check(lib.rs_bind(fd, address, len(address)), "bind")


def mount(
    source: str | None,
    target: str,
    kind: str | None = None,
    flags: int = 0,
    data: str | None = None,
) -> None:
    """mount(2)."""

    def text(value: str | None) -> bytes | Null:
        return ffi.NULL if value is None else os.fsencode(value)

    done = lib.rs_mount(text(source), os.fsencode(target), text(kind), flags, text(data))
    _check(done, f"mount {kind or source} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(lib.rs_umount(os.fsencode(target), flags), f"umount {target}")


def clone_mount(path: str, attributes: int, depth: int = AT_RECURSIVE) -> int:
    """A private copy of the mounts below `path`, attached nowhere, with MOUNT_ATTR_* added.

    open_tree(2) with OPEN_TREE_CLONE, mount_setattr(2) (Linux 5.12). Gives an O_PATH descriptor.
    `depth` 0: without what is mounted below.
    """
    flags = OPEN_TREE_CLONE | depth | os.O_CLOEXEC
    fd = _check(lib.rs_open_tree(AT_FDCWD, os.fsencode(path), flags), f"open_tree {path}")
    done = lib.rs_mount_setattr(fd, AT_EMPTY_PATH | AT_RECURSIVE, attributes)
    _check(done, f"mount_setattr {path}")
    return fd


def attach_mount(fd: int, path: str) -> None:
    """Have the mounts of `clone_mount` at `path`: move_mount(2)."""
    done = lib.rs_move_mount(fd, AT_FDCWD, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)
    _check(done, f"move_mount {path}")


def map_owners(fd: int, users: int, depth: int = 0) -> None:
    """Show the files of a mount from `clone_mount` with the owners that a user namespace has.

    mount_setattr(2), MOUNT_ATTR_IDMAP.
    """
    _check(lib.rs_mount_idmap(fd, AT_EMPTY_PATH | depth, users), "mount_setattr idmap")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(lib.rs_pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def syncfs(fd: int) -> None:
    """syncfs(2): all of the file system that a descriptor is of is on its disk."""
    _check(lib.rs_syncfs(fd), "syncfs")


def prctl(op: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2)."""
    return _check(lib.rs_prctl(op, a, b, c, d), f"prctl {op}")


def capset(effective: int, permitted: int, inheritable: int = 0) -> None:
    """capset(2) on this thread."""
    _check(lib.rs_capset(effective, permitted, inheritable), "capset")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """close_range(2): both ends included."""
    _check(lib.rs_close_range(first, last), "close_range")


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    first = 0
    for fd in sorted(keep):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def install_filter(program: bytes, flags: int) -> None:
    """seccomp(2) SECCOMP_SET_MODE_FILTER with packed struct sock_filter instructions."""
    if _check(lib.rs_seccomp(flags, program, len(program) // 8), "seccomp"):
        raise OSError("seccomp: a thread could not be put under the filter")


def landlock_version() -> int:
    """Version of the kernel's Landlock; 0 if there is none."""
    return max(0, lib.rs_landlock_ruleset(0, 0, 0, LANDLOCK_CREATE_RULESET_VERSION))


def landlock(
    files: int, net: int, scoped: int, beneath: Iterable[tuple[int, int]],
    ports: Iterable[int] = (),
) -> None:  # fmt: skip
    """landlock(7) on this thread: of these accesses only those beneath descriptors remain, and
    those of `net` at these ports.

    `beneath`: (descriptor, accesses). Preconditions: no_new_privs.
    """
    ruleset = _check(lib.rs_landlock_ruleset(files, net, scoped, 0), "landlock_create_ruleset")
    try:
        for fd, access in beneath:
            _check(lib.rs_landlock_allow(ruleset, fd, access), "landlock_add_rule")
        for port in ports:
            _check(lib.rs_landlock_allow_port(ruleset, port, net), "landlock_add_rule")
        _check(lib.rs_landlock_restrict(ruleset), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def map_compiled(
    directory: str, cache: str, stems: Sequence[str], tail: str, magic: bytes
) -> list[tuple[int, int]]:
    """The compiled files CACHE/STEM + TAIL of modules DIRECTORY/STEM.py: where each is and how
    long, as `mapped` takes it; 0 where there is none, or not of this Python's number or of the
    source as it is. Their bytes stay the page cache's, for as long as this process lives."""
    count = len(stems)
    at, sizes = ffi.new("uint64_t[]", count), ffi.new("uint64_t[]", count)
    names = b"".join([os.fsencode(stem) + b"\0" for stem in stems])
    place, cached = os.fsencode(directory), os.fsencode(cache)
    lib.rs_map_compiled(place, cached, names, count, os.fsencode(tail), magic, at, sizes)
    return list(zip(at, sizes, strict=True))


def mapped(at: int, size: int) -> memoryview:
    """The bytes of a file that `map_compiled` found."""
    return memoryview(ffi.buffer(ffi.cast("void *", at), size)).toreadonly()


def read_through(at: int, size: int) -> None:
    """madvise(2), MADV_DONTNEED: those bytes are the page cache's alone, until somebody reads them
    again."""
    _check(lib.rs_madvise(at, size, MADV_DONTNEED), "madvise")


def io_priority(pid: int) -> int:
    """ioprio_get(2) of a process."""
    return _check(lib.rs_ioprio_get(pid), "ioprio_get")


def set_io_priority(value: int) -> None:
    """ioprio_set(2) on this process."""
    _check(lib.rs_ioprio_set(value), "ioprio_set")


def has_immortals() -> bool:
    """Whether `count_no_more` does something: 3.11 knows no such objects, and who has no GIL counts
    in another way."""
    return sys.version_info >= (3, 12) and bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def count_no_more(objects: list[object], kinds: tuple[type, ...] | None = None) -> None:
    """References to them, and to what they refer to, are not counted any more: PEP 683. With
    `kinds`, to those that are classes or one of these.

    Preconditions: `has_immortals`, one thread.
    """
    of = 0 if kinds is None else id(kinds)
    _check(lib.rs_count_no_more(id(objects), id(CodeType), id(FrameType), of), "malloc")


def collapse(start: int, size: int) -> None:
    """madvise(2), MADV_COLLAPSE: what lies there has huge pages from now on, if they fit."""
    _check(lib.rs_madvise(start, size, MADV_COLLAPSE), "madvise")


def notify() -> int:
    """inotify_init1(2), which does not block."""
    return _check(lib.rs_notify(), "inotify")


def watch(fd: int, path: str, mask: int) -> None:
    """inotify_add_watch(2)."""
    _check(lib.rs_watch(fd, os.fsencode(path), mask), "inotify")


def fill_heap() -> None:
    """What malloc(3) has free in its heap is not used any more."""
    lib.rs_fill_heap()


def one_malloc_arena() -> None:
    """mallopt(3) M_ARENA_MAX 1: new threads make no arenas, so they map nothing under a filter."""
    lib.rs_one_arena()


def report_refused_calls(fd: int) -> None:
    """Development: on SIGSYS write the number of the system call to `fd` and exit with 159."""
    _check(lib.rs_trap_report(fd), "sigaction")
