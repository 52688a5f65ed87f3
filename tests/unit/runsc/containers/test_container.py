from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runsc.cgroups import Record
from runsc.containers import lifecycle, start_hooks
from runsc.containers.container import Store
from runsc.containers.listener import listen
from runsc.containers.names import check_id
from runsc.containers.processes import pidfd_of, start_time, write_pid_file
from runsc.containers.state import State, status
from runsc.errors import Busy, NoContainer, NotRunning, RuntimeFailure


def _state(name: str, pid: int = 0, foreground: bool = False) -> State:
    return State("1.2.0", name, "/b", pid=pid, pid_start=start_time(pid), foreground=foreground)


def _ended_child() -> int:
    child = multiprocessing.get_context("spawn").Process(target=int)
    child.start()
    child.join()
    assert child.pid is not None
    return child.pid


def test_create_of_a_taken_name_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    store.create(_state("a", os.getpid()))

    with pytest.raises(RuntimeFailure, match=r'^container with given ID already exists: "\w+"$'):
        store.create(_state("a"))


@pytest.mark.parametrize("umask", [0, 0o22, 0o777])
def test_state_and_control_socket_are_for_their_owner_whatever_the_umask(
    tmp_path: Path, request: pytest.FixtureRequest, umask: int
) -> None:
    request.addfinalizer(partial(os.umask, os.umask(umask)))

    store = Store(str(tmp_path / "above" / "root"))
    store.create(_state("a"))
    listen(store.path("a", "control.sock")).close()

    made = [path for path in tmp_path.rglob("*") if path != tmp_path]
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in made}
    folders, files = ("above", "root", "a"), (".lock", "state.json", "control.sock")
    assert modes == dict.fromkeys(folders, 0o700) | dict.fromkeys(files, 0o600)
    assert os.umask(umask) == umask


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_state_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)

    with pytest.raises(RuntimeFailure, match="others may write to it"):
        Store(str(tmp_path))


def test_load_gives_what_was_saved_and_remove_forgets_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    made = _state("a", os.getpid())
    store.create(made)
    made.annotations = {"k": "v"}
    store.save(made)

    assert store.load("a") == made
    store.remove("a")
    with pytest.raises(RuntimeFailure, match=r'^container "[\w-]+" does not exist$'):
        store.load("a")
    store.remove("a")


@pytest.mark.parametrize("moment", ["unlink", "rmdir"])
def test_remove_while_somebody_saves_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """`run` removes its container at its end, whoever has that one's lock."""
    store, state = Store(str(tmp_path / "root")), _state("a")
    store.create(state)
    removing = getattr(os, moment)

    def saved_before(path: str) -> None:
        monkeypatch.setattr(os, moment, removing)
        store.save(state)
        removing(path)

    monkeypatch.setattr(os, moment, saved_before)
    store.remove("a")

    assert os.listdir(store.root) == [".lock"]


def test_save_of_a_container_that_has_been_removed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = Store(str(tmp_path)), _state("a")
    store.create(state)
    renames = os.rename

    def removed_before(*paths: str, **folders: Any) -> None:
        store.remove("a")
        renames(*paths, **folders)

    monkeypatch.setattr(os, "rename", removed_before)
    for _ in ("while it is written", "before"):
        with pytest.raises(RuntimeFailure, match=r'^container "a" does not exist$'):
            store.save(state)

    assert os.listdir(store.root) == [".lock"]


def test_save_by_who_holds_what_has_been_removed_changes_no_other_of_the_name(
    tmp_path: Path,
) -> None:
    store = Store(str(tmp_path))
    store.create(_state("a"))
    with store.held("a") as state:
        store.remove("a")
        Store(str(tmp_path)).create(_state("a", os.getpid()))
        with pytest.raises(NoContainer):
            store.save(state)
    assert store.load("a").pid == os.getpid()
    assert sorted(os.listdir(tmp_path / "a")) == ["state.json"]


def test_sweep_destroys_what_a_killed_run_left_and_keeps_the_rest(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    gone, stopped = _state("left-by-run", foreground=True), _state("detached")
    running = _state("running", foreground=True)
    for state in (gone, stopped):
        state.creator_pid, state.creator_start = _ended_child(), 1
    running.creator_pid, running.creator_start = os.getpid(), start_time(os.getpid())
    for state in (stopped, gone, running):
        store.create(state)

    lifecycle.sweep(store, pytest.fail)

    assert [state.id for state in store.all()] == ["detached", "running"]


def test_destroy_does_nothing_to_another_container_of_the_same_name(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    before, after = _state("a"), _state("a")
    store.create(before)
    store.remove("a")
    store.create(after)

    lifecycle.destroy(store, before, pytest.fail)

    assert store.load("a") == after


def test_two_who_destroy_a_container_run_its_hooks_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    state = State("1.2.0", "a", str(tmp_path))
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo >> log"]}
    state.hooks = {"poststop": [hook]}
    store.create(state)

    lifecycle.destroy(store, store.load("a"), pytest.fail)
    lifecycle.destroy(store, state, pytest.fail)

    assert (tmp_path / "log").read_text() == "\n"


def test_destroy_is_of_what_the_container_is_by_then(tmp_path: Path) -> None:
    """`run` knows nothing of the cgroup that `update` has made meanwhile."""
    store, folder = Store(str(tmp_path / "root")), tmp_path / "cgroup"
    state = _state("a")
    store.create(state)
    with store.held("a") as now:
        folder.mkdir()
        now.cgroups = Record({"cpu": str(folder)}, {"cpu": "cpu"}, (str(folder),))
        store.save(now)

    lifecycle.destroy(store, state, pytest.fail)

    assert not folder.exists()
    assert store.all() == []


def test_destroy_holds_the_container_until_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = Store(str(tmp_path)), _state("a")
    store.create(state)
    removes = store.remove

    def remove(*of: str) -> bool:
        with pytest.raises(Busy):
            Store(str(tmp_path)).lock("a", 0)
        return removes(*of)

    monkeypatch.setattr(store, "remove", remove)
    lifecycle.destroy(store, state, pytest.fail)
    assert store.all() == []


def test_destroy_ends_what_is_not_noted_yet(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path)), _state("a")
    store.create(state)
    with subprocess.Popen(["sleep", "1000"]) as process:
        state.pid, state.pid_start = process.pid, start_time(process.pid)
        lifecycle.destroy(store, state, pytest.fail)
        assert process.wait() == -signal.SIGKILL


def test_destroy_of_what_somebody_has_removed_does_not_touch_what_has_its_cgroup_now(
    tmp_path: Path,
) -> None:
    store, folder = Store(str(tmp_path / "root")), tmp_path / "cgroup"
    state = _state("a")
    store.create(state)
    state.cgroups = Record({"cpu": str(folder)}, {"cpu": "cpu"}, (str(folder),))
    store.remove("a")
    folder.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        state.pid, state.pid_start = process.pid, start_time(process.pid)
        lifecycle.destroy(store, state, pytest.fail)
        assert process.wait() == -signal.SIGKILL
    assert not folder.exists()  # it was its own

    later = _state("a")
    store.create(later)
    folder.mkdir()
    lifecycle.destroy(store, state, pytest.fail)
    assert folder.exists()
    assert store.load("a") == later


def test_start_says_that_it_runs_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = Store(str(tmp_path)), _state("a", os.getpid())
    state.phase = "created"
    store.create(state)
    seen: list[str] = []
    answers: list[str | Exception] = [RuntimeFailure("it does not answer"), ""]

    def tell(*_: object) -> str:
        seen.append(status(store.load("a")))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(lifecycle, "tell", tell)
    with pytest.raises(RuntimeFailure, match="does not answer"):
        lifecycle.start(store, "a")
    assert status(store.load("a")) == "created"
    lifecycle.start(store, "a")
    assert status(store.load("a")) == "running"
    assert seen == ["running", "running"]


def test_pid_file_is_written_through_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / ".pid").symlink_to("victim")

    write_pid_file(str(tmp_path / "pid"), 7)

    assert (tmp_path / "pid").read_text() == "7"
    assert (tmp_path / "victim").read_text() == "untouched"
    (tmp_path / ".pid").symlink_to("victim")
    monkeypatch.setattr(os, "unlink", lambda _: None)  # as in /tmp, where it stays
    with pytest.raises(FileExistsError):
        write_pid_file(str(tmp_path / "pid"), 8)
    assert (tmp_path / "victim").read_text() == "untouched"


def test_status_believes_only_processes_that_are_the_same() -> None:
    state = _state("a", os.getpid())
    state.creator_pid, state.creator_start = os.getpid(), start_time(os.getpid())

    assert status(state) == "creating"
    state.phase = "created"
    assert status(state) == "created"
    state.paused = True
    assert status(state) == "paused"
    state.pid_start += 1
    assert status(state) == "stopped"
    state.phase, state.creator_start = "creating", 1
    assert status(state) == "stopped"


def test_signal_for_a_container_that_is_being_created_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = Store(str(tmp_path)), _state("a")
    state.creator_pid, state.creator_start = os.getpid(), start_time(os.getpid())
    store.create(state)
    monkeypatch.setattr(lifecycle, "tell", lambda *_: pytest.fail("nobody would answer"))

    for number, everyone in ((signal.SIGTERM, False), (signal.SIGTERM, True)):
        with pytest.raises(NotRunning, match=r'^container not running: "a"$'):
            lifecycle.kill(store, "a", number, everyone)
    with pytest.raises(NotRunning):
        lifecycle.kill(store, "a", signal.SIGKILL, False, 7)


def test_start_hooks_of_an_older_version_say_so(tmp_path: Path) -> None:
    state = _state("a")
    state.hooks = {"startContainer": [{"path": "/bin/true"}]}

    with pytest.raises(RuntimeFailure, match=r"^an older runsc has created this container, "):
        start_hooks.run(Store(str(tmp_path)), state)


def test_pause_that_is_killed_leaves_something_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = Store(str(tmp_path)), _state("a", os.getpid())
    state.phase = "running"
    store.create(state)
    while_asked: list[str] = []

    def tell(*_: object) -> str:
        while_asked.append(status(store.load("a")))
        raise TimeoutError

    monkeypatch.setattr(lifecycle, "tell", tell)
    with pytest.raises(TimeoutError):
        lifecycle.pause(store, "a")

    assert while_asked == ["paused"]
    assert status(store.load("a")) == "running"


def test_create_takes_over_what_was_left_without_a_state(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "control.sock").touch()

    store.create(_state("a"))

    assert [state.id for state in store.all()] == ["a"]


def test_held_is_for_one_at_a_time_and_ends_with_the_container(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.create(_state("a"))

    with store.held("a") as state:
        assert state.id == "a"
        with pytest.raises(RuntimeFailure, match="another command"), store.held("a", 0):
            pass
        store.remove("a")
    with pytest.raises(RuntimeFailure, match="does not exist"), store.held("a"):
        pass


def test_delete_with_force_succeeds_when_it_is_gone(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (tmp_path / "remains").mkdir()

    lifecycle.delete(store, "never-there", True, pytest.fail)
    lifecycle.delete(store, "remains", True, pytest.fail)

    assert os.listdir(tmp_path) == [".lock"]
    with pytest.raises(RuntimeFailure, match=r'^container "[\w-]+" does not exist$'):
        lifecycle.delete(store, "never-there", False, pytest.fail)


def test_delete_with_force_ends_what_another_command_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`start`, with a startContainer hook that never ends."""
    monkeypatch.setattr(Store.held, "__defaults__", (0.0,))
    store = Store(str(tmp_path))
    with subprocess.Popen(["sleep", "1000"]) as hook:
        store.create(_state("a", hook.pid))
        lock = store.lock("a", 0)
        with pytest.raises(Busy):
            lifecycle.delete(store, "a", False, pytest.fail)

        def await_end(_pid: int, pidfd: int) -> bool:
            assert hook.wait() == -signal.SIGKILL
            os.close(pidfd)
            lock.__exit__()
            return True

        monkeypatch.setattr(lifecycle, "_await_end", await_end)
        lifecycle.delete(store, "a", True, pytest.fail)

        assert hook.returncode == -signal.SIGKILL
    assert store.all() == []


def test_start_time_tells_processes_apart() -> None:
    assert start_time(os.getpid()) > 0
    assert start_time(_ended_child()) == 0


def test_pidfd_is_of_the_process_that_started_then() -> None:
    began = start_time(os.getpid())
    os.close(pidfd_of(os.getpid(), began))
    assert pidfd_of(os.getpid(), began - 1) == pidfd_of(_ended_child(), began) == -1
    assert pidfd_of(0, 0) == pidfd_of(os.getpid(), 0) == -1


@pytest.mark.parametrize("name", ["a", "A-b_c.d+1", "x" * 255])
def test_check_id_takes_what_runc_takes(name: str) -> None:
    assert check_id(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 256])
def test_check_id_refuses_what_could_leave_the_root(name: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid container ID format"):
        check_id(name)
