from __future__ import annotations

import resource
from pathlib import Path

import pytest

from runsc.cgroups.hierarchies import V2, Hierarchy
from runsc.checks import limits


def test_little_memory_and_one_cpu_are_notes() -> None:
    assert limits.memory(100).level == "note"
    assert limits.memory(10_000).level == "good"
    assert limits.cpus(1).level == "note"
    assert limits.cpus(2).level == "good"


@pytest.mark.parametrize(
    ("files", "space", "levels"),
    [
        (20_000, resource.RLIM_INFINITY, ["good"]),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, ["good"]),
        (100, 1 << 30, ["note", "bad"]),
    ],
)
def test_limits_that_are_too_low_are_told(
    monkeypatch: pytest.MonkeyPatch, files: int, space: int, levels: list[str]
) -> None:
    values = {resource.RLIMIT_NOFILE: files, resource.RLIMIT_AS: space}
    monkeypatch.setattr("resource.getrlimit", lambda which: (0, values[which]))

    assert [found.level for found in limits.rlimits()] == levels


def test_cgroups_are_told_by_version_and_whether_they_can_be_written(tmp_path: Path) -> None:
    here, nowhere = str(tmp_path), str(tmp_path / "none")
    one = Hierarchy("cpu", here, here, ("cpu",))
    two = Hierarchy(V2, here, here, ("memory",))

    assert limits.cgroups([]).level == "note"
    assert limits.cgroups([two]).text == "version 2: memory"
    assert limits.cgroups([one]).text == "version 1: cpu"
    assert limits.cgroups([one, two]).text == "version 1 and 2: cpu memory"
    closed = limits.cgroups([Hierarchy(V2, here, nowhere, ("memory",))])
    assert (closed.level, nowhere in closed.text) == ("note", True)


def test_systemd_that_cannot_be_asked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runsc.cgroups.systemd.RUNNING", str(tmp_path / "none"))
    assert limits.systemd_cgroups() == []

    monkeypatch.setattr("runsc.cgroups.systemd.RUNNING", str(tmp_path))
    for there, level in ((True, "good"), (False, "note")):
        monkeypatch.setattr("runsc.cgroups.systemd.can_ask", lambda there=there: there)
        assert [found.level for found in limits.systemd_cgroups()] == [level]


def test_state_root_need_not_be_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert limits.state_root(str(tmp_path / "a" / "b")).level == "good"
    assert limits.state_root(str(tmp_path / "file" / "b")).level == "bad"
