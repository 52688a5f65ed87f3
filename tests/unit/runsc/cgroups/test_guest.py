from __future__ import annotations

import pytest

from runsc.cgroups.guest import host_limit, on_host, visible_cpus
from runsc.oci.resources import Memory, decode, parse_list

MIB = 1 << 20


def _memory(in_force: int = 0, **values: int) -> Memory | None:
    return on_host(decode({"memory": values}), in_force).memory


@pytest.mark.parametrize("limit", [1, 16 * MIB, 256 * MIB, 16 << 30])
def test_cgroup_holds_the_limit_and_what_the_sandbox_takes(limit: int) -> None:
    assert limit + 64 * MIB <= host_limit(limit) <= limit + 64 * MIB + limit // 16
    assert _memory(limit=limit) == Memory(limit=host_limit(limit))


def test_swap_of_the_cgroup_is_what_was_asked_for() -> None:
    made = _memory(limit=256 * MIB, swap=300 * MIB)

    assert made is not None
    assert made.swap is not None
    assert made.limit is not None
    assert made.swap - made.limit == 44 * MIB


@pytest.mark.parametrize("limit", [16 * MIB, 256 * MIB, 3 << 30])
def test_swap_alone_counts_from_the_limit_in_force(limit: int) -> None:
    in_force = host_limit(limit)

    made = _memory(in_force, swap=limit + 44 * MIB)

    assert made == Memory(swap=in_force + 44 * MIB)


def test_no_limit_stays_none() -> None:
    assert _memory(limit=-1, swap=-1) == Memory(limit=-1, swap=-1)
    assert _memory(limit=-1, swap=5 * MIB) == Memory(limit=-1, swap=5 * MIB)
    assert _memory(swap=5 * MIB) == Memory(swap=5 * MIB)
    assert _memory(reservation=5 * MIB) == Memory(reservation=5 * MIB)
    assert on_host(decode({"cpu": {"shares": 7}})) == decode({"cpu": {"shares": 7}})


def test_visible_cpus_are_those_of_the_cpuset() -> None:
    def shown(cpus: str) -> int:
        return visible_cpus({0, 1, 2, 3}, decode({"cpu": {"cpus": cpus}}))

    assert visible_cpus({0, 1}, None) == 2
    assert (shown("0-1"), shown("1,3"), shown("2-9"), shown("")) == (2, 2, 2, 4)
    assert (shown("all"), shown("7")) == (4, 4)
    assert parse_list("0-2,7") == {0, 1, 2, 7}
