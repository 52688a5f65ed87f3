"""Calls that are made again are a name and numbers, of which hostile ones are refused."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.clock import MAX_NS
from sentry.kernel.futex import wait
from sentry.state import records, restarts
from sentry.wait.fiber import Interrupted, RestartBlock, RestartNoHand, RestartNoIntr

TASK: Any = SimpleNamespace(kernel=SimpleNamespace(calls=[None] * 10))


@pytest.mark.parametrize("code", [Interrupted, RestartNoHand, RestartNoIntr])
def test_saved_codes_come_back(code: type[Exception]) -> None:
    record = restarts.save(TASK, code())
    assert record is not None
    assert type(restarts.made(TASK, record)) is code


def test_saved_blocks_come_back_as_the_same_call() -> None:
    block = partial(wait, TASK, 0x1000, 5, True, None, 0xFFFFFFFF)
    for restart in (RestartBlock(block), block):
        record = restarts.save(TASK, restart)
        assert record == records.Restart("futex", [0x1000, 5, 1, None, 0xFFFFFFFF])
        made = restarts.made(TASK, record)
        assert isinstance(made, RestartBlock)
        assert isinstance(made.again, partial)
        assert (made.again.func, made.again.args) == (wait, block.args)


@pytest.mark.parametrize(
    ("record", "numbers"),
    [
        (records.Restart("poll", [8, 2, 50]), (8, 2, 57)),
        (records.Restart("poll", [8, 2, None]), (8, 2, None)),
        (records.Restart("nanosleep", [50, 0x1000]), (57, 0x1000)),
        (records.Restart("futex", [0x1000, 5, 1, 50, 1]), (0x1000, 5, 1, 50, 1)),
        (records.Restart("futex", [0x1000, 5, 1, records.U64, 1]), (0x1000, 5, 1, MAX_NS, 1)),
        (records.Restart("nanosleep", [records.U64, 0x1000]), (MAX_NS, 0x1000)),
    ],
)
def test_made_timeouts_go_on_where_they_were(
    record: records.Restart, numbers: tuple[int | None, ...]
) -> None:
    made: Any = restarts.made(TASK, record, away_ns=7)
    assert made.again.args == (TASK, *numbers)


def test_saved_what_is_in_no_table_has_no_record() -> None:
    assert restarts.save(TASK, RestartBlock(lambda: 0)) is None
    assert restarts.save(TASK, partial(print, TASK)) is None


@pytest.mark.parametrize(
    ("how", "numbers"),
    [
        ("exec", []),
        ("poll", [1, 2]),
        ("poll", [None, 2, 3]),
        ("poll", [-1, 2, 3]),
        ("futex", [1 << 64, 0, 0, 0, 0]),
        ("call", [0, 10, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_made_hostile_numbers_are_an_error(how: str, numbers: list[int | None]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        restarts.made(TASK, records.Restart(how, numbers))
