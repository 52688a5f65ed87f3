"""A container's cgroup that systemd makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runsc.cgroups import recorded, scope, systemd
from runsc.cgroups.scope import Scope
from runsc.containers import state
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.oci.resources import Resources, decode
from tests.unit.runsc.cgroups.machines import Machine

pytest.importorskip("jeepney", reason="the extra for systemd is not installed")

from tests.unit.runsc.cgroups.bus import FakeBus

PATH = "a-b.slice:p:c1"
DIRECTORY = "a.slice/a-b.slice/p-c1.scope"
LIMITS = decode({"memory": {"limit": 8192}, "cpu": {"shares": 1024}})


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBus]:
    monkeypatch.setattr(systemd, "RUNNING", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    made = FakeBus(tmp_path / "bus")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", made.address)
    yield made
    made.close()


def _made(
    machine: Machine,
    bus: FakeBus,
    resources: Resources | None = None,
    managed: tuple[str, ...] = ("", "name=systemd"),
) -> Scope:
    """Of which systemd has made what is its own."""
    made = scope.for_container(PATH, "c1", resources, machine.hierarchies())
    assert isinstance(made, Scope)

    def started(_unit: str, properties: dict[str, Any]) -> None:
        for name in set(managed) & set(machine.names()):
            directory = machine.mount(name) / DIRECTORY
            machine.fill(name, directory)
            (directory / "cgroup.procs").write_text(str(properties["PIDs"][0]))

    bus.started = started
    made.create()
    return made


def test_scope_is_made_with_a_process_that_waits(v2: Machine, bus: FakeBus) -> None:
    made = _made(v2, bus)

    ((unit, _, properties, _),) = bus.of("StartTransientUnit")
    assert unit == "p-c1.scope"
    (waits,) = made.processes()
    assert dict(properties)["PIDs"] == ("au", [waits])
    os.kill(waits, 0)
    made.release()
    with pytest.raises(ProcessLookupError):
        os.kill(waits, 0)
    made.release()


def test_limits_are_told_to_systemd_and_written(v2: Machine, bus: FakeBus) -> None:
    made = _made(v2, bus, LIMITS)
    made.release()
    made.apply(LIMITS, pytest.fail)

    assert bus.of("SetUnitProperties") == [
        ("p-c1.scope", True, [("MemoryMax", ("t", 8192)), ("CPUWeight", ("t", 39))])
    ]
    assert v2.read("", DIRECTORY, "memory.max") == "8192"
    assert v2.read("", DIRECTORY, "cpu.weight") == "39"


def test_slices_are_left_to_systemd(hybrid: Machine, bus: FakeBus) -> None:
    made = _made(hybrid, bus)
    made.release()
    for name in ("", "name=systemd"):
        (hybrid.mount(name) / DIRECTORY / "cgroup.procs").write_text("")
    assert str(hybrid.mount("memory") / "a.slice") in made.record.made
    assert str(hybrid.mount("") / "a.slice") not in made.record.made

    record = state.decode(state.encode(State("1", "c", "/b", cgroups=made.record))).cgroups
    recorded.of(record).delete()

    assert bus.of("StopUnit") == [("p-c1.scope", "replace")]
    assert not (hybrid.mount("memory") / "a.slice").exists()
    assert not (hybrid.mount("") / DIRECTORY).exists()
    assert (hybrid.mount("") / DIRECTORY).parent.is_dir()


def test_directories_are_removed_where_systemd_does_not_answer(
    v2: Machine, bus: FakeBus
) -> None:
    made = _made(v2, bus)
    made.release()
    (v2.mount("") / DIRECTORY / "cgroup.procs").write_text("")
    bus.errors["StopUnit"] = ["org.freedesktop.DBus.Error.AccessDenied"]

    with pytest.raises(RuntimeFailure, match="StopUnit"):
        made.delete()

    assert not (v2.mount("") / DIRECTORY).exists()


def test_container_without_path_and_limits_has_none(v2: Machine, bus: FakeBus) -> None:
    assert scope.for_container("", "c1", None, v2.hierarchies()) is None
    made = scope.for_container("", "c1", LIMITS, v2.hierarchies())
    assert made is not None
    assert made.record.directories[""].endswith("/system.slice/runsc-c1.scope")
    assert bus.calls == []


def test_what_systemd_does_not_manage_is_left_out(hybrid: Machine, bus: FakeBus) -> None:
    made = _made(hybrid, bus, managed=("name=systemd",))
    made.release()

    assert {"memory", "name=systemd"} <= made.record.directories.keys()
    assert "" not in made.record.directories


def test_systemd_that_makes_none_is_an_error(v2: Machine, bus: FakeBus) -> None:
    with pytest.raises(RuntimeFailure, match=r"systemd has made no cgroup for p-c1\.scope"):
        _made(v2, bus, managed=())
