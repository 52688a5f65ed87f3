"""What each sandbox of a state root does now: `runsc top`.

A `Watch` holds a connection to each that runs and asks it once a second. A sandbox that does not
answer keeps its last figures, and nobody waits for it.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from runsc.containers import listener
from runsc.containers.container import Store
from runsc.containers.sampling import Sample, Sampler
from runsc.containers.state import State, status

if TYPE_CHECKING:
    from sentry.control.answers import ProcessInfo

MOST: Final = 200
"""Sandboxes that are asked: each is a descriptor."""
CONNECT_S: Final = 0.1
"""More time has no sandbox to accept: a table with others waits."""
SENT: Final = "netstack_ip_packets_sent"
RECEIVED: Final = "netstack_ip_packets_received"


class Figures(msgspec.Struct, frozen=True):
    """Of one sandbox, with all its containers. Rates are a second's."""

    tasks: int = 0
    cpu: float = 0.0
    """CPUs that programs and the Sentry for them have taken."""
    calls: float = -1.0
    """-1: somebody else measures."""
    faults: float = 0.0
    memory: int = 0
    limit: int = 0
    received: float = 0.0
    """Packets."""
    sent: float = 0.0
    kills: int = 0
    """For want of memory."""


def figures(before: Sample, now: Sample) -> Figures:
    """What there is, and what came about since."""
    seconds = max((now.time_ns - before.time_ns) / 1e9, 1e-3)

    def rate(name: str) -> float:
        return max(0, total(now, name) - total(before, name)) / seconds

    calls = sum(max(0, cost.count) for cost in now.calls.values())
    return Figures(
        tasks=total(now, "tasks"),
        cpu=(rate("cpu_user_ns") + rate("cpu_system_ns")) / 1e9,
        calls=calls * 1e9 / now.elapsed_ns if now.elapsed_ns > 0 else -1.0,
        faults=rate("page_faults"),
        memory=total(now, "memory_bytes"),
        limit=total(now, "memory_limit_bytes"),
        received=rate(RECEIVED),
        sent=rate(SENT),
        kills=total(now, "oom_kills"),
    )


def total(sample: Sample, name: str) -> int:
    """A figure of all containers."""
    return sum(value for key, value in sample.counts.items() if key.partition("{")[0] == name)


class Watched:
    """One sandbox."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.sampler: Sampler | None = None
        self.look = 0
        """When it was connected to for the last time: looks are counted."""
        self.figures = Figures()
        self.is_measured = False
        self._last: Sample | None = None

    @property
    def is_asked(self) -> bool:
        """It may answer."""
        return self.sampler is not None and not self.sampler.is_over

    @property
    def processes(self) -> list[ProcessInfo]:
        """Of its first container."""
        return self.sampler.processes if self.sampler is not None else []

    def hear(self) -> None:
        """There is something to read."""
        if self.sampler is None:
            return
        for sample in self.sampler.hear():
            if self._last is not None:
                self.figures = figures(self._last, sample)
                self.is_measured = True
            self._last = sample

    def close(self) -> None:
        """Ask no more."""
        if self.sampler is not None:
            self.sampler.close()


class Watch:
    """All sandboxes of a state root, or those that are named."""

    def __init__(self, store: Store, names: tuple[str, ...] = (), *, lists: bool = False) -> None:
        """`lists`: their processes, too."""
        self._store = store
        self._names = names
        self._lists = lists
        self._looks = 0
        self.sandboxes: dict[str, Watched] = {}

    def look(self) -> None:
        """Which there are. Raises: RuntimeFailure of the state root."""
        self._looks += 1
        found = {state.id: state for state in self._store.all() if self._wanted(state)}
        for name, watched in list(self.sandboxes.items()):
            again = found.get(name)
            if again is None or again.pid != watched.state.pid:
                watched.close()
                del self.sandboxes[name]
        for name, state in found.items():
            if name in self.sandboxes:
                self.sandboxes[name].state = state
            elif len(self.sandboxes) < MOST:
                self.sandboxes[name] = Watched(state)
                self._ask(self.sandboxes[name])

        silent = [
            each for each in self.sandboxes.values()
            if not each.is_asked and each.look < self._looks
        ]  # fmt: skip
        if silent:  # one alone: it may take its time
            self._ask(min(silent, key=lambda each: each.look))

    def _ask(self, watched: Watched) -> None:
        watched.look = self._looks
        if (sampler := self._connect(watched.state)) is not None:
            watched.close()
            watched.sampler = sampler

    def _wanted(self, state: State) -> bool:
        if self._names:
            return state.id in self._names
        return not state.sandbox and status(state) not in ("stopped", "creating")

    def _connect(self, state: State) -> Sampler | None:
        with suppress(OSError):
            path = self._store.path(state.id, "control.sock")
            return Sampler(listener.connect(path, CONNECT_S), lists=self._lists)
        return None

    @property
    def is_measured(self) -> bool:
        """Each that answers has figures."""
        return all(each.is_measured or not each.is_asked for each in self.sandboxes.values())

    def wait(self, time_s: float) -> None:
        """Hear what they say for so long; with 0, what is there."""
        until = time.monotonic() + time_s
        poll = select.poll()
        by_fd = {}
        for watched in self.sandboxes.values():
            if watched.sampler is not None and not watched.sampler.is_over:
                poll.register(watched.sampler, select.POLLIN)
                by_fd[watched.sampler.fileno()] = watched
        while True:
            due = min((w.sampler.due for w in by_fd.values() if w.sampler), default=inf)
            left_s = max(0.0, min(until, due) - time.monotonic())
            for fd, _ in poll.poll(left_s * 1000):
                by_fd[fd].hear()
                sampler = by_fd[fd].sampler
                if sampler is not None and sampler.is_over:
                    poll.unregister(fd)
                    del by_fd[fd]
            for watched in by_fd.values():
                if watched.sampler is not None:
                    watched.sampler.tick()
            if time.monotonic() >= until or not by_fd:
                return

    def close(self) -> None:
        """Ask nobody any more."""
        for watched in self.sandboxes.values():
            watched.close()
