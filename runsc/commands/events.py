"""runsc events: what a container uses, as runc's JSON, once or at intervals."""

from __future__ import annotations

import re
import select
from typing import TYPE_CHECKING, Any

import click
import msgspec

from runsc.containers import lifecycle
from runsc.containers.container import State, Store, status
from runsc.containers.processes import STOPPED
from runsc.errors import NotRunning, RuntimeFailure
from runsc.options import Globals
from sentry.control.protocol import Request, Stats

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")


def seconds(text: str) -> float:
    """A duration as Go writes it: 5s, 1m30s, 500ms. Raises: RuntimeFailure."""
    parts = _PART.findall(text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or total <= 0:
        raise RuntimeFailure(f"{text!r} is no duration above 0, such as 500ms, 5s, 1m30s")
    return total


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
    if state.cgroups.directories:
        from runsc.cgroups.cgroup import Cgroup  # noqa: PLC0415
        from runsc.cgroups.stats import stats as counted  # noqa: PLC0415

        made.update(counted(Cgroup(state.cgroups)))
    return made


def _events(store: Store, container_id: str, once: bool, interval_s: float) -> Iterator[Any]:
    """One after the other, to the end of the container."""
    state = store.load(container_id)
    lifecycle.require_running(state)
    kills = None
    poll = select.poll()
    while True:
        try:
            answer = lifecycle.ask(store, state, Request("stats")).stats
        except NotRunning:
            if kills is None:
                raise
            return  # it ended since the last event
        if answer is None:
            raise RuntimeFailure("the sandbox does not know its stats")
        if kills is not None and answer.oom_kills > kills:
            yield {"type": "oom", "id": container_id}
        kills = answer.oom_kills
        yield {"type": "stats", "id": container_id, "data": data(state, answer)}
        if once:
            return
        poll.poll(interval_s * 1000)
        if status(state) == STOPPED:
            return


@click.command(
    help="Show what CPU, memory and tasks the container CONTAINER-ID uses, at intervals, until it"
    " ends: a JSON object a line, as runc's."
)
@click.option("--interval", default="5s", show_default=True, metavar="TIME", help="How often.")
@click.option("--stats", "once", is_flag=True, help="Only once, now.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, interval: str, once: bool, container_id: str) -> None:
    """Ask the sandbox again and again."""
    for event in _events(flags.store(), container_id, once, seconds(interval)):
        click.echo(msgspec.json.encode(event))
