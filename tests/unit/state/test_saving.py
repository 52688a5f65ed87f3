"""What is refused for the whole sandbox."""

from __future__ import annotations

import pytest

from sentry.abi.bpf import BPF_F_ALLOW_MULTI
from sentry.bpf.extended import DeviceFilter
from sentry.errors import EOPNOTSUPP
from sentry.kernel.device_filters import Program, attach, detach
from sentry.state.saving import check
from tests.world import World

NO = bytes([0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])


def test_what_says_which_devices_may_be_used_is_not_lost() -> None:
    with World() as world:
        kernel = world.kernel
        kernel.container.first_mounts = {mount.id for mount in kernel.first.mounts.mounts}
        check(kernel)
        cgroup = kernel.container.cgroup
        program = Program(kernel.services.bpf_programs, DeviceFilter(NO), b"", 0, 0)
        attach(cgroup, program, BPF_F_ALLOW_MULTI, None)
        with pytest.raises(EOPNOTSUPP, match="extended BPF"):
            check(kernel)
        detach(cgroup, program)
        check(kernel)
