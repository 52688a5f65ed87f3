"""Pages of a file that lies elsewhere: filled by faults, sent back where they were stored into."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sentry.errors import EIO, ENOMEM, ENOSPC
from sentry.fs.page_cache import ALL, MANY, PageCache, Unreadable
from sentry.mm.ramfile import RamFile
from sentry.platform.frames import write_frames
from sentry.platform.memory import Ram
from sentry.vfs.vfs import Vfs
from sentry.wait.steps import Steps, WaitingSteps
from tests.unit.fs.resting import done

PAGE = 4096
SIZE = 3 * PAGE + 10


class Server(PageCache):
    """Answers at once, of `data`; `meanwhile` happens before the next answer is taken."""

    def __init__(self, ram: Any, data: bytes) -> None:
        super().__init__(ram, len(data), Vfs())
        self.data = bytearray(data)
        self.asked: list[tuple[int, int]] = []
        self.stored: list[tuple[object, int, int]] = []
        self.fails: dict[int, type[Exception]] = {}
        self.meanwhile: Callable[[], object] | None = None

    async def fetch(self, offset: int, size: int) -> bytes:
        self.asked.append((offset, size))
        if offset in self.fails:
            raise self.fails[offset]("said the server")
        data = bytes(self.data[offset : offset + size])
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return data

    async def store(self, handle: Any, offset: int, data: bytes) -> None:
        self.stored.append((handle, offset, len(data)))
        if offset in self.fails:
            raise self.fails[offset]("said the server")
        self.data[offset : offset + len(data)] = data


@pytest.fixture(scope="module")
def memory() -> Iterator[Ram]:
    ram = Ram.from_memfd(1 << 30)
    yield ram
    ram.close()


@pytest.fixture
def cache(memory: Ram) -> Iterator[Server]:
    found = Server(RamFile(memory), bytes(range(1, 256)) * (SIZE // 255 + 1))
    found.data = found.data[:SIZE]
    found.ram.truncate(SIZE)
    yield found
    found.close()


def load(cache: Server, index: int, count: int = 64) -> None:
    """As a fault does."""
    done(cache.ram.loader(index, count))


def test_pages_are_filled_up_to_the_end_and_to_the_next_that_is_there(cache: Server) -> None:
    load(cache, 2, 1)
    load(cache, 0)
    load(cache, 3)
    assert cache.asked == [(2 * PAGE, PAGE), (0, 2 * PAGE), (3 * PAGE, 10)]
    assert cache.ram.read(0, SIZE) == cache.data


def test_what_the_server_does_not_give_is_a_bus_error(cache: Server) -> None:
    cache.fails[0] = EIO
    with pytest.raises(Unreadable):
        load(cache, 0)
    del cache.data[PAGE + 7 :]
    load(cache, 1)  # the rest of a page that has a beginning is zeros
    assert cache.ram.read(PAGE, PAGE) == bytes(cache.data[PAGE:]).ljust(PAGE, b"\0")
    assert not cache.ram.peek(2)
    with pytest.raises(Unreadable):
        load(cache, 2)


def test_page_that_there_is_no_memory_for_is_fetched_again(
    cache: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr("sentry.mm.ramfile.write_frames", lambda chunk, offset, data: 0)
        with pytest.raises(ENOMEM):
            load(cache, 0)
        assert not cache.ram.peek(0)
        assert cache.ram.pages == 0
    load(cache, 0)
    assert cache.ram.read(0, SIZE) == cache.data


@pytest.mark.parametrize("change", ["drop", "resize"])
def test_answer_from_before_a_change_is_not_taken(cache: Server, change: str) -> None:
    cache.meanwhile = lambda: cache.drop(0, 1) if change == "drop" else cache.resize(PAGE)
    load(cache, 0)
    assert not cache.ram.peek(0)
    load(cache, 0)
    assert cache.ram.read(0, PAGE) == cache.data[:PAGE]


def test_only_pages_that_were_stored_into_are_sent_and_dropped_others_are_read_anew(
    cache: Server,
) -> None:
    cache.track()
    load(cache, 0)
    cache.ram.write(PAGE + 5, b"stored")
    assert cache.has_tracked(PAGE, 1)
    cache.drop(0, 0)
    assert not cache.ram.peek(0)
    assert cache.ram.read(PAGE + 5, 6) == b"stored"
    done(cache.write_back("handle"))
    done(cache.write_back("handle"))
    assert cache.stored == [("handle", PAGE, PAGE)]
    assert cache.data[PAGE + 5 : PAGE + 11] == b"stored"


def test_last_page_is_sent_up_to_the_end_and_one_that_is_refused_stops_no_other(
    cache: Server,
) -> None:
    cache.track()
    load(cache, 0)
    for index in (0, 1, 3):
        cache.ram.write(index * PAGE, b"new")
    cache.fails[0] = ENOSPC
    with pytest.raises(ENOSPC):
        done(cache.write_back(1, 0, ALL))
    assert cache.stored == [(1, 0, PAGE), (1, PAGE, PAGE), (1, 3 * PAGE, 10)]
    cache.resize(PAGE)
    assert not cache.has_tracked(PAGE, ALL)


def test_page_with_the_end_is_not_taken_for_stored_into_when_the_file_grows_or_shrinks(
    cache: Server,
) -> None:
    cache.track()
    load(cache, 3)
    cache.data += b"appended"  # by others: what is here of that page is old
    cache.resize(len(cache.data))
    done(cache.write_back("handle"))
    assert not cache.stored and not cache.ram.peek(3)
    load(cache, 3)
    assert cache.ram.read(3 * PAGE, 18) == cache.data[3 * PAGE :]
    del cache.data[3 * PAGE + 2 :]
    cache.data[3 * PAGE] = 0
    second = bytes(cache.data[3 * PAGE + 1 :])
    cache.resize(len(cache.data))
    cache.drop(0, 0)
    done(cache.write_back("handle"))
    assert not cache.stored
    load(cache, 3)
    cache.ram.write(3 * PAGE, b"s")
    cache.resize(SIZE)
    done(cache.write_back("handle"))
    assert cache.stored == [("handle", 3 * PAGE, 10)]
    assert cache.data[3 * PAGE :] == b"s" + second + bytes(8)


def test_answer_for_pages_that_nobody_maps_any_more_takes_no_memory(
    memory: Ram, cache: Server
) -> None:
    before = memory.file_pages
    cache.meanwhile = cache.close
    load(cache, 0)
    assert memory.file_pages == before


class Storing:
    """An address space that has all pages when it is to lose them, and stores until then."""

    def __init__(self, mappings: int = 1) -> None:
        self.vmas = range(mappings)
        self.stores: dict[int, bytes] = {}
        self.asked = 0

    def losing_frames(self, ram: RamFile, first: int, frames: array[int]) -> Steps[None]:
        self.asked += 1
        yield
        for page, data in self.stores.items():
            at = page - first
            if 0 <= at < len(frames) and frames[at]:
                write_frames(frames, at * PAGE, data)

    def losing(self, ram: RamFile, start: int) -> WaitingSteps[None]:
        self.lost = start
        yield None

    def backing_lost(self, ram: RamFile, start: int, end: int | None, private: bool) -> None:
        self.lost = start

    def losing_window(self, backing: object, piece: object) -> Steps[None]:
        yield


class Behind:
    """A loop on which nothing goes on by itself."""

    def __init__(self) -> None:
        self.begun: list[Any] = []

    def spawn(self, work: Any, name: object) -> None:
        self.begun.append(work)


@pytest.fixture
def crowded(cache: Server) -> Storing:
    """Who maps the file with more than is lost at once."""
    storing = Storing(MANY + 1)
    cache.ram.mappers[storing] = 1
    cache._vfs.loop = Behind()
    return storing


def test_what_is_stored_until_a_page_is_lost_is_not_dropped(cache: Server) -> None:
    cache.track()
    load(cache, 0)
    storing = Storing()
    storing.stores[1] = b"last"
    cache.ram.mappers[storing] = 1
    cache.drop(0, 0)
    assert storing.asked == 1
    assert cache.ram.pages == 1
    done(cache.write_back("handle"))
    assert cache.stored == [("handle", PAGE, PAGE)]
    assert cache.data[PAGE : PAGE + 4] == b"last"


def test_many_lose_pages_behind_the_call_and_find_new_ones_at_once(
    memory: Ram, cache: Server, crowded: Storing
) -> None:
    load(cache, 0)
    frames = memory.counters().frames
    cache.drop(0, 0)
    cache.drop(0, 0)
    cache.data[:3] = b"new"
    load(cache, 0)
    assert cache.ram.read(0, SIZE) == cache.data
    cache.track()
    assert (cache.ram.pages, crowded.asked) == (0, 0)
    load(cache, 0)
    assert cache.has_tracked(0, SIZE)
    (work,) = cache._vfs.loop.begun
    done(work)
    assert (cache.ram.pages, memory.counters().frames) == (4, frames)


def test_what_many_may_store_comes_back_behind_the_call_and_is_waited_for(
    memory: Ram, cache: Server, crowded: Storing
) -> None:
    cache.track()
    load(cache, 0)
    frames = memory.counters().frames
    crowded.stores[2] = b"last"
    cache.ram.write(0, b"stored")
    cache.drop(0, 0)
    assert cache.has_tracked(3 * PAGE, 1)
    loading, sending = cache.ram.loader(1, 1), cache.write_back("handle")
    for waits in (loading, sending):
        assert waits.send(None) is not None
    (work,) = cache._vfs.loop.begun
    done(work)
    assert [bool(cache.ram.peek(index)) for index in range(4)] == [True, False, True, False]
    assert memory.counters().frames == frames - 2
    del sending
    done(cache.write_back("handle"))
    assert cache.stored == [("handle", 0, PAGE), ("handle", 2 * PAGE, PAGE)]
    assert (cache.data[:6], cache.data[2 * PAGE : 2 * PAGE + 4]) == (b"stored", b"last")


def test_file_of_many_mappings_is_cut_and_grows_behind_the_call(
    memory: Ram, cache: Server, crowded: Storing
) -> None:
    cache.track()
    load(cache, 0)
    frames = memory.counters().frames
    cache.ram.write(PAGE, b"stored")
    cache.ram.write(2 * PAGE, b"stored")
    cache.resize(PAGE + 100)
    cache.resize(SIZE)
    losing, copies = cache._vfs.loop.begun
    done(losing)
    done(copies)
    assert crowded.lost == 4 * PAGE
    assert [bool(cache.ram.peek(index)) for index in range(4)] == [True, True, False, False]
    assert memory.counters().frames == frames - 2
    done(cache.write_back("handle"))
    assert cache.stored == [("handle", PAGE, PAGE)]
    assert cache.ram.read(PAGE, PAGE) == bytes(cache.data[PAGE : 2 * PAGE])


def test_page_with_the_end_that_many_map_is_no_store_when_it_grows(
    cache: Server, crowded: Storing
) -> None:
    cache.track()
    load(cache, 3)
    cache.data += b"appended"
    cache.resize(len(cache.data))
    done(*cache._vfs.loop.begun)
    done(cache.write_back("handle"))
    assert not cache.stored and not cache.ram.peek(3)


def test_what_was_stored_behind_an_end_that_comes_meanwhile_does_not_come_back(
    cache: Server, crowded: Storing
) -> None:
    cache.track()
    load(cache, 0)
    for index in (0, 2):
        cache.ram.write(index * PAGE, b"stored")
    cache.drop(0, 0)
    cache.resize(PAGE)
    cache.resize(SIZE)
    for work in cache._vfs.loop.begun:
        done(work)
    assert [bool(cache.ram.peek(index)) for index in range(4)] == [True, False, False, False]
