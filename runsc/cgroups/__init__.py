"""The cgroup of a container's sandbox: see README.md. Start at `cgroup.for_container`."""

from __future__ import annotations

from runsc.values import Value


class Record(Value):
    """What state.json keeps of a container's cgroup: enough to remove it after any crash."""

    directories: dict[str, str] = {}  # noqa: RUF012  see Value
    """Name of a hierarchy (as in /proc/self/cgroup; "" is version 2) → the cgroup's directory."""
    controllers: dict[str, str] = {}  # noqa: RUF012  see Value
    """Controller → name of its hierarchy."""
    made: tuple[str, ...] = ()
    """Directories that were not there before, outermost first."""
    unit: str = ""
    """systemd's scope that it is; empty if it is none."""
    slice: str = ""
    """In which that is."""
