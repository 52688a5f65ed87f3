"""sentry.loader.stack: the tables and strings that a program starts with."""

from __future__ import annotations

import struct

import pytest

from sentry.abi.auxv import AT_EXECFN, AT_NULL, AT_PAGESZ, AT_PLATFORM, AT_RANDOM
from sentry.errors import E2BIG
from sentry.loader import auxv, stack

TOP = 0x7FFF_0000_0000


def text_at(layout: stack.Layout, addr: int) -> bytes:
    at = addr - layout.stack_pointer
    return layout.data[at : layout.data.index(b"\0", at)]


@pytest.mark.parametrize("gap", [0, 1, 4095, 8191])
@pytest.mark.parametrize("argv", [[b"a"], [b"prog", b"", b"x" * 5000]])
def test_program_finds_its_strings(gap: int, argv: list[bytes]) -> None:
    strings = stack.Strings(b"/bin/prog", argv, [b"A=1", b"B=2"])
    vector: list[tuple[int, int]] = []

    def pack(where: tuple[int, int, int]) -> bytes:
        vector[:] = [(AT_PAGESZ, 4096), (AT_RANDOM, where[0]), (AT_EXECFN, where[1]),
                     (AT_PLATFORM, where[2]), (AT_NULL, 0)]  # fmt: skip
        return auxv.pack(vector)

    layout = stack.build(TOP, strings, b"R" * 16, gap, pack)

    assert layout.stack_pointer % 16 == 0
    assert layout.stack_pointer + len(layout.data) == TOP
    words = [w for (w,) in struct.iter_unpack("<Q", layout.data[: len(layout.data) // 8 * 8])]
    count = words[0]
    assert [text_at(layout, w) for w in words[1 : 1 + count]] == argv
    assert words[1 + count] == 0
    assert [text_at(layout, w) for w in words[2 + count : 4 + count]] == [b"A=1", b"B=2"]
    assert words[4 + count] == 0
    found = dict(zip(words[5 + count :: 2], words[6 + count :: 2], strict=False))
    assert text_at(layout, found[AT_EXECFN]) == b"/bin/prog"
    assert text_at(layout, found[AT_PLATFORM]) == b"x86_64"
    at = found[AT_RANDOM] - layout.stack_pointer
    assert layout.data[at : at + 16] == b"R" * 16
    raw = layout.data[layout.arg_start - layout.stack_pointer :]
    size = layout.arg_end - layout.arg_start
    assert raw[:size] == b"".join(a + b"\0" for a in argv)
    assert layout.env_end - layout.env_start == 8


def test_one_string_of_128_kib_is_e2big() -> None:
    stack.check_size(stack.Strings(b"f", [b"x" * 131071], []), 8 << 20)
    with pytest.raises(E2BIG):
        stack.check_size(stack.Strings(b"f", [b"x" * 131072], []), 8 << 20)


def test_a_quarter_of_the_stack_limit_is_the_most() -> None:
    strings = stack.Strings(b"f", [b"x" * 100_000] * 20, [])
    stack.check_size(strings, 8 << 20)
    with pytest.raises(E2BIG):
        stack.check_size(strings, 4 << 20)


def test_a_small_stack_limit_still_allows_128_kib() -> None:
    small = 128 << 10
    stack.check_size(stack.Strings(b"f", [b"x" * 100_000], []), small)
    with pytest.raises(E2BIG):
        stack.check_size(stack.Strings(b"f", [b"x" * 70_000] * 2, []), small)


def test_the_stack_never_grows_over_its_limit() -> None:
    with pytest.raises(E2BIG):
        stack.check_size(stack.Strings(b"f", [b"x" * 100_000], []), 4096)


def test_pointers_count_too() -> None:
    with pytest.raises(E2BIG):
        stack.check_size(stack.Strings(b"f", [b""] * 20_000, []), 4096)
