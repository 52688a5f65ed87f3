"""Records of mounts, and of trees of files in memory."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

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
    Word,
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


InTree = tuple[Ref, Ref]
"""A file of a tree: the tree, and which of its files."""
Layers = msgspec.Meta(max_length=501)


class Where(Record, frozen=True):
    """A file by its path in a file system, whether that is still mounted or not."""

    model: Ref | None = None
    """A mount that the container began with, from whose root on the path is; else"""
    fs: Ref | None = None
    """one of `MountTable`, from the top of which it is."""
    root: Path = b""
    """The path."""
    tree: Ref | None = None
    """It has lost its name: it is `inode` of this tree."""
    inode: Ref = 0


class Listed(Record, frozen=True, array_like=True):
    """A name of a directory, as it was listed."""

    name: Name
    ino: Word
    mode: Id
    """Its type, as in st_mode."""


class LayeredFile(Record, frozen=True):
    """A file of an overlay that a program has mounted, which somebody has (LayeredInode)."""

    ino: Word
    device: Ref | None = None
    """Which of `FileSystem.devices` is its st_dev; None: that of the overlay."""
    parent: Ref | None = None
    """The directory in which it is, or was when it was removed;"""
    name: Name = b""
    """its name there."""
    lost: bool = False
    """It has no name any more. Then"""
    gone: bool = False
    """whether its name was removed, and nothing is known of others;"""
    upper: InTree | None = None
    """its file in the upper layer;"""
    lowers: Annotated[list[Ref], Layers] = []
    """the layers in which `parent` has it by `name`."""


class Overlay(Record, frozen=True):
    """An overlay that a program has mounted. Its layers are counted from the upper one (0) down; if
    there is none they begin with 1."""

    data: Annotated[bytes, msgspec.Meta(max_length=1 << 22)]
    """What mount(2) was given."""
    uuid_option: Literal["auto", "null", "off", "on"]
    """What has become of that."""
    creds: Ref
    """Of who has mounted it, with whose rights layers are looked at."""
    layers: Annotated[list[Where], Layers]
    others: Annotated[list[InTree], Layers] = []
    """Directories that no layer may have in it: where `work` is, layers for data alone."""
    work: InTree | None = None
    """In the upper layer's file system: the directory for what has no place in the overlay,"""
    whiteout: InTree | None = None
    """and the file that has the names of all whiteouts."""
    marks: bool = False
    """The upper layer takes the overlay's extended attributes."""
    uuid: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    next_ino: Word = 0
    """st_ino of the next directory that needs one of its own."""
    files: Annotated[list[LayeredFile], Many] = []
    """The first one is its root."""


class Image(Record, frozen=True):
    """An EROFS that a program has mounted: the file that it is read from."""

    at: Where
    mount: Ref | None = None
    """By which it is open."""


class Tree(Record, frozen=True):
    """A file system in memory: the first one is its root. Or one that lies over others."""

    mount: Ref
    """The first mount that shows it."""
    fs: Ref | None = None
    """It is not mounted any more, and one of `MountTable`."""
    entries: Annotated[list[Entry], Many] = []
    """Of a tmpfs."""
    differences: Annotated[list[Difference], Many] = []
    """Of a layer over another one."""
    overlay: Overlay | None = None
    image: Image | None = None
    uuid: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    """Of a tmpfs, once somebody has asked for it."""
