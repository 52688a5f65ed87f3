"""/proc/PID/numa_maps: what is in memory of each mapping, all of it on node 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sentry.abi.mempolicy import (
    MPOL_BIND,
    MPOL_DEFAULT,
    MPOL_F_NUMA_BALANCING,
    MPOL_F_RELATIVE_NODES,
    MPOL_F_STATIC_NODES,
    MPOL_INTERLEAVE,
    MPOL_LOCAL,
    MPOL_MODE_FLAGS,
    MPOL_PREFERRED,
    MPOL_PREFERRED_MANY,
    MPOL_WEIGHTED_INTERLEAVE,
)
from sentry.mm.address_map import AddressMap
from sentry.mm.ramfile import RamFile
from sentry.mm.report import Describe, name_of
from sentry.mm.residency import residency
from sentry.mm.vma import Vma

Policy = tuple[int, int]
"""(mode with its flags, mask of nodes)."""
MODES: Final = {
    MPOL_DEFAULT: b"default", MPOL_PREFERRED: b"prefer", MPOL_BIND: b"bind",
    MPOL_INTERLEAVE: b"interleave", MPOL_LOCAL: b"local", MPOL_PREFERRED_MANY: b"prefer (many)",
    MPOL_WEIGHTED_INTERLEAVE: b"weighted interleave",
}  # fmt: skip
FLAGS: Final = (
    (MPOL_F_STATIC_NODES, b"static"), (MPOL_F_RELATIVE_NODES, b"relative"),
    (MPOL_F_NUMA_BALANCING, b"balancing"),
)  # fmt: skip
ROLES: Final = {b"[heap]": b" heap", b"[stack]": b" stack"}
ESCAPED: Final = {ord(each): f"\\{ord(each):03o}" for each in "\n\t= "}


def numa_maps(amap: AddressMap, own: Policy | None, describe: Describe) -> Iterator[bytes]:
    """A piece for each mapping: show_numa_map(), fs/proc/task_mmu.c. `own`: of the thread, where a
    mapping has no policy. Preconditions: the map's lock is held.
    """
    for vma in amap.vmas:
        policy = shown_policy(vma.policy or own or (MPOL_DEFAULT, 0))
        yield b"%08x %s%s%s\n" % (vma.start, policy, _what(amap, vma, describe), _pages(amap, vma))


def shown_policy(policy: Policy) -> bytes:
    """mpol_to_str()."""
    mode, nodes = policy
    shown = MODES[mode & ~MPOL_MODE_FLAGS]
    if mode & MPOL_MODE_FLAGS:
        shown += b"=" + b"|".join(name for flag, name in FLAGS if mode & flag)
    return shown + b":0" * bool(nodes)


def _what(amap: AddressMap, vma: Vma, describe: Describe) -> bytes:
    if vma.file is None:
        return ROLES.get(name_of(amap, vma), b"")
    path = describe(vma.file)[3].decode("utf-8", "surrogateescape").translate(ESCAPED)
    return b" file=" + path.encode("utf-8", "surrogateescape")


def _pages(amap: AddressMap, vma: Vma) -> bytes:
    found = residency(amap, vma)
    if not found.total:
        return b""
    dirty = found.total if isinstance(vma.backing, RamFile) else found.anonymous
    several = found.anonymous_shared or found.file_shared
    counts = {
        b"anon": found.anonymous,
        b"dirty": dirty,
        b"mapped": found.total if found.total not in (found.anonymous, dirty) else 0,
        b"mapmax": max(2, len(vma.backing.mappers) if vma.backing is not None else 0)
        if several else 0,
        b"N0": found.total,
        b"kernelpagesize_kB": 4,
    }  # fmt: skip
    return b"".join(b" %s=%d" % each for each in counts.items() if each[1])
