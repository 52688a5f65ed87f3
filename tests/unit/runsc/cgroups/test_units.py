from __future__ import annotations

import pytest

from runsc.cgroups import units
from runsc.cgroups.units import INFINITY, Unit
from runsc.errors import SpecError
from runsc.oci.resources import decode


@pytest.mark.parametrize(
    ("text", "privileged", "path"),
    [
        ("system.slice:docker:c1", True, "/system.slice/docker-c1.scope"),
        ("machine.slice:libpod:c1", True, "/machine.slice/libpod-c1.scope"),
        ("a-b-c.slice:p:c1", True, "/a.slice/a-b.slice/a-b-c.slice/p-c1.scope"),
        ("-.slice:p:c1", True, "/p-c1.scope"),
        (":p:c1", True, "/system.slice/p-c1.scope"),
        (":p:c1", False, "/user.slice/p-c1.scope"),
        ("", True, "/system.slice/runsc-id.scope"),
    ],
)
def test_path_names_a_scope_in_its_slices(text: str, privileged: bool, path: str) -> None:
    assert units.parse(text, "id", privileged).path == path


@pytest.mark.parametrize(
    "text",
    [
        "/system.slice/c1", "c1", "a:b", "a:b:c:d", "system:p:c1", "a/b.slice:p:c1",
        "a--b.slice:p:c1", "-a.slice:p:c1", ".slice:p:c1", "a.slice:p:x.slice", "a.slice:p:../x",
    ],
)  # fmt: skip
def test_path_that_names_none_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as info:
        units.parse(text, "id", True)
    assert info.value.path == "$.linux.cgroupsPath"


def test_scope_is_delegated_and_has_a_process() -> None:
    properties = dict(units.new_scope(Unit("a.slice", "p-c.scope"), 7))

    assert properties["Slice"] == ("s", "a.slice")
    assert properties["PIDs"] == ("au", [7])
    assert properties["Delegate"] == properties["MemoryAccounting"] == ("b", True)
    assert properties["TasksMax"] == ("t", INFINITY)


def test_limits_as_properties() -> None:
    document = {
        "memory": {"limit": 4096, "swap": 8192, "reservation": 1024},
        "cpu": {"shares": 1024, "quota": 12345, "period": 100000, "cpus": "0-2,9", "mems": "0"},
    }

    assert dict(units.limits(decode(document), 2)) == {
        "MemoryMax": ("t", 4096),
        "MemorySwapMax": ("t", 4096),
        "MemoryLow": ("t", 1024),
        "CPUWeight": ("t", 39),
        "CPUQuotaPeriodUSec": ("t", 100000),
        "CPUQuotaPerSecUSec": ("t", 130000),
        "AllowedCPUs": ("ay", b"\x07\x02"),
        "AllowedMemoryNodes": ("ay", b"\x01"),
    }
    assert dict(units.limits(decode(document), 1)) == {
        "MemoryLimit": ("t", 4096),
        "CPUShares": ("t", 1024),
        "CPUQuotaPeriodUSec": ("t", 100000),
        "CPUQuotaPerSecUSec": ("t", 130000),
    }


def test_no_limit_is_infinity_and_nothing_is_nothing() -> None:
    none = decode({"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}})

    assert dict(units.limits(none, 2)) == {
        "MemoryMax": ("t", INFINITY),
        "MemorySwapMax": ("t", INFINITY),
        "CPUQuotaPerSecUSec": ("t", INFINITY),
    }
    assert units.limits(decode({"memory": {}, "cpu": {}, "pids": {"limit": 7}}), 2) == []
    with pytest.raises(SpecError, match="AllowedCPUs"):
        units.limits(decode({"cpu": {"cpus": "all"}}), 2)
