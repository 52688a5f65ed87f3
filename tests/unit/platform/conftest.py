"""RAM without KVM, and a walker of the page tables that knows only the processor's manual."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from sentry.platform.memory import AddressSpace, Ram

SPAN = 2 << 30


class Walker:
    """Page-table walk as in SDM volume 3 section 4.5, over the bytes of RAM."""

    def __init__(self, ram: Ram) -> None:
        self.ram = ram

    def table(self, gpa: int) -> tuple[int, ...]:
        """The 512 entries of a table."""
        return struct.unpack("<512Q", self.ram.peek(gpa & 0xFFFFFFFFFF000, 4096))

    def walk(self, space: AddressSpace, addr: int) -> tuple[int, str] | None:
        """(guest-physical address, rights) of a user address, None where it faults."""
        entry, rights = space.root | 7, {"w", "u", "x"}
        for level in (4, 3, 2, 1):
            entry = self.table(entry)[addr >> (3 + 9 * level) & 511]
            if not entry & 1:
                return None
            rights -= {"w"} if not entry & 2 else set()
            rights -= {"u"} if not entry & 4 else set()
            rights -= {"x"} if entry >> 63 else set()
            assert entry & 0x20, "accessed is preset"
            if level == 2 and entry & 0x80:
                return (entry & 0xFFFFFFFE00000) | (addr & 0x1FFFFF), "".join(sorted(rights))
        assert entry & 0x40, "dirty is preset"
        return (entry & 0xFFFFFFFFFF000) | (addr & 0xFFF), "".join(sorted(rights))


@pytest.fixture()
def ram() -> Iterator[Ram]:
    """A fresh RAM."""
    memory = Ram.from_memfd(SPAN)
    yield memory
    memory.close()


@pytest.fixture()
def space(ram: Ram) -> Iterator[AddressSpace]:
    """An empty address space."""
    made = AddressSpace(ram)
    yield made
    made.destroy()


@pytest.fixture()
def walker(ram: Ram) -> Walker:
    """The independent walker."""
    return Walker(ram)
