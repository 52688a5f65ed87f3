"""Memory, open files, tasks, CPUs, cgroups, and where state is kept."""

from __future__ import annotations

import os
import resource

from runsc.cgroups import hierarchies, systemd
from runsc.cgroups.hierarchies import Hierarchy
from runsc.checks.findings import Finding, bad, good, note

MIB = 1 << 20
LITTLE_MIB = 512
"""Less memory than that is little for a sandbox."""
FEW_FILES = 4096
"""Open files of the host: fewer are soon used up."""
ADDRESS_SPACE = 64 << 30
"""What the Sentry maps, most of it never used."""


def memory(available_mib: int | None = None) -> Finding:
    """What is free now; a sandbox is given half of all by default."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    free = _available_mib() if available_mib is None else available_mib
    text = f"{total} MiB, {free} of them available"
    if free < LITTLE_MIB:
        return note("memory", text, "little for a sandbox: give each less with --memory=SIZE")
    return good("memory", text)


def _available_mib() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) // 1024
    return 0


def rlimits() -> list[Finding]:
    """Those that a sandbox inherits."""
    found = []
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = files == resource.RLIM_INFINITY
    text = "no limit" if endless else f"{files} at most"
    if not endless and files < FEW_FILES:
        advice = "programs of a sandbox share them: raise the hard limit (`ulimit -Hn`)"
        found.append(note("open files", text, advice))
    else:
        found.append(good("open files", text))
    _, space = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space < ADDRESS_SPACE:
        advice = "the Sentry maps more than it uses: `ulimit -Hv unlimited`"
        found.append(bad("address space", f"{space // MIB} MiB at most", advice))
    return found


def cpus(count: int | None = None) -> Finding:
    """Programs and the Sentry run at the same time where there are two."""
    number = len(os.sched_getaffinity(0)) if count is None else count
    if number == 1:
        return note("cpus", "one", "programs and the Sentry take turns on it: give runsc a second")
    return good("cpus", str(number))


def cgroups(found: list[Hierarchy] | None = None) -> Finding:
    """Whether limits of a container can be set on the host."""
    there = hierarchies.read() if found is None else found
    useful = [each for each in there if each.controllers]
    if not useful:
        return note(
            "cgroups", "none are mounted",
            "memory and tasks are limited inside the sandbox all the same; CPU time is not",
        )  # fmt: skip
    unified = [each for each in useful if each.name == hierarchies.V2]
    version = "version 2" if len(unified) == len(useful) else "version 1"
    if unified and version == "version 1":
        version = "version 1 and 2"
    names = " ".join(sorted({name for each in useful for name in each.controllers}))
    closed = [each.own for each in useful if not os.access(each.own, os.W_OK)]
    text = f"{version}: {names}"
    if closed:
        return note(
            "cgroups", f"{text}; {closed[0]} cannot be written",
            "limits of config.json are left out: run as root, or have the folder delegated (with"
            " systemd: `Delegate=yes`)",
        )  # fmt: skip
    return good("cgroups", text)


def systemd_cgroups() -> list[Finding]:
    """Whether systemd can be asked for them, where it is the init: most engines want that."""
    if not os.path.isdir(systemd.RUNNING):
        return []
    if systemd.can_ask():
        return [good("systemd", "the init; can be asked for cgroups")]
    return [
        note(
            "systemd", "the init; cannot be asked for cgroups, which engines do by default",
            "without it, `docker run` and `podman run` fail: `pip install 'runsc[systemd]'`",
        )
    ]  # fmt: skip


def state_root(path: str) -> Finding:
    """Whether the folder is there, or can be made."""
    at = os.path.abspath(path)
    while not os.path.exists(at):
        at = os.path.dirname(at)
    if not os.path.isdir(at):
        return bad("state", f"{at} is no folder", "choose another one with --root=DIR")
    if not os.access(at, os.W_OK | os.X_OK):
        return bad("state", f"{at} cannot be written", "choose another folder with --root=DIR")
    return good("state", path)
