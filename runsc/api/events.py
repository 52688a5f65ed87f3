"""What a sandbox tells of its files, as the Python API shows it. It is not trusted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from runsc.api.errors import SandboxError
from runsc.api.values import EntryInfo, FileChange, FilesystemEvent, kind_of
from sentry.abi import inotify as abi

if TYPE_CHECKING:
    from sentry.control import answers, protocol

T = TypeVar("T")
_WORDS: Final[
    tuple[tuple[int, Literal["create", "write", "remove", "rename", "chmod", "overflow"]], ...]
] = (
    (abi.IN_Q_OVERFLOW, "overflow"),
    (abi.IN_CREATE, "create"),
    (abi.IN_MODIFY, "write"),
    (abi.IN_DELETE | abi.IN_DELETE_SELF, "remove"),
    (abi.IN_MOVED_FROM | abi.IN_MOVED_TO | abi.IN_MOVE_SELF, "rename"),
    (abi.IN_ATTRIB, "chmod"),
)
_CHANGES: Final[dict[str, Literal["added", "modified", "removed"]]] = {
    "added": "added", "modified": "modified", "removed": "removed",
}  # fmt: skip
UNTOLD: Final = abi.IN_IGNORED
QUIET: Final = abi.IN_ACCESS | abi.IN_OPEN | abi.IN_CLOSE_NOWRITE | abi.IN_CLOSE_WRITE
"""Nothing has changed."""


def decoded(lines: protocol.LineBuffer, data: bytes, kind: type[T]) -> list[T]:
    """Lines of JSON. Raises: SandboxError where the sandbox says what is none."""
    try:
        return [msgspec.json.decode(line, type=kind) for line in lines.feed(data)]
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise SandboxError(f"the sandbox said what is no {kind.__name__}: {error}") from None


def entry_of(entry: answers.FileEntry) -> EntryInfo:
    """A file."""
    return EntryInfo(
        os.fsdecode(entry.path),
        kind_of(entry.mode),
        entry.size,
        entry.mode & 0o7777,
        entry.uid,
        entry.gid,
        entry.links,
        entry.modified_ns / 1e9,
        os.fsdecode(entry.target) if entry.target else None,
    )


def change_of(change: answers.FileChange) -> FileChange:
    """A name that has changed. Raises: SandboxError."""
    word = _CHANGES.get(change.kind)
    if word is None:
        raise SandboxError(f"the sandbox said what is no change: {change.kind!r}")
    return FileChange(os.fsdecode(change.path), word, kind_of(change.mode))


def event_of(event: answers.FileEvent) -> FilesystemEvent | None:
    """Something that has happened; None: it is over, or nothing has changed."""
    mask = event.mask
    if mask & UNTOLD or not mask & ~(QUIET | abi.IN_ISDIR):
        return None
    name, is_dir = os.fsdecode(event.name), bool(mask & abi.IN_ISDIR)
    for bits, word in _WORDS:
        if mask & bits:
            return FilesystemEvent(word, name, is_dir)
    return FilesystemEvent("other", name, is_dir)
