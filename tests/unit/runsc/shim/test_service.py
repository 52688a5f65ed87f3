"""What becomes of a container that is made by half. All else: tests/e2e/test_shim.py."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from runsc.shim import messages as m
from runsc.shim import service as tested
from runsc.shim.loop import Loop, Promise, Timer, spawn
from runsc.shim.messages import TaskStatus
from runsc.shim.publisher import Publisher, Way
from runsc.shim.sandbox import SandboxService
from runsc.shim.service import TaskService
from runsc.shim.ttrpc import Code, Refused
from runsc.shim.workers import Lost, Outcome


class Workers:
    """They do at once what is asked for."""

    def __init__(self) -> None:
        self.done: list[str] = []

    outcome: Outcome = Outcome(None, 1)

    def start(self, job: Any) -> Promise[Outcome]:
        self.done.append(job.func.__name__)
        promise: Promise[Outcome] = Promise()
        promise.keep(self.outcome)
        return promise


class Shim:
    """One whose first container is made so."""

    def __init__(self, made: Outcome | BaseException | Promise[Outcome]) -> None:
        self.workers: Any = Workers()
        self.loop = loop = Loop(lambda pid, status: None)
        publisher = Publisher(loop, self.workers, Way("/nowhere"), lambda text: None)
        self.service = TaskService(loop, self.workers, publisher, "ns", lambda _: self._made(made))

    def _made(self, made: Outcome | BaseException | Promise[Outcome]) -> Promise[Outcome]:
        if isinstance(made, Promise):
            return made
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
        return found[0] if found else None

    def turn(self) -> None:
        self.loop.after(0.0, self.loop.stop)
        self.loop._stopped = False
        self.loop.run()


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


def test_a_process_whose_streams_have_not_all_come_is_killed() -> None:
    shim = Shim(Outcome({"pid": 7, "names": []}, 5))
    shim.create()
    task = shim.service.tasks.by_id["c"]
    task.init.status = TaskStatus.RUNNING
    spawn(shim.service.exec(m.ExecProcess("c", "e")))
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    fd = os.open(os.devnull, os.O_RDONLY)
    shim.workers.outcome = Outcome({"pid": 9, "names": ["out", "stdout"]}, pid, [fd])
    with pytest.raises(OSError, match="Too many open files"):
        spawn(shim.service.start(m.Named("c", "e")))
    assert shim.workers.done == ["add", "kill"]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    process = task.execs["e"]
    assert (process.status, process.exit_status) == (TaskStatus.STOPPED, 255)
    assert process.exited.settled and not process.busy
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_container_that_cannot_be_killed_yet_is_killed_later() -> None:
    shim, timers = Shim(Outcome({"pid": 0, "names": []}, 5)), list[Timer]()
    shim.create()
    service, task = shim.service, shim.service.tasks.by_id["c"]

    def after(_: float, callback: Callable[[], None]) -> Timer:
        timers.append(Timer(callback))
        return timers[-1]

    service._loop = SimpleNamespace(after=after)
    service.kill_later(task, 3)
    for count, pid in ((2, 0), (3, 0), (3, 7)):
        task.init.pid = pid
        timers[-1].callback()
        assert len(timers) == count
    assert shim.workers.done == ["kill"]
    task.init.failed()
    timers[-1].callback()
    assert len(timers) == 3


def _shut_down(shim: Shim) -> list[bool]:
    """Has something in it when the pod's end has been reached."""
    over: list[bool] = []

    async def run() -> None:
        await SandboxService(shim.service).shutdown(m.OfSandbox("c"))
        over.append(True)

    spawn(run())
    return over


def test_pod_that_could_not_be_made_keeps_nobody_waiting_for_its_end() -> None:
    made: Promise[Outcome] = Promise()
    shim = Shim(made)
    shim.create()
    over = _shut_down(shim)
    shim.turn()
    assert over == []

    made.break_(Refused(Code.UNKNOWN, "no such program"))

    assert over == [True]
    assert shim.workers.done == []


def test_pod_that_is_being_made_when_it_is_to_end_is_ended_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tested, "AGAIN_S", 0.0)
    made: Promise[Outcome] = Promise()
    shim = Shim(made)
    shim.create()
    over = _shut_down(shim)
    shim.turn()
    made.keep(Outcome({"pid": 7, "names": []}, 5))
    shim.turn()
    assert shim.workers.done == ["kill"]

    shim.service.exits.reaped(7, signal.SIGKILL)

    assert over == [True]
    assert shim.workers.done == ["kill", "delete"]


def test_process_whose_streams_cannot_be_kept_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who has asked for it is told that there is none."""
    shim = Shim(Outcome({"pid": 7, "names": []}, 5))
    shim.create()
    shim.service.tasks.by_id["c"].init.status = TaskStatus.RUNNING
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    given, other = os.pipe()

    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr(tested, "Copies", full)
    shim.workers.outcome = Outcome({"pid": 2, "names": ["out"]}, pid, [given])
    failed: list[str] = []

    async def run() -> None:
        await shim.service.exec(m.ExecProcess("c", "e"))
        try:
            await shim.service.start(m.Named("c", "e"))
        except OSError as error:
            failed.append(str(error))

    spawn(run())

    assert failed == ["[Errno 24] no descriptor is left"]
    os.kill(pid, signal.SIGTERM)  # which comes second
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert shim.service.tasks.by_id["c"].execs["e"].status == TaskStatus.STOPPED
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(given)
    os.close(other)
