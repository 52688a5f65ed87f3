"""runsc events: what a container uses, as runc's JSON, once or at intervals."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from runsc.containers import lifecycle, listener
from runsc.containers.asking import LONGEST_S
from runsc.containers.container import Store
from runsc.containers.durations import seconds
from runsc.containers.processes import STOPPED, pidfd_of
from runsc.containers.state import State, status
from runsc.errors import NotRunning, RuntimeFailure
from runsc.options import Globals
from sentry.control.answers import Stats
from sentry.control.protocol import Request, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

APART_MS = 100
"""Events of the same kind are not told faster."""


def data(state: State, stats: Stats) -> dict[str, Any]:
    """The stats of runc's event. What a cgroup of the host counts comes from there."""
    limit, used = stats.memory_limit, stats.memory
    made: dict[str, Any] = {
        "cpu": {
            "usage": {
                "total": stats.user_ns + stats.system_ns,
                "kernel": stats.system_ns,
                "user": stats.user_ns,
            },
            "throttling": {},
        },
        "memory": {
            "cache": stats.shared,
            "usage": {"limit": limit, "usage": used, "failcnt": stats.oom_kills},
            "raw": {"cache": stats.shared, "rss": used - stats.shared},
        },
        "pids": {"current": stats.tasks},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }
    if stats.tasks_limit:
        made["pids"]["limit"] = stats.tasks_limit
    if state.cgroups.directories and not state.sandbox:  # else the host sees another's processes
        from runsc.cgroups.cgroup import Cgroup  # noqa: PLC0415
        from runsc.cgroups.stats import stats as counted  # noqa: PLC0415

        made.update(counted(Cgroup(state.cgroups)))
    return made


class Watch:
    """Between two lines of stats: hears at once when memory runs out, and when it is over."""

    def __init__(self, store: Store, state: State) -> None:
        self._path = store.path(state.id, "control.sock")
        self._state = state
        self._on_host = self._host_kills()
        self.known = 0
        """So many kills inside have been told."""

    def rest(self, seconds: float) -> bool:
        """Wait; whether memory has run out, which ends it. Raises: OSError, ValueError."""
        with listener.connect(self._path) as sock:
            sock.sendall(encode(Request("oom", oom_kills=self.known)))
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            if not poll.poll(min(seconds, LONGEST_S) * 1000):
                return self.host_kills()
            stats = listener.answer(sock, lifecycle.ANSWER_S).stats
        if stats is None or stats.oom_kills <= self.known:  # no Sentry of ours says that
            raise ValueError("no news")
        self.known = stats.oom_kills
        return True

    def host_kills(self) -> bool:
        """Whether the host's kernel has killed something of it since it was asked last."""
        before, self._on_host = self._on_host, self._host_kills()
        return self._on_host > before

    def _host_kills(self) -> int:
        if not self._state.cgroups.directories:
            return 0
        from runsc.cgroups.cgroup import Cgroup  # noqa: PLC0415
        from runsc.cgroups.stats import oom_kills  # noqa: PLC0415

        return oom_kills(Cgroup(self._state.cgroups))


def _events(store: Store, container_id: str, once: bool, interval_s: float) -> Iterator[Any]:
    """One after the other, to the end of the container."""
    state = store.load(container_id)
    lifecycle.require_running(state)
    oom = {"type": "oom", "id": container_id}
    watch = Watch(store, state)
    first = True
    while True:
        try:
            answer = lifecycle.ask(store, state, Request("stats")).stats
        except NotRunning:
            if first:
                raise
            answer = None  # it ended since the last event
        if answer is not None:
            if first:
                watch.known = answer.oom_kills
            yield {"type": "stats", "id": container_id, "data": data(state, answer)}
        elif first:
            raise RuntimeFailure("the sandbox does not know its stats")
        if once:
            return
        first = False
        yield from (oom for _ in _kills(watch, state, interval_s))
        if status(state) == STOPPED:
            yield from [oom] * watch.host_kills()
            return


def _kills(watch: Watch, state: State, interval_s: float) -> Iterator[None]:
    """Waits for the next line of stats; gives once for each time that memory runs out."""
    deadline = time.monotonic() + interval_s
    while (left := deadline - time.monotonic()) > 0:
        try:
            if watch.rest(left):
                yield
                select.poll().poll(APART_MS)
        except (OSError, ValueError):  # it is over, or says what no Sentry of ours says
            _await_end(state, deadline - time.monotonic())
            return


def _await_end(state: State, seconds: float) -> None:
    pidfd = pidfd_of(state.pid, state.pid_start)
    if pidfd < 0:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(min(max(0.0, seconds), LONGEST_S) * 1000)
    finally:
        os.close(pidfd)


@click.command(
    help="Show what CPU, memory and tasks the container CONTAINER-ID uses, at intervals, until it"
    " ends, and at once when a process of it is killed because memory ran out: a JSON object a"
    " line, as runc's."
    "\n\n\b\nExamples:\n"
    "  runsc events --stats web                   once\n"
    "  runsc events --interval 1s web"
)
@click.option("--interval", default="5s", show_default=True, metavar="TIME", help="How often.")
@click.option("--stats", "once", is_flag=True, help="Only once, now.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, interval: str, once: bool, container_id: str) -> None:
    """Ask the sandbox again and again."""
    for event in _events(flags.store(), container_id, once, seconds(interval)):
        click.echo(msgspec.json.encode(event))
