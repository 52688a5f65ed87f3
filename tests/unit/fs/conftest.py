"""Memory that a program cannot have for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.world import Program

Changing = Callable[[Program], AbstractContextManager[None]]


@pytest.fixture
def changing() -> Changing:
    """`with changing(program)`: what it has is copied on write, and another thread of it has begun
    to change the mappings, so that a store has to wait."""

    @contextmanager
    def between(program: Program) -> Iterator[None]:
        program.fork()
        lock = program.task.mm.map.lock
        lock.take()
        try:
            yield
        finally:
            lock.let_go()

    return between
