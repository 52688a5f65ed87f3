"""Calls by the CPU time of a thread."""

from __future__ import annotations

import signal
import time
from types import FrameType

from sentry.platform.ticks import SIGNAL, Ticks


def test_a_thread_that_works_is_looked_at_where_it_is() -> None:
    seen: list[FrameType | None] = []

    def work() -> None:
        while not seen:
            pass

    ticks = Ticks(1_000_000, seen.append)
    work()
    ticks.stop()

    frame = seen[0]
    assert frame is not None and frame.f_code is work.__code__


def test_nothing_comes_after_the_stop_and_the_handler_is_what_it_was() -> None:
    seen: list[FrameType | None] = []
    before = signal.getsignal(SIGNAL)

    Ticks(1_000_000, seen.append).stop()
    seen.clear()
    end_ns = time.thread_time_ns() + 30_000_000
    while time.thread_time_ns() < end_ns:
        pass

    assert not seen
    assert signal.getsignal(SIGNAL) is before
