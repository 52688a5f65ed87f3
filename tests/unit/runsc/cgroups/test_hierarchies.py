from __future__ import annotations

from pathlib import Path

from runsc.cgroups.hierarchies import read
from tests.unit.runsc.cgroups.machines import Machine, hybrid, v2


def test_read_hybrid_finds_each_controller_once(tmp_path: Path) -> None:
    found = hybrid(tmp_path / "a b").hierarchies()

    assert [hierarchy.name for hierarchy in found][-2:] == ["name=systemd", ""]
    memory = next(hierarchy for hierarchy in found if hierarchy.name == "memory")
    assert memory.mount == str(tmp_path / "a b" / "memory")
    assert memory.own == str(tmp_path / "a b" / "memory" / "user")
    assert found[-1].controllers == ()


def test_read_unified_has_its_controllers(tmp_path: Path) -> None:
    (only,) = v2(tmp_path).hierarchies()

    assert only.mount == str(tmp_path)
    assert {"cpu", "io", "memory", "pids"} <= set(only.controllers)


def test_read_controllers_mounted_together() -> None:
    mountinfo = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "33 31 0:29 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    (only,) = read(mountinfo, "4:cpu,cpuacct:/a/b\n3:memory:/\n")

    assert only.mount == "/sys/fs/cgroup/cpu,cpuacct"
    assert only.own == "/sys/fs/cgroup/cpu,cpuacct/a/b"
    assert only.controllers == ("cpu", "cpuacct")


def test_read_mount_of_a_part_counts_from_there() -> None:
    mountinfo = "32 31 0:29 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"

    assert read(mountinfo, "4:memory:/docker/x/y\n")[0].own == "/sys/fs/cgroup/memory/y"
    assert read(mountinfo, "4:memory:/\n")[0].own == "/sys/fs/cgroup/memory"


def test_read_machine_without_cgroups_finds_none(tmp_path: Path) -> None:
    assert Machine(tmp_path).hierarchies() == []
