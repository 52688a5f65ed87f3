from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.errors import EAGAIN, EEXIST, ENOMEM, ENOSPC
from sentry.kernel.pids import APART, MAX_LEVEL, RESERVED_PIDS, PidNamespace, Pids


def test_namespace_beside_the_first_one_is_unknown_there() -> None:
    pids = Pids(1000)
    pids.last = 49
    beside = PidNamespace(None, pids, None)
    below = PidNamespace(beside, pids, None)

    number = pids.allocate(below)

    assert number >= APART
    assert (beside.of(number), below.of(number)) == (1, 1)
    assert (pids.of(number), pids.known(number)) == (0, 0)
    assert beside.numbers(number) == [1, 1]
    assert not pids.contains(beside)
    assert pids.has_others_apart
    assert pids.allocate() == 50  # no number is left out


def test_numbers_apart_are_not_to_be_found_in_the_first_namespace() -> None:
    pids = Pids(1000)
    beside = PidNamespace(None, pids, None)
    task: Any = object()
    group: Any = SimpleNamespace(tgid=pids.allocate(beside))
    pids.tasks[group.tgid], pids.groups[group.tgid] = task, group

    assert (pids.task(group.tgid), pids.group(group.tgid), pids.members()) == (None, None, [])
    assert not pids.sees(group)
    assert (beside.task(1), beside.group(1), beside.members()) == (task, group, [group])


def test_numbers_below_pid_max_are_given_out_once() -> None:
    pids = Pids(1000)
    pids.set_max(RESERVED_PIDS + 2)
    task: Any = object()
    for number in range(1, RESERVED_PIDS + 2):
        assert pids.allocate() == number
        pids.tasks[number] = task

    with pytest.raises(EAGAIN):
        pids.allocate()
    del pids.tasks[RESERVED_PIDS + 1]
    assert pids.allocate() == RESERVED_PIDS + 1
    del pids.tasks[5]  # the reserved ones are for the first round
    pids.tasks[RESERVED_PIDS + 1] = task
    with pytest.raises(EAGAIN):
        pids.allocate()


def test_namespace_has_numbers_of_its_own_and_all_above_have_theirs() -> None:
    pids = Pids(1000)
    pids.last = 49
    outer = PidNamespace(pids, pids, None)
    inner = PidNamespace(outer, pids, None)

    number = pids.allocate(inner)

    assert (number, outer.of(number), inner.of(number)) == (50, 1, 1)
    assert (pids.known(50), inner.known(1), inner.known(50)) == (50, 50, 0)
    assert pids.numbers(50) == [50, 1, 1]
    assert outer.numbers(50) == [1, 1]
    assert outer.contains(inner)
    assert not inner.contains(outer)


def test_number_is_free_once_nothing_has_it() -> None:
    pids = Pids(1000)
    namespace = PidNamespace(pids, pids, None)
    task: Any = object()
    number = pids.allocate(namespace)
    pids.tasks[number] = pids.groups[number] = task

    del pids.tasks[number]
    pids.release(number)
    assert namespace.of(number) == 1
    del pids.groups[number]
    pids.release(number)

    assert namespace.of(number) == namespace.known(1) == 0


def test_wanted_numbers_are_the_innermost_first() -> None:
    pids = Pids(1000)
    namespace = PidNamespace(pids, pids, None)

    assert pids.allocate(namespace, (42, 77)) == 77
    assert namespace.of(77) == 42
    with pytest.raises(EEXIST):
        pids.allocate(namespace, (42,))


def test_namespace_that_has_ended_takes_nobody() -> None:
    pids = Pids(1000)
    namespace = PidNamespace(pids, pids, None)
    namespace.ended = True

    with pytest.raises(ENOMEM):
        pids.allocate(namespace)


def test_depth_of_namespaces_has_an_end() -> None:
    pids = Pids(1000)
    namespace: PidNamespace = pids
    for _ in range(MAX_LEVEL):
        namespace = PidNamespace(namespace, pids, None)

    with pytest.raises(ENOSPC):
        PidNamespace(namespace, pids, None)
