"""From a record in state.json to the cgroup, whoever has made it."""

from __future__ import annotations

from runsc.cgroups import Record
from runsc.cgroups.cgroup import Cgroup


def of(record: Record) -> Cgroup:
    """That of a container which another command has made."""
    if not record.unit:
        return Cgroup(record)
    from runsc.cgroups.scope import Scope  # noqa: PLC0415  systemd's are rare

    return Scope(record)
