"""Trees of files that look like the cgroup mounts of a machine.

A plain directory gives no files by itself, so `Machine.fill` puts in those that a kernel would.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from runsc.cgroups import hierarchies
from runsc.cgroups.hierarchies import Hierarchy

V1_FILES: Mapping[str, Mapping[str, str]] = {
    "memory": {
        "memory.limit_in_bytes": "9223372036854771712",
        "memory.memsw.limit_in_bytes": "9223372036854771712",
        "memory.soft_limit_in_bytes": "0",
        "memory.swappiness": "60",
    },
    "cpu": {
        "cpu.shares": "1024",
        "cpu.cfs_quota_us": "-1",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_burst_us": "0",
    },
    "cpuset": {"cpuset.cpus": "", "cpuset.mems": ""},
    "blkio": {"blkio.bfq.weight": "100", "blkio.throttle.read_bps_device": ""},
    "freezer": {"freezer.state": "THAWED"},
    "pids": {"pids.max": "max"},
    "cpuacct": {},
    "devices": {"devices.allow": "", "devices.deny": ""},
    "name=systemd": {},
}
V2_FILES: Mapping[str, str] = {
    "cgroup.controllers": "cpuset cpu io memory hugetlb pids",
    "cgroup.subtree_control": "",
    "cgroup.freeze": "0",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.low": "0",
    "memory.current": "4096",
    "cpu.weight": "100",
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "io.weight": "default 100",
    "io.max": "",
    "pids.max": "max",
    "hugetlb.2MB.max": "max",
}


@dataclass(frozen=True)
class Machine:
    """Mounts below a directory of the test, and the cgroup that the caller is in."""

    top: Path
    v1: tuple[str, ...] = ()
    has_v2: bool = False
    v2_controllers: str = ""
    own: str = "/user"

    def build(self) -> Machine:
        """Make the mounts and the caller's own cgroup."""
        for name in self.names():
            for directory in (self.mount(name), self.mount(name) / self.own.lstrip("/")):
                self.fill(name, directory)
            if name == "cpuset":
                (self.mount(name) / "cpuset.cpus").write_text("0-3")
                (self.mount(name) / "cpuset.mems").write_text("0")
        return self

    def names(self) -> list[str]:
        """Names of the hierarchies."""
        return [*self.v1, *([""] if self.has_v2 else [])]

    def mount(self, name: str) -> Path:
        """Where a hierarchy is mounted."""
        if name == "":
            return self.top / "unified" if self.v1 else self.top
        return self.top / name.removeprefix("name=")

    def fill(self, name: str, directory: Path) -> None:
        """The files that the kernel makes in a new cgroup."""
        directory.mkdir(parents=True, exist_ok=True)
        files = dict(V2_FILES) if name == "" else dict(V1_FILES[name])
        if name == "":
            files["cgroup.controllers"] = self.v2_controllers
        for file, content in {**files, "cgroup.procs": ""}.items():
            if not (directory / file).exists():
                (directory / file).write_text(content)

    def hierarchies(self) -> list[Hierarchy]:
        """As read from texts like those of /proc."""
        mounts, groups = [], []
        for number, name in enumerate(self.names()):
            kind = "cgroup2" if name == "" else "cgroup"
            options = "rw" if name == "" else f"rw,{name}"
            mount = str(self.mount(name)).replace(" ", "\\040")
            mounts.append(f"{number + 30} 20 0:{number} / {mount} rw - {kind} {kind} {options}")
            groups.append(f"{number}:{name}:{self.own}")
        return hierarchies.read("\n".join(mounts), "\n".join(groups))

    def emulate(self, patch: pytest.MonkeyPatch) -> None:
        """A directory made or removed here is a cgroup: with the kernel's files, or without."""
        mkdir, rmdir = os.mkdir, os.rmdir

        def make(path: str, mode: int = 0o777) -> None:
            mkdir(path, mode)
            name = next(n for n in self.names() if Path(path).is_relative_to(self.mount(n)))
            self.fill(name, Path(path))

        def remove(path: str) -> None:
            if (Path(path) / "cgroup.procs").read_text().strip():
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
            if any(entry.is_dir() for entry in Path(path).iterdir()):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            for file in Path(path).iterdir():
                file.unlink()
            rmdir(path)

        patch.setattr(os, "mkdir", make)
        patch.setattr(os, "rmdir", remove)

    def read(self, name: str, path: str, file: str) -> str:
        """A file of a cgroup, as the kernel was told."""
        return (self.mount(name) / path / file).read_text()


def v1(top: Path) -> Machine:
    """Only version 1."""
    return Machine(top, tuple(V1_FILES)).build()


def v2(top: Path) -> Machine:
    """Only version 2."""
    return Machine(top, (), True, V2_FILES["cgroup.controllers"]).build()


def hybrid(top: Path) -> Machine:
    """Version 1, and an empty version 2."""
    return Machine(top, tuple(V1_FILES), True).build()
