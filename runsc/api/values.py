"""Values of the Python API: what one gives, and what one gets."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from operator import index
from signal import Signals
from typing import Literal

import msgspec

from runsc.api.errors import SandboxError

PathLike = str | bytes | os.PathLike[str]
"""A path inside: from / on, if it does not begin with that."""
Kind = Literal["file", "dir", "link", "fifo", "socket", "char", "block", "unknown"]
OUTPUT = 16 << 20
"""Bytes of a command's output that are collected where no `Limits.output` says otherwise."""
LONGEST_NS = (1 << 62) - 1
"""Of a time that a sandbox counts: `sentry.config.Amount`."""
_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block",
}  # fmt: skip


class Mount(msgspec.Struct, frozen=True):
    """A folder or file of the host that a sandbox sees."""

    source: str
    readonly: bool = True


class Snapshot(msgspec.Struct, frozen=True):
    """The state of a sandbox at a moment, in a folder. It stays until somebody removes that."""

    path: str
    """The folder: docs/snapshots.md."""


class PolicyQuestion(msgspec.Struct, frozen=True):
    """What a policy asks: `sandbox.policy`. Texts may be a program's."""

    number: int
    text: str
    """What the policy says of it."""
    what: str
    """What is to be done: a call, and the object that it came to."""
    pid: int
    program: str
    seconds_left: float
    """Until it is decided without an answer."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a command, and all that it starts, may use together. None: as much as the sandbox.

    With one of them (but `output`) all that the command leaves running ends with it.
    """

    cpu: float | None = None
    """Seconds of CPU time."""
    memory: int | None = None
    """Bytes of RAM that its processes have at a time."""
    processes: int | None = None
    """Processes and threads at a time."""
    written: int | None = None
    """Bytes that it writes, to whatever it is (as wchar of /proc/PID/io; stores into mapped files
    do not count)."""
    output: int | None = None
    """Bytes of standard output and error together. None: 16 MiB of what is collected."""
    egress: int | None = None
    """Bytes that it sends out of the sandbox."""


class Usage(msgspec.Struct, frozen=True):
    """What a command, and all that it has started, have used."""

    wall: float = 0.0
    """Seconds, as its caller saw them."""
    user: float = 0.0
    """Seconds of CPU time, of its programs."""
    system: float = 0.0
    """And of the sandbox's kernel for them."""
    memory: int = 0
    """Bytes, the most; at least what its largest process had."""
    processes: int = 0
    """The most at a time, threads too."""
    read: int = 0
    """Bytes, by calls."""
    written: int = 0
    egress: int = 0

    @property
    def cpu(self) -> float:
        """Seconds of both."""
        return self.user + self.system


class CommandResult(msgspec.Struct, frozen=True):
    """How a command has ended."""

    exit_code: int
    """128 + n if signal n has ended it."""
    stdout_bytes: bytes = b""
    """What was collected: nothing where it went to a function or an iterator."""
    stderr_bytes: bytes = b""
    usage: Usage = Usage()

    @property
    def stdout(self) -> str:
        """As text; what is not UTF-8 is replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """The same of standard error."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def signal(self) -> Signals | None:
        """The one that has ended it, as far as the exit code tells that from a program's own."""
        try:
            return Signals(self.exit_code - 128)
        except ValueError:
            return None

    def check(self) -> CommandResult:
        """Itself. Raises: CommandFailed if the exit code is not 0."""
        if self.exit_code:
            raise CommandFailed(self)
        return self


class CommandFailed(SandboxError):
    """`CommandResult.check`: the exit code was not 0."""

    def __init__(self, result: CommandResult) -> None:
        super().__init__(f"exit code {result.exit_code}: {result.stderr[-200:].strip()}")
        self.result = result


class Size(msgspec.Struct, frozen=True):
    """Of a terminal."""

    rows: int = 24
    cols: int = 80


class EntryInfo(msgspec.Struct, frozen=True):
    """A file of a sandbox."""

    path: str
    type: Kind
    size: int
    mode: int
    """Permission bits, and set-id bits."""
    uid: int
    gid: int
    links: int
    modified: float
    """Seconds since 1970."""
    target: str | None = None
    """The text of a link."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return os.path.basename(self.path.rstrip("/")) or "/"


class FileChange(msgspec.Struct, frozen=True):
    """A file that is not as it was when the sandbox began."""

    path: str
    change: Literal["added", "modified", "removed"]
    type: Kind


class FilesystemEvent(msgspec.Struct, frozen=True):
    """What has happened in a folder that is watched."""

    type: Literal["create", "write", "remove", "rename", "chmod", "other", "overflow"]
    """rename: with the old name and with the new one, each. overflow: some events were lost."""
    name: str
    """Empty: the folder itself."""
    is_dir: bool = False


class SandboxInfo(msgspec.Struct, frozen=True):
    """What is known of a sandbox."""

    sandbox_id: str
    status: str
    """ "creating", "created", "running", "paused" or "stopped"."""
    created: str
    """UTC, as RFC 3339."""
    root: str
    """The tree of the host below its root."""
    detached: bool
    """It outlives the process that has made it."""
    expires_in: float | None = None
    """Seconds; None: nobody has set that, or it has stopped."""


class Stats(msgspec.Struct, frozen=True):
    """What all programs of a sandbox use."""

    user: float
    """Seconds of CPU time."""
    system: float
    memory: int
    """Bytes, kernel objects included."""
    memory_limit: int
    processes: int
    """Tasks."""
    oom_kills: int
    """Processes that were killed because memory ran out."""


def nanoseconds(what: str, seconds: float | None) -> int:
    """0: None, no such time. Raises: ValueError, also for what never ends."""
    if seconds is None:
        return 0
    if not 0 < seconds <= LONGEST_NS / 1e9:
        raise ValueError(f"a {what} of {seconds} seconds")
    return min(max(1, int(seconds * 1e9)), LONGEST_NS)


def number(what: str, given: int | None) -> int:
    """0: None, nothing is said. Raises: ValueError, TypeError."""
    if given is not None and index(given) < 1:
        raise ValueError(f"{what}: {given}")
    return given or 0


def variables(env: Mapping[str, str] | None) -> tuple[str, ...]:
    """NAME=VALUE. Raises: ValueError."""
    for name in env or ():
        if not name or "=" in name:
            raise ValueError(f"{name!r} is no name of a variable")
    return tuple(f"{name}={value}" for name, value in (env or {}).items())


def kind_of(mode: int) -> Kind:
    """Of the type bits of a mode."""
    return _KINDS.get(mode & 0o170000, "unknown")
