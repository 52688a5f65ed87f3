"""Extended BPF: what is taken ends, and gives what the instructions say."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.abi import bpf as abi
from sentry.bpf.extended import (
    ARITHMETIC,
    COMPARISONS,
    EXIT,
    LOAD_64,
    SIGNED,
    DeviceFilter,
)
from sentry.errors import EACCES, EINVAL, Errno

CONTEXT = abi.BPF_CGROUP_DEV_CTX.pack(0x6_0002, 0xFFFF_FFFF, 3)
ONES = (1 << 64) - 1
CODES = [
    EXIT, LOAD_64, 0, abi.BPF_JMP, abi.BPF_LDX | abi.BPF_MEM, abi.BPF_LDX | abi.BPF_MEM | abi.BPF_H,
    *(kind | what | by for kind in (abi.BPF_ALU, abi.BPF_ALU64) for what in ARITHMETIC
      for by in (0, abi.BPF_X)),
    *(kind | what | by for kind in (abi.BPF_JMP, abi.BPF_JMP32) for what in (*COMPARISONS, *SIGNED)
      for by in (0, abi.BPF_X)),
]  # fmt: skip
INSTRUCTIONS = st.tuples(
    st.sampled_from(CODES) | st.integers(0, 255), st.integers(0, 10), st.integers(0, 2),
    st.integers(0, 4), st.sampled_from([0, 1, -1, 31, 63]) | st.integers(-(1 << 31), (1 << 31) - 1),
)  # fmt: skip


def one(code: int, to: int = 0, by: int = 0, offset: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhi", code, to | by << 4, offset, number)


def result(*instructions: bytes) -> int:
    return DeviceFilter(b"".join([*instructions, one(EXIT)])).run(CONTEXT)[0]


@given(st.lists(INSTRUCTIONS, max_size=20), st.binary(min_size=12, max_size=12))
def test_program_of_any_bytes_is_refused_or_ends(
    rows: list[tuple[int, int, int, int, int]], context: bytes
) -> None:
    data = b"".join(one(*row) for row in rows)
    set_all = b"".join(one(abi.BPF_ALU64 | abi.BPF_MOV, each) for each in range(2, 10))
    for whole in (data, set_all + one(abi.BPF_ALU64 | abi.BPF_MOV) + data + one(EXIT)):
        try:
            made = DeviceFilter(whole)
        except Errno:
            continue
        value, taken = made.run(context)
        assert 0 <= value <= ONES
        assert taken <= len(made)


@pytest.mark.parametrize(
    ("kind", "what", "own", "number", "expected"),
    [
        (abi.BPF_ALU64, abi.BPF_ADD, -1, 2, 1),
        (abi.BPF_ALU, abi.BPF_ADD, -1, 1, 0),
        (abi.BPF_ALU64, abi.BPF_SUB, 1, 2, ONES),
        (abi.BPF_ALU, abi.BPF_SUB, 1, 2, 0xFFFF_FFFF),
        (abi.BPF_ALU64, abi.BPF_MUL, -1, -1, 1),
        (abi.BPF_ALU64, abi.BPF_DIV, 7, 2, 3),
        (abi.BPF_ALU64, abi.BPF_MOD, 7, 4, 3),
        (abi.BPF_ALU64, abi.BPF_LSH, 1, 63, 1 << 63),
        (abi.BPF_ALU, abi.BPF_LSH, 3, 31, 1 << 31),
        (abi.BPF_ALU64, abi.BPF_RSH, -1, 60, 15),
        (abi.BPF_ALU64, abi.BPF_ARSH, -16, 2, ONES - 3),
        (abi.BPF_ALU, abi.BPF_ARSH, -16, 2, 0xFFFF_FFFC),
        (abi.BPF_ALU64, abi.BPF_XOR, 5, 1, 4),
        (abi.BPF_ALU64, abi.BPF_OR, 4, 1, 5),
        (abi.BPF_ALU64, abi.BPF_AND, 5, 4, 4),
        (abi.BPF_ALU64, abi.BPF_NEG, 1, 0, ONES),
        (abi.BPF_ALU, abi.BPF_MOV, 1, -1, 0xFFFF_FFFF),
        (abi.BPF_ALU64, abi.BPF_MOV, 1, -1, ONES),
    ],
)
def test_arithmetic_is_that_of_the_width(
    kind: int, what: int, own: int, number: int, expected: int
) -> None:
    begin = one(abi.BPF_ALU64 | abi.BPF_MOV, number=own)

    assert result(begin, one(kind | what, number=number)) == expected


@pytest.mark.parametrize("what", [abi.BPF_DIV, abi.BPF_MOD])
def test_division_by_a_register_that_is_zero_is_none(what: int) -> None:
    begin = one(abi.BPF_ALU64 | abi.BPF_MOV, number=7), one(abi.BPF_ALU64 | abi.BPF_MOV, 2)

    expected = 0 if what == abi.BPF_DIV else 7

    assert result(*begin, one(abi.BPF_ALU64 | what | abi.BPF_X, 0, 2)) == expected


@pytest.mark.parametrize(
    ("kind", "what", "number", "is_taken"),
    [
        (abi.BPF_JMP, abi.BPF_JGT, 1, True),
        (abi.BPF_JMP, abi.BPF_JSGT, 1, False),
        (abi.BPF_JMP, abi.BPF_JSLT, 1, True),
        (abi.BPF_JMP, abi.BPF_JEQ, -2, True),
        (abi.BPF_JMP32, abi.BPF_JNE, -2, False),
        (abi.BPF_JMP, abi.BPF_JSET, 1, False),
        (abi.BPF_JMP32, abi.BPF_JLE, -1, True),
    ],
)
def test_comparison_is_with_a_sign_if_it_says_so(
    kind: int, what: int, number: int, is_taken: bool
) -> None:
    mov = abi.BPF_ALU64 | abi.BPF_MOV
    rows = one(mov, 2, number=-2), one(mov, number=1), one(kind | what, 2, 0, 1, number), one(mov)

    assert result(*rows) == is_taken


@pytest.mark.parametrize(
    ("size", "offset", "expected"),
    [(abi.BPF_W, 0, 0x6_0002), (abi.BPF_H, 2, 6), (abi.BPF_B, 0, 2), (abi.BPF_W, 4, 0xFFFF_FFFF)],
)
def test_load_is_of_the_context(size: int, offset: int, expected: int) -> None:
    assert result(one(abi.BPF_LDX | abi.BPF_MEM | size, 0, 1, offset)) == expected


def test_register_that_only_one_way_sets_is_not_set() -> None:
    mov = abi.BPF_ALU64 | abi.BPF_MOV
    jump = one(abi.BPF_JMP | abi.BPF_JEQ, 3, 0, 1)

    with pytest.raises(EACCES):
        result(one(mov, 3), jump, one(mov, 0))


def test_other_kinds_of_programs_load_nothing() -> None:
    load = one(abi.BPF_LDX | abi.BPF_MEM, 0, 1)

    with pytest.raises(EACCES):
        DeviceFilter(load + one(EXIT), abi.BPF_PROG_TYPE_CGROUP_SKB)


def test_jump_back_is_refused() -> None:
    with pytest.raises(EINVAL):
        result(one(abi.BPF_ALU64 | abi.BPF_MOV), one(abi.BPF_JMP, offset=-2))
