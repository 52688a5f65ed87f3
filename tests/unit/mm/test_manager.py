"""Address spaces against a model that is a dict of pages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.abi.mman import (
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import (
    E2BIG,
    EFAULT,
    EINVAL,
    ENAMETOOLONG,
    ENOMEM,
    Errno,
)
from sentry.mm.advice import madvise
from sentry.mm.forced import peek
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect
from sentry.mm.remap import mremap
from sentry.platform.memory import AddressSpace, Ram

PAGE = 4096
PAGES = 48
RW = PROT_READ | PROT_WRITE
PROTS = (0, PROT_READ, RW)
ANON = MAP_PRIVATE | MAP_ANONYMOUS


@dataclass(frozen=True)
class Page:
    """A mapped page: its rights and what it holds. Shared pages hold a cell of `shared`."""

    prot: int
    shared: int | None
    byte: int = 0


class Model:
    """What an address space should look like, in units of one or of several pages."""

    def __init__(self, unit: int, pages: dict[int, Page], shared: dict[int, int]) -> None:
        self.unit = unit
        self.base = 0x40000000 - 24 * unit
        self.pages = pages
        self.shared = shared

    def fork(self) -> Model:
        return Model(self.unit, dict(self.pages), self.shared)

    def content(self, page: Page) -> int:
        return page.byte if page.shared is None else self.shared[page.shared]


Operation = tuple[str, int, int, int, int]
operations = st.lists(
    st.tuples(
        st.sampled_from(
            ["map", "shared", "unmap", "protect", "write", "discard", "move", "keep", "swap"]
        ),
        st.integers(0, PAGES - 1),
        st.integers(1, 20),
        st.integers(0, 255),
        st.integers(0, PAGES - 1),
    ),
    max_size=40,
)


def apply(mm: MemoryManager, model: Model, operation: Operation) -> None:
    what, first, count, value, other = operation
    count = min(count, PAGES - first)
    unit = model.unit
    addr = model.base + first * unit
    pages = range(first, first + count)
    prot = PROTS[value % 3]
    mapped = [i for i in pages if i in model.pages]
    if what in ("map", "shared"):
        kind = MAP_SHARED if what == "shared" else MAP_PRIVATE
        mmap(mm.map, addr, count * unit, prot, kind | MAP_ANONYMOUS | MAP_FIXED)
        for i in pages:
            cell = len(model.shared) if what == "shared" else None
            if cell is not None:
                model.shared[cell] = 0
            model.pages[i] = Page(prot, cell)
    elif what == "unmap":
        munmap(mm.map, addr, count * unit)
        for i in mapped:
            del model.pages[i]
    elif what == "protect":
        whole = len(mapped) == count
        try:
            mprotect(mm.map, addr, count * unit, prot)
            assert whole
        except ENOMEM:
            assert not whole
        for i in pages:
            if i not in model.pages:
                break
            model.pages[i] = replace(model.pages[i], prot=prot)
    elif what == "write":
        page = model.pages.get(first)
        try:
            mm.write(addr, bytes([value]) * unit)
            assert page is not None and page.prot & PROT_WRITE
            if page.shared is None:
                model.pages[first] = replace(page, byte=value)
            else:
                model.shared[page.shared] = value
        except EFAULT:
            assert page is None or not page.prot & PROT_WRITE
    elif what == "discard":
        whole = len(mapped) == count
        try:
            madvise(mm.map, addr, count * unit, MADV_DONTNEED)
            assert whole
        except ENOMEM:
            assert not whole
        for i in mapped:
            if model.pages[i].shared is None:
                model.pages[i] = replace(model.pages[i], byte=0)
    else:
        remap(mm, model, (what, first, count, value, other))


def remap(mm: MemoryManager, model: Model, operation: Operation) -> None:
    what, first, count, _, other = operation
    target = min(other, PAGES - count)
    unit = model.unit
    addr, new = model.base + first * unit, model.base + target * unit
    flags = MREMAP_MAYMOVE | MREMAP_FIXED | (MREMAP_DONTUNMAP if what == "keep" else 0)
    one_vma = mm.map.vmas.find(addr)
    fits = one_vma is not None and one_vma.end >= addr + count * unit
    try:
        mremap(mm.map, addr, count * unit, count * unit, flags, new)
    except Errno as error:
        overlap = abs(first - target) < count
        assert isinstance(error, EINVAL if overlap else EFAULT) and (overlap or not fits)
        if not overlap:  # the target is unmapped before the source is looked at
            for i in range(target, target + count):
                if mm.map.vmas.find(model.base + i * unit) is None:
                    model.pages.pop(i, None)
        return
    moved = [model.pages[i] for i in range(first, first + count)]
    for i, page in enumerate(moved):
        if what == "keep":
            model.pages[first + i] = replace(page, byte=0)
        else:
            del model.pages[first + i]
        model.pages[target + i] = page


def verify(mm: MemoryManager, model: Model) -> None:
    vmas = list(mm.map.vmas)
    for before, after in pairwise(vmas):
        assert before.end <= after.start
        assert not after.continues(before), "neighbours that could be one"
    assert mm.map.total_pages == len(model.pages) * (model.unit // PAGE)
    assert mm.map.data_pages == model.unit // PAGE * sum(
        1 for p in model.pages.values() if p.prot & PROT_WRITE and p.shared is None
    )
    for i in range(PAGES):
        addr, page = model.base + i * model.unit, model.pages.get(i)
        vma = mm.map.vmas.find(addr)
        assert (vma is None) == (page is None)
        if page is None or vma is None:
            continue
        assert vma.prot == page.prot and vma.shared == (page.shared is not None)
        assert peek(mm, addr, model.unit) == bytes([model.content(page)]) * model.unit


@pytest.mark.parametrize(("unit", "examples"), [(PAGE, 80), (256 * PAGE, 15)])
def test_any_sequence_of_operations_matches_the_model(unit: int, examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(before=operations, parent=operations, child=operations)
    def check(before: list[Operation], parent: list[Operation], child: list[Operation]) -> None:
        run(unit, before, parent, child)

    check()


def run(
    unit: int, before: list[Operation], parent: list[Operation], child: list[Operation]
) -> None:
    ram = Ram.from_memfd(4 << 30)
    try:
        mm, model = MemoryManager.empty(lambda: AddressSpace(ram)), Model(unit, {}, {})
        for operation in before:
            apply(mm, model, operation)
        verify(mm, model)
        forked, its_model = mm.fork(), model.fork()
        for mine, its in zip(parent, child, strict=False):
            apply(mm, model, mine)
            apply(forked, its_model, its)
        verify(mm, model)
        verify(forked, its_model)
        forked.release()
        verify(mm, model)
        mm.release()
        assert ram.counters().frames == 0 and ram.counters().spaces == 0 and ram.vmas == 0
    finally:
        ram.close()


def test_release_by_the_last_user_gives_everything_back(ram: Ram, mm: MemoryManager) -> None:
    mmap(mm.map, 0, 5 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS)
    mmap(mm.map, 0, 5 << 20, RW, MAP_SHARED | MAP_ANONYMOUS)
    mm.share().release()
    assert ram.counters().frames == 2560
    mm.release()
    assert ram.counters().frames == 0


@pytest.mark.parametrize("bad", [0, 8, (1 << 63) + 8, (1 << 64) - 8, 0x7FFFFFDFF000])
def test_addresses_that_are_not_the_programs_are_efault(mm: MemoryManager, bad: int) -> None:
    for access in (
        lambda: mm.read(bad, 16),
        lambda: mm.write(bad, b"x" * 16),
        lambda: mm.read_cstr(bad, 16),
        lambda: mm.buffer_in(bad, 16).get(16),
        lambda: mm.buffer_out(bad, 16).put(b"x" * 16),
        lambda: mm.load_u32(bad),
    ):
        with pytest.raises(EFAULT):
            access()
    assert mm.read(bad, 0) == b"" and mm.buffer_out(bad, 0).count == 0 if bad < 1 << 47 else True


def test_strings(mm: MemoryManager, addr: int) -> None:
    mm.write(addr + PAGE - 2, b"path\0")
    assert mm.read_path(addr + PAGE - 2) == b"path"
    assert mm.read_path(addr) == b""
    with pytest.raises(ENAMETOOLONG):
        mm.read_cstr(addr + PAGE - 2, 4)
    with pytest.raises(E2BIG):
        mm.read_cstr(addr + PAGE - 2, 4, E2BIG)
    mm.write(addr, b"z" * 3 * PAGE)
    with pytest.raises(EFAULT):
        mm.read_cstr(addr + 2 * PAGE, 2 * PAGE)


def test_atomics_fault_in_and_check(mm: MemoryManager, addr: int) -> None:
    assert mm.load_u32(addr) == 0
    assert mm.cmpxchg_u32(addr + PAGE, 0, 5) == 0 and mm.load_u32(addr + PAGE) == 5
    assert mm.futex_op(addr + PAGE, 0, 9) == 5 and mm.load_u32(addr + PAGE) == 9
    with pytest.raises(EINVAL):
        mm.load_u32(addr + 1)
    child = mm.fork()
    child.cmpxchg_u32(addr + PAGE, 9, 1)
    assert mm.load_u32(addr + PAGE) == 9


def test_pinned_range_survives_its_mapping(mm: MemoryManager, addr: int) -> None:
    mm.buffer_out(addr, 2 * PAGE)
    pinned = mm.space.pin(addr, 2 * PAGE, True)
    munmap(mm.map, addr, 3 * PAGE)
    assert mm.space.ram.counters().frames == 2
    pinned.release()
    assert mm.space.ram.counters().frames == 0
