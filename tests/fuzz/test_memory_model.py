"""Page tables, frames and user copies against a dictionary.

The model of an address space is a dictionary of pages; the model of a frame is its bytes and who
refers to it. It says what every read must give, where every access must stop, what stands in each
page-table entry, and how many references each frame has. Where the host may choose (a fork gives
an untouched page no frame, or one of its own) the machine looks, and checks that the choice is one
of those allowed. After every operation, each translation that went or lost a right must have been
flushed: the rule that keeps programs out of each other's memory.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator

from hypothesis import seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sentry.platform._native import ffi, lib
from sentry.platform.constants import (
    BLOCK_SIZE,
    PAGE_SIZE,
    PTE_COW,
    PTE_NX,
    PTE_P,
    PTE_W,
    TASK_SIZE,
)
from sentry.platform.frames import frames_of, read_frames, write_frames, zero_frames
from sentry.platform.memory import AddressSpace, Pinned, Ram
from sentry.platform.windows import WindowRange
from tests.fuzz.running import for_a_while, round_settings, rounds
from tests.unit.platform.test_memory import Donated

READ, WRITE, EXEC = 1, 2, 4
SPAN = 1 << 30
BLOCK_PAGES = BLOCK_SIZE // PAGE_SIZE
LOW = (5 << 30) - 2 * BLOCK_SIZE
"""Four blocks around the end of what one page directory maps."""
LOW_PAGES = 4 * BLOCK_PAGES
HIGH_PAGES = 32
HIGH = TASK_SIZE - HIGH_PAGES * PAGE_SIZE
PAGES = LOW_PAGES + HIGH_PAGES
FILE_PAGES = 24
HOST_PAGES = 16
ZERO = bytes(PAGE_SIZE)

PROTS = st.sampled_from([0, READ, READ | WRITE, READ | WRITE, READ | EXEC, 7])
LENGTHS = st.one_of(
    st.integers(1, 6), st.integers(1, 70), st.sampled_from([BLOCK_PAGES, BLOCK_PAGES + 3])
)
EDGES = st.sampled_from([0, BLOCK_PAGES, 2 * BLOCK_PAGES, 3 * BLOCK_PAGES, LOW_PAGES])
STARTS = st.one_of(
    EDGES, st.builds(lambda edge, off: edge + off, EDGES, st.integers(-40, 40)),
    st.integers(PAGES, PAGES + 4 * LOW_PAGES), st.integers(PAGES, PAGES + 4 * LOW_PAGES),
)  # fmt: skip
"""A page, or (from PAGES on) one of those that are mapped."""
WHO = st.sampled_from([0, 0, 0, 1, 1, 2, 3])
DATA = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(lambda byte, n: bytes([byte]) * n, st.integers(1, 255), st.integers(1, 9000)),
)
WORDS = st.integers(0, 2**32 - 1)
INSIDE = st.one_of(st.just(0), st.integers(0, PAGE_SIZE - 1))


class Frame:
    """Bytes that somebody refers to."""

    __slots__ = ("data", "gpa", "refs")

    def __init__(self, gpa: int, data: bytes = ZERO, refs: int = 0) -> None:
        self.gpa = gpa
        self.data = data
        self.refs = refs

    def put(self, at: int, data: bytes) -> None:
        self.data = self.data[:at] + data + self.data[at + len(data) :]


class Page:
    """What is mapped at an address."""

    __slots__ = ("cow", "frame", "prot", "shared")

    def __init__(self, frame: Frame, prot: int, cow: bool, shared: bool) -> None:
        self.frame = frame
        self.prot = prot
        self.cow = cow
        self.shared = shared

    def allows(self, write: bool) -> bool:
        return bool(self.prot & WRITE) and not self.cow if write else self.prot != 0


class Space:
    """An address space and its model: page number (of PAGES) → Page."""

    def __init__(self, ram: Ram) -> None:
        self.real = AddressSpace(ram)
        self.pages: dict[int, Page] = {}


def address(page: int) -> int:
    return LOW + page * PAGE_SIZE if page < LOW_PAGES else HIGH + (page - LOW_PAGES) * PAGE_SIZE


def spot(space: Space, start: int, count: int) -> range:
    """Pages that lie next to each other in memory too."""
    if start >= PAGES and space.pages:
        start = sorted(space.pages)[start % len(space.pages)]
    first = max(0, min(start, PAGES - 1))
    return range(first, min(first + count, LOW_PAGES if first < LOW_PAGES else PAGES))


def entry_of(space: Space, page: int) -> tuple[int, int]:
    """(entry, guest-physical address) as the page tables say; (0, 0): none."""
    at = address(page)
    entry = space.real.entry(at)
    if not entry:
        return 0, 0
    inside = (BLOCK_SIZE if entry & lib.PTE_PS else PAGE_SIZE) - 1
    return entry, (entry & lib.PTE_ADDR & ~inside) | (at & inside & ~(PAGE_SIZE - 1))


class MemoryMachine(RuleBasedStateMachine):
    """Operations of AddressSpace and Ram, each on the model too."""

    def __init__(self) -> None:
        super().__init__()
        self.ram = Ram.from_memfd(SPAN)
        self.spaces = [Space(self.ram)]
        self.frames: dict[int, Frame] = {}
        """gpa → the frame of RAM that is in use there"""
        self.file = array("Q", bytes(8 * FILE_PAGES))
        self.pins: list[tuple[Pinned, list[Frame]]] = []
        self.flushed: list[tuple[int, int]] = []
        self._observer = ffi.callback(
            "void(uint64_t, uint64_t)", lambda gpa, n: self.flushed.append((gpa, n))
        )
        lib.flush_observer = self._observer
        self.host = os.memfd_create("host file")
        self.text = b"".join(bytes([0x41 + n]) * PAGE_SIZE for n in range(HOST_PAGES))
        os.write(self.host, self.text)
        self.piece: WindowRange = self.ram.windows.map(
            Donated(self.host), 0, HOST_PAGES * PAGE_SIZE, writable=False
        )
        self.window = [
            Frame(self.piece.gpa + n * PAGE_SIZE, self.text[n * PAGE_SIZE : (n + 1) * PAGE_SIZE])
            for n in range(HOST_PAGES)
        ]

    @initialize(large=st.booleans())
    def begin(self, large: bool) -> None:
        """A program with memory in use: most operations shall find something."""
        lib.ram.large_entries = large
        rw = READ | WRITE
        self.map_anonymous(who=0, start=500, count=40, prot=rw, used=30)
        self.map_anonymous(who=0, start=BLOCK_PAGES * 2, count=BLOCK_PAGES, prot=rw, used=3)
        self.file_fill(first=2, count=9)
        self.file_write(first=2, inside=100, data=b"file" * 4000, zero=False)
        self.map_file(who=0, start=600, first=0, count=9, prot=rw, private=True)
        self.map_file(who=0, start=700, first=0, count=9, prot=rw, private=False)
        self.map_window(who=0, start=800, first=0, count=9, prot=rw, over=False)

    # --- the model's own bookkeeping

    def space(self, who: int) -> Space:
        return self.spaces[who % len(self.spaces)]

    def is_ram(self, frame: Frame) -> bool:
        return frame.gpa < SPAN

    def new_frame(self, gpa: int, data: bytes) -> Frame:
        assert gpa and gpa not in self.frames, "a frame in use was given out again"
        frame = self.frames[gpa] = Frame(gpa, data)
        return frame

    def hold(self, frame: Frame) -> None:
        frame.refs += 1

    def drop(self, frame: Frame) -> None:
        frame.refs -= 1
        if not frame.refs and self.is_ram(frame):
            del self.frames[frame.gpa]

    def enter(self, space: Space, page: int, new: Page) -> None:
        self.hold(new.frame)
        space.pages[page] = new

    def leave(self, space: Space, page: int) -> None:
        self.drop(space.pages.pop(page).frame)

    def agree(self, space: Space, pages: Iterator[int] | range) -> None:
        """The entries are what the model says."""
        for page in pages:
            entry, gpa = entry_of(space, page)
            mine = space.pages.get(page)
            assert (mine is None) == (entry == 0)
            if mine is None:
                continue
            writable = mine.allows(True) and self.is_ram(mine.frame)
            assert gpa == mine.frame.gpa and bool(entry & PTE_COW) == mine.cow
            assert bool(entry & PTE_P) == (mine.prot != 0)
            assert bool(entry & PTE_W) == writable
            if mine.prot:
                assert bool(entry & PTE_NX) == (not mine.prot & EXEC)

    @contextlib.contextmanager
    def changing(self, *spaces: Space) -> Iterator[None]:
        """Every translation that goes or gets weaker in here is flushed."""
        before = [(s, {page: entry_of(s, page) for page in s.pages}) for s in spaces]
        self.flushed.clear()
        yield
        for space, entries in before:
            for page, (old, gpa) in entries.items():
                new, place = entry_of(space, page)
                if not old & PTE_P:
                    continue
                same = new & PTE_P and place == gpa
                weaker = old & PTE_W & ~new or (new & PTE_NX and not old & PTE_NX)
                if not same or weaker:
                    covered = any(at <= gpa < at + n * PAGE_SIZE for at, n in self.flushed)
                    assert covered, f"page {page} of {gpa:#x} was not flushed"

    # --- mapping

    @rule(who=WHO, start=STARTS, count=LENGTHS, prot=PROTS, used=st.integers(0, 9))
    def map_anonymous(self, who: int, start: int, count: int, prot: int, used: int) -> None:
        space = self.space(who)
        pages = spot(space, start, count)
        space.real.map_anonymous(address(pages[0]), len(pages), prot)
        for page in pages:
            if page not in space.pages:
                frame = self.new_frame(entry_of(space, page)[1], ZERO)
                self.enter(space, page, Page(frame, prot, False, False))
        self.agree(space, pages)
        for page in pages[:used]:
            if self.reach(space, page, 7, 1, True):
                assert space.real.write(address(page) + 7, b"used") == 4
                space.pages[page].frame.put(7, b"used")

    @rule(who=WHO, start=STARTS, count=LENGTHS)
    def unmap(self, who: int, start: int, count: int) -> None:
        space = self.space(who)
        pages = spot(space, start, count)
        with self.changing(space):
            space.real.unmap(address(pages[0]), len(pages))
        for page in pages:
            if page in space.pages:
                self.leave(space, page)
        self.agree(space, pages)

    @rule(who=WHO, start=STARTS, count=LENGTHS, prot=PROTS)
    def protect(self, who: int, start: int, count: int, prot: int) -> None:
        space = self.space(who)
        pages = spot(space, start, count)
        with self.changing(space):
            space.real.protect(address(pages[0]), len(pages), prot)
        for page in pages:
            if (mine := space.pages.get(page)) is None:
                continue
            mine.prot = prot
            if mine.cow and not entry_of(space, page)[0] & PTE_COW:
                assert prot & WRITE and mine.frame.refs == 1 and self.is_ram(mine.frame)
                mine.cow = False
        self.agree(space, pages)

    @rule(who=WHO, start=STARTS, to=STARTS, count=LENGTHS)
    def move(self, who: int, start: int, to: int, count: int) -> None:
        space = self.space(who)
        pages = spot(space, start, count)
        places = spot(space, to, len(pages))
        if len(places) < len(pages) or set(pages) & set(places):
            return
        if any(page in space.pages for page in places):
            return
        with self.changing(space):
            space.real.move(address(pages[0]), address(places[0]), len(pages))
        for page, place in zip(pages, places, strict=True):
            if page in space.pages:
                space.pages[place] = space.pages.pop(page)
        self.agree(space, pages)
        self.agree(space, places)

    @rule(who=WHO, start=STARTS, first=st.integers(0, HOST_PAGES - 1), count=st.integers(1, 9),
          prot=PROTS, over=st.booleans())  # fmt: skip
    def map_window(
        self, who: int, start: int, first: int, count: int, prot: int, over: bool
    ) -> None:
        """A private mapping of a host file."""
        space = self.space(who)
        pages = spot(space, start, min(count, HOST_PAGES - first))
        gpa = self.window[first].gpa
        with self.changing(space):
            if over:
                space.real.map_over(address(pages[0]), gpa, len(pages), prot)
            else:
                space.real.map_frames(address(pages[0]), gpa, len(pages), prot, cow=True)
        for number, page in enumerate(pages, first):
            if over and page in space.pages:
                self.leave(space, page)
            if page not in space.pages:
                self.enter(space, page, Page(self.window[number], prot, True, False))
        self.agree(space, pages)

    @rule(who=WHO, start=STARTS, first=st.integers(0, FILE_PAGES - 1), count=st.integers(1, 9),
          prot=PROTS, private=st.booleans())  # fmt: skip
    def map_file(
        self, who: int, start: int, first: int, count: int, prot: int, private: bool
    ) -> None:
        """A file in RAM; its holes are skipped."""
        space = self.space(who)
        pages = spot(space, start, min(count, FILE_PAGES - first))
        part = self.file[first : first + len(pages)]
        space.real.map_list(address(pages[0]), part, len(pages), prot, private)
        for gpa, page in zip(part, pages, strict=True):
            if gpa and page not in space.pages:
                self.enter(space, page, Page(self.frames[gpa], prot, private, not private))
        self.agree(space, pages)

    # --- address spaces

    @precondition(lambda self: len(self.spaces) < 4)
    @rule()
    def new_space(self) -> None:
        self.spaces.append(Space(self.ram))

    @precondition(lambda self: len(self.spaces) > 1)
    @rule(who=WHO)
    def destroy(self, who: int) -> None:
        space = self.space(who)
        self.spaces.remove(space)
        space.real.destroy()
        for page in list(space.pages):
            self.leave(space, page)

    @rule(who=WHO, other=WHO, start=STARTS, count=LENGTHS, copies=st.sampled_from([0, 0, 1, 20]))
    def fork(self, who: int, other: int, start: int, count: int, copies: int) -> None:
        """A range of a parent into a child that has nothing there, as fork(2) does by mappings."""
        parent = self.space(who)
        if len(self.spaces) < 4:
            self.new_space()
        child, first = self.space(-1 - other), spot(parent, start, 1)[0]
        if first not in parent.pages or parent is child:
            return
        model = parent.pages[first]
        pages = range(first, self._alike(parent, first, 0, count)[1])
        if any(page in child.pages for page in pages):
            return
        mine = {page: parent.pages[page] for page in pages if page in parent.pages}
        where, size = address(first), len(pages)
        if model.shared:
            parent.real.share(child.real, where, size)
            for number, page in mine.items():
                self.enter(child, number, Page(page.frame, page.prot, page.cow, True))
        else:
            with self.changing(parent):
                copied = parent.real.fork(child.real, where, size, model.prot, copies)
            assert copied <= copies
            for number, page in mine.items():
                self._forked(parent, child, number, page)
        self.agree(parent, pages)
        self.agree(child, pages)

    def _forked(self, parent: Space, child: Space, number: int, page: Page) -> None:
        entry, gpa = entry_of(child, number)
        if not entry:
            assert page.frame.data == ZERO and not page.cow, "a page got lost"
        elif gpa == page.frame.gpa:
            page.cow = True
            self.enter(child, number, Page(page.frame, page.prot, True, False))
        else:
            if page.cow and not entry_of(parent, number)[0] & PTE_COW:
                assert page.frame.refs == 1
                page.cow = False
            frame = self.new_frame(gpa, page.frame.data)
            self.enter(child, number, Page(frame, page.prot, False, False))

    @rule(who=WHO, at=STARTS, back=st.integers(0, 20), on=st.integers(1, 20))
    def break_cow(self, who: int, at: int, back: int, on: int) -> None:
        """A store to a page that is copy on write: this one and its neighbours get frames."""
        space = self.space(who)
        page = spot(space, at, 1)[0]
        if (hit := space.pages.get(page)) is None:
            return
        low, high = self._alike(space, page, back, on)
        with self.changing(space):
            result = space.real.break_cow(
                address(page) + 5, address(low), address(high - 1) + PAGE_SIZE, hit.prot
            )
        if not hit.prot & WRITE or not hit.cow:
            assert result < 0
            return
        assert result == 0 and not entry_of(space, page)[0] & PTE_COW
        for number in range(low, high):
            other = space.pages.get(number)
            entry, gpa = entry_of(space, number)
            if other is None or not other.cow or entry & PTE_COW:
                continue
            other.cow = False
            if gpa == other.frame.gpa:
                assert other.frame.refs == 1 and self.is_ram(other.frame)
                continue
            old, other.frame = other.frame, self.new_frame(gpa, other.frame.data)
            self.hold(other.frame)
            self.drop(old)
        self.agree(space, range(low, high))

    def _alike(self, space: Space, page: int, back: int, on: int) -> tuple[int, int]:
        """A part of what would be one mapping around a page."""
        region = range(LOW_PAGES) if page < LOW_PAGES else range(LOW_PAGES, PAGES)
        model = space.pages[page]

        def fits(number: int) -> bool:
            other = space.pages.get(number)
            kind = (model.prot, model.shared)
            return number in region and (other is None or (other.prot, other.shared) == kind)

        low, high = page, page + 1
        while page - low < back and fits(low - 1):
            low -= 1
        while high - page < on and fits(high):
            high += 1
        return low, high

    # --- contents

    @rule(who=WHO, start=STARTS, count=LENGTHS)
    def discard(self, who: int, start: int, count: int) -> None:
        space = self.space(who)
        pages = spot(space, start, count)
        if any(p in space.pages and space.pages[p].shared for p in pages):
            return
        with self.changing(space):
            space.real.discard(address(pages[0]), len(pages))
        for page in pages:
            if (mine := space.pages.get(page)) is None:
                continue
            if entry_of(space, page)[0]:
                assert mine.frame.refs == 1 and not mine.cow
                mine.frame.data = ZERO
            else:
                self.leave(space, page)
        self.agree(space, pages)

    @rule(who=WHO, start=STARTS, count=st.integers(1, 70))
    def populate(self, who: int, start: int, count: int) -> None:
        space = self.space(who)
        pages = spot(space, start, count)
        assert space.real.populate(address(pages[0]), len(pages))
        here = space.real.resident(address(pages[0]), len(pages))
        for page, resident in zip(pages, here, strict=True):
            mine = space.pages.get(page)
            assert resident == (mine is not None) or (mine is not None and not mine.prot)

    def reach(self, space: Space, page: int, inside: int, count: int, write: bool) -> int:
        """How many of these bytes the program may access."""
        done = 0
        while done < count:
            number = page + (inside + done) // PAGE_SIZE
            mine = space.pages.get(number) if number in spot(space, page, PAGES) else None
            if mine is None or not mine.allows(write) or (write and not self.is_ram(mine.frame)):
                break
            done = min(count, done + PAGE_SIZE - (inside + done) % PAGE_SIZE)
        return done

    def bytes_at(self, space: Space, page: int, inside: int, count: int) -> bytes:
        last = page + (inside + count - 1) // PAGE_SIZE
        whole = b"".join(space.pages[n].frame.data for n in range(page, last + 1) if count)
        return whole[inside : inside + count]

    def put_bytes(self, space: Space, page: int, inside: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            at = (inside + done) % PAGE_SIZE
            some = data[done : done + PAGE_SIZE - at]
            space.pages[page + (inside + done) // PAGE_SIZE].frame.put(at, some)
            done += len(some)

    def stopped(self, space: Space, at: int, done: int, count: int, write: bool) -> None:
        if done < count:
            assert space.real.fault_addr == at + done
            assert space.real.fault_write == write and not space.real.fault_gone

    @rule(who=WHO, start=STARTS, inside=INSIDE, data=DATA, zero=st.booleans())
    def write(self, who: int, start: int, inside: int, data: bytes, zero: bool) -> None:
        space = self.space(who)
        page = spot(space, start, 1)[0]
        at, data = address(page) + inside, bytes(len(data)) if zero else data
        may = self.reach(space, page, inside, len(data), True)
        done = space.real.zero(at, len(data)) if zero else space.real.write(at, data)
        assert done == may
        self.stopped(space, at, done, len(data), True)
        self.put_bytes(space, page, inside, data[:done])

    @rule(who=WHO, start=STARTS, inside=INSIDE, count=st.integers(1, 20000))
    def read(self, who: int, start: int, inside: int, count: int) -> None:
        space = self.space(who)
        page = spot(space, start, 1)[0]
        at, may = address(page) + inside, self.reach(space, page, inside, count, False)
        assert space.real.check(at, count, False) == may
        data = space.real.read(at, count)
        self.stopped(space, at, len(data), count, False)
        assert len(data) == may and data == self.bytes_at(space, page, inside, may)
        text = space.real.string(at, min(count, 600))
        wanted = data[:600][: min(count, 600)]
        assert text == wanted[: wanted.index(0) + 1 if 0 in wanted else len(wanted)]

    @rule(who=WHO, start=STARTS, inside=INSIDE, operand=WORDS, op=st.integers(0, 4))
    def atomics(self, who: int, start: int, inside: int, operand: int, op: int) -> None:
        space, inside = self.space(who), inside & ~3
        page = spot(space, start, 1)[0]
        at = address(page) + inside
        if not self.reach(space, page, inside, 4, False):
            assert space.real.load32(at) is None
            return
        old = int.from_bytes(self.bytes_at(space, page, inside, 4), "little")
        assert space.real.load32(at) == old
        if not self.reach(space, page, inside, 4, True):
            assert space.real.cmpxchg32(at, old, operand) is None
            assert space.real.futex_op(at, op, operand) is None
            return
        assert space.real.cmpxchg32(at, old ^ 1, operand) == old
        assert space.real.futex_op(at, op, operand) == old
        new = (operand, old + operand, old | operand, old & ~operand, old ^ operand)[op]
        self.put_bytes(space, page, inside, (new & 0xFFFFFFFF).to_bytes(4, "little"))

    # --- files in RAM

    @rule(first=st.integers(0, FILE_PAGES - 1), count=st.integers(1, 9))
    def file_fill(self, first: int, count: int) -> None:
        before = self.file[:]
        filled = self.ram.fill(self.file, first, count)
        new = [n for n in range(FILE_PAGES) if self.file[n] != before[n]]
        assert len(new) == filled
        assert all(first <= n < first + count and not before[n] for n in new)
        assert all(self.file[first : first + count])
        for number in new:
            self.hold(self.new_frame(self.file[number], ZERO))

    @rule(first=st.integers(0, FILE_PAGES - 1), count=st.integers(1, 9))
    def file_truncate(self, first: int, count: int) -> None:
        gone = [gpa for gpa in self.file[first : first + count] if gpa]
        assert self.ram.put_list(self.file, first, count) == len(gone)
        assert not any(self.file[first : first + count])
        for gpa in gone:
            self.drop(self.frames[gpa])

    @rule(first=st.integers(0, FILE_PAGES - 1), inside=INSIDE, data=DATA, zero=st.booleans())
    def file_write(self, first: int, inside: int, data: bytes, zero: bool) -> None:
        at = first * PAGE_SIZE + inside
        data = data[: FILE_PAGES * PAGE_SIZE - at]
        if zero:
            zero_frames(self.file, at, len(data))
            data = bytes(len(data))
            done = len(data)
        else:
            done = write_frames(self.file, at, data)
        self._put_file(at, data, done)

    def _put_file(self, at: int, data: bytes, done: int) -> None:
        """The first `done` bytes of `data`; a hole stops what is not zero."""
        while data:
            gpa, inside = self.file[at // PAGE_SIZE], at % PAGE_SIZE
            some = data[: PAGE_SIZE - inside]
            if done <= 0:
                assert not gpa
                return
            if gpa:
                self.frames[gpa].put(inside, some)
            at, done, data = at + len(some), done - len(some), data[len(some) :]

    def file_bytes(self) -> bytes:
        return b"".join(self.frames[gpa].data if gpa else ZERO for gpa in self.file)

    @rule(first=st.integers(0, FILE_PAGES - 1), inside=INSIDE, count=st.integers(0, 20000))
    def file_read(self, first: int, inside: int, count: int) -> None:
        at = first * PAGE_SIZE + inside
        count = min(count, FILE_PAGES * PAGE_SIZE - at)
        assert read_frames(self.file, at, count) == self.file_bytes()[at : at + count]

    @rule(who=WHO, start=STARTS, inside=INSIDE, first=st.integers(0, FILE_PAGES - 1), off=INSIDE,
          count=st.integers(1, 20000))  # fmt: skip
    def file_to_user(
        self, who: int, start: int, inside: int, first: int, off: int, count: int
    ) -> None:
        """read(2) of a file in RAM."""
        space, at = self.space(who), first * PAGE_SIZE + off
        page = spot(space, start, 1)[0]
        count = min(count, FILE_PAGES * PAGE_SIZE - at)
        may = self.reach(space, page, inside, count, True)
        if self._overlaps(space, page, inside, may, at):
            return
        user = address(page) + inside
        done = space.real.from_frames(user, frames_of(self.file), at, count)
        assert done == may
        self.stopped(space, user, done, count, True)
        self.put_bytes(space, page, inside, self.file_bytes()[at : at + done])

    @rule(who=WHO, start=STARTS, inside=INSIDE, first=st.integers(0, FILE_PAGES - 1), off=INSIDE,
          count=st.integers(1, 20000))  # fmt: skip
    def user_to_file(
        self, who: int, start: int, inside: int, first: int, off: int, count: int
    ) -> None:
        """write(2) to a file in RAM: holes that are written to become frames."""
        space, at = self.space(who), first * PAGE_SIZE + off
        page = spot(space, start, 1)[0]
        count = min(count, FILE_PAGES * PAGE_SIZE - at)
        may = self.reach(space, page, inside, count, False)
        if self._overlaps(space, page, inside, may, at):
            return
        data, before = self.bytes_at(space, page, inside, may), self.file[:]
        user = address(page) + inside
        done, filled = space.real.to_frames(user, frames_of(self.file), at, count)
        assert done == may
        self.stopped(space, user, done, count, False)
        new = [n for n in range(FILE_PAGES) if self.file[n] != before[n]]
        assert len(new) == filled and not any(before[n] for n in new)
        assert set(new) <= set(range(at // PAGE_SIZE, (at + done - 1) // PAGE_SIZE + 1))
        for number in new:
            self.hold(self.new_frame(self.file[number], ZERO))
        self._put_file(at, data, done)

    def _overlaps(self, space: Space, page: int, inside: int, count: int, at: int) -> bool:
        """The file's bytes are those of the program: which come first is nobody's promise."""
        last = page + (inside + count) // PAGE_SIZE
        user = {space.pages[n].frame.gpa for n in range(page, last + 1) if n in space.pages}
        return bool(user & {gpa for gpa in self.file if gpa})

    # --- pins

    @precondition(lambda self: len(self.pins) < 3)
    @rule(who=WHO, start=STARTS, inside=INSIDE, count=st.integers(1, 30000), write=st.booleans())
    def pin(self, who: int, start: int, inside: int, count: int, write: bool) -> None:
        space = self.space(who)
        page = spot(space, start, 1)[0]
        may = self.reach(space, page, inside, count, write)
        pinned = space.real.pin(address(page) + inside, count, write)
        assert pinned.count <= may
        held = []
        pages = (inside + pinned.count + PAGE_SIZE - 1) // PAGE_SIZE if pinned.count else 0
        for number in range(page, page + pages):
            held.append(space.pages[number].frame)
            assert self.is_ram(held[-1])
        if pinned.count < may:  # a window begins there
            stop = space.pages[page + (inside + pinned.count) // PAGE_SIZE].frame
            assert not self.is_ram(stop)
        for frame in held:
            self.hold(frame)
        self.pins.append((pinned, held))

    @precondition(lambda self: self.pins)
    @rule()
    def unpin(self) -> None:
        pinned, held = self.pins.pop()
        pinned.release()
        for frame in held:
            self.drop(frame)

    # --- what always holds

    @rule(who=WHO)
    def counts(self, who: int) -> None:
        """Residency: what holds bytes is resident, what is not mapped is not."""
        space, total = self.space(who), 0
        for pages in (range(LOW_PAGES), range(LOW_PAGES, PAGES)):
            here = space.real.resident(address(pages[0]), len(pages))
            ram, windows, alone, several = space.real.count(address(pages[0]), len(pages))
            mine = [space.pages.get(page) for page in pages]
            found = [p for p, resident in zip(mine, here, strict=True) if resident]
            for page, resident in zip(mine, here, strict=True):
                assert page is not None or not resident
                assert page is None or resident or page.frame.data == ZERO
            kept = [p.frame for p in found if p and self.is_ram(p.frame)]
            assert (ram, windows) == (len(kept), len(found) - len(kept))
            assert several == sum(frame.refs > 1 for frame in kept)
            assert alone == len(found) - several
            total += ram
        assert space.real.resident_ram() == total

    @rule(keep=st.sampled_from([0, 1 << 20]))
    def trim(self, keep: int) -> None:
        self.ram.trim(keep)

    @invariant()
    def frames_have_their_references(self) -> None:
        for gpa, frame in self.frames.items():
            assert self.ram.references(gpa) == frame.refs
        counters = self.ram.counters()
        assert counters.frames == len(self.frames)
        assert counters.pins == sum(len(held) for _, held in self.pins)
        assert counters.spaces == len(self.spaces)
        for space in self.spaces:
            mapped = [self.is_ram(page.frame) for page in space.pages.values()]
            assert space.real.native.anonymous == sum(mapped)
            assert space.real.native.windows == len(mapped) - sum(mapped)
            assert space.real.empty_tables < space.real.tables

    def teardown(self) -> None:
        try:
            for space in self.spaces:
                self.agree(space, range(PAGES))
                for page, mine in space.pages.items():
                    if mine.prot:
                        assert space.real.read(address(page), PAGE_SIZE) == mine.frame.data
            assert read_frames(self.file, 0, FILE_PAGES * PAGE_SIZE) == self.file_bytes()
            for pinned, _ in self.pins:
                pinned.release()
            self.ram.put_list(self.file, 0, FILE_PAGES)
            for space in self.spaces:
                space.real.destroy()
            self.ram.trim()
            left = self.ram.counters()
            assert (left.frames, left.tables, left.pins, left.spaces) == (0, 0, 0, 0)
        finally:
            lib.flush_observer = ffi.NULL
            self.ram.close()
            os.close(self.host)


EXAMPLES = 60
"""With one seed."""


@for_a_while(10, 120)
def test_memory_is_what_a_dictionary_says(seconds: float) -> None:
    for number, turn in enumerate(rounds(seconds), 1):
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            seed(turn)(MemoryMachine),
            settings=round_settings(max_examples=EXAMPLES, stateful_step_count=50),
        )
        print(f"seed {turn}: {number * EXAMPLES} examples")
