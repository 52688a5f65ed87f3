"""Records of mounts that programs have made, and of namespaces of mounts."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sentry.state.records.base import Amount, Id, Many, Path, Record, Ref, Words

Mounts = msgspec.Meta(max_length=20_000)


class NamedNamespace(Record, frozen=True):
    """One that is open, or that a mount shows; None: the first of its kind."""

    what: Literal["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
    place: Ref | None = None


class MemoryLimits(Record, frozen=True):
    """Options of a tmpfs, in pages and numbers."""

    max_pages: Amount | None = None
    max_inodes: Annotated[int, msgspec.Meta(ge=0, le=1 << 18)] = 1 << 18
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)] = 0o1777
    uid: Id | None = None
    gid: Id | None = None
    mpol: Words = ""
    noswap: bool = False
    any_size: bool = False
    any_inodes: bool = False


class FileSystem(Record, frozen=True):
    """One that a program has mounted. What is in it, or what it lies over, is a `Tree`."""

    kind: Literal["tmpfs", "ramfs", "proc", "sysfs", "devpts", "cgroup2", "overlay", "erofs"]
    source: Words
    dev: Amount
    """st_dev."""
    owner: Ref | None = None
    """The user namespace that has mounted it; None: the first."""
    flags: Id = 0
    """MS_SYNCHRONOUS and its kin."""
    read_only: bool = False
    limits: MemoryLimits | None = None
    """Of one in memory."""
    shows: Ref | None = None
    """proc: a PID namespace; sysfs: a network namespace. None: the first."""
    processes_only: bool = False
    """proc: subset=pid."""
    options: Words = ""
    """proc, devpts: those of mount(2)."""
    has_ptmx: bool = False
    """devpts: /dev/ptmx belongs to it."""
    devices: Annotated[list[Amount], msgspec.Meta(max_length=501)] = []
    """overlay: st_dev of files of each file system that its layers are on."""


class MountNamespace(Record, frozen=True):
    """mount_namespaces(7). Its root is the mount of it that is on no other one."""

    owner: Ref | None = None


class Sharing(Record, frozen=True):
    """Of a mount: its flags, and which others it shares with; 0: with none."""

    flags: Id = 0
    group: Amount = 0
    master: Amount = 0
    unbindable: bool = False


class Changed(Record, frozen=True):
    """A mount that the container began with, and which is not any more as it was."""

    mount: Ref
    sharing: Sharing


class MadeMount(Record, frozen=True):
    """A mount that came later: of a file system of these (`fs`), of a namespace (`shows`), or of
    what a mount that the container began with shows, too (`model`)."""

    number: Amount
    """mnt_id of statx(2)."""
    namespace: Ref | None = None
    """None: the first."""
    parent: Ref | None = None
    """Which mount it is on; those that the container began with are counted first."""
    place: Path = b""
    """Where on that, from its root, without a slash before it."""
    model: Ref | None = None
    fs: Ref | None = None
    shows: NamedNamespace | None = None
    root: Path = b""
    """Where its root is, from the root of `model`, or of `fs`."""
    tree: Ref | None = None
    """The root has lost its name: it is `inode` of this tree."""
    inode: Ref = 0
    sharing: Sharing = Sharing()
    locked: bool = False
    locked_flags: Id = 0


class MountTable(Record, frozen=True):
    """What programs have done with mounts."""

    file_systems: Annotated[list[FileSystem], Mounts] = []
    namespaces: Annotated[list[MountNamespace], msgspec.Meta(max_length=4096)] = []
    """The oldest first."""
    changed: Annotated[list[Changed], Many] = []
    mounts: Annotated[list[MadeMount], Mounts] = []
    """Counted behind those that the container began with."""
