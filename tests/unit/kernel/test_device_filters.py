"""Programs for the devices of cgroups: how long they live."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sentry.abi import bpf as abi
from sentry.boot.running import let_go
from sentry.bpf.extended import DeviceFilter
from sentry.kernel.container import Container
from sentry.kernel.device_filters import Program, Programs, attach

YES = bytes([0xB7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])


def test_programs_of_a_container_go_with_it() -> None:
    kernel: Any = SimpleNamespace(first=None)
    programs = Programs()
    container = Container()
    below = container.cgroup.make(b"below").make(b"further")
    program = Program(programs, DeviceFilter(YES), b"", 0, 0)
    for cgroup in (container.cgroup, below):
        attach(cgroup, program, abi.BPF_F_ALLOW_MULTI, None)
    assert programs.instructions == 2

    let_go(kernel, container)

    assert not programs.by_id
    assert programs.instructions == 0
