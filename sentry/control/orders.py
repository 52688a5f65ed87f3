"""What requests on the control socket carry. See `protocol.py`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.config import (
    Amount,
    Capabilities,
    JobLimits,
    LinkConfig,
    Mask,
    PolicyConfig,
    Rlimit,
    SchedulerConfig,
)
from sentry.faults import MAX_RULES, InjectRule, InjectState

Number = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""Of what a sandbox says, which is not trusted: JSON has numbers of any size."""
Id = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
"""A user or a group."""
Ns = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]


class ExecProcess(msgspec.Struct, omit_defaults=True, frozen=True):
    """A process to be added to a container: what differs from the container's first one.

    What is None, or an empty cwd or rlimits, is as there.
    """

    args: tuple[bytes, ...]
    env: tuple[bytes, ...] | None = None
    extra_env: tuple[bytes, ...] = ()
    cwd: bytes = b""
    uid: Id | None = None
    gid: Id | None = None
    additional_gids: tuple[Id, ...] | None = None
    extra_gids: tuple[Id, ...] = ()
    umask: Annotated[int, msgspec.Meta(ge=0, le=0o7777)] | None = None
    capabilities: Capabilities | None = None
    extra_capabilities: Mask = 0
    """Added to the bounding, effective and permitted sets."""
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool | None = None
    oom_score_adj: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] | None = None
    scheduler: SchedulerConfig | None = None
    io_priority: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] | None = None
    """IOPRIO_PRIO_VALUE."""
    terminal: bool = False
    """The first descriptor is the wire of a terminal; the second and third are not used."""
    ignore_paused: bool = False
    job: JobLimits | None = None
    """What comes of it belongs together, and is told of at its end: sentry.kernel.job. None: it is
    by itself."""


class Trace(msgspec.Struct, omit_defaults=True, frozen=True):
    """Which system calls are written, and where to: a descriptor that comes with the first byte of
    the line, or the sandbox's log."""

    on: bool = True
    calls: tuple[str, ...] = ()
    others: bool = True
    """All but those."""
    limit: Annotated[int, msgspec.Meta(ge=0, le=1 << 16)] = 32
    """Bytes of what is read and written."""


class FileOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """What is to be done with files of a container, by a user: where its first process is, as the
    system calls of a program would do it.

    `do` is "stat", "make" (a directory, and those above it), "remove" (with all that is below),
    "rename", or one of those with which a pipe comes: "read" and "write" (its bytes), "list" (names
    below a directory, as lines of `FileEntry`), "watch" (`FileEvent`, as long as the connection
    lasts) and "diff" (`FileChange`: what is not as in the tree that lies below the root).
    """

    do: str
    path: bytes = b""
    """From / on, if it does not begin with that."""
    target: bytes = b""
    """rename: the new name."""
    uid: Id = 0
    gid: Id = 0
    groups: tuple[Id, ...] = ()
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o644
    """write, make: of what is made, less the umask."""
    offset: Amount = 0
    """read: from there on, of a file that has positions."""
    size: Amount = 0
    """read: so many bytes at most; 0: any number."""
    regular: bool = False
    """read: EINVAL if it is no regular file."""
    depth: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 1
    """list: 1 is the directory alone."""
    follow: bool = True
    """stat: where a link leads to."""
    append: bool = False
    """write: what is there stays."""


class Decided(msgspec.Struct, omit_defaults=True, frozen=True):
    """What the owner of a sandbox has decided about it, whatever its programs do."""

    policy: PolicyConfig | None = None
    """None: nobody decides on system calls."""
    injected: Annotated[tuple[InjectState, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    egress: str | None = None
    """A policy; None: nobody judges what leaves."""


class ForkOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """A copy of the sandbox as it is. What comes with it: `Given` of sentry.fork."""

    hostname: bytes = b""
    """Empty: as it is."""
    expires_ns: Amount = 0
    """It ends in so long; 0: in its own time."""
    memory_limit: Amount = 0
    """Bytes; 0, or more than that: what its parent has."""
    link: LinkConfig | None = None
    """Its network, if it has one. A further descriptor comes with it, which the link's is then."""
    network: bool = False
    """It has a network process, as its parent has. A further descriptor comes with it, the way
    there."""
    own_log: bool = False
    """Else its messages go where its parent's do."""
    forkable: bool = False
    """It may be forked, too: it keeps what that takes."""
    stands: bool = False
    """It stands still, a template: what it keeps is for who goes on from there."""
    succeeds: bool = False
    """It goes on in the place of the sandbox that its template is of: `sentry.fork.succession`. A
    further descriptor comes with it."""
    decided: Decided | None = None
    """In place of what its parent has of that; None: the same. Forks have no judge of what
    leaves."""


class PolicyOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """`do` is "load" (another policy, or none, from now on), "show" (it, and what came of it) or
    "answer" (what it has asked)."""

    do: str
    policy: PolicyConfig | None = None
    """load: None is none."""
    number: Number = 0
    """answer: that of the question."""
    verdict: str = ""
    """answer: in words: sentry.policy.verdicts."""


class ClockOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """How the time that programs see goes on: `do` is "" (it is only told), "speed", "jump" (so
    much has gone by at once) or "set" (the wall clock alone shows that)."""

    do: str = ""
    ns: Ns = 0
    speed: Annotated[float, msgspec.Meta(ge=0, le=10_000)] = 1.0


class ServeOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """What the sandbox's owner serves: `do` is "mount" (a file system, on the directory `path`),
    "device" (a character device of this name), "proc" (a file of this name in /proc) or "unmount".
    The stream to who serves it, in 9P, comes with the first byte of the request, but for the
    last."""

    do: str
    path: bytes
    read_only: bool = False
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o644
    """Of a device, or a file of /proc."""
    patience_ns: Annotated[int, msgspec.Meta(ge=10**6, le=10**14)] = 30 * 10**9
    """What has no answer for so long has none: EIO, for all of it."""


class InjectOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """Rules about faults, in place of those that there are; None: these are only told."""

    rules: Annotated[tuple[InjectRule, ...], msgspec.Meta(max_length=MAX_RULES)] | None = None
