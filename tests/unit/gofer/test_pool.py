"""Work that threads do, also where the host starts none."""

from __future__ import annotations

import errno
import select
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from gofer import pool as module
from gofer.pool import Pool


class Threads:
    """The host's, which has no more of them at times."""

    def __init__(self) -> None:
        self.left = 100
        self._start = start_new_thread

    def start(self, body: Callable[[], None], arguments: tuple[()]) -> None:
        if not self.left:
            raise RuntimeError("can't start new thread")
        self.left -= 1
        self._start(body, arguments)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    made = Threads()
    monkeypatch.setattr(module, "start_new_thread", made.start)
    return made


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(2, lambda: None)
    yield made
    made.close()


def outcomes(pool: Pool, count: int, came: list[object]) -> list[object]:
    """What has come, once there are so many."""
    while len(came) < count:
        select.select([pool.fd], [], [])
        pool.completed()
    return came


def test_work_for_which_no_thread_can_be_started_fails(pool: Pool, threads: Threads) -> None:
    came: list[object] = []
    threads.left = 0
    pool.submit(lambda: 1, lambda value, failure: came.append(failure))
    [failure] = outcomes(pool, 1, came)
    assert isinstance(failure, OSError)
    assert failure.errno == errno.ENOMEM

    threads.left = 2
    pool.submit(lambda: 2, lambda value, failure: came.append(value))
    assert outcomes(pool, 2, came)[1:] == [2]
    assert threads.left == 1


def test_work_is_done_by_another_thread_where_none_can_be_started(
    pool: Pool, threads: Threads
) -> None:
    came: list[object] = []
    goes_on = Event()
    threads.left = 1
    pool.submit(goes_on.wait, lambda value, failure: came.append(value))
    pool.submit(lambda: 2, lambda value, failure: came.append(value))
    goes_on.set()
    assert outcomes(pool, 2, came) == [True, 2]

    goes_on.clear()
    threads.left = 1  # and with two again neither waits for the other
    pool.submit(goes_on.wait, lambda value, failure: came.append("first"))
    pool.submit(lambda: 4, lambda value, failure: came.append(value))
    assert outcomes(pool, 3, came)[2:] == [4]
    goes_on.set()
    assert outcomes(pool, 4, came)[3:] == ["first"]
