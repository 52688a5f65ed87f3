"""The images as they were built: what the host relies on."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

import guest_stubs
from sentry.platform.constants import NUM_REGS
from sentry.platform.interface import Reg

LAYOUT = Path(guest_stubs.__file__).parent / "layout.h"
DEFINES = dict(re.findall(r"#define (\w+) (0x[0-9a-f]+|\d+)\b", LAYOUT.read_text()))


def number(name: str) -> int:
    return int(DEFINES[name], 0)


def test_layout_agrees_with_the_interface() -> None:
    assert {reg.name: reg.value for reg in Reg} == {
        reg.name: number(f"R_{reg.name}") for reg in Reg
    }
    assert number("NUM_REGS") == NUM_REGS


def test_fields_of_the_mailbox_do_not_overlap() -> None:
    ends = number("S_REGS") + 8 * NUM_REGS
    assert ends <= number("S_XSAVE")
    assert number("S_XSAVE") % 64 == 0
    assert number("S_XSAVE") + number("S_XSAVE_MAX") <= 4096


@pytest.mark.parametrize("name", ["entry_ring0", "entry_ring3"])
def test_entry_code_fits_its_page_and_starts_it(name: str) -> None:
    stub = guest_stubs.load(name)
    order = "entry entry_rcx entry_fast entry_fret entry_slow entry_saved entry_spin entry_rang"
    order += " entry_door entry_after entry_tail entry_end"
    places = [stub.symbols[label] for label in order.split()]

    assert len(stub.code) <= 4096
    assert places[0] == 0
    assert places == sorted(places)


def test_vdso_is_one_page_with_the_symbols_that_libc_looks_up() -> None:
    image = guest_stubs.vdso()
    elf = ELFFile(io.BytesIO(image))
    table: Any = elf.get_section_by_name(".dynsym")
    names = {symbol.name for symbol in table.iter_symbols()}

    segments = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert len(segments) == 1
    assert segments[0]["p_memsz"] <= 4096 and len(image) <= 4096
    wanted = {"clock_gettime", "gettimeofday", "time", "getcpu", "clock_getres"}
    assert {f"__vdso_{name}" for name in wanted} | wanted <= names
    dynamic: Any = elf.get_section_by_name(".dynamic")
    assert not [tag for tag in dynamic.iter_tags() if tag.entry.d_tag in {"DT_RELA", "DT_REL"}]
