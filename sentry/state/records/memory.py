"""Records of frames, files in RAM and address spaces."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.state.records.base import Amount, Id, Many, Path, Position, Record, Ref, Word
from sentry.state.records.names import InTree


class Run(Record, frozen=True, array_like=True):
    """Consecutive pages from `page` on: frames `frame`, `frame` + 1, … of the snapshot.

    Frame 0: all of them are frames of zeros.
    """

    page: Amount
    frame: Amount
    count: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]


Runs = Annotated[list[Run], Many]


class Bytes(Record, frozen=True):
    """A file in RAM (RamFile): its frames by page."""

    size: Position
    runs: Runs = []
    name: Path = b""
    transient: bool = False


class Mapping(Record, frozen=True):
    """A mapping (Vma), and the frames of its own that are behind it."""

    start: Amount
    end: Amount
    prot: Annotated[int, msgspec.Meta(ge=0, le=7)]
    flags: Id
    offset: Amount = 0
    name: Path = b""
    file: Ref | None = None
    """An open file that it shows."""
    bytes: Ref | None = None
    """Shared memory without an open file."""
    policy: tuple[Id, Amount] | None = None
    below: InTree | None = None
    """Of `file` the lower file, which was copied up since: what it shows."""
    runs: Runs = []
    """Pages count from the start of the mapping."""


class Layout(Record, frozen=True):
    """ProgramLayout."""

    start_code: Word = 0
    end_code: Word = 0
    start_data: Word = 0
    end_data: Word = 0
    start_brk: Word = 0
    start_stack: Word = 0
    arg_start: Word = 0
    arg_end: Word = 0
    env_start: Word = 0
    env_end: Word = 0
    auxv: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""


class Memory(Record, frozen=True):
    """An address space."""

    limits: Ref
    mmap_base: Amount
    brk_start: Amount
    brk_end: Amount
    layout: Layout
    mappings: Annotated[list[Mapping], Many]
    lock_future: Id = 0
    mdwe: Id = 0
    randomize: bool = True
    barriers: Id = 0
    no_huge_pages: bool = False
