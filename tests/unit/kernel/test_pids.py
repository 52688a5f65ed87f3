from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.errors import EAGAIN
from sentry.kernel.pids import Pids


def test_allocate_at_the_containers_limit_is_refused() -> None:
    pids = Pids(1000)
    pids.limit = 2
    task: Any = object()
    pids.tasks[pids.allocate()] = task
    pids.tasks[pids.allocate()] = task

    with pytest.raises(EAGAIN):
        pids.allocate()
    with pytest.raises(EAGAIN):
        pids.allocate(77)
    pids.limit = 3
    assert pids.allocate() == 3


def test_count_has_zombies_and_no_process_twice() -> None:
    pids = Pids(1000)
    running: Any = SimpleNamespace(tasks=[object()])
    zombie: Any = SimpleNamespace(tasks=[])
    pids.groups = {1: running, 2: zombie}
    pids.tasks[1] = running.tasks[0]

    assert pids.count() == 2
