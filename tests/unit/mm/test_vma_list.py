"""The list of mappings against a set of pages."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from sentry.mm import vma_list
from sentry.mm.vma import Vma
from sentry.mm.vma_list import VmaList
from sentry.mm.vma_run import inherited

PAGES = 40
PAGE = 4096
ranges = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 6)), max_size=12)
changes = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "start", "end"]), st.integers(0, 99),
              st.integers(1, 3)),
    max_size=60,
)  # fmt: skip


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


def change(vmas: VmaList, what: str, at: int, count: int) -> None:
    """One change, if there is room for it."""
    ordered = list(vmas)
    if what == "add":
        if vmas.free(at * PAGE, (at + count) * PAGE):
            vmas.add(Vma(at * PAGE, (at + count) * PAGE, 3, 0))
        return
    if not ordered:
        return
    vma = ordered[at % len(ordered)]
    if what == "remove":
        vmas.remove(vma)
    elif what == "start" and vma.end - vma.start > PAGE:
        vmas.start_at(vma, vma.start + PAGE)
    elif what == "start" and vmas.free(vma.start - count * PAGE, vma.start):
        vmas.start_at(vma, max(vma.start - count * PAGE, 0))
    elif vma.end - vma.start > PAGE:
        vmas.end_at(vma, vma.end - PAGE)


@given(changes, st.integers(1, 8), st.sampled_from([1, 2]))
def test_short_runs_find_what_is_there_after_any_changes(
    history: list[tuple[str, int, int]], count: int, align: int
) -> None:
    size, step, top = count * PAGE, align * PAGE, 110 * PAGE
    with patch.object(vma_list, "RUN_MAX", 4):
        vmas = VmaList(SimpleNamespace(vmas=0))  # type: ignore[arg-type]
        for each in history:
            change(vmas, *each)
            ordered = list(vmas)
            pages = {at for vma in ordered for at in range(vma.start // PAGE, vma.end // PAGE)}
            assert len(vmas) == len(ordered)
            assert ordered == sorted(ordered, key=lambda vma: vma.start)
            fits = [
                at * PAGE
                for at in range(0, 110 - count + 1, align)
                if pages.isdisjoint(range(at, at + count))
            ]
            for addr in range(0, top, 7 * PAGE):
                inside = [vma for vma in ordered if vma.start <= addr < vma.end]
                assert vmas.find(addr) is (inside[0] if inside else None)
                assert vmas.after(addr) is next((v for v in ordered if v.end > addr), None)
                below = [vma for vma in ordered if vma.start < addr]
                assert vmas.before(addr) is (below[-1] if below else None)
                end = addr + size
                meets = [v for v in ordered if v.start < end and v.end > addr]
                assert vmas.overlapping(addr, end) == meets
                high = [at for at in fits if at + size <= addr]
                found = vmas.gap_below(addr, size, 0, step)
                assert found == (high[-1] if high else None)
                low = [at for at in fits if at >= addr]
                assert vmas.gap_above(addr, size, top, step) == (low[0] if low else None)


def shape(vmas: Iterable[Vma]) -> list[tuple[int, int]]:
    return [(vma.start, vma.end) for vma in vmas]


def borrowed(parent: VmaList, ram: Any) -> VmaList:
    child = VmaList(ram)
    for run in parent.runs:
        if run.starts and run.can_be_lent():
            child.borrow(run)
        else:
            for vma in run.seen:
                child.append(inherited(vma))
    return child


@given(
    ranges,
    st.lists(
        st.tuples(
            st.sampled_from(["fork", "add", "remove", "look", "gaps", "piece", "end"]),
            st.integers(0, 5),
            st.integers(0, PAGES),
        ),
        max_size=40,
    ),
)
def test_lent_mappings_are_those_of_the_moment_of_the_fork(
    wanted: list[tuple[int, int]], steps: list[tuple[str, int, int]]
) -> None:
    ram: Any = SimpleNamespace(vmas=0)
    first, models = VmaList(ram), list[list[tuple[int, int]]]()
    with patch.object(vma_list, "RUN_MAX", 3):
        for at, count in wanted:
            if first.free(at * PAGE, (at + count) * PAGE):
                first.add(Vma(at * PAGE, (at + count) * PAGE, 3, 0))
        lists, models = [first], [shape(first)]
        for what, number, at in steps:
            which = number % len(lists)
            vmas, model = lists[which], models[which]
            addr = at * PAGE
            if what == "fork":
                lists.append(borrowed(vmas, ram))
                models.append(list(model))
            elif what == "add" and vmas.free(addr, addr + PAGE):
                vmas.add(Vma(addr, addr + PAGE, 3, 0))
                model.append((addr, addr + PAGE))
                model.sort()
            elif what == "remove" and (vma := vmas.find(addr)) is not None:
                vmas.remove(vma)
                model.remove((vma.start, vma.end))
            elif what == "look":
                assert shape(vmas.overlapping(addr, addr + 4 * PAGE)) == [
                    each for each in model if each[0] < addr + 4 * PAGE and each[1] > addr
                ]
            elif what == "gaps":
                fits = [
                    start
                    for start in range(0, (PAGES + 8) * PAGE, PAGE)
                    if not any(low < start + 2 * PAGE and start < high for low, high in model)
                ]
                end = (PAGES + 9) * PAGE
                assert vmas.gap_below(end, 2 * PAGE, 0, PAGE) == max(fits)
                assert vmas.gap_above(0, 2 * PAGE, end, PAGE) == min(fits)
            elif what == "piece":
                some, behind = vmas.piece(addr, addr + 8 * PAGE)
                assert addr < behind <= addr + 8 * PAGE
                assert shape(some) == [
                    each for each in model if each[0] < behind and each[1] > addr
                ]
            elif what == "end" and len(lists) > 1:
                while len(vmas):
                    vmas.take_last(2)
                del lists[which], models[which]
            assert [len(each) for each in lists] == [len(each) for each in models]
            assert ram.vmas == sum(map(len, models))
    assert [shape(each) for each in lists] == models
    every = [id(vma) for each in lists for vma in each]
    assert len(every) == len(set(every))
