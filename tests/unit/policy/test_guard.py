"""Where a handler that takes too long is interrupted, and where not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from sentry.platform.ticks import Ticks
from sentry.policy.guard import FILENAME, LOOKS, Guard, TooLong


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard()

    def look(frame: FrameType | None) -> None:
        guard.look(frame)

    ticks = Ticks(5_000_000, look)
    yield guard
    ticks.stop()


def handler(source: str, **names: Any) -> Any:
    """Its function `f`, as code of a policy."""
    exec(compile(source, FILENAME + "test", "exec"), names)
    return names["f"]


def test_a_loop_is_interrupted_in_its_own_frame(guard: Guard) -> None:
    began_ns = time.thread_time_ns()
    with pytest.raises(TooLong):
        guard.run(handler("def f():\n while True: pass"))
    assert time.thread_time_ns() - began_ns >= 10_000_000


def test_a_module_has_longer_and_no_more(guard: Guard) -> None:
    def looked(times: int) -> str:
        while guard.looks < times:
            pass
        return "whole"

    module = handler("def f(times): return looked(times)", looked=looked)
    assert guard.load(module, LOOKS + 1) == "whole"
    with pytest.raises(TooLong):
        guard.load(handler("def f():\n while True: pass"))
    with pytest.raises(TooLong):
        guard.run(module, LOOKS + 1)


def test_the_kernel_is_not_interrupted(guard: Guard) -> None:
    done = []

    def kernel() -> None:
        while guard.looks < LOOKS:  # a host that is busy ticks more rarely
            pass
        done.append("whole")

    with pytest.raises(TooLong):
        guard.run(handler("def f():\n kernel()\n", kernel=kernel))
    assert done == ["whole"]


def test_what_is_quick_is_not_interrupted_whatever_was_before(guard: Guard) -> None:
    quick = handler("def f(): return 1")
    until_ns = time.thread_time_ns() + 50_000_000
    while time.thread_time_ns() < until_ns:
        assert guard.run(quick) == 1


def test_nobody_else_is_interrupted(guard: Guard) -> None:
    with pytest.raises(TooLong):
        guard.run(handler("def f():\n while True: pass"))
    until_ns = time.thread_time_ns() + 50_000_000
    handler("def f():\n while clock() < until: pass", clock=time.thread_time_ns, until=until_ns)()


def test_time_of_the_collector_is_nobodys(guard: Guard) -> None:
    def collected() -> None:
        guard.collecting("start")
        until_ns = time.thread_time_ns() + 40_000_000
        while time.thread_time_ns() < until_ns:
            pass
        guard.collecting("stop")
        guard.looks = 0  # the watchdog does not look meanwhile

    guard.run(handler("def f(): collected()", collected=collected))


@pytest.mark.parametrize(
    "body",
    [
        # `f`: CPython 3.11 takes an interrupted jump back for the instruction before its target
        "while True:\n  try:\n   f\n   while True: pass\n  except BaseException: pass",
        "sum(iter(int, 1))",
    ],
    ids=["catches everything", "one call of C"],
)
def test_who_cannot_be_interrupted_ends_the_process(body: str) -> None:
    source = f"def f():\n {body}"
    program = f"""
from sentry.platform.ticks import Ticks
from sentry.policy.guard import FILENAME, Guard
guard = Guard()
ticks = Ticks(5_000_000, guard.look)
ticks.bound(2)
names = {{}}
exec(compile({source!r}, FILENAME + "test", "exec"), names)
guard.run(names["f"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 70
    assert done.stderr == "policy: a handler cannot be stopped, so the sandbox ends\n"
