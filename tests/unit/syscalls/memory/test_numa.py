"""Policies and places of many pages are kept and told in steps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from itertools import islice

import pytest

from sentry.abi.mempolicy import MPOL_BIND, MPOL_DEFAULT, MPOL_F_ADDR, MPOL_PREFERRED
from sentry.syscalls.memory.numa import bound
from tests.world import AREA, Program, World

PAGE, PAGES = 4096, 20
NOWHERE = 0x10


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """Where everything that has pieces is done by single ones; each other page is read-only."""
    with World() as world:
        made = world.program()
        for at in range(AREA, AREA + PAGES * PAGE, 2 * PAGE):
            made.ok("mprotect", at, PAGE, 1)
        made._next = AREA + PAGES * PAGE
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        yield made


def policy(program: Program, addr: int) -> int:
    mode = program.buffer(4)
    program.ok("get_mempolicy", mode, 0, 0, addr, MPOL_F_ADDR)
    return int.from_bytes(program.read(mode, 4), "little")


def test_mbind_of_many_mappings_lets_others_run(program: Program) -> None:
    node, other = program.place(struct.pack("<Q", 1)), program.sibling()
    start, length = AREA + PAGE, (PAGES - 2) * PAGE
    call = program.begin("mbind", start, length, MPOL_BIND, node, 2, 0)
    assert not call.done
    assert other.ok("getppid") == 0
    assert call.wait() == 0
    shown = [policy(program, AREA + at * PAGE) for at in range(PAGES)]
    assert shown == [MPOL_DEFAULT, *[MPOL_BIND] * (PAGES - 2), MPOL_DEFAULT]

    program.begin("munmap", AREA + 4 * PAGE, PAGE).wait()
    call = program.begin("mbind", start, length, MPOL_PREFERRED, node, 2, 0)
    assert call.wait() == -errno.EFAULT
    assert program.begin("mbind", start, length, MPOL_DEFAULT, 0, 0, 0).wait() == 0
    assert policy(program, start) == policy(program, start + length - PAGE) == MPOL_DEFAULT


@pytest.mark.parametrize("length", [1, 2])
def test_mbind_of_a_page_that_becomes_one_with_what_is_behind_it_ends(
    program: Program, length: int
) -> None:
    start, amap = program.ok("mmap", 0, 4 * PAGE, 3, 0x22, -1, 0), program.task.mm.map
    for first, pages in ((2, 1), (0, length), (0, 3), (1, 1)):
        low = start + first * PAGE
        steps = bound(amap, low, low + pages * PAGE, (MPOL_BIND, 1))
        assert len(list(islice(steps, 10))) < 10
        assert policy(program, low) == MPOL_BIND
    assert policy(program, start + 3 * PAGE) == MPOL_DEFAULT


def test_move_pages_of_many_lets_others_run(program: Program) -> None:
    other, owner = program.sibling(), program.sibling()
    program.write(AREA + PAGE, b"there")
    addresses = [AREA + PAGE, NOWHERE] * 100
    pages = program.place(struct.pack("<200Q", *addresses))
    status = program.buffer(800)
    call = program.begin("move_pages", 0, 200, pages, 0, status, 0)
    assert not call.done
    assert other.ok("getppid") == 0
    assert call.wait() == 0
    assert struct.unpack("<200i", program.read(status, 800)) == (0, -errno.EFAULT) * 100

    call = program.begin("move_pages", owner.task.tid, 200, pages, 0, status, 0)
    owner.begin("exit_group", 0)
    assert call.wait() == 0
