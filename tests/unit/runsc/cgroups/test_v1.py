from __future__ import annotations

from typing import Any

import pytest

from runsc.cgroups import cgroup, files
from runsc.errors import RuntimeFailure
from runsc.oci.resources import decode
from tests.unit.runsc.cgroups.machines import Machine


def _apply(machine: Machine, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The writes that applying it makes: (file, value), in order."""
    made = cgroup.at("/c1", "c1", machine.hierarchies())
    made.create()
    writes: list[tuple[str, str]] = []
    write = files.write

    def noted(directory: str, name: str, value: str) -> None:
        writes.append((name, value))
        write(directory, name, value)

    monkeypatch.setattr(files, "write", noted)
    made.apply(decode(document), pytest.fail)
    monkeypatch.setattr(files, "write", write)
    return writes


def test_memory_limit_comes_before_swap_when_both_fall(
    v1: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = _apply(v1, {"memory": {"limit": 1000, "swap": 2000}}, monkeypatch)

    assert writes == [
        ("memory.limit_in_bytes", "1000"),
        ("memory.memsw.limit_in_bytes", "2000"),
    ]


def test_memory_swap_comes_first_when_both_rise(
    v1: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _apply(v1, {"memory": {"limit": 1000, "swap": 2000}}, monkeypatch)
    writes = _apply(v1, {"memory": {"limit": 3000, "swap": 4000}}, monkeypatch)

    assert [name for name, _ in writes] == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]


def test_memory_unlimited_takes_the_limit_of_swap_away(
    v1: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = _apply(v1, {"memory": {"limit": -1}}, monkeypatch)

    assert writes == [("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1")]


def test_memory_other_fields(v1: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"memory": {"reservation": 77, "swappiness": 0, "kernel": 5}}
    writes = _apply(v1, document, monkeypatch)

    assert writes == [("memory.soft_limit_in_bytes", "77"), ("memory.swappiness", "0")]


def test_cpu_quota_period_burst_and_shares(v1: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"cpu": {"shares": 512, "quota": 50000, "period": 20000, "burst": 10000}}
    writes = _apply(v1, document, monkeypatch)

    assert writes == [
        ("cpu.shares", "512"),
        ("cpu.cfs_burst_us", "0"),
        ("cpu.cfs_period_us", "20000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_burst_us", "10000"),
    ]


def test_cpu_period_that_the_old_quota_forbids_comes_after_the_new_one(
    v1: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ["cpu.cfs_period_us"]
    write = files.write

    def picky(directory: str, name: str, value: str) -> None:
        if name in refused:
            refused.remove(name)
            raise OSError(22, "Invalid argument", name)
        write(directory, name, value)

    monkeypatch.setattr(files, "write", picky)
    writes = _apply(v1, {"cpu": {"quota": 500, "period": 1000}}, monkeypatch)

    assert [name for name, _ in writes] == [
        "cpu.cfs_period_us",
        "cpu.cfs_quota_us",
        "cpu.cfs_period_us",
    ]


def test_cpu_shares_that_the_kernel_cuts_are_an_error(
    v1: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "read_number", lambda directory, name: 262144)

    with pytest.raises(RuntimeFailure, match="the maximum allowed cpu-shares is 262144"):
        _apply(v1, {"cpu": {"shares": 1 << 20}}, monkeypatch)


def test_cpuset_and_blkio(v1: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {
        "cpu": {"cpus": "0-1", "mems": "0"},
        "blockIO": {
            "weight": 500,
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
        },
    }
    writes = _apply(v1, document, monkeypatch)

    assert writes == [
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("blkio.bfq.weight", "500"),
        ("blkio.throttle.read_bps_device", "8:0 1000"),
    ]


def test_value_that_the_kernel_refuses_is_named(
    v1: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(directory: str, name: str, value: str) -> None:
        raise OSError(22, "Invalid argument")

    made = cgroup.at("/c1", "c1", v1.hierarchies())
    made.create()
    monkeypatch.setattr(files, "write", refused)
    with pytest.raises(RuntimeFailure) as info:
        made.apply(decode({"memory": {"limit": 1}}), pytest.fail)

    where = v1.mount("memory") / "c1" / "memory.limit_in_bytes"
    assert str(info.value) == f'failed to write "1": write {where}: invalid argument'


def test_unified_needs_version_2(v1: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeFailure, match="cannot use unified on cgroup v1"):
        _apply(v1, {"unified": {"memory.high": "1"}}, monkeypatch)
