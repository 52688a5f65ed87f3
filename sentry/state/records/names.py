"""Records of mounts, and of trees of files in memory."""

from __future__ import annotations

from typing import Annotated

from sentry.state.records.base import (
    Amount,
    Data,
    Id,
    Int32,
    Int64,
    Many,
    Name,
    Path,
    Record,
    Ref,
    Words,
)


class Place(Record, frozen=True):
    """A name seen through a mount: `mount` counts as they were made when the container began, then
    those of `MountTable`.

    A file that has lost its name is `inode` of tree `tree`.
    """

    mount: Ref
    path: Path = b""
    """From the root of the mount, without a slash before it."""
    tree: Ref | None = None
    inode: Ref = 0


class Mounted(Record, frozen=True):
    """A mount, by which another sandbox is known to have the same."""

    kind: Words
    path: Path


class Node(Record, frozen=True):
    """A file of a file system in memory (TmpInode)."""

    mode: Id
    uid: Id
    gid: Id
    ino: Amount
    nlink: Int32
    times: tuple[Int64, Int64, Int64, Int64]
    """Access, modification, change, birth."""
    rdev: Id = 0
    flags: Id = 0
    seals: Id = 0
    target: Path | None = None
    """The text of a symbolic link."""
    bytes: Ref | None = None
    xattrs: list[tuple[Name, Data]] = []


class Difference(Record, frozen=True):
    """A file of the container's own layer over its root (OverlayInode)."""

    ino: Amount
    lower: Path | None = None
    """Where it is in the tree below, without a slash before it; None: it is only here."""
    upper: Node | None = None
    links: Int32 = 0
    """More than `upper`, or the lower file, has; less than none if names were removed."""
    removed: bool = False
    changed: Annotated[list[tuple[Name, Ref | None]], Many] = []
    """Names that differ in a directory, and what is there now; None: nothing."""


class Entry(Record, frozen=True):
    """A file of a tmpfs, with what is in it if it is a directory."""

    node: Node
    children: Annotated[list[tuple[Name, Ref]], Many] = []


class Tree(Record, frozen=True):
    """A file system in memory: the first one is its root."""

    mount: Ref
    """The first mount that shows it."""
    entries: Annotated[list[Entry], Many] = []
    """Of a tmpfs."""
    differences: Annotated[list[Difference], Many] = []
    """Of a layer over another one."""
