"""Numbers of processes that come from a snapshot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.kernel.container import Container
from sentry.kernel.pids import APART, PidNamespace, Pids
from sentry.state.numbering import Numbers
from sentry.state.pages import Damaged


def thread(tid: int) -> Any:
    return SimpleNamespace(tid=tid)


def snapshot(*processes: tuple[int, int, int]) -> Any:
    """With these: (process, its group, another thread of it), all in session 1."""
    found = [
        SimpleNamespace(pid=pid, group=group, session=1, threads=[thread(pid), thread(tid)])
        for pid, group, tid in processes
    ]
    return SimpleNamespace(sessions=[SimpleNamespace(sid=1)], processes=found)


def numbers(tables: Pids, *, apart: bool) -> Numbers:
    kernel: Any = SimpleNamespace(pids=tables)
    container = Container()
    pids = PidNamespace(None, tables, None) if apart else tables
    container.ns = SimpleNamespace(pids_for_children=pids)
    return Numbers(kernel, container)


def test_in_the_first_namespace_all_stay_as_they_are() -> None:
    found = numbers(Pids(10), apart=False)
    found.admit(snapshot((1, 1, 5)))
    assert [found.of(number) for number in (-1, 0, 1, 7)] == [-1, 0, 1, 7]
    found.let_go()


def test_beside_it_each_is_known_as_it_was_and_free_again() -> None:
    tables = Pids(10)
    found = numbers(tables, apart=True)
    found.admit(snapshot((1, 1, 5), (7, 3, 8)))
    inside = found.container.pids

    outer = {number: found.of(number) for number in (1, 3, 5, 7, 8)}

    assert min(outer.values()) >= APART and len({*outer.values()}) == 5
    assert all(inside.known(number) == other for number, other in outer.items())
    assert (found.of(2), found.of(0), found.of(-1)) == (0, 0, -1)
    tables.nest([inside])
    found.let_go()
    assert inside.pairs() == [] and not tables.nested(outer[7])


def test_there_are_no_more_than_a_sandbox_has() -> None:
    tables = Pids(2)
    found = numbers(tables, apart=True)
    with pytest.raises(Damaged, match="too many tasks"):
        found.admit(snapshot((1, 1, 5), (7, 3, 8)))
