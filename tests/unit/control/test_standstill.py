"""A machine that stood still is told by the times that its CPUs count of themselves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.control.standstill import LEAST_NS, NS, Standstill
from sentry.control.watchdog import Alarm, Watchdog
from sentry.loop import HostOnly, Loop
from sentry.platform.ticks import SIGNAL
from tests.unit.control.test_watchdog import ENOUGH_NS, work


class Machine:
    """/proc/stat of one whose times a test sets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.counted = [0, 0]
        self.count(0, 0)
        self.fd = os.open(path, os.O_RDONLY)

    def count(self, *ns: int) -> None:
        """What each CPU has counted more: half as a program's, half as idle."""
        self.counted = [had + more // NS for had, more in zip(self.counted, ns, strict=True)]
        halves = [(total // 2, total - total // 2) for total in self.counted]
        cpus = [f"cpu{n} {user} 0 0 {idle} 0 0 0 0 9 9" for n, (user, idle) in enumerate(halves)]
        self._path.write_text("\n".join(["cpu  1 2 3 4 5 6 7 8 9 9", *cpus, "intr 7 0", ""]))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "stat")
    yield made
    os.close(made.fd)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The time, which goes on when a test says so."""
    now = [0]
    monkeypatch.setattr(time, "monotonic_ns", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_a_machine_that_counts_does_not_stand_still(machine: Machine, clock: list[int]) -> None:
    standstill = Standstill(machine.fd)
    for past_ns in (5 * NS, 40 * NS, 4000 * NS):
        clock[0] += past_ns
        machine.count(past_ns, past_ns - NS)

        assert standstill.since_ns() == 0


def test_one_cpu_that_counts_nothing_stands_still(machine: Machine, clock: list[int]) -> None:
    standstill = Standstill(machine.fd)
    clock[0] += 53 * NS
    machine.count(53 * NS, NS)

    assert standstill.since_ns() == 52 * NS
    assert standstill.since_ns() == 0


def test_what_is_not_certain_is_none(machine: Machine, clock: list[int]) -> None:
    standstill = Standstill(machine.fd)
    clock[0] += LEAST_NS
    assert standstill.since_ns() == 0

    clock[0] += 100 * NS
    machine.count(100 * NS, 51 * NS)
    assert standstill.since_ns() == 0


def test_here_it_counts_as_time_goes_by() -> None:
    fd = os.open("/proc/stat", os.O_RDONLY)
    standstill = Standstill(fd)

    assert len(standstill._counted) == os.cpu_count()
    work(LEAST_NS)
    moved = zip(standstill._read(), standstill._counted, strict=True)

    assert all(after > before for after, before in moved)
    os.close(fd)


@pytest.mark.parametrize("counts", [False, True])
def test_no_step_is_long_for_a_machine_that_stood_still(machine: Machine, counts: bool) -> None:
    told: list[str] = []
    loop = Loop(HostOnly(), lambda what, error: pytest.fail(f"{what}: {error!r}"))
    dog = Watchdog(loop, Alarm(ENOUGH_NS, told.append), standstill=Standstill(machine.fd))

    def slow() -> None:
        """With nothing seen of it before its end, as where no interrupt comes."""
        from_ns = time.monotonic_ns()
        signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
        work(3 * ENOUGH_NS)
        past_ns = time.monotonic_ns() - from_ns
        machine.count(past_ns if counts else 0, past_ns)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})

    loop.call_soon(slow)
    loop.turn()
    dog.stop()

    assert len(told) == counts
