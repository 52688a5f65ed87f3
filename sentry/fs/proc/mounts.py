"""mounts, mountinfo, mountstats of a process: fs/proc_namespace.c."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, Final

from sentry.abi.mount import MS_DIRSYNC, MS_LAZYTIME, MS_MANDLOCK, MS_SYNCHRONOUS
from sentry.errors import EINVAL, ENOENT
from sentry.fs.proc.owner import live_task
from sentry.fs.proc.registry import View, pid_file
from sentry.fs.pseudo.files import Pieces
from sentry.vfs.dentry import Dentry
from sentry.vfs.paths import mount_paths
from sentry.vfs.propagation import dominating, groups_of

SB_OPTIONS: Final = (
    (MS_SYNCHRONOUS, "sync"), (MS_DIRSYNC, "dirsync"), (MS_MANDLOCK, "mand"),
    (MS_LAZYTIME, "lazytime"),
)  # fmt: skip


def optional_fields(mount: Any, groups: set[Any]) -> str:
    """shared:N, master:N, propagate_from:N, unbindable; each with a blank behind it."""
    fields = []
    if mount.group is not None:
        fields.append(f"shared:{mount.group.id}")
    if mount.master is not None:
        fields.append(f"master:{mount.master.id}")
        origin = dominating(mount, groups)
        if origin and origin != mount.master.id:
            fields.append(f"propagate_from:{origin}")
    if mount.unbindable:
        fields.append("unbindable")
    return "".join(f"{field} " for field in fields)


def escape(text: bytes) -> bytes:
    """Blank, tab, newline and backslash in octal; and `#` in a source."""
    for byte in b"\\ \t\n":
        text = text.replace(bytes([byte]), b"\\%03o" % byte)
    return text


def seen_by(view: View) -> tuple[Any, Any]:
    """The namespace of the process, and its root: mounts_open_common(). Raises: EINVAL."""
    try:
        task = live_task(view.subject)
    except ENOENT:
        raise EINVAL("a process that has ended") from None
    return task.ns.mounts, task.fs.root


def changes_of(view: View) -> Any:
    """Those of the namespace."""
    held, _ = view.pinned
    return held.mounts.changes


def all_mounts(view: View) -> tuple[list[Any], Any]:
    """Of the namespace, and the process's root: m_start(). Raises: NotNow, while they change."""
    held, root = view.pinned
    held.mounts.lock.check()
    return list(held.mounts), root


def visible(mounts: list[Any], root: Any) -> Generator[bytes, None, dict[Any, bytes]]:
    """Those that lie below the root, with their paths, in order of their making."""
    steps = mount_paths(mounts, root)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return dict(end.value)
        yield b""


def common_options(fs: Any) -> str:
    """Those that every file system can have: show_sb_opts()."""
    return "".join(f",{name}" for flag, name in SB_OPTIONS if fs.sb_flags & flag)


def super_options(mount: Any) -> str:
    """The options of the file system."""
    fs = mount.fs
    return ("ro" if fs.read_only else "rw") + common_options(fs) + str(fs.show_options())


def inner_path(root: Dentry) -> bytes:
    """Where in its file system the root of a mount is."""
    names = []
    at: Dentry | None = root
    while at is not None and at.parent is not None:
        names.append(at.name)
        at = at.parent
    path = b"/" + b"/".join(reversed(names))
    return path + b"//deleted" if root.unlinked else path


@pid_file("mounts", changes=changes_of, pin=seen_by)
def mounts(view: View) -> Pieces:
    """As fstab(5)."""
    return _as_fstab(*all_mounts(view))


def _as_fstab(mounts: list[Any], root: Any) -> Pieces:
    for mount, path in (yield from visible(mounts, root)).items():
        options = mount.options().split(",", 1)
        first = "ro" if mount.read_only else "rw"
        text = ",".join([first + common_options(mount.fs), *options[1:]])
        text += str(mount.fs.show_options())
        source = escape(str(mount.fs.source).encode()).replace(b"#", b"\\043")
        yield b"%s %s %s %s 0 0\n" % (source, escape(path), mount.fs.name.encode(), text.encode())


@pid_file("mountinfo", changes=changes_of, pin=seen_by)
def mountinfo(view: View) -> Pieces:
    """proc_pid_mountinfo(5)."""
    return _in_full(*all_mounts(view))


def _in_full(mounts: list[Any], root: Any) -> Pieces:
    shown = yield from visible(mounts, root)
    groups = groups_of(shown)
    for mount, path in shown.items():
        parent = mount.parent.mount.id if mount.parent is not None else 1
        dev = mount.fs.dev
        optional = optional_fields(mount, groups)
        head = f"{mount.id} {parent} {os.major(dev)}:{os.minor(dev)} ".encode()
        source = escape(str(mount.fs.source).encode()).replace(b"#", b"\\043")
        tail = f" {mount.options()} {optional}- {mount.fs.name} ".encode()
        yield (
            head + escape(inner_path(mount.root)) + b" " + escape(path) + tail + source
            + b" " + super_options(mount).encode() + b"\n"
        )  # fmt: skip


@pid_file("mountstats", 0o400, changes=changes_of, pin=seen_by)
def mountstats(view: View) -> Pieces:
    """Which device is where."""
    return _devices(*all_mounts(view))


def _devices(mounts: list[Any], root: Any) -> Pieces:
    for mount, path in (yield from visible(mounts, root)).items():
        source, name = escape(str(mount.fs.source).encode()), mount.fs.name.encode()
        yield b"device %s mounted on %s with fstype %s\n" % (source, escape(path), name)
