"""Where the time of a running sandbox goes: `runsc debug --profile`.

A `Profiler` puts itself between the loop and the machine, and between the dispatch and the
handlers, for as long as it is asked to; without one nothing is measured and nothing costs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from sentry.control.answers import Cost, Profile
from sentry.control.meter import Meter
from sentry.syscalls.registry import NUMBERS

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.loop import Exited, Machine

FLUSHES: Final = ("flush_calls", "flushed_frames", "flush_alls")


class TimedCoroutine(Coroutine[Any, Any, Any]):
    """The rest of a call that sleeps: what runs between its sleeps counts, the sleeps do not."""

    __slots__ = ("_coro", "_meter")

    def __init__(self, coro: Coroutine[Any, Any, Any], meter: Meter) -> None:
        self._coro = coro
        self._meter = meter

    def send(self, value: Any) -> Any:
        """Go on."""
        began = perf_counter_ns()
        try:
            return self._coro.send(value)
        finally:
            self._meter.add(perf_counter_ns() - began)

    def throw(self, *error: Any) -> Any:
        """Go on with an exception."""
        began = perf_counter_ns()
        try:
            return self._coro.throw(*error)
        finally:
            self._meter.add(perf_counter_ns() - began)

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._coro.__await__())

    def close(self) -> None:
        """Never mind."""
        self._coro.close()


def timed(
    calls: list[Callable[..., Any] | None], number: int, meter: Meter
) -> Callable[..., Any]:
    """Handler `number`, measured. It is looked up each time: the first call replaces it."""

    def run(*arguments: Any) -> Any:
        call = calls[number]
        assert call is not None
        began = perf_counter_ns()
        try:
            result = call(*arguments)
        finally:
            meter.count += 1
            meter.add(perf_counter_ns() - began)
        return TimedCoroutine(result, meter) if isinstance(result, Coroutine) else result

    return run


class TimedMachine:
    """The machine, whose waits are measured."""

    def __init__(self, machine: Machine, waited: Meter) -> None:
        self._machine = machine
        self._waited = waited

    @property
    def ready(self) -> list[tuple[int, int]]:
        """Machine.ready."""
        return self._machine.ready

    def wait(self, deadline_ns: int | None) -> Sequence[Exited]:
        """Machine.wait."""
        began = perf_counter_ns()
        exited = self._machine.wait(deadline_ns)
        self._waited.add(perf_counter_ns() - began)
        self._waited.count += 1
        return exited

    def watch(self, fd: int, events: int) -> None:
        """Machine.watch."""
        self._machine.watch(fd, events)


class Profiler:
    """Measures from its making until `stop`. One at a time."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._plain = kernel.calls
        self._waited = Meter()
        self._faults = Meter()
        self._began = perf_counter_ns()
        self._before = self._counters()
        self._calls = {n: Meter() for n, call in enumerate(self._plain) if call is not None}
        kernel.calls = [
            timed(self._plain, number, self._calls[number]) if call is not None else None
            for number, call in enumerate(self._plain)
        ]
        kernel.fault_meter = self._faults
        kernel.loop.wait_by(TimedMachine(kernel.platform, self._waited))

    def stop(self) -> Profile:
        """Measure no more; what came of it."""
        kernel = self._kernel
        kernel.loop.wait_by(kernel.platform)
        kernel.calls = self._plain
        kernel.fault_meter = None
        elapsed_ns = perf_counter_ns() - self._began
        now = self._counters()
        change = {name: value - self._before.get(name, 0) for name, value in now.items()}
        calls = {NUMBERS[number]: m.cost() for number, m in self._calls.items() if m.count}
        busy_ns = sum(cost.total_ns for cost in calls.values()) + self._faults.total_ns
        return Profile(
            elapsed_ns=elapsed_ns,
            guest_ns=change.pop("guest_ns"),
            waited_ns=self._waited.total_ns,
            other_ns=max(0, elapsed_ns - self._waited.total_ns - busy_ns),
            exit_ns=kernel.platform.exit_ns,
            turns=self._waited.count,
            calls=calls,
            faults=self._faults.cost(),
            gofer=Cost(change.pop("gofer_requests"), change.pop("gofer_ns"), 0),
            counters=change,
        )

    def _counters(self) -> dict[str, int]:
        kernel = self._kernel
        found = {"guest_ns": sum(g.account.cpu_time_ns() for g in kernel.pids.groups.values())}
        sessions = kernel.services.gofers
        found["gofer_requests"] = sum(session.sent for session in sessions)
        found["gofer_ns"] = sum(session.waited_ns for session in sessions)
        ram = kernel.platform.ram.counters()
        found.update({name: getattr(ram, name) for name in FLUSHES})
        found.update(kernel.platform.events_so_far())
        return found
