"""The list of mappings against a set of pages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sentry.mm.vma import Vma, VmaList, page_align, page_up

PAGES = 40
PAGE = 4096
ranges = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 6)), max_size=12)


def filled(wanted: list[tuple[int, int]]) -> tuple[VmaList, dict[int, Vma]]:
    """A list with those of the ranges that are free, and which mapping each page is in."""
    ram: Any = SimpleNamespace(vmas=0)
    vmas, pages = VmaList(ram), dict[int, Vma]()
    for first, count in wanted:
        free = not any(first <= page < first + count for page in pages)
        assert vmas.free(first * PAGE, (first + count) * PAGE) == free
        if free:
            vma = Vma(first * PAGE, (first + count) * PAGE, 3, 0)
            vmas.add(vma)
            pages |= dict.fromkeys(range(first, first + count), vma)
    assert ram.vmas == len(vmas) == len({id(vma) for vma in pages.values()})
    return vmas, pages


@given(ranges, st.integers(0, PAGES + 6), st.integers(1, 8))
def test_search_finds_what_is_there(wanted: list[tuple[int, int]], at: int, count: int) -> None:
    vmas, pages = filled(wanted)
    ordered = list(vmas)
    assert ordered == sorted(ordered, key=lambda vma: vma.start)
    assert list(reversed(vmas)) == ordered[::-1]
    addr = at * PAGE
    assert vmas.find(addr) is pages.get(at)
    assert vmas.after(addr) is next((v for v in ordered if v.end > addr), None)
    assert vmas.before(addr) is next((v for v in ordered[::-1] if v.start < addr), None)
    end = addr + count * PAGE
    assert vmas.overlapping(addr, end) == [v for v in ordered if v.start < end and v.end > addr]


@given(ranges, st.integers(1, 8), st.sampled_from([1, 2, 8]))
def test_gaps_are_the_highest_and_the_lowest(
    wanted: list[tuple[int, int]], count: int, align: int
) -> None:
    vmas, pages = filled(wanted)
    fits = [
        at
        for at in range(0, PAGES - count + 1)
        if at % align == 0 and not any(page in pages for page in range(at, at + count))
    ]
    size, step, top = count * PAGE, align * PAGE, PAGES * PAGE
    highest = vmas.gap_below(top, size, 0, step)
    assert highest == (fits[-1] * PAGE if fits else None)
    lowest = vmas.gap_above(0, size, top, step)
    assert lowest == (fits[0] * PAGE if fits else None)


def test_lengths_are_rounded_as_unsigned_longs() -> None:
    assert [page_up(length) for length in (0, 1, PAGE, PAGE + 1)] == [0, PAGE, PAGE, 2 * PAGE]
    assert page_align((1 << 64) - 1) == 0
