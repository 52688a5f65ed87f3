"""Numbers that programs write, and runs of bits: as with regular expressions."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.written import integer, ranges, runs

NUMBER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|[0-9]+)")
WORDS = st.text("+-0123456789abfxXA_ \n\u0662", max_size=8)


@given(WORDS)
def test_text_is_a_number_if_it_is_written_as_one(text: str) -> None:
    digits = text.lstrip("+-").lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    expected = None
    if NUMBER.fullmatch(text):
        with suppress(ValueError):
            expected = int(text, base)
    found = None
    with suppress(ValueError):
        found = integer(text)

    assert found == expected


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-0x1F", -31), ("+017", 15), ("42", 42), ("-7", -7)]
)
def test_numbers_are_decimal_octal_and_hexadecimal(text: str, value: int) -> None:
    assert integer(text) == value


@pytest.mark.parametrize("text", ["", "-", "0x", "08", "1_0", " 1", "--1", "1\n", "9" * 5000])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\A"):
        integer(text)


@given(st.binary(max_size=40).map(lambda data: bytes(byte & 1 for byte in data)))
def test_runs_are_those_of_ones(bits: bytes) -> None:
    expected = [(run.start(), run.end() - 1) for run in re.finditer(b"\x01+", bits)]

    assert runs(bits) == expected


def test_ranges_are_shown_as_linux_shows_them() -> None:
    assert ranges([(0, 3), (5, 5)]) == "0-3,5"
    assert ranges([]) == ""
