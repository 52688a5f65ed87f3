"""Files in RAM against a bytearray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentry.abi.mman import MAP_SHARED
from sentry.errors import ENOMEM, ENOSPC
from sentry.mm.errors import NeedsPage
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.mm.ramfile import RamFile
from sentry.platform.memory import AddressSpace, Ram
from sentry.wait.steps import Steps, at_once

PAGE = 4096
EDGE = 512 * PAGE

offsets = st.one_of(st.integers(0, 4 * PAGE), st.integers(EDGE - 2 * PAGE, EDGE + 2 * PAGE))
steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "truncate", "punch", "punch in pieces"]),
        offsets,
        st.integers(0, 3 * PAGE),
        st.integers(1, 255),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def memory() -> Iterator[Ram]:
    """One RAM for all examples."""
    ram = Ram.from_memfd(2 << 30)
    yield ram
    ram.close()


@settings(max_examples=60, deadline=None)
@given(steps=steps)
@example(steps=[("write", EDGE - PAGE, 2 * PAGE, 1), ("punch in pieces", EDGE - PAGE + 1, 1, 1)])
def test_contents_match_a_bytearray(memory: Ram, steps: list[tuple[str, int, int, int]]) -> None:
    file, model = RamFile(memory), bytearray()
    for what, offset, length, value in steps:
        if what == "write" and length:
            assert file.write(offset, bytes([value]) * length) == length
            model.extend(bytes(max(0, offset + length - len(model))))
            model[offset : offset + length] = bytes([value]) * length
        elif what == "truncate":
            file.truncate(offset)
            del model[offset:]
            model.extend(bytes(offset - len(model)))
        elif what.startswith("punch") and length:
            if what == "punch":
                file.punch(offset, length)
            else:
                at_once(file.punching(offset, length))
            end = min(len(model), offset + length)
            if offset < end:
                model[offset:end] = bytes(end - offset)
    assert file.size == len(model)
    assert file.read(0, len(model) + 10) == model
    assert file.read(EDGE - 5, 10) == model[EDGE - 5 : EDGE + 5]
    file.close()
    assert memory.counters().frames == 0 and file.pages == 0


def test_nothing_that_is_written_behind_the_end_makes_no_file_longer(memory: Ram) -> None:
    file = RamFile(memory, 10)
    assert file.write(5000, b"") == 0
    assert file.size == 10
    file.close()


def test_data_and_holes(memory: Ram) -> None:
    file = RamFile(memory)
    file.write(2 * PAGE, b"x")
    file.truncate(600 * PAGE)
    assert file.next_data(0) == 2 * PAGE and file.next_data(2 * PAGE + 5) == 2 * PAGE + 5
    assert file.next_data(3 * PAGE) is None
    assert file.next_hole(0) == 0 and file.next_hole(2 * PAGE) == 3 * PAGE
    assert file.pages == 1
    file.close()


def test_page_that_lies_elsewhere_is_fetched_first(
    memory: Ram, open_file: Callable[[RamFile], Any]
) -> None:
    file = RamFile(memory, 3 * PAGE)
    fetched: list[int] = []

    async def load(index: int, _count: int) -> None:
        fetched.append(index)
        file.write(index * PAGE, b"fetched")

    file.loader = load
    mm = MemoryManager.empty(lambda: AddressSpace(memory))
    addr = mmap(mm.map, 0, 3 * PAGE, 1, MAP_SHARED, open_file(file))
    with pytest.raises(NeedsPage) as need:
        mm.read(addr + PAGE, 7)
    with pytest.raises(StopIteration):
        need.value.wait().send(None)
    assert mm.read(addr + PAGE, 7) == b"fetched" and fetched == [1]
    mm.release()
    file.close()
    assert memory.counters().frames == 0


def test_frames_of_all_files_are_counted(memory: Ram) -> None:
    before = memory.file_pages
    one, other = RamFile(memory), RamFile(memory)
    one.write(0, bytes(3 * PAGE))
    other.fill(0, 2)
    other.page(7)

    assert memory.file_pages - before == one.pages + other.pages == 6
    one.punch(PAGE, PAGE)
    other.close()

    assert memory.file_pages - before == one.pages == 2
    one.close()


def test_limit_is_never_more_than_at_first(memory: Ram) -> None:
    memory.limit_to(64 << 20)
    memory.limit_to(32 << 20)
    assert memory.limit == 32 << 20

    memory.limit_to(128 << 20)

    assert memory.limit == 64 << 20


@settings(max_examples=60, deadline=None)
@given(
    pages=st.sets(st.one_of(st.integers(0, 8), st.integers(505, 1030)), max_size=20),
    size=st.integers(1, 1040 * PAGE),
    offset=st.integers(0, 1040 * PAGE),
)
def test_data_and_holes_are_found(memory: Ram, pages: set[int], size: int, offset: int) -> None:
    file = RamFile(memory)
    for page in pages:
        file.fill(page, 1)  # also past the end, as FALLOC_FL_KEEP_SIZE does
    file.truncate(size)
    for page in pages:
        file.fill(page, 1)
    here, end = offset // PAGE, -(-size // PAGE)
    data = next((n for n in range(here, end) if n in pages), None)
    hole = next((n for n in range(here, end) if n not in pages), end)
    assert file.next_data(offset) == (None if data is None else max(offset, data * PAGE))
    assert file.next_hole(offset) == min(size, max(offset, hole * PAGE))
    file.close()


@pytest.mark.parametrize("last", [EDGE, 3 * EDGE, 5 * EDGE - 1])
def test_long_changes_have_a_piece_for_each_chunk(memory: Ram, last: int) -> None:
    file = RamFile(memory, 5 * EDGE)
    assert len([*file.filling(0, 5 * 512)]) == 5
    assert file.pages == 5 * 512
    truncation = file.truncating(last)
    next(truncation, None)
    assert file.size == last
    at_once(truncation)
    assert file.pages == -(-last // PAGE)
    assert len([*file.punching(1, last - 1)]) == -(-last // EDGE)
    assert file.pages == 1 + bool(last % PAGE)  # what is not whole stays
    file.close()


def test_frames_that_were_made_in_vain_are_given_back(memory: Ram) -> None:
    file, quota = RamFile(memory, 4 * EDGE), cast("Any", SimpleNamespace(pages=0, max_pages=1536))
    file.quota = quota
    file.write(3 * PAGE, b"x")
    filling = file.filling(0, 4 * 512)
    next(filling)
    next(filling)
    file.write(600 * PAGE, b"y")
    with pytest.raises(ENOSPC):
        at_once(filling)
    assert (quota.pages, file.pages) == (2, 2)
    assert (file.read(3 * PAGE, 1), file.read(600 * PAGE, 1)) == (b"x", b"y")
    file.close()
    assert quota.pages == 0


def test_who_maps_frames_that_were_made_in_vain_is_asked_once_for_each_chunk(memory: Ram) -> None:
    file, quota = RamFile(memory, 4 * EDGE), cast("Any", SimpleNamespace(pages=0, max_pages=1200))
    for page in range(0, 1024, 2):
        file.write(page * PAGE, b"x")
    file.quota, quota.pages = quota, file.pages
    asked: list[int] = []

    def lose(_: RamFile, first: int, frames: Any) -> Steps[None]:
        asked.append(first)
        assert not any(frames[::2])
        yield
        if first:  # who has touched a page since
            memory.get(file.peek(first + 1))

    mapper = type("Mapper", (), {"losing_frames": staticmethod(lose)})()
    file.mappers = cast("Any", [mapper])
    with pytest.raises(ENOSPC):
        at_once(file.filling(0, 4 * 512))
    assert asked == [0, 512]
    assert file.pages == 512 + 1
    memory.put(file.peek(513))
    file.mappers = {}
    file.close()


def test_frames_count_also_where_not_all_can_be_had(
    memory: Ram, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, fill = RamFile(memory), Ram.fill

    def fill_half(ram: Ram, gpas: Any, first: int, count: int) -> int:
        fill(ram, gpas, first, count // 2)
        raise ENOMEM("no more")

    monkeypatch.setattr(Ram, "fill", fill_half)
    with pytest.raises(ENOMEM):
        file.fill(0, 100)
    assert file.pages == 50
    file.truncate(1)
    file.truncate(0)
    assert file.pages == 0
    file.close()


def test_frames_of_a_file_that_is_gone_count_nowhere_and_are_given_back_in_turn(
    memory: Ram, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[tuple[list[Any], Callable[[Any], object]]] = []
    monkeypatch.setattr(memory, "let_go", lambda things, end: left.append((list(things), end)))
    before = memory.file_pages, memory.counters().frames
    file = RamFile(memory)
    file.fill(0, 1024)
    file.close()
    assert (memory.file_pages, file.pages, file.size) == (before[0], 0, 0)
    assert memory.leaving == 1024
    assert memory.counters().frames == before[1] + 1024
    ((chunks, end),) = left
    for chunk in chunks:
        end(chunk)
    assert memory.leaving == 0
    assert memory.counters().frames == before[1]
