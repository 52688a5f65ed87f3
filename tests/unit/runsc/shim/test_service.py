"""What becomes of a container that is made by half. All else: tests/e2e/test_shim.py."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from runsc.shim import messages as m
from runsc.shim import service as tested
from runsc.shim.loop import Loop, Promise, spawn
from runsc.shim.publisher import Publisher, Way
from runsc.shim.service import TaskService
from runsc.shim.ttrpc import Code, Refused
from runsc.shim.workers import Lost, Outcome


class Workers:
    """They do at once what is asked for."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def start(self, job: Any) -> Promise[Outcome]:
        self.done.append(job.func.__name__)
        promise: Promise[Outcome] = Promise()
        promise.keep(Outcome(None, 1))
        return promise


class Shim:
    """One whose first container is made so."""

    def __init__(self, made: Outcome | BaseException) -> None:
        self.workers: Any = Workers()
        loop = Loop(lambda pid, status: None)
        publisher = Publisher(loop, self.workers, Way("/nowhere"), lambda text: None)
        self.service = TaskService(loop, self.workers, publisher, "ns", lambda _: self._made(made))

    def _made(self, made: Outcome | BaseException) -> Promise[Outcome]:
        promise: Promise[Outcome] = Promise()
        if isinstance(made, Outcome):
            promise.keep(made)
        else:
            promise.break_(made)
        return promise

    def create(self) -> BaseException | None:
        """What it fails with."""
        found: list[BaseException | None] = []

        async def run() -> None:
            try:
                await self.service.create(m.CreateTask("c", "/bundle"))
                found.append(None)
            except Exception as error:
                found.append(error)

        spawn(run())
        return found[0]


def test_what_a_worker_has_made_is_remembered() -> None:
    shim = Shim(Outcome({"pid": 7, "names": []}, 5))
    assert shim.create() is None
    assert shim.service.tasks.by_id["c"].init.pid == 7
    assert shim.workers.done == []


def test_what_a_worker_has_refused_it_has_taken_away_itself() -> None:
    shim = Shim(Refused(Code.UNKNOWN, "no such program"))
    assert str(shim.create()) == "no such program"
    assert (shim.service.tasks.by_id, shim.workers.done) == ({}, [])


def test_what_a_worker_has_left_that_was_killed_is_deleted() -> None:
    shim = Shim(Lost(Code.INTERNAL, "it has ended"))
    assert str(shim.create()) == "it has ended"
    assert (shim.service.tasks.by_id, shim.workers.done) == ({}, ["delete"])


def test_a_container_whose_streams_cannot_be_kept_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr(tested, "Copies", full)
    shim = Shim(Outcome({"pid": 7, "names": []}, 5))
    assert "no descriptor is left" in str(shim.create())
    assert (shim.service.tasks.by_id, shim.workers.done) == ({}, ["delete"])
