"""What is refused for the whole sandbox."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sentry.abi.bpf import BPF_F_ALLOW_MULTI
from sentry.abi.signal import SIGEV_NONE
from sentry.abi.time import CLOCK_MONOTONIC
from sentry.bpf.extended import DeviceFilter
from sentry.errors import EOPNOTSUPP
from sentry.kernel.device_filters import Program, attach, detach
from sentry.kernel.posix_timers import Notify, PosixTimer
from sentry.state import records
from sentry.state.saving import PART, Saving, check, check_read
from sentry.vfs.mount import stand
from sentry.wait.fiber import Mode
from sentry.wait.steps import Pace
from tests.world import World

PIPE = records.PipeBuffer([], 1, 0)
NO = bytes([0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])


class Restless(Pace):
    """Who is never told to let others run."""

    async def rest(self, mode: Mode = Mode.KILLABLE) -> None:
        """Nobody waits."""


def test_what_says_which_devices_may_be_used_is_not_lost() -> None:
    with World() as world:
        kernel = world.kernel
        kernel.container.first_mounts = {
            mount.id: stand(mount) for mount in kernel.first.mounts.mounts
        }
        check(kernel.container)
        cgroup = kernel.container.cgroup
        program = Program(kernel.services.bpf_programs, DeviceFilter(NO), b"", 0, 0)
        attach(cgroup, program, BPF_F_ALLOW_MULTI, None)
        with pytest.raises(EOPNOTSUPP, match="extended BPF"):
            check(kernel.container)
        detach(cgroup, program)
        check(kernel.container)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_timer_behind_the_end_of_clocks_can_be_read_again(absolute: bool) -> None:
    with World() as world:
        timer = PosixTimer(world.init.task.group, 0, CLOCK_MONOTONIC, Notify(SIGEV_NONE, 0, 0), 0)
        timer.set(1 << 70, 1 << 80, absolute=absolute)
        record = Saving._timer(timer, int)
    read = msgspec.json.decode(msgspec.json.encode(record), type=records.PosixTimer)
    assert read == record and read.at_ns == read.interval_ns == records.MOST


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, ""),
        ({"hostname": b"x" * 65}, "hostname that could not be read again"),
        ({"ipc": records.Ipc(numbers=[(-1, 0, 0)])}, "ipc that could not .*>= 0"),
        ({"pipes": [PIPE] * PART}, ""),
        ({"pipes": [PIPE] * PART + [records.PipeBuffer([], 1, -1)]}, "pipes that could not .*>= 0"),
        ({"creds": [records.Credentials((0, 0, 0, 0, 0, 0, 0, -1))]}, "creds that could not"),
    ],
)
def test_what_could_not_be_restored_is_refused(given: dict[str, Any], why: str) -> None:
    lists = [each.name for each in msgspec.structs.fields(records.Snapshot) if each.required]
    whole: dict[str, Any] = {
        **{name: [] for name in lists}, "hostname": b"", "domainname": b"", "sysctls": {},
        "last_pid": 1, "boot_ns": 1, "now_ns": 1, "clock_code": 0, "ipc": None, **given,
    }  # fmt: skip
    checking = check_read(records.Snapshot(**whole), Restless())
    end: type[Exception] = EOPNOTSUPP if why else StopIteration
    with pytest.raises(end, match=why or None):
        checking.send(None)
