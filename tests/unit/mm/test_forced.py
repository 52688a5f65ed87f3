"""Accesses although the mapping forbids them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sentry.abi.mman import MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ
from sentry.errors import EFAULT
from sentry.mm.forced import poke
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap

if TYPE_CHECKING:
    from conftest import OpenFile

PAGE = 4096
MakeFile = Callable[..., "OpenFile"]


def test_poke_reaches_read_only_code_but_not_the_file(
    mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(b"\x90" * PAGE)
    addr = mmap(mm.map, 0, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0)
    poke(mm, addr + 1, b"\xcc")
    assert mm.read(addr, 3) == b"\x90\xcc\x90"
    assert os.pread(file.backing.fd, 3, 0) == b"\x90\x90\x90"  # type: ignore[union-attr]
    with pytest.raises(EFAULT):
        mm.write(addr, b"x")


@pytest.mark.parametrize("opened_to_write", [True, False])
def test_poke_to_a_shared_page_that_is_read_only_is_refused(
    mm: MemoryManager, host_file: MakeFile, opened_to_write: bool
) -> None:
    """Although the descriptor of the host, which all open files share, could be written."""
    file = host_file(b"\x90" * PAGE, writable=True)
    file.writable = opened_to_write
    addr = mmap(mm.map, 0, PAGE, PROT_READ, MAP_SHARED, file, 0)
    with pytest.raises(EFAULT):
        poke(mm, addr + 1, b"\xcc")
    assert os.pread(file.backing.fd, 3, 0) == b"\x90\x90\x90"  # type: ignore[union-attr]
