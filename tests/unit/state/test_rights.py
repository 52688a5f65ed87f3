"""What an image claims is believed as far as the bundle's first process could have come to it."""

from __future__ import annotations

import msgspec
import pytest

from sentry.abi.capability import CAP_KILL, CAP_MKNOD, CAP_SETGID, CAP_SETUID, CAP_SYS_RESOURCE
from sentry.auth.credentials import Credentials
from sentry.config import ContainerConfig, ProcessConfig, Rlimit
from sentry.state import records
from sentry.state.pages import Damaged
from sentry.state.rights import Rights

NODE = records.Node(0o106755, 0, 0, 1, 1, (0, 0, 0, 0))


def of(*capabilities: int, uid: int = 0, **process: object) -> Rights:
    mask = sum(1 << each for each in capabilities)
    creds = msgspec.structs.replace(Credentials.user(uid, uid, (5,)), bounding=mask)
    return Rights(ContainerConfig("", ProcessConfig((b"",), uid=uid, **process)), creds)  # type: ignore[arg-type]


def claimed(uid: int = 0, gid: int = 0, *groups: int, caps: int = 0) -> records.Credentials:
    return records.Credentials((uid, gid) * 4, list(groups), caps, caps, caps, caps, caps)


def test_capabilities_are_those_that_some_program_can_have() -> None:
    found = of(CAP_KILL).checked(claimed(caps=records.U64))
    mask = 1 << CAP_KILL
    assert {getattr(found, name) for name in ("effective", "permitted", "bounding")} == {mask}
    bound = of(CAP_KILL, no_new_privileges=True).checked(claimed(caps=records.U64))
    assert (bound.permitted, bound.bounding) == (0, mask)


def test_ids_are_the_bundles_unless_a_program_may_change_its_own() -> None:
    assert of(uid=7).checked(claimed(7, 7, 5)).ids == (7, 7) * 4
    with pytest.raises(Damaged, match="user 0"):
        of(CAP_SETGID, uid=7).checked(claimed(0, 0))
    with pytest.raises(Damaged, match="group"):
        of(CAP_SETUID, uid=7).checked(claimed(0, 0))
    with pytest.raises(Damaged, match="group"):
        of(uid=7).checked(claimed(7, 7, 6))
    of(CAP_SETUID, CAP_SETGID, uid=7).checked(claimed(0, 0, 6))


def test_limits_and_the_score_are_no_better_than_the_bundles() -> None:
    bound = of(rlimits=(Rlimit(7, 10, 20),), oom_score_adj=100)
    assert bound.limit(7, records.Limit(99, 99)) == records.Limit(20, 20)
    assert bound.limit(6, records.Limit(99, 99)) == records.Limit(99, 99)
    assert (bound.oom_score_adj(-5), bound.oom_score_adj(200)) == (100, 200)
    free = of(CAP_SYS_RESOURCE, rlimits=(Rlimit(7, 10, 20),), oom_score_adj=100)
    assert free.limit(7, records.Limit(99, 99)).hard == 99
    assert free.oom_score_adj(-5) == -5


def test_files_make_nobody_somebody_else_and_devices_need_the_right() -> None:
    assert of(uid=7).mode(NODE) == 0o755
    assert of().mode(NODE) == 0o6755
    assert of(CAP_SETUID, CAP_SETGID, uid=7).mode(NODE) == 0o6755
    device = msgspec.structs.replace(NODE, mode=0o020666, rdev=0x103)
    with pytest.raises(Damaged, match="a device"):
        of().check_made(device)
    of(CAP_MKNOD).check_made(device)
    of().check_made(msgspec.structs.replace(device, rdev=0))
