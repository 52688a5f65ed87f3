from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runsc.cgroups import Record, cgroup, hierarchies
from runsc.cgroups.cgroup import Cgroup
from runsc.containers import state
from runsc.containers.state import State
from runsc.errors import RuntimeFailure, SpecError
from runsc.launch import around
from runsc.oci.resources import Resources, decode
from tests.unit.runsc.cgroups.machines import V1_FILES, Machine


def _made(machine: Machine, path: str = "/pod/c1", name: str = "c1") -> Cgroup:
    made = cgroup.at(path, name, machine.hierarchies())
    made.create()
    return made


@contextmanager
def _sleeping() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


def _no_warning(message: str) -> None:
    raise AssertionError(message)


def test_for_container_without_path_and_limits_is_none(hybrid: Machine) -> None:
    found = hybrid.hierarchies()
    devices = decode({"devices": [{"allow": False}], "pids": {"limit": 5}})

    assert cgroup.for_container("", "c1", devices, found) is None
    assert cgroup.for_container("", "c1", None, found) is None
    assert cgroup.for_container("", "c1", decode({"memory": {"limit": 1}}), found) is not None


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/pod/c1", "pod/c1"),
        ("//pod/../c1/", "c1"),
        ("pod/c1", "user/pod/c1"),
        ("../../x", "user/x"),
        ("", "user/name"),
        ("system.slice:runsc:c1", "user/system.slice:runsc:c1"),
    ],
)
def test_path_absolute_relative_and_missing(hybrid: Machine, path: str, where: str) -> None:
    made = _made(hybrid, path, "name")

    assert made.record.directories["memory"] == str(hybrid.mount("memory") / where)
    assert made.record.directories[""] == str(hybrid.mount("") / where)
    assert all(os.path.isdir(directory) for directory in made.record.directories.values())


def test_path_relative_on_v2_is_beside_our_own(v2: Machine) -> None:
    assert _made(v2, "c1").record.directories == {"": str(v2.mount("") / "c1")}


def test_create_and_delete_leave_what_was_there(hybrid: Machine) -> None:
    (hybrid.mount("memory") / "pod").mkdir()
    made = _made(hybrid)

    record = state.decode(state.encode(State("1", "c", "/b", cgroups=made.record))).cgroups
    Cgroup(record).delete()

    assert (hybrid.mount("memory") / "pod").is_dir()
    assert not (hybrid.mount("memory") / "pod" / "c1").exists()
    assert not (hybrid.mount("cpu") / "pod").exists()
    Cgroup(record).delete()


def test_delete_keeps_a_parent_that_others_use(hybrid: Machine) -> None:
    first = _made(hybrid, "/pod/c1")
    second = _made(hybrid, "/pod/c2")

    first.delete()
    assert (hybrid.mount("cpu") / "pod" / "c2").is_dir()
    second.delete()
    assert (hybrid.mount("cpu") / "pod").is_dir()  # made by the first: not the second's to remove


def _noted(planned: Cgroup) -> list[Record]:
    """It is made as for a container; what its state has said, one after the other."""
    saved: list[Record] = []
    store: Any = SimpleNamespace(save=lambda noted: saved.append(noted.cgroups))
    flags: Any = SimpleNamespace(log=SimpleNamespace(warning=_no_warning))
    around.make_cgroup(flags, store, State("1", "c", "/b"), None, planned)
    return saved


def test_parent_that_others_have_removed_meanwhile_is_noted_and_made(hybrid: Machine) -> None:
    first = _made(hybrid, "/pod/c1")
    second = cgroup.at("/pod/c2", "c2", hybrid.hierarchies())
    first.delete()

    saved = _noted(second)

    assert (hybrid.mount("cpu") / "pod" / "c2").is_dir()
    above = str(hybrid.mount("cpu") / "pod")
    assert [above in record.made for record in saved] == [False, True]
    Cgroup(saved[-1]).delete()
    assert not (hybrid.mount("cpu") / "pod").exists()


def test_parent_that_goes_each_time_is_an_error(
    hybrid: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = cgroup.at("/pod/c2", "c2", hybrid.hierarchies())
    make = os.mkdir

    def mkdir(path: str | Path, mode: int = 0o777) -> None:
        if os.path.basename(path) == "c2":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(RuntimeFailure, match="unable to apply cgroup configuration"):
        _noted(planned)
    assert not (hybrid.mount("cpu") / "pod").exists()


def test_delete_of_what_was_planned_and_never_made_is_no_error(hybrid: Machine) -> None:
    cgroup.at("/pod/c1", "c1", hybrid.hierarchies()).delete()


def test_delete_waits_for_processes_and_gives_up(
    hybrid: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "PATIENCE_S", 0.0)
    made = _made(hybrid)
    Path(made.record.directories["cpu"], "cgroup.procs").write_text("4242")

    with pytest.raises(RuntimeFailure, match="is in use"):
        made.delete()


def test_create_on_v1_inherits_the_cpuset(hybrid: Machine) -> None:
    _made(hybrid)

    assert hybrid.read("cpuset", "pod", "cpuset.cpus") == "0-3"
    assert hybrid.read("cpuset", "pod/c1", "cpuset.cpus") == "0-3"
    assert hybrid.read("cpuset", "pod/c1", "cpuset.mems") == "0"


def test_create_on_v2_enables_the_controllers_above(v2: Machine) -> None:
    for directory in ("", "user"):
        (v2.mount("") / directory / "cgroup.controllers").write_text("memory pids")
        (v2.mount("") / directory / "cgroup.subtree_control").write_text("pids")

    _made(v2, "/pod/c1")

    assert v2.read("", "", "cgroup.subtree_control") == "+memory"
    assert v2.read("", "pod", "cgroup.subtree_control") != ""
    assert v2.read("", "pod/c1", "cgroup.subtree_control") == ""


def test_controllers_of_v2_on_a_hybrid_machine_are_enabled_when_asked_for(hybrid: Machine) -> None:
    for directory in ("", "user"):
        (hybrid.mount("") / directory / "cgroup.controllers").write_text("hugetlb")
    made = _made(hybrid)
    assert hybrid.read("", "", "cgroup.subtree_control") == ""

    limits = {"memory": {"limit": 4096}}
    made.apply(decode(limits), _no_warning)
    assert hybrid.read("", "", "cgroup.subtree_control") == ""
    made.apply(decode({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}), _no_warning)
    made.apply(decode({"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}), _no_warning)
    assert hybrid.read("", "", "cgroup.subtree_control") == "+hugetlb"


def test_create_leaves_out_what_it_may_not_write(
    hybrid: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def refused(path: str, mode: int = 0o777) -> None:
        if "/memory/" in str(path):
            raise PermissionError(13, "Permission denied", path)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", refused)
    made = _made(hybrid)
    warnings: list[str] = []
    made.apply(decode({"cpu": {"shares": 512}}), warnings.append)
    assert warnings == []
    made.apply(decode({"memory": {"limit": 1 << 20}}), warnings.append)

    assert "memory" not in made.record.directories
    assert warnings == ["cannot set memory limit: container could not join or create cgroup"]


def test_apply_missing_controller_is_a_warning_only_if_asked_for(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "cg", ("cpu",)).build()
    made = Cgroup(cgroup.at("/", "c", machine.hierarchies()).record)
    warnings: list[str] = []

    made.apply(decode({"cpu": {"shares": 100}, "hugepageLimits": []}), warnings.append)
    assert warnings == []
    made.apply(decode({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}), warnings.append)
    assert warnings == ["cannot set hugetlb limit: container could not join or create cgroup"]


def test_apply_does_not_limit_the_sandbox_threads(hybrid: Machine) -> None:
    resources = decode({"pids": {"limit": 7}, "devices": [{"allow": False, "access": "rwm"}]})
    _made(hybrid).apply(resources, _no_warning)

    assert hybrid.read("pids", "pod/c1", "pids.max") == "max"
    assert hybrid.read("devices", "pod/c1", "devices.deny") == ""
    assert resources.pids_limit == 7


def test_join_moves_the_caller(hybrid: Machine) -> None:
    made = _made(hybrid)

    cgroup.join(made.open_joins())

    for name in V1_FILES:
        assert hybrid.read(name, "pod/c1", "cgroup.procs") == "0"


def test_processes_are_those_of_all_hierarchies(hybrid: Machine) -> None:
    made = _made(hybrid)
    Path(made.record.directories["cpu"], "cgroup.procs").write_text("12\n13\n")
    Path(made.record.directories[""], "cgroup.procs").write_text("13\n14\n")

    assert made.processes() == {12, 13, 14}


def test_freeze_writes_the_freezer_of_each_version(hybrid: Machine) -> None:
    made = _made(hybrid)

    made.freeze()
    assert hybrid.read("freezer", "pod/c1", "freezer.state").startswith("FROZEN")
    (hybrid.mount("freezer") / "pod/c1/freezer.state").write_text("")
    made.thaw()
    assert hybrid.read("freezer", "pod/c1", "freezer.state") == "THAWED"


def test_kill_spares_a_cgroup_that_is_not_ours(
    hybrid: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in hybrid.names():
        os.mkdir(str(hybrid.mount(name) / "theirs"))
    theirs, ours = _made(hybrid, "/theirs"), _made(hybrid, "/ours")
    with _sleeping() as first, _sleeping() as second:
        for made, process in ((theirs, first), (ours, second)):
            Path(made.record.directories["cpu"], "cgroup.procs").write_text(str(process.pid))
            made.kill()

        assert second.wait() == -signal.SIGKILL
        assert first.poll() is None


def _numbers_change_hands(monkeypatch: pytest.MonkeyPatch, procs: Path) -> None:
    """Who was in the cgroup ends before it is opened, and another process has its number then."""
    opens = os.pidfd_open

    def pidfd_open(pid: int) -> int:
        procs.write_text("")
        return opens(pid)

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)


def test_kill_does_nothing_to_who_has_got_a_number_since(
    hybrid: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _made(hybrid)
    procs = Path(made.record.directories["cpu"], "cgroup.procs")
    with _sleeping() as other, _sleeping() as inside:
        procs.write_text(str(other.pid))
        with monkeypatch.context() as patched:
            _numbers_change_hands(patched, procs)
            made.kill()
        procs.write_text(str(inside.pid))
        made.kill()

        assert inside.wait() == -signal.SIGKILL
        assert other.poll() is None


def test_expel_asks_of_nobody_who_has_got_a_number_since(
    hybrid: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _made(hybrid)
    procs = Path(made.record.directories["cpu"], "cgroup.procs")
    procs.write_text(str(os.getppid()))
    _numbers_change_hands(monkeypatch, procs)

    def is_held_up(pid: int, _pidfd: int) -> bool:
        return pytest.fail(f"{pid} is not in it")

    assert made.expel(is_held_up) == set()


def test_expel_moves_who_is_held_up_and_nobody_who_has_ended(
    hybrid: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, found = _made(hybrid), hybrid.hierarchies()
    monkeypatch.setattr(hierarchies, "read", lambda: found)
    with _sleeping() as stays, _sleeping() as ends:
        procs = Path(made.record.directories["cpu"], "cgroup.procs")
        procs.write_text(f"{stays.pid}\n{ends.pid}\n")

        def is_held_up(pid: int, pidfd: int) -> bool:
            if pid == ends.pid:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                ends.wait()
            return True

        assert made.expel(is_held_up) == {stays.pid, ends.pid}
    assert (hybrid.mount("cpu") / "cgroup.procs").read_text() == str(stays.pid)


def test_decode_names_the_json_path() -> None:
    with pytest.raises(SpecError) as info:
        decode({"memory": {"limit": "much"}})
    assert info.value.path == "$.linux.resources.memory.limit"
    with pytest.raises(SpecError) as info:
        decode({"unified": {"../x": "1"}})
    assert info.value.path == "$.linux.resources.unified"


def test_resources_without_limit_have_none() -> None:
    for value in (None, 0, -1):
        made = decode({"memory": {"limit": value}, "pids": {"limit": value}})
        assert (made.memory_limit, made.pids_limit) == (None, None)
    assert Resources().cpus == ""
