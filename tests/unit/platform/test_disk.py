"""Frames of a file on a disk of the host: room first, given back, apart from memory."""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.abi.fcntl import F_ADD_SEALS, F_SEAL_GROW
from sentry.errors import EBUSY, ENOSPC
from sentry.platform.disk import Disk
from sentry.platform.frames import frames_of, read_frames, write_frames
from sentry.platform.memory import AddressSpace, Ram

R, W = 1, 2
PAGE = 4096
BLOCK = 2 << 20
BASE = 0x400000000
KEPT = 16
"""Free blocks that keep their room."""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def disk(ram: Ram, file: int) -> Disk:
    return Disk(ram, file)


def room(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def filled(disk: Disk, pages: int) -> array[int]:
    gpas = array("Q", bytes(8 * pages))
    assert disk.fill(gpas, 0, pages) == pages
    return gpas


def test_frames_are_zero_and_no_memory(ram: Ram, disk: Disk, file: int) -> None:
    before = ram.counters().frames
    gpas = filled(disk, 512)

    assert ram.counters().frames == before
    assert read_frames(gpas, 0, BLOCK) == bytes(BLOCK)
    assert room(file) >= BLOCK
    assert write_frames(gpas, 5, b"on the disk") == 11
    assert os.pread(file, 11, gpas[0] - ram.span // 2 + 5) == b"on the disk"
    disk.put_list(gpas, 0, 512)


def test_frame_is_zero_when_it_is_given_out_again(disk: Disk) -> None:
    gpa = disk.alloc()
    write_frames(array("Q", [gpa]), 0, b"secret")
    disk.put_list(array("Q", [gpa]), 0, 1)

    again = filled(disk, 512)

    assert gpa in again
    assert read_frames(again, 0, BLOCK) == bytes(BLOCK)
    disk.put_list(again, 0, 512)


def test_room_of_what_is_gone_is_given_back(ram: Ram, disk: Disk, file: int) -> None:
    gpas = [filled(disk, 512) for _ in range(KEPT + 4)]
    assert room(file) >= (KEPT + 4) * BLOCK

    for each in gpas:
        disk.put_list(each, 0, 512)
    assert room(file) <= KEPT * BLOCK + BLOCK // 2
    ram.trim()

    assert room(file) < BLOCK
    again = filled(disk, 512)
    assert read_frames(again, 0, BLOCK) == bytes(BLOCK)
    assert room(file) >= BLOCK
    disk.put_list(again, 0, 512)


def test_block_that_is_used_in_part_keeps_its_bytes(disk: Disk) -> None:
    gpas = [filled(disk, 512) for _ in range(KEPT + 2)]
    write_frames(gpas[-1], 0, b"kept")

    for each in gpas[:-1]:
        disk.put_list(each, 0, 512)
    disk.put_list(gpas[-1], 1, 511)

    assert read_frames(gpas[-1], 0, 4) == b"kept"
    disk.put_list(gpas[-1], 0, 1)


def test_full_disk_is_an_error_before_a_frame_is_there(ram: Ram) -> None:
    fd = os.memfd_create("full", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 3 * BLOCK)  # the first block is never used
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_GROW)
    disk = Disk(ram, fd)

    gpas = filled(disk, 1024)
    with pytest.raises(ENOSPC):
        disk.alloc()
    with pytest.raises(ENOSPC):
        disk.fill(array("Q", [0]), 0, 1)

    disk.put_list(gpas, 7, 1)
    assert disk.alloc()
    os.close(fd)


def test_user_memory_is_copied_to_it_until_it_is_full(ram: Ram, space: AddressSpace) -> None:
    fd = os.memfd_create("full", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 2 * BLOCK)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_GROW)
    disk = Disk(ram, fd)
    space.map_anonymous(BASE, 1024, R | W)
    gpas = array("Q", bytes(8 * 1024))
    view = frames_of(gpas)

    assert space.to_frames(BASE, view, 0, 2 * BLOCK, disk.on_disk) == (BLOCK, 512)

    assert (space.fault_addr, space.fault_gone) == (0, True)
    assert ram.span // 2 < gpas[0] < ram.span
    os.close(fd)


def test_private_copy_of_a_page_is_memory(ram: Ram, disk: Disk, space: AddressSpace) -> None:
    gpa = disk.alloc()
    write_frames(array("Q", [gpa]), 0, b"file")
    space.map_frames(BASE, gpa, 1, R | W, cow=True)

    assert space.break_cow(BASE, BASE, BASE + PAGE, R | W) == 0
    assert space.write(BASE, b"mine") == 4

    assert read_frames(array("Q", [gpa]), 0, 4) == b"file"
    assert space.translate(BASE) < ram.span // 2
    space.unmap(BASE, 1)
    disk.put_list(array("Q", [gpa]), 0, 1)


def test_there_is_one(ram: Ram, disk: Disk, file: int) -> None:
    with pytest.raises(OSError, match="busy"):
        Disk(ram, file)


def test_fork_of_what_lies_on_a_disk_is_refused(ram: Ram, disk: Disk) -> None:
    with pytest.raises(EBUSY):
        ram.freeze()
