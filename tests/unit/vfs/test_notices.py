"""O_ASYNC: the notice of a file lives as long as it is on and the file is open."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.fs.eventfd import EventFile
from sentry.vfs.notices import O_ASYNC, AsyncNotice, set_async
from sentry.vfs.vfs import Vfs


@pytest.fixture
def caller() -> Iterator[Any]:
    """A program with a file system. Without the collector: what is left over stays."""
    gc.collect()
    gc.disable()
    group = SimpleNamespace(tgid=9)
    yield SimpleNamespace(kernel=SimpleNamespace(vfs=Vfs(None, None, lambda: 0)), group=group)
    gc.enable()


def alive() -> int:
    return sum(isinstance(each, AsyncNotice | EventFile) for each in gc.get_objects())


def test_notice_goes_with_its_file(caller: Any) -> None:
    file = EventFile(caller.kernel.vfs, 0, 0).incref()
    told: list[tuple[int, int]] = []
    caller.kernel.vfs.send_io = lambda file, fd, code, band: told.append((fd, code))
    file.owner = (1, 9)
    set_async(caller, file, 5, on=True)
    file.add(1)
    assert [fd for fd, _ in told] == [5] and file.flags & O_ASYNC and alive() == 2
    set_async(caller, file, 6, on=True)
    assert alive() == 2 and len(file.queue) == 1
    file.decref()
    assert not len(file.queue)
    del file
    assert alive() == 0


def test_notice_goes_when_it_is_turned_off(caller: Any) -> None:
    file = EventFile(caller.kernel.vfs, 0, 0).incref()
    set_async(caller, file, 5, on=True)
    set_async(caller, file, 5, on=False)
    assert alive() == 1 and file.async_notice is None and not len(file.queue)
    file.decref()
