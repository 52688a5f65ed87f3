"""How much of a memory limit the guest gets, and how many CPUs it is shown."""

from __future__ import annotations

from runsc.cgroups.resources import Resources, parse_list

OVERHEAD = 48 << 20
"""Bytes that Sentry and Gofer take beside the guest's memory: README.md says how it was found."""


def guest_memory(limit: int) -> int:
    """The size of the guest's RAM under a limit for the whole sandbox.

    If it were the limit itself, the host would end the sandbox before the Sentry's own killer could
    end a program. A limit that is small keeps its half: the rest has to do.
    """
    return max(limit - OVERHEAD, limit // 2)


def visible_cpus(available: set[int], resources: Resources | None) -> int:
    """CPUs that the program is shown: those of the caller that are in the container's cpuset."""
    wanted = resources.cpus if resources is not None else ""
    try:
        chosen = available & parse_list(wanted) if wanted else available
    except ValueError:  # a form that only the kernel reads, or that it will refuse
        chosen = available
    return len(chosen) or len(available)
