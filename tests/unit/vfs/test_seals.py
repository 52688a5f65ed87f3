"""Seals that come while another thread is in the middle of what they forbid."""

from __future__ import annotations

import errno

import pytest

from sentry.abi.fcntl import (
    F_ADD_SEALS,
    F_SEAL_WRITE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
)
from sentry.abi.mman import MAP_FIXED, MAP_SHARED, MFD_ALLOW_SEALING
from sentry.mm.ramfile import CHUNK_BYTES
from tests.world import AREA, Program, World

PAGE = 4096
PAGES = 200


def sealable(program: Program, size: int) -> int:
    fd = program.ok("memfd_create", program.place(b"m\0"), MFD_ALLOW_SEALING)
    program.ok("ftruncate", fd, size)
    return fd


@pytest.mark.parametrize("prot", [1, 3])
def test_what_is_sealed_while_mmap_makes_room_is_not_mapped_for_writing(
    prot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with World() as world:
        program = world.program()
        other = program.thread()
        fd = sealable(program, PAGES * PAGE)
        for at in range(AREA, AREA + PAGES * PAGE, 2 * PAGE):
            program.ok("mprotect", at, PAGE, 1)
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        flags = MAP_SHARED | MAP_FIXED
        mapping = program.begin("mmap", AREA, PAGES * PAGE, prot, flags, fd, 0)
        world.loop.turn()
        assert other.ok("fcntl", fd, F_ADD_SEALS, F_SEAL_WRITE) == 0 and not mapping.done

        assert mapping.wait() == (-errno.EPERM if prot == 3 else AREA)

        refused = -errno.ENOMEM if prot == 3 else -errno.EACCES
        assert program.call("mprotect", AREA, PAGE, 3) == refused


def test_a_hole_that_is_being_made_is_there_before_the_seal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World() as world:
        program = world.program()
        other = program.thread()
        fd = sealable(program, 8 * CHUNK_BYTES)
        byte = program.place(b"x")
        for at in range(8):
            program.ok("pwrite64", fd, byte, 1, at * CHUNK_BYTES)
        inode = program.task.files.get(fd).inode
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        punch = program.begin("fallocate", fd, mode, 0, 8 * CHUNK_BYTES)
        seal = other.begin("fcntl", fd, F_ADD_SEALS, F_SEAL_WRITE)
        assert not punch.done
        while inode.data.pages:
            assert not inode.seals & F_SEAL_WRITE
            world.loop.turn()
        assert punch.wait() == seal.wait() == 0
        assert inode.seals & F_SEAL_WRITE
