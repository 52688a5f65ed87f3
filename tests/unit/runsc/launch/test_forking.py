"""Which process a fork is, from what it says; which ends with which."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runsc.api.forker import Forker
from runsc.containers.processes import start_time
from runsc.containers.state import ORIGIN, State
from runsc.errors import RuntimeFailure
from runsc.launch.forking import Fork
from sentry.abi.socket import SO_PASSPIDFD
from sentry.control.protocol import Event, encode


def state(name: str, origin: str = "first") -> State:
    return State("1.2.0", name, "/bundle", annotations={ORIGIN: origin})


def said(fork: Fork, then: Callable[[], object]) -> int:
    """A process that says it is here; its number."""
    pid = os.fork()
    if not pid:
        try:
            fork.report.close()
            os.write(fork.given(), encode(Event("here")))
            then()
        finally:
            os._exit(0)
    fork.handed_over()
    return pid


def test_hear_knows_the_process_that_says_that_it_is_here() -> None:
    fork = Fork(state("a"), lambda: None)
    pid = said(fork, lambda: os.read(fork.given(), 1))
    fork.hear()
    assert (fork.state.pid, fork.state.pid_start) == (pid, start_time(pid))
    fork.close()
    os.waitpid(pid, 0)


def test_hear_of_who_has_ended_knows_no_process() -> None:
    fork = Fork(state("a"), lambda: None)
    if not fork.report.getsockopt(socket.SOL_SOCKET, SO_PASSPIDFD):
        pytest.skip("before Linux 6.5")
    os.waitpid(said(fork, lambda: None), 0)
    fork.hear()
    assert (fork.state.pid, fork.state.pid_start) == (0, 0)
    with pytest.raises(RuntimeFailure, match="has ended"):
        fork.hear()
    fork.close()


def test_end_is_that_of_the_fork_whoever_gets_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As soon as it has been looked whose it is."""
    kills = os.kill
    with subprocess.Popen(["sleep", "1000"]) as its, subprocess.Popen(["sleep", "1000"]) as other:
        monkeypatch.setattr(os, "kill", lambda _, number: kills(other.pid, number))
        fork = Fork(state("a"), lambda: None)
        fork.state.pid, fork.state.pid_start = its.pid, start_time(its.pid)
        fork.end()
        assert its.wait() == -signal.SIGKILL
        assert other.poll() is None
        kills(other.pid, signal.SIGKILL)
    fork.close()


def test_go_tells_nothing_of_who_has_got_the_number_of_a_fork_that_has_ended() -> None:
    fork = Fork(state("a"), lambda: None)
    fork.state.pid, fork.state.pid_start = os.getpid(), start_time(os.getpid()) - 1
    with socket.socket(fileno=os.dup(fork.given())) as theirs:
        fork.go()
        with pytest.raises(BlockingIOError):
            theirs.recv(1, socket.MSG_DONTWAIT)
        fork.state.pid_start += 1
        fork.go()
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        assert os.pread(fds[0], 1, 0).isdigit()
    os.close(fds[0])
    fork.close()


def test_hear_takes_no_descriptors() -> None:
    """They would lie in the room for that of the process."""
    fork = Fork(state("a"), lambda: None)
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(fileno=os.dup(fork.given())) as theirs:
        for count in 1, 2, 3:
            socket.send_fds(theirs, [encode(Event("here"))], [0] * count)
            with pytest.raises(RuntimeFailure):
                fork.hear()
    assert (fork.state.pid, fork.events) == (0, set())
    assert len(os.listdir("/proc/self/fd")) == before
    fork.close()


def test_a_fork_ends_with_all_that_are_copies_of_copies_of_it(tmp_path: Path) -> None:
    deep = 3000
    wishes, ours = socket.socketpair()
    forker = Forker(str(tmp_path), wishes)
    removed = []
    forker._remove = lambda fd: removed.append(forker._forks[fd].id)  # type: ignore[method-assign]
    names = [f"f{at}" for at in range(deep)]
    for at, name in enumerate(names):
        forker._forks[at + 10] = state(name, names[at - 1] if at else "first")
    forker._forks[9] = state("other")
    forker._end("f1")
    assert removed == names[1:]
    wishes.close()
    ours.close()


def test_a_fork_whose_number_another_process_has_is_not_kept(tmp_path: Path) -> None:
    wishes, ours = socket.socketpair()
    forker = Forker(str(tmp_path), wishes)
    gone = state("a")
    gone.sentry_pid, gone.sentry_start = os.getpid(), start_time(os.getpid()) - 1
    forker._store.create(gone)
    forker._keep(gone)
    assert forker._forks == {}
    assert forker._store.all() == []
    wishes.close()
    ours.close()
