"""docs/reference/events.md has every field that events(8) of runc's form has here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from runsc.cgroups import Record
from runsc.commands import events
from runsc.containers.state import State
from sentry.control.answers import Stats

PAGE = Path(__file__).parents[4] / "docs/reference/events.md"
USED = Stats(
    user_ns=1, system_ns=2, memory=3, memory_limit=4, shared=1, oom_kills=0, tasks=1, tasks_limit=9
)
V1 = {
    "cpuacct.stat": "user 1\nsystem 2\n", "cpuacct.usage": "30", "cpuacct.usage_percpu": "10 20",
    "cpu.stat": "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n",
    "memory.stat": "cache 1\nrss 2\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\nTotal 4096\n",
    "blkio.throttle.io_serviced_recursive": "8:0 Read 1\nTotal 1\n",
}  # fmt: skip
V2 = {
    "cpu.stat": "usage_usec 3\nuser_usec 1\nsystem_usec 2\nnr_periods 1\nthrottled_usec 3\n",
    "memory.stat": "anon 1\nfile 2\n", "memory.current": "3",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n",
}  # fmt: skip
EMPTY = {"blkio", "cpu.throttling"}
"""Objects that have fields with a cgroup."""


def _names(values: dict[str, Any], before: str = "") -> set[str]:
    """Of all fields that have no fields of their own."""
    found: set[str] = set()
    for key, value in values.items():
        name = before + key
        inner = isinstance(value, dict) and value and name != "memory.raw"
        found |= _names(value, f"{name}.") if inner else {name}
    return found


@pytest.mark.parametrize("source", ["Sentry", "v1", "v2"])
def test_page_has_every_field(source: str, tmp_path: Path) -> None:
    directories, controllers = {}, {}
    for name, text in {"Sentry": {}, "v1": V1, "v2": V2}[source].items():
        (tmp_path / name).write_text(text)
        hierarchy = "" if source == "v2" else "one"
        directories[hierarchy] = str(tmp_path)
        controllers |= dict.fromkeys(("cpu", "cpuacct", "memory", "blkio"), hierarchy)
    if source == "v2":
        del controllers["cpuacct"]
    state = State("1.2.0", "c", "/bundle", cgroups=Record(directories, controllers, ()))

    made = _names(events.data(state, USED)) - EMPTY

    rows = re.findall(r"^\| (`.*?) \| (.*?) \| .*\|$", PAGE.read_text(), re.M)
    told = {
        name for fields, sources in rows if source in sources.split(", ")
        for name in re.findall(r"`(.*?)`", fields)
    }  # fmt: skip
    assert made == told
