from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from runsc.container import State, Store, check_id, is_alive, start_time
from runsc.errors import RuntimeFailure


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

    with pytest.raises(RuntimeFailure, match=r"^container with given ID already exists$"):
        store.create(_state("a"))


def test_load_gives_what_was_saved_and_remove_forgets_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    made = _state("a", os.getpid())
    store.create(made)
    made.annotations = {"k": "v"}
    store.save(made)

    assert store.load("a") == made
    assert is_alive(store.load("a"))
    store.remove("a")
    with pytest.raises(RuntimeFailure, match=r"^container does not exist$"):
        store.load("a")
    store.remove("a")


def test_all_sweeps_what_a_killed_run_left_and_keeps_the_rest(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    gone = _state("left-by-run", foreground=True)
    gone.pid, gone.pid_start = _ended_child(), 1
    stopped = _state("detached")
    stopped.pid, stopped.pid_start = gone.pid, 1
    for state in (stopped, gone, _state("running", os.getpid(), True)):
        store.create(state)

    assert [state.id for state in store.all()] == ["detached", "running"]


def test_start_time_tells_processes_apart() -> None:
    assert start_time(os.getpid()) > 0
    assert start_time(_ended_child()) == 0


@pytest.mark.parametrize("name", ["a", "A-b_c.d+1", "x" * 255])
def test_check_id_takes_what_runc_takes(name: str) -> None:
    assert check_id(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 256])
def test_check_id_refuses_what_could_leave_the_root(name: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid container ID format"):
        check_id(name)
