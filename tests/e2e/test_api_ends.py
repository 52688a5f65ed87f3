"""How sandboxes of the Python API end: by their maker, without it, by their time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runsc import Sandbox, SandboxEnded, SandboxError, SandboxNotFound, TimeLimitExceeded
from runsc.api.blocking.keeping import Keeper
from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, kvm_is_usable
from tests.e2e.sandboxes import (
    FLAGS,
    made,
    noted,
    processes_of,
    wait_until_gone,
    wait_until_idle,
)

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
PROGRAM = """
import sys
from runsc import Sandbox
root, state, detach, flag = sys.argv[1:]
sandbox = Sandbox.create(root=root, state=state, detach=detach == "yes", flags=[flag])
handle = sandbox.commands.run("sleep 1000", background=True)
print(sandbox.sandbox_id, flush=True)
sys.stdin.read()
if detach == "yes":
    handle.close()
"""

FORKING = """
import os, sys
from runsc import Sandbox
root, state, flag = sys.argv[1:]
told, tell = os.pipe()
alive, keep = os.pipe()
with Sandbox.create(root=root, state=state, flags=[flag]) as sandbox:
    handle = sandbox.commands.run("sleep 1000", background=True)
    if not os.fork():
        os.close(keep)
        handle.close()
        sandbox.kill()
        other = sandbox.commands.run("sleep 1000", background=True)
        os.write(tell, b"1")
        os.read(alive, 1)
        os._exit(0)
    os.read(told, 1)
    print(sandbox.stats().processes, flush=True)
    handle.close()
    while sandbox.stats().processes > 2:
        pass
"""

WAITING = """
import sys
from runsc import Sandbox
root, state, flag = sys.argv[1:]
try:
    with Sandbox.create(root=root, state=state, flags=[flag]) as sandbox:
        sandbox.commands.run(
            "echo waits; sleep 1000", on_stdout=lambda said: print(said, end="", flush=True)
        )
except KeyboardInterrupt:
    print(sandbox.sandbox_id, "gone" if not sandbox.is_running() else "there")
"""


def begin(folder: Path, root: Path, detach: str) -> tuple[subprocess.Popen[str], str]:
    """A process that has made a sandbox, and its name."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), str(folder / "state"), detach, FLAGS[0]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str], number: int = 0) -> int:
    if number:
        process.send_signal(number)
    process.communicate(timeout=TIMEOUT_S)
    return process.returncode


@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_sandbox_ends_with_its_maker(tmp_path: Path, busybox: Path, number: int) -> None:
    process, name = begin(tmp_path, busybox, "no")
    assert len(processes_of(name)) >= 3
    end(process, number)

    wait_until_gone(tmp_path, name)


def test_a_detached_one_goes_on_and_is_found(tmp_path: Path, busybox: Path) -> None:
    process, name = begin(tmp_path, busybox, "yes")
    assert end(process, signal.SIGKILL) == -signal.SIGKILL
    state = tmp_path / "state"

    (info,) = Sandbox.list(state=state)
    assert (info.sandbox_id, info.detached, info.status) == (name, True, "running")
    with Sandbox.connect(name, state=state) as sandbox:
        assert sandbox.commands.run("echo here").stdout == "here\n"
    assert Sandbox.connect(name, state=state).is_running()
    wait_until_idle(sandbox)  # the command has ended with its connection
    assert sandbox.kill()
    assert not sandbox.kill()
    wait_until_gone(tmp_path, name)
    with pytest.raises(SandboxNotFound):
        Sandbox.connect(name, state=state)
    with pytest.raises(SandboxNotFound, match=f'^container "{name}" does not exist$'):
        sandbox.resume()


def test_a_detached_one_that_nobody_knows_of_ends(
    tmp_path: Path, busybox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Keeper._order

    def interrupted(*given: Any) -> None:
        order(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "_order", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, busybox, detach=True, sandbox_id="nobodys")
    assert noted(tmp_path) == []
    wait_until_gone(tmp_path, "nobodys")


def test_another_process_may_end_it(tmp_path: Path, busybox: Path) -> None:
    process, name = begin(tmp_path, busybox, "no")
    assert Sandbox.connect(name, state=tmp_path / "state").kill()
    wait_until_gone(tmp_path, name)
    end(process)


@pytest.mark.parametrize("detach", [False, True])
def test_its_time_ends_it(tmp_path: Path, busybox: Path, detach: bool) -> None:
    sandbox = made(tmp_path, busybox, timeout=1, detach=detach)
    for command in ("sleep 1000", "true"):  # which may begin too late
        with pytest.raises(SandboxEnded):
            sandbox.commands.run(command)
    while sandbox.is_running():  # who stands for it on the host ends a moment later
        time.sleep(0.01)
    sandbox.kill()
    wait_until_gone(tmp_path, sandbox.sandbox_id)


def test_its_time_can_be_changed(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox, timeout=1000) as sandbox:
        before = sandbox.info().expires_in
        assert before is not None and 900 < before <= 1000
        sandbox.set_timeout(None)
        assert sandbox.info().expires_in is None
        sandbox.set_timeout(0.2)
        with pytest.raises(SandboxEnded):
            sandbox.commands.run("sleep 1000")
        with pytest.raises(ValueError, match="timeout"):
            sandbox.set_timeout(0)


def test_a_paused_one_stands_still(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox) as sandbox:
        handle = sandbox.commands.run("while :; do echo x; sleep 0.01; done", background=True)
        stream = iter(handle.stdout)
        next(stream)
        sandbox.pause()
        assert sandbox.info().status == "paused"
        with pytest.raises(SandboxError, match="is paused"):
            sandbox.pause()
        before = sandbox.stats()
        time.sleep(0.2)
        assert sandbox.stats().user == before.user
        sandbox.resume()
        while not next(stream):
            pass
        handle.kill()
        assert handle.wait().exit_code == 137


def test_what_keeps_it_may_be_killed(tmp_path: Path, busybox: Path) -> None:
    sandbox = made(tmp_path, busybox)
    handle = sandbox.commands.run("sleep 1000", background=True)
    keeper = sandbox._keeper
    assert keeper is not None
    os.kill(keeper._process.pid, signal.SIGKILL)

    with pytest.raises(SandboxEnded):
        handle.wait()
    wait_until_gone(tmp_path, sandbox.sandbox_id)
    assert not sandbox.kill()


def test_a_maker_that_is_interrupted_while_it_waits_ends_it(tmp_path: Path, busybox: Path) -> None:
    words = [sys.executable, "-c", WAITING, str(busybox), str(tmp_path / "state"), FLAGS[0]]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=REPOSITORY) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "waits\n"
        maker.send_signal(signal.SIGINT)
        said, errors = maker.communicate(timeout=TIMEOUT_S)

    name, ended = said.split()
    assert ended == "gone" and errors == ""
    wait_until_gone(tmp_path, name)


def test_two_objects_may_stand_for_one_sandbox(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox) as sandbox:
        other = Sandbox.connect(sandbox.sandbox_id, state=tmp_path / "state")
        with pytest.raises(TimeLimitExceeded):
            other.commands.run("sleep 1000", timeout=0.2)
        assert [info.sandbox_id for info in Sandbox.list(state=tmp_path / "state")] == [
            sandbox.sandbox_id
        ]
        assert noted(tmp_path) == [sandbox.sandbox_id]


def test_copies_in_a_forked_child_neither_end_nor_hold_it(tmp_path: Path, busybox: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(busybox), str(tmp_path / "state"), FLAGS[0]]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, timeout=TIMEOUT_S, check=True
    )

    assert done.stdout == "3\n"
    assert noted(tmp_path) == []
