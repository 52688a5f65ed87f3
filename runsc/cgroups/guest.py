"""How much of a memory limit the guest gets, and how many CPUs it is shown."""

from __future__ import annotations

from runsc.oci.resources import Resources, parse_list

OVERHEAD = 48 << 20
"""Bytes beside the guest's memory: 15 to 20 MiB of Sentry and Gofer, and 17 to 32 MiB of the host
kernel (KVM's page tables), as memory.stat and memory.kmem.usage_in_bytes showed with a guest that
used all of its 32, 80 and 208 MiB, with 100 and with 400 processes."""


def guest_memory(limit: int) -> int:
    """The size of the guest's RAM under a limit for the whole sandbox.

    If it were the limit itself, the host would end the sandbox before the Sentry's own killer could
    end a program. What the kernel takes grows with the guest. Under a limit that is too small for
    both, the guest keeps a quarter.
    """
    return max(limit - OVERHEAD - limit // 16, limit // 4)


def visible_cpus(available: set[int], resources: Resources | None) -> int:
    """CPUs that the program is shown: those of the caller that are in the container's cpuset."""
    wanted = resources.cpus if resources is not None else ""
    try:
        chosen = available & parse_list(wanted) if wanted else available
    except ValueError:  # a form that only the kernel reads, or that it will refuse
        chosen = available
    return len(chosen) or len(available)
