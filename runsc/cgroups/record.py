"""What state.json keeps of a container's cgroup: enough to remove it after any crash."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """Where a cgroup lies, and which of its directories are ours to remove."""

    directories: dict[str, str] = {}
    """Name of a hierarchy (as in /proc/self/cgroup; "" is version 2) → the cgroup's directory."""
    controllers: dict[str, str] = {}
    """Controller → name of its hierarchy."""
    made: tuple[str, ...] = ()
    """Directories that were not there before, outermost first."""
