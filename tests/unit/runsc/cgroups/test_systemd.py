"""What systemd is asked, over a bus at a Unix socket."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.cgroups import systemd
from runsc.errors import RuntimeFailure

pytest.importorskip("jeepney", reason="the extra for systemd is not installed")

from tests.unit.runsc.cgroups.bus import MANAGER, FakeBus

UNIT = "runsc-c1.scope"


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBus]:
    monkeypatch.setattr(systemd, "RUNNING", str(tmp_path))
    made = FakeBus(tmp_path / "bus")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", made.address)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", made.address)
    yield made
    made.close()


def test_start_makes_a_unit_and_waits_for_its_own_job(bus: FakeBus) -> None:
    systemd.start(UNIT, [("PIDs", ("au", [7])), ("Delegate", ("b", True))])

    properties = [("PIDs", ("au", [7])), ("Delegate", ("b", True))]
    assert bus.calls == [("StartTransientUnit", (UNIT, "replace", properties, []))]
    assert "JobRemoved" in bus.matched[0]
    assert MANAGER in bus.matched[0]


def test_start_forgets_a_failed_unit_of_that_name(bus: FakeBus) -> None:
    bus.errors["StartTransientUnit"] = ["org.freedesktop.systemd1.UnitExists"]

    systemd.start(UNIT, [])

    assert [name for name, _ in bus.calls] == [
        "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit",
    ]  # fmt: skip


def test_start_that_fails_says_why(bus: FakeBus) -> None:
    bus.errors["StartTransientUnit"] = ["org.freedesktop.DBus.Error.AccessDenied"]
    with pytest.raises(RuntimeFailure, match="systemd: StartTransientUnit: no StartTransientUnit"):
        systemd.start(UNIT, [])

    bus.errors["StartTransientUnit"] = ["org.freedesktop.systemd1.UnitExists"] * 2
    with pytest.raises(RuntimeFailure):
        systemd.start(UNIT, [])

    bus.result = "failed"
    with pytest.raises(RuntimeFailure, match=f"creating systemd unit `{UNIT}`: got `failed`"):
        systemd.start(UNIT, [])
    assert bus.calls[-1] == ("ResetFailedUnit", (UNIT,))


def test_change_sets_properties_until_the_unit_ends(bus: FakeBus) -> None:
    systemd.change(UNIT, [("MemoryMax", ("t", 4096))])
    systemd.change(UNIT, [])

    assert bus.calls == [("SetUnitProperties", (UNIT, True, [("MemoryMax", ("t", 4096))]))]


def test_stop_of_a_unit_that_is_gone_is_no_error(bus: FakeBus) -> None:
    systemd.stop(UNIT)
    bus.errors = {
        "StopUnit": ["org.freedesktop.systemd1.NoSuchUnit"],
        "ResetFailedUnit": ["org.freedesktop.systemd1.NoSuchUnit"],
    }
    systemd.stop(UNIT)

    assert bus.of("StopUnit") == [(UNIT, "replace")] * 2


@pytest.mark.parametrize(
    ("uid", "top"), [(0, ""), (7, "/user.slice/user-7.slice/user@7.service")]
)
def test_control_group_is_that_of_the_users_manager(
    bus: FakeBus, monkeypatch: pytest.MonkeyPatch, uid: int, top: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)

    assert systemd.control_group() == top


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_of_a_user_namespace_has_a_manager_of_its_own(bus: FakeBus, tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)  # what is the host's is nobody's there

    assert systemd.control_group() == "/user.slice/user-7.slice/user@7.service"


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "RUNNING", str(tmp_path / "none"))
    with pytest.raises(RuntimeFailure, match="systemd not running on this host"):
        systemd.check()

    monkeypatch.setattr(systemd, "RUNNING", str(tmp_path))
    for name in ("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.setenv(name, f"unix:path={tmp_path}/none")
    with pytest.raises(RuntimeFailure, match="cannot reach systemd over D-Bus"):
        systemd.stop(UNIT)

    monkeypatch.setitem(sys.modules, "jeepney", None)
    assert not systemd.can_ask()
    with pytest.raises(RuntimeFailure, match=r"install runsc\[systemd\]"):
        systemd.check()
