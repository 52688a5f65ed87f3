"""When Python looks for garbage: by how much there is."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.kernel.collector import FEW_BLOCKS, FULL, LOTS, Collector


class Looks:
    """A collector, and which generations are looked at, the youngest apart."""

    def __init__(self) -> None:
        self.generations: list[int] = []
        self.collector = Collector()
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"]:
            self.generations.append(info["generation"])

    def close(self) -> None:
        gc.callbacks.remove(self._note)
        self.collector.stop()


@pytest.fixture
def looks() -> Iterator[Looks]:
    before = gc.get_threshold()
    made = Looks()
    yield made
    made.close()
    gc.set_threshold(*before)


def many() -> list[list[int]]:
    """More than few, made while nobody looks."""
    gc.disable()
    try:
        return [[1] for _ in range(FEW_BLOCKS)]
    finally:
        gc.enable()


def test_all_is_looked_at_while_it_is_little(looks: Looks) -> None:
    looks.collector.rest()
    assert looks.generations == [2]
    assert gc.get_threshold() == (*LOTS, FULL)


def test_what_is_old_and_much_is_not_looked_at(looks: Looks) -> None:
    heap = many()
    looks.collector.rest()
    assert looks.generations == [1]
    del heap
    looks.collector.rest()
    assert looks.generations == [1, 2]


def test_heap_that_grows_without_a_rest_is_never_looked_at_as_a_whole(looks: Looks) -> None:
    heap = []
    for _ in range(LOTS[0] * (LOTS[1] + 2) * (FULL + 4)):
        heap.append([1])
    assert looks.generations.count(1) > FULL
    assert 2 not in looks.generations


def test_young_garbage_of_a_large_heap_goes_at_rest(looks: Looks) -> None:
    heap = many()
    looks.collector.rest()
    cycle: list[Any] = []
    cycle.append(cycle)
    del cycle
    gc.callbacks.append(lambda phase, info: found.append(info.get("collected", 0)))
    found: list[int] = []
    looks.collector.rest()
    gc.callbacks.pop()
    assert max(found) >= 1 and heap
