"""Watched files and their epolls hold each other only as long as both are open."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from sentry.abi.poll import EPOLLIN
from sentry.errors import EINVAL
from sentry.fs.epoll.file import WAY_BITS, EpollFile, Item, check_ways, ways_of
from sentry.fs.eventfd import EventFile
from sentry.vfs.vfs import Vfs


@pytest.fixture
def vfs() -> Iterator[Vfs]:
    """Without the collector: what is left over stays."""
    gc.collect()
    gc.disable()
    yield Vfs(None, None, lambda: 0)
    gc.enable()


def test_ways_of_many_files_that_one_epoll_watches_are_counted_once(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, outer, other = EpollFile(vfs), EpollFile(vfs), EpollFile(vfs)
    events = [EventFile(vfs, 0, 0) for _ in range(50)]
    for at, event in enumerate(events):
        inner.add(at, event, EPOLLIN, at)
    other.add(0, events[0], EPOLLIN, 0)
    counted: list[object] = []

    def noted(file: EventFile | EpollFile, known: dict[EpollFile, int]) -> int:
        if isinstance(file, EventFile):
            counted.append(file)
        return ways_of(file, known)

    monkeypatch.setattr("sentry.fs.epoll.file.ways_of", noted)
    outer.add(0, inner, EPOLLIN, 0)
    assert counted == [events[0], events[-1]]
    assert ways_of(events[0], {}) == 1 + (1 << WAY_BITS)
    assert ways_of(events[1], {}) == 1 << WAY_BITS
    for file in (outer, other, inner):
        file.release()


@pytest.mark.parametrize(("through", "most"), [(1, 500), (2, 100), (3, 50), (4, 10)])
def test_too_many_ways_through_epolls_are_refused(through: int, most: int) -> None:
    check_ways(most << through * WAY_BITS | 1 << 40)
    with pytest.raises(EINVAL):
        check_ways(most + 1 << through * WAY_BITS)


def test_a_look_of_poll_comes_to_some_items_alone(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoll, looked_at = EpollFile(vfs), list[int]()
    ready = Item.ready
    events = [EventFile(vfs, 1, 0) for _ in range(50)]
    for at, event in enumerate(events):
        epoll.add(at, event, EPOLLIN, at)
        event.value = 0

    def noted(item: Item) -> int:
        looked_at.append(item.fd)
        return ready(item)

    monkeypatch.setattr(Item, "ready", noted)
    monkeypatch.setattr("sentry.fs.epoll.file.AT_ONCE", 20)
    assert [bool(epoll.poll()) for _ in range(3)] == [True, True, False]
    assert looked_at == list(range(50))
    epoll.release()


def alive() -> list[type]:
    kinds = (EpollFile, EventFile, Item)
    return [type(each) for each in gc.get_objects() if type(each) in kinds]


def fetched(epoll: EpollFile) -> list[tuple[int, int]]:
    return [(events, item.data) for events, item in epoll.fetch(9)]


def watched(vfs: Vfs) -> tuple[EpollFile, EventFile]:
    epoll, event = EpollFile(vfs), EventFile(vfs, 1, 0)
    epoll.incref()
    event.incref()
    epoll.add(3, event, EPOLLIN, 7)
    assert fetched(epoll) == [(EPOLLIN, 7)]
    return epoll, event


def test_epoll_that_is_closed_is_freed_with_its_items(vfs: Vfs) -> None:
    epoll, event = watched(vfs)
    epoll.decref()
    del epoll
    assert alive() == [EventFile] and not event.epolls and not len(event.queue)
    event.add(1)
    event.decref()
    del event
    assert alive() == [] and vfs.epoll_items == 0


def test_file_that_is_closed_leaves_its_epoll(vfs: Vfs) -> None:
    epoll, event = watched(vfs)
    event.decref()
    del event
    assert alive() == [EpollFile] and not epoll.poll() and vfs.epoll_items == 0
    epoll.decref()


def test_item_that_is_deleted_is_freed_also_if_it_is_told_once_more(vfs: Vfs) -> None:
    epoll, event = watched(vfs)
    item = epoll.items[3, id(event)]
    epoll.delete(3, event)
    item.callback(EPOLLIN)
    del item
    assert sorted(alive(), key=str) == [EpollFile, EventFile] and epoll.ready_now(9) == []
    epoll.decref()
    event.decref()


def test_epolls_that_watch_each_other_in_a_row_are_freed_in_any_order(vfs: Vfs) -> None:
    inner, event = watched(vfs)
    outer = EpollFile(vfs)
    outer.incref()
    outer.add(5, inner, EPOLLIN, 9)
    assert fetched(outer) == [(EPOLLIN, 9)] and inner.height({}) == 1
    for file in (inner, event, outer):
        file.decref()
    del inner, event, outer, file
    assert alive() == []
