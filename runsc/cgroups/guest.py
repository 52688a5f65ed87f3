"""What a limit of memory is on the host, and how many CPUs the guest is shown.

The limit that config.json asks for is the guest's: its memory.max, and where the Sentry's
out-of-memory killer acts. The cgroup on the host holds the sandbox's own processes besides.
"""

from __future__ import annotations

from msgspec.structs import replace

from runsc.oci.resources import Resources, parse_list

BASE = 64 << 20
PART = 16
"""Bytes, and the part of the limit, that a sandbox may need besides: 15 to 20 MiB of Sentry and
Gofer, 17 to 32 MiB of the host's kernel (KVM's page tables), as memory.stat and
memory.kmem.usage_in_bytes showed with a guest that used all of its 32, 80 and 208 MiB, with 100 and
with 400 processes; and what the Sentry allocates before its killer notices (own_memory.py). What
the kernel takes grows with the guest."""


def host_limit(limit: int) -> int:
    """The limit of the cgroup in which a guest with this one runs.

    If it were the same, the host would end the sandbox before the Sentry could end a program.
    """
    return limit + BASE + limit // PART


def _besides(on_host: int) -> int:
    """What of a cgroup's limit is not the guest's."""
    return on_host - max(0, on_host - BASE) * PART // (PART + 1)


def on_host(resources: Resources, in_force: int = 0) -> Resources:
    """The same limits, for the cgroup on the host, whose memory is limited to `in_force` now.

    Memory and swap together grow by as much as memory, so that swap stays what it is.
    """
    memory = resources.memory
    if memory is None:
        return resources
    limit, swap = memory.limit or 0, memory.swap or 0
    besides = host_limit(limit) - limit if limit > 0 else _besides(in_force) if in_force else 0
    if limit > 0:
        memory = replace(memory, limit=limit + besides)
    if swap > 0 and limit != -1:
        memory = replace(memory, swap=swap + besides)
    return replace(resources, memory=memory)


def visible_cpus(available: set[int], resources: Resources | None) -> int:
    """CPUs that the program is shown: those of the caller that are in the container's cpuset."""
    wanted = resources.cpus if resources is not None else ""
    try:
        chosen = available & parse_list(wanted) if wanted else available
    except ValueError:  # a form that only the kernel reads, or that it will refuse
        chosen = available
    return len(chosen) or len(available)
