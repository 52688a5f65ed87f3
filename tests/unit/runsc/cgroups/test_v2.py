from __future__ import annotations

from typing import Any

import pytest

from runsc.cgroups import cgroup, v2
from runsc.errors import RuntimeFailure
from runsc.oci.resources import decode
from tests.unit.runsc.cgroups.machines import Machine


def _apply(machine: Machine, document: dict[str, Any]) -> None:
    made = cgroup.at("/c1", "c1", machine.hierarchies())
    made.create()
    made.apply(decode(document), pytest.fail)


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000), (1, 1), (1 << 30, 10000)]
)
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert decode({"cpu": {"shares": shares}}).cpu_weight == weight


@pytest.mark.parametrize(("blkio", "io"), [(10, 1), (500, 4950), (1000, 10000)])
def test_weight_of_blkio(blkio: int, io: int) -> None:
    assert v2.weight_of_blkio(blkio) == io


@pytest.mark.parametrize(
    ("swap", "limit", "value"),
    [(0, 100, ""), (0, -1, "max"), (-1, 100, "max"), (300, 100, "200"), (100, 100, "0")],
)
def test_swap_is_without_memory(swap: int, limit: int, value: str) -> None:
    assert v2.swap_of(swap, limit) == value


def test_swap_below_memory_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="should be >= memory limit"):
        v2.swap_of(50, 100)
    with pytest.raises(RuntimeFailure, match="without memory limit"):
        v2.swap_of(50, 0)


def test_limits_are_written_in_the_words_of_version_2(v2: Machine) -> None:
    _apply(
        v2,
        {
            "memory": {"limit": 4096, "swap": 8192, "reservation": 1024},
            "cpu": {"shares": 1024, "quota": 50000, "period": 20000, "cpus": "0", "burst": 10},
            "blockIO": {
                "weight": 10,
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 9}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}],
            "pids": {"limit": 3},
        },
    )
    expected = {
        "memory.max": "4096",
        "memory.swap.max": "4096",
        "memory.low": "1024",
        "cpu.weight": "39",
        "cpu.max": "50000 20000",
        "cpu.max.burst": "10",
        "cpuset.cpus": "0",
        "io.weight": "default 1",
        "io.max": "8:16 wiops=9",
        "hugetlb.2MB.max": "2097152",
        "pids.max": "max",
    }

    assert {name: v2.read("", "c1", name) for name in expected} == expected


def test_unlimited_is_max_and_a_period_alone_keeps_the_quota(v2: Machine) -> None:
    _apply(v2, {"memory": {"limit": -1}, "cpu": {"quota": 1000}})
    _apply(v2, {"cpu": {"period": 5000}})

    assert v2.read("", "c1", "memory.max") == "max"
    assert v2.read("", "c1", "cpu.max") == "1000 5000"


def test_unified_is_written_as_it_is(v2: Machine) -> None:
    _apply(v2, {"memory": {"limit": 4096}, "unified": {"memory.max": "max"}})

    assert v2.read("", "c1", "memory.max") == "max"
    with pytest.raises(RuntimeFailure) as info:
        _apply(v2, {"unified": {"rdma.max": "1"}})
    assert str(info.value) == (
        'unified resource "rdma.max" can\'t be set: controller "rdma" not available'
    )
