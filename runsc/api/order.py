"""What the process that keeps a sandbox (`keeper.py`) is told, and says: lines of JSON."""

from __future__ import annotations

import msgspec

from sentry.faults import InjectState

MAX_LINE = 8 << 20
ANNOTATION = "dev.runsc.api"
"""Of sandboxes that were made so: "attached" to who has made them, or "detached"."""


ORDER = "dev.runsc.order"
"""The same: how it was made, for who makes another one of a snapshot."""
BEGINS = "begins"
"""A word for the keeper: it has a zygote begin."""


class Now(msgspec.Struct, frozen=True, omit_defaults=True):
    """What counts in place of what a sandbox was made with, where that has been changed since."""

    egress: str | None = None
    """None: as it was made."""
    used: tuple[tuple[int, int, int], ...] = ()
    """What of its limits is used up: sentry.config.EgressConfig."""
    policy: str | None = None
    """Empty: there is none any more; `runsc.launch.policy.LEARN`: what programs do is told."""
    injected: tuple[InjectState, ...] | None = None
    """Faults, and what has come of them."""


class Order(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A sandbox."""

    sandbox_id: str
    state: str
    """The folder of states (`--root` of the command line)."""
    root: str = ""
    """A folder of the host, or an image of EROFS; empty, and no `bundle`: all of the host's."""
    bundle: str = ""
    image: str = ""
    """What `runsc.images.root_of` takes: a path, or an engine's name of one."""
    image_is_path: bool = False
    """It is no name, whatever it looks like."""
    folder: str = "/"
    """From which a path of an image is meant."""
    platform: str = "kvm"
    memory: int = 0
    """Bytes; 0: as the command line has it."""
    env: tuple[str, ...] = ()
    """NAME=VALUE."""
    network: str = "none"
    egress: str | None = None
    """A policy."""
    policy: str | None = None
    """Of system calls: its source, in Python."""
    mounts: tuple[tuple[str, str, bool], ...] = ()
    """(target, source, read-only)."""
    readonly: bool = False
    detach: bool = False
    forkable: bool = False
    expires_ns: int = 0
    """Of the time to live, if it has one."""
    flags: tuple[str, ...] = ()
    """More global flags."""
    snapshot: str = ""
    """The folder of a snapshot that it begins with."""
    background: bool = False
    """Its memory is read when it is touched."""
    tells: bool = False
    """How far an image is that becomes a root is said meanwhile."""
    now: Now = Now()


class ForkWish(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of the process that makes forks (`forker.py`): make some, or end some with their forks."""

    names: tuple[str, ...]
    of: str = ""
    """What they are copies of."""
    ends: bool = False
    hostname: str = ""
    """Empty: as it is."""
    expires_ns: int = 0
    memory: int = 0
    """Bytes; 0: as its parent has."""
    forkable: bool = False
    stands: bool = False
    """Templates."""
    network: str | None = None
    namespaces: tuple[str, ...] = ()
    """See `forking.Origin.fork`."""
    succeeds: bool = False
    """Not a new one: of the template `of` one goes on under this name."""


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """`word` is "warning", "progress", "ready", or "error": what went wrong, nothing follows."""

    word: str
    text: str = ""
    done: int = 0
    """progress, of what `text` says: bytes, of `total` (0: nobody knows); `runsc.progress.Tell`."""
    total: int = 0
