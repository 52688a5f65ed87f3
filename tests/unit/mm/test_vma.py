"""Lengths of mappings."""

from __future__ import annotations

from sentry.mm.vma import page_align, page_up

PAGE = 4096


def test_lengths_are_rounded_as_unsigned_longs() -> None:
    assert [page_up(length) for length in (0, 1, PAGE, PAGE + 1)] == [0, PAGE, PAGE, 2 * PAGE]
    assert page_align((1 << 64) - 1) == 0
