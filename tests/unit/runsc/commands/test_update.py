from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.cgroups import Record
from runsc.cgroups.cgroup import Cgroup
from runsc.commands import update
from runsc.commands.update import _read, size
from runsc.containers import lifecycle
from runsc.containers.container import Store
from runsc.containers.processes import start_time
from runsc.errors import RuntimeFailure
from runsc.oci.resources import decode
from sentry.control.protocol import Reply, Request
from tests.unit.runsc.containers import states


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1", -1),
        ("0", 0),
        ("4096", 4096),
        ("4096b", 4096),
        ("64m", 64 << 20),
        ("1.5G", 3 << 29),
        ("100KiB", 100 << 10),
        ("2 gb", 2 << 30),
    ],
)
def test_size_takes_what_runc_takes(text: str, value: int) -> None:
    assert size(text, "memory") == value


@pytest.mark.parametrize("text", ["", "m", "-2", "1x", "1ib", "1e3", "0x10", "1 0"])
def test_size_refuses_the_rest(text: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid value for memory"):
        size(text, "memory")


def test_document_that_is_nested_without_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep").write_bytes(b"[" * 500_000)
    with pytest.raises(RuntimeFailure, match="nested too deeply"):
        _read(str(tmp_path / "deep"))


def test_limits_of_0_inside_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = Store(str(tmp_path)), []
    states.running(store, "a")

    def ask(_store: Store, _state: object, request: Request) -> Reply:
        asked.append(request)
        return Reply()

    monkeypatch.setattr(lifecycle, "ask", ask)
    for limit in (0, -1):
        document = {"pids": {"limit": limit}, "cpu": {"quota": limit}}
        update._limit_sentry(store, store.load("a"), decode(document, "$"))

    assert asked == [Request("update", pids_limit=-1, cpu_quota=-1)]


@pytest.mark.parametrize(("sandbox", "sent"), [("", []), ("pod", [-1])])
def test_memory_without_a_limit_is_told_to_a_further_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: str, sent: list[int]
) -> None:
    """The first one's is the sandbox's, which cannot have more than it was started with."""
    store, asked = Store(str(tmp_path)), []
    states.running(store, "a")
    state = store.load("a")
    state.sandbox = sandbox

    def ask(_store: Store, _state: object, request: Request) -> Reply:
        asked.append(request.memory_limit)
        return Reply()

    monkeypatch.setattr(lifecycle, "ask", ask)
    update._limit_sentry(store, state, decode({"memory": {"limit": -1}}, "$"))

    assert asked == sent


def test_only_processes_that_are_the_same_come_into_a_cgroup_that_is_made_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have the numbers of those that have ended."""
    store = Store(str(tmp_path / "root"))
    added: list[int] = []
    states.running(store, "a")
    state = store.load("a")
    parent = os.getppid()
    state.others = f"{state.pid}:1", f"{parent}:{start_time(parent)}"
    state.gofer_pid, state.gofer_start = state.pid, state.pid_start - 1

    class Made(Cgroup):
        def add(self, pid: int) -> None:
            added.append(pid)

    place = str(tmp_path / "cgroup")
    made = Made(Record({"cpu": place}, {}, (place,)))
    made._create_in = lambda *_: None  # type: ignore[method-assign]
    monkeypatch.setattr(update, "at", lambda *_: made)
    update._limit_cgroup(store, state, decode({"cpu": {"shares": 7}}, "$"), lambda _: None)

    assert added == [state.pid, parent]
