"""How long fuzzers run, what they begin with, and the cases that they have found.

`for_a_while` gives a test its `seconds`: few in ordinary runs, half a minute in full ones, and
RUNSC_FUZZ_SECONDS by hand; `explore` fills them, beginning at RUNSC_FUZZ_SEED. What a fuzzer found
is a file `cases/FUZZER-WHAT.txt`: a comment that says what was wrong, and the smallest values that
show it; `kept` makes tests of them.
"""

from __future__ import annotations

import ast
import gc
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.e2e.bundle import TIMEOUT_S
from tests.world import STEPS_ARE_BOUNDED

GIVEN = os.environ.get("RUNSC_FUZZ_SECONDS")
SEED = int(os.environ.get("RUNSC_FUZZ_SEED", "1"))
CASES = Path(__file__).parent / "cases"
STEP_NS = 250_000_000
ROUND = 40
"""Examples with one seed."""
PATIENCE_S = 240 + TIMEOUT_S
"""For what a round, and making a failure small, takes longer."""


def for_a_while(brief: float = 3, full: float = 30) -> pytest.MarkDecorator:
    """A parameter `seconds`."""
    if GIVEN:
        return pytest.mark.parametrize("seconds", [_seconds("by_hand", float(GIVEN))])
    rows = [_seconds("briefly", brief), _seconds("at_length", full, pytest.mark.full)]
    return pytest.mark.parametrize("seconds", rows)


def _seconds(name: str, seconds: float, *marks: pytest.MarkDecorator) -> Any:
    timeout = pytest.mark.timeout(seconds * 3 + PATIENCE_S)
    return pytest.param(seconds, id=name, marks=(timeout, *marks))


def rounds(seconds: float) -> Iterator[int]:
    """Seeds, until the time is over."""
    end = time.monotonic() + seconds
    for turn in itertools.count():
        yield SEED * 1_000_000 + turn
        if time.monotonic() >= end:
            return


def round_settings(**other: Any) -> settings:
    """For one of `rounds`: nothing is kept between runs, but for what stands in `cases`."""
    wanted = {"max_examples": ROUND, "deadline": None, "database": None, **other}
    return settings(
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        **wanted,
    )


def explore(
    seconds: float,
    body: Callable[..., None],
    examples: int = ROUND,
    **strategies: st.SearchStrategy[Any],
) -> None:
    """Call `body` with values of these strategies; what makes it fail is made small.

    However slow the machine is, with as many as `examples`. What it has done is shown by `-rP`.
    """
    made = 0

    def counted(**values: Any) -> None:
        nonlocal made
        made += 1
        body(**values)

    for turn in rounds(seconds):
        seed(turn)(round_settings(max_examples=examples)(given(**strategies)(counted)))()
        print(f"seed {turn}: {made} examples")


def kept(fuzzer: str) -> pytest.MarkDecorator:
    """A parameter `case`: the values of each file of a fuzzer."""
    files = sorted(CASES.glob(f"{fuzzer}-*.txt"))
    return pytest.mark.parametrize("case", [
        pytest.param(ast.literal_eval(file.read_text()), id=file.stem.partition("-")[2])
        for file in files
    ])  # fmt: skip


@contextmanager
def bounded(what: object) -> Iterator[None]:
    """A step of the kernel thread: it does not hold others up. What the tests leave is not its."""
    gc.disable()
    try:
        began_ns = time.thread_time_ns()
        yield
        took_ns = time.thread_time_ns() - began_ns
    finally:
        gc.enable()
    assert took_ns < STEP_NS or not STEPS_ARE_BOUNDED, f"{what}: {took_ns // 1_000_000} ms"
