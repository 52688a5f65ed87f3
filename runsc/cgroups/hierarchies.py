"""Which cgroup hierarchies this machine has, and where in them we are: cgroups(7).

Version 1 has one hierarchy per controller, or for some together; version 2 one for all. A hybrid
machine has both, and a controller is in one of them. Everything is read from /proc/self/mountinfo
and /proc/self/cgroup, so that no mount point is taken for granted.
"""

from __future__ import annotations

import os
import re

import msgspec

V2 = ""
"""The name of the unified hierarchy, as in /proc/self/cgroup and in runc's state."""


class Hierarchy(msgspec.Struct, frozen=True):
    """One mounted hierarchy."""

    name: str
    """Its controllers as the kernel lists them ("cpu,cpuacct", "name=systemd"), or V2."""
    mount: str
    """Where it is mounted."""
    own: str
    """The directory of the cgroup that we are in."""
    controllers: tuple[str, ...]


def read(mountinfo: str | None = None, cgroup: str | None = None) -> list[Hierarchy]:
    """The hierarchies of this machine: those of version 1, then the unified one.

    The texts are those of proc(5); tests give their own.
    """
    lines = (_read("/proc/self/mountinfo") if mountinfo is None else mountinfo).splitlines()
    own = _own_paths(_read("/proc/self/cgroup") if cgroup is None else cgroup)
    made: dict[str, Hierarchy] = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2) if after.count(" ") >= 2 else ("", "", "")
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mount = (_unescape(field) for field in before.split(" ")[3:5])
        names = options.split(",")
        name = next((n for n in own if n and set(n.split(",")) <= set(names)), None)
        if kind == "cgroup2":
            name = V2
        if name is None or name in made or name not in own:
            continue
        controllers = tuple(name.split(",")) if name else _unified_controllers(mount)
        made[name] = Hierarchy(name, mount, _below(mount, root, own[name]), controllers)
    unified = made.pop(V2, None)
    return [*made.values(), *([unified] if unified is not None else [])]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _own_paths(text: str) -> dict[str, str]:
    """Name of a hierarchy → our cgroup in it."""
    parts = (line.split(":", 2) for line in text.splitlines())
    return {fields[1]: fields[2] for fields in parts if len(fields) == 3}


def _unescape(field: str) -> str:
    """Mount points have spaces and the like as \\ooo: proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _unified_controllers(mount: str) -> tuple[str, ...]:
    return tuple(_read(os.path.join(mount, "cgroup.controllers")).split())


def _below(mount: str, root: str, path: str) -> str:
    """Where our cgroup is seen: the mount may show only a part of the hierarchy (a container's)."""
    relative = os.path.relpath(path, root)
    if relative.startswith(".."):
        return mount  # not visible here, or shown relative to a cgroup namespace: its top is ours
    return os.path.normpath(os.path.join(mount, relative))
