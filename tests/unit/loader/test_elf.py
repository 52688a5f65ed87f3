"""sentry.loader.elf: what is accepted, and that nothing hostile gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.abi.elf import EHDR, PF_R, PF_W, PF_X, PHDR, PT_GNU_STACK, PT_INTERP, PT_LOAD
from sentry.errors import EINVAL, ENOEXEC, Errno
from sentry.loader import elf
from sentry.platform.constants import TASK_SIZE

IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")


def header(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "e_ident": IDENT, "e_type": 2, "e_machine": 62, "e_version": 1, "e_entry": 0x401000,
        "e_phoff": 64, "e_shoff": 0, "e_flags": 0, "e_ehsize": 64, "e_phentsize": 56,
        "e_phnum": 1, "e_shentsize": 0, "e_shnum": 0, "e_shstrndx": 0,
    }  # fmt: skip
    fields.update(changes)
    return EHDR.pack(*fields.values())


def segment(
    kind: int = PT_LOAD, flags: int = PF_R | PF_X, offset: int = 0, vaddr: int = 0x400000,
    filesz: int = 0x1000, memsz: int | None = None, align: int = 0x1000,
) -> bytes:  # fmt: skip
    return PHDR.pack(
        kind, flags, offset, vaddr, vaddr, filesz, filesz if memsz is None else memsz, align
    )


def parse(*entries: bytes, **changes: int | bytes) -> elf.Program:
    table = b"".join(entries)
    parsed = elf.parse_header(header(e_phnum=len(entries), **changes))
    return elf.parse_program(parsed, table)


def test_header_of_this_machine_is_accepted() -> None:
    assert elf.headers_extent(elf.parse_header(header(e_phnum=3))) == (64, 168)


@pytest.mark.parametrize(
    "changes",
    [
        {"e_machine": 3}, {"e_machine": 183}, {"e_type": 1}, {"e_type": 4}, {"e_phnum": 0},
        {"e_phnum": 1171}, {"e_phentsize": 32}, {"e_phoff": 2**64 - 8}, {"e_ident": b"\x7fELG"},
    ],
)  # fmt: skip
def test_header_of_something_else_is_enoexec(changes: dict[str, int | bytes]) -> None:
    with pytest.raises(ENOEXEC):
        elf.parse_header(header(**changes))


def test_truncated_header_is_enoexec() -> None:
    with pytest.raises(ENOEXEC):
        elf.parse_header(header()[:-1])


def test_truncated_table_is_enoexec() -> None:
    with pytest.raises(ENOEXEC):
        elf.parse_program(elf.parse_header(header(e_phnum=2)), segment())


@pytest.mark.parametrize(
    "entry",
    [
        segment(memsz=0xFFF),
        segment(memsz=TASK_SIZE),
        segment(memsz=2**64 - 1),
        segment(vaddr=TASK_SIZE),
        segment(vaddr=2**64 - 4096),
        segment(offset=1),
        segment(offset=2**64 - 4096),
        segment(kind=PT_GNU_STACK),
    ],
)
def test_bad_segment_is_einval(entry: bytes) -> None:
    with pytest.raises(EINVAL):
        parse(entry)


def test_program_headers_are_found_in_memory() -> None:
    program = parse(segment(vaddr=0x400000), segment(offset=0x1000, vaddr=0x600000))
    assert program.phdr_addr == 0x400040
    assert (program.start, program.span) == (0x400000, 0x201000)


def test_stack_is_executable_only_if_the_program_says_so() -> None:
    assert not parse(segment()).executable_stack
    assert not parse(segment(), segment(PT_GNU_STACK, PF_R | PF_W)).executable_stack
    assert parse(segment(), segment(PT_GNU_STACK, PF_R | PF_W | PF_X)).executable_stack


def test_interpreter_is_the_first_one() -> None:
    program = parse(segment(PT_INTERP, offset=9, filesz=7), segment(PT_INTERP), segment())
    assert program.interpreter == (9, 7)


@pytest.mark.parametrize("size", [0, 1, 4097, 2**63])
def test_interpreter_of_a_bad_size_is_enoexec(size: int) -> None:
    with pytest.raises(ENOEXEC):
        parse(segment(PT_INTERP, filesz=size), segment())


def test_alignment_ignores_what_is_no_power_of_two() -> None:
    assert parse(segment(align=0x200000), segment(align=0x300000)).alignment == 0x200000
    assert parse(segment(align=0)).alignment == 4096


@given(st.binary(min_size=48, max_size=48), st.lists(st.binary(min_size=56, max_size=56)))
def test_any_bytes_give_a_program_below_task_size_or_an_errno(
    rest: bytes, entries: list[bytes]
) -> None:
    table = b"".join(entries)
    try:
        program = elf.parse_program(elf.parse_header(IDENT + rest), table)
    except Errno:
        return
    assert 0 <= program.start < program.start + program.span <= TASK_SIZE


@given(st.lists(st.builds(
    segment, kind=st.sampled_from([PT_LOAD, PT_LOAD, PT_INTERP]),
    vaddr=st.integers(0, 2**64 - 1), offset=st.integers(0, 2**64 - 1),
    filesz=st.integers(0, 2**64 - 1), memsz=st.integers(0, 2**64 - 1),
    align=st.integers(0, 2**64 - 1),
), min_size=1, max_size=5))  # fmt: skip
def test_any_headers_give_a_program_below_task_size_or_an_errno(entries: list[bytes]) -> None:
    try:
        program = parse(*entries)
    except Errno:
        return
    assert 0 <= program.start < program.start + program.span <= TASK_SIZE
    assert all(s.filesz <= s.memsz for s in program.segments)
