"""Lines of numa_maps, and how it shows policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sentry.abi.mempolicy import (
    MPOL_BIND,
    MPOL_DEFAULT,
    MPOL_F_NUMA_BALANCING,
    MPOL_F_STATIC_NODES,
    MPOL_LOCAL,
    MPOL_PREFERRED_MANY,
)
from sentry.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from sentry.mm.faults import populate
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.mm.numa_report import Policy, numa_maps, shown_policy

if TYPE_CHECKING:
    from conftest import OpenFile

PAGE = 4096
AT = 0x400000


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ((MPOL_DEFAULT, 0), b"default"),
        ((MPOL_LOCAL, 0), b"local"),
        ((MPOL_PREFERRED_MANY, 1), b"prefer (many):0"),
        ((MPOL_BIND | MPOL_F_STATIC_NODES, 1), b"bind=static:0"),
        ((MPOL_BIND | MPOL_F_STATIC_NODES | MPOL_F_NUMA_BALANCING, 1), b"bind=static|balancing:0"),
    ],
)
def test_policies_are_shown_as_linux_does(policy: Policy, text: bytes) -> None:
    assert shown_policy(policy) == text


def test_lines_tell_what_is_there_by_the_policy_that_counts(
    mm: MemoryManager, host_file: Callable[..., OpenFile]
) -> None:
    anonymous = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    mmap(mm.map, AT, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, host_file(b"x" * PAGE), 0)
    mmap(mm.map, AT + 2 * PAGE, 3 * PAGE, PROT_READ | PROT_WRITE, anonymous)
    populate(mm.map, AT + 2 * PAGE, AT + 5 * PAGE)
    (own,) = (vma for vma in mm.map.vmas if vma.start == AT + 2 * PAGE)
    own.policy = MPOL_BIND, 1
    lines = list(numa_maps(mm.map, (MPOL_LOCAL, 0), lambda _: (0, 0, 0, b"/a b")))
    assert lines[0].startswith(b"00400000 local file=/a\\040b")
    assert lines[1] == b"00402000 bind:0 anon=3 dirty=3 N0=3 kernelpagesize_kB=4\n"
