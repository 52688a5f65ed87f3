from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.errors import EAGAIN, EEXIST, ENOMEM, ENOSPC
from sentry.kernel.pids import MAX_LEVEL, RESERVED_PIDS, PidNamespace, Pids


def test_allocate_at_the_containers_limit_is_refused() -> None:
    pids = Pids(1000)
    pids.limit = 2
    task: Any = object()
    pids.tasks[pids.allocate()] = task
    pids.tasks[pids.allocate()] = task

    with pytest.raises(EAGAIN):
        pids.allocate()
    with pytest.raises(EAGAIN):
        pids.allocate(None, (77,))
    pids.limit = 3
    assert pids.allocate() == 3


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


def test_count_has_zombies_and_no_process_twice() -> None:
    pids = Pids(1000)
    running: Any = SimpleNamespace(tasks=[object()])
    zombie: Any = SimpleNamespace(tasks=[])
    pids.groups = {1: running, 2: zombie}
    pids.tasks[1] = running.tasks[0]

    assert pids.count() == 2


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
