"""A kernel without a guest, for every room that wants one."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from sentry.kernel.kernel import Kernel
from tests.world import Program, World


@pytest.fixture(autouse=True)
def no_signal_stays_blocked() -> Iterator[None]:
    """The limit of each test after it is one, too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert signal.pthread_sigmask(signal.SIG_SETMASK, before) == before


@pytest.fixture
def world() -> Iterator[World]:
    """A kernel over an empty tmpfs, whose wall clock moves by a microsecond at every look."""
    ticks = iter(range(10**18, 2 * 10**18, 1000))
    with World(now_ns=lambda: next(ticks)) as made:
        yield made


@pytest.fixture
def kernel(world: World) -> Kernel:
    """Its kernel."""
    return world.kernel


@pytest.fixture
def task(world: World) -> Program:
    """A process with every right."""
    return world.program()
