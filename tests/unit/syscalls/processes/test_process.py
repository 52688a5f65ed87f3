"""What a child's end costs is told once, also where the parent's memory has to be fetched."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from sentry.abi.wait import P_ALL, WEXITED
from tests.world import Program

Fetch = Callable[[int], None]


@pytest.mark.parametrize("late", ["status", "usage"])
@pytest.mark.parametrize("sleeps", [False, True])
def test_wait4_tells_what_it_reaped_when_the_page_is_there(
    task: Program, fetched_first: Fetch, late: str, sleeps: bool
) -> None:
    status, usage = task.buffer(8), task.buffer(144)
    fetched_first(status if late == "status" else usage)
    child = task.fork()
    pid = child.task.group.tgid
    if sleeps:
        call = task.begin("wait4", pid, status, 0, usage)
        assert not call.done
        child.begin("exit_group", 3)
    else:
        child.begin("exit_group", 3)
        call = task.begin("wait4", pid, status, 0, usage)
    assert call.wait() == pid
    assert struct.unpack("<I", task.read(status, 4)) == (3 << 8,)


def test_waitid_tells_what_it_reaped_when_the_page_is_there(
    task: Program, fetched_first: Fetch
) -> None:
    info = task.buffer(128)
    fetched_first(info)
    child = task.fork()
    child.begin("exit_group", 3)
    assert task.begin("waitid", P_ALL, 0, info, WEXITED, 0).wait() == 0
    assert struct.unpack_from("<i", task.read(info, 128), 16) == (child.task.group.tgid,)
