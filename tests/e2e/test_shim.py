"""containerd's shim, driven over its socket as containerd does it."""

from __future__ import annotations

import json
import os
import select
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runsc.shim import messages as m
from runsc.shim import ttrpc
from runsc.shim.messages import TaskStatus
from runsc.shim.ttrpc import Code
from sentry.protobuf import decode, encode
from tests.e2e.bundle import OVERFLOW, Bundle, kvm_is_usable
from tests.e2e.processes import cgroups
from tests.e2e.shim_client import SANDBOX, Failed, Shim

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a containerd"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
LOOP = "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"
PATIENCE_S = 60


class Pipe:
    """A named pipe as containerd makes it, and its end of it."""

    def __init__(self, path: Path, *, reads: bool = True) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if reads else -1
        self.data = b""

    def until(self, text: bytes) -> bytes:
        """All that has come, up to where this has."""
        while text not in self.data:
            assert self._more(), self.data
        return self.data

    def to_end(self) -> bytes:
        """All that comes."""
        while self._more():
            continue
        return self.data

    def _more(self) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        assert poll.poll(PATIENCE_S * 1000), self.data
        more = os.read(self.fd, 1 << 16)
        self.data += more
        return bool(more)

    def write(self, data: bytes) -> None:
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_WRONLY)
        os.write(self.fd, data)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@pytest.fixture
def shim(tmp_path: Path, busybox: Path) -> Iterator[Shim]:
    made = Shim(tmp_path, busybox)
    yield made
    made.end()
    assert made.containers() == []


def _running(shim: Shim, *args: str, **named: Any) -> Bundle:
    bundle = shim.bundle("c", *args)
    shim.start(bundle, "c")
    shim.create(bundle, "c", **named)
    shim.ask("Start", m.Named("c"), m.Pid)
    return bundle


def test_a_container_from_create_to_shutdown_with_its_events(shim: Shim, tmp_path: Path) -> None:
    bundle = shim.bundle("c", "sh", "-c", "echo out; echo err >&2; exit 7")
    out, err = Pipe(tmp_path / "out"), Pipe(tmp_path / "err")

    said = shim.start(bundle, "c")
    pid = shim.create(bundle, "c", stdout=out.path, stderr=err.path)

    assert (bundle.path / "address").read_text() == said == shim.address
    assert stat.S_IMODE(os.stat(shim.address.removeprefix("unix://")).st_mode) == 0o600
    assert shim.state("c").status == TaskStatus.CREATED
    assert shim.ask("Start", m.Named("c"), m.Pid).pid == pid
    assert shim.wait("c") == 7
    assert (out.to_end(), err.to_end()) == (b"out\n", b"err\n")
    state = shim.state("c")
    assert (state.status, state.exit_status, state.pid) == (TaskStatus.STOPPED, 7, pid)
    deleted = shim.ask("Delete", m.Named("c"), m.Deleted)
    assert (deleted.exit_status, deleted.pid, deleted.exited_at) == (7, pid, state.exited_at)
    shim.receiver.until(m.TaskCreate, m.TaskStart, m.TaskExit, m.TaskDelete)
    assert shim.receiver.topics == [
        "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete",
    ]  # fmt: skip
    [ended] = shim.receiver.of(m.TaskExit)
    assert (ended.container_id, ended.id, ended.exit_status) == ("c", "c", 7)
    pidfd = os.pidfd_open(shim.pid)
    shim.do("Shutdown", m.Shutdown("c"))
    assert select.select([pidfd], [], [], PATIENCE_S)[0]
    assert not os.path.exists(shim.address.removeprefix("unix://"))


@pytest.mark.parametrize(
    ("script", "code"), [(OVERFLOW, 128 + signal.SIGSEGV), ("sleep 1000", 128 + signal.SIGKILL)]
)
def test_a_death_by_a_signal_is_128_and_its_number(shim: Shim, script: str, code: int) -> None:
    _running(shim, "sh", "-c", script)
    if code == 128 + signal.SIGKILL:
        shim.do("Kill", m.Kill("c", "", signal.SIGKILL))

    assert shim.wait("c") == code
    assert shim.state("c").exit_status == code


def test_exec_has_streams_a_state_and_an_end_of_its_own(shim: Shim, tmp_path: Path) -> None:
    _running(shim, "sh", "-c", LOOP)
    into = Pipe(tmp_path / "in", reads=False)
    out = Pipe(tmp_path / "out")

    shim.exec("c", "e", "sh", "-c", "cat; exit 3", stdin=into.path, stdout=out.path)
    assert shim.state("c", "e").status == TaskStatus.CREATED
    pid = shim.ask("Start", m.Named("c", "e"), m.Pid).pid
    into.write(b"typed\n")
    assert out.until(b"typed\n") == b"typed\n"
    state = shim.state("c", "e")
    assert (state.status, state.pid, state.exec_id) == (TaskStatus.RUNNING, pid, "e")
    into.close()
    shim.do("CloseIO", m.CloseIO("c", "e", True))

    assert shim.wait("c", "e") == 3
    assert out.to_end() == b"typed\n"
    assert shim.ask("Delete", m.Named("c", "e"), m.Deleted).exit_status == 3
    with pytest.raises(Failed) as caught:
        shim.state("c", "e")
    assert caught.value.code == Code.NOT_FOUND
    shim.receiver.until(m.TaskExecAdded, m.TaskExecStarted, m.TaskExit)


def test_input_that_is_closed_while_exec_starts_ends(shim: Shim, tmp_path: Path) -> None:
    _running(shim, "sh", "-c", LOOP)
    into, out = Pipe(tmp_path / "in", reads=False), Pipe(tmp_path / "out")
    shim.exec("c", "e", "cat", stdin=into.path, stdout=out.path)

    started = shim.send("Start", m.Named("c", "e"))
    shim.do("CloseIO", m.CloseIO("c", "e", True))
    into.write(b"all\n")
    into.close()

    shim.answer(started, m.Pid)
    assert shim.wait("c", "e") == 0
    assert out.to_end() == b"all\n"


def test_exec_with_a_terminal_that_is_resized(shim: Shim, tmp_path: Path) -> None:
    _running(shim, "sh", "-c", LOOP)
    into, out = Pipe(tmp_path / "in", reads=False), Pipe(tmp_path / "out")
    script = "trap 'stty size; exit' WINCH; tty; while :; do sleep 0.05; done"
    shim.exec("c", "e", "sh", "-c", script, stdin=into.path, stdout=out.path, terminal=True)

    shim.ask("Start", m.Named("c", "e"), m.Pid)
    assert out.until(b"\n").startswith(b"/dev/pts/")
    shim.do("ResizePty", m.ResizePty("c", "e", 100, 40))

    assert out.until(b"40 100\r\n")
    assert shim.wait("c", "e") == 0
    out.to_end()


def test_a_container_with_a_terminal(shim: Shim, tmp_path: Path) -> None:
    into, out = Pipe(tmp_path / "in", reads=False), Pipe(tmp_path / "out")
    bundle = shim.bundle("c", "sh", "-c", "read line; echo got $line; exit 4")
    bundle.document["process"]["terminal"] = True
    shim.start(bundle, "c")

    shim.create(bundle, "c", stdin=into.path, stdout=out.path, terminal=True)
    shim.ask("Start", m.Named("c"), m.Pid)
    into.write(b"hello\n")

    assert b"got hello\r\n" in out.until(b"got hello\r\n")
    assert shim.wait("c") == 4
    out.to_end()


def test_what_exec_leaves_behind_holds_up_nobody(shim: Shim, tmp_path: Path) -> None:
    _running(shim, "sh", "-c", LOOP)
    out = Pipe(tmp_path / "out")
    shim.exec("c", "e", "sh", "-c", "echo first; sleep 1000 & exit", stdout=out.path)
    shim.ask("Start", m.Named("c", "e"), m.Pid)

    assert shim.wait("c", "e") == 0
    shim.ask("Delete", m.Named("c", "e"), m.Deleted)

    assert out.to_end() == b"first\n"


def test_signals_reach_the_process_that_is_meant(shim: Shim, tmp_path: Path) -> None:
    out = Pipe(tmp_path / "out")
    _running(shim, "sh", "-c", LOOP, stdout=out.path)
    out.until(b"up")
    shim.exec("c", "e", "sh", "-c", LOOP)
    shim.ask("Start", m.Named("c", "e"), m.Pid)

    shim.do("Kill", m.Kill("c", "e", signal.SIGKILL))
    assert shim.wait("c", "e") == 128 + signal.SIGKILL
    assert shim.state("c").status == TaskStatus.RUNNING
    with pytest.raises(Failed) as caught:
        shim.do("Kill", m.Kill("c", "e", signal.SIGTERM))
    assert (caught.value.code, str(caught.value)) == (
        Code.NOT_FOUND, "process already finished",
    )  # fmt: skip
    shim.do("Kill", m.Kill("c", "", signal.SIGTERM))
    assert shim.wait("c") == 9


def test_the_end_of_a_container_is_told_after_that_of_its_execs(shim: Shim) -> None:
    _running(shim, "sh", "-c", LOOP)
    shim.exec("c", "e", "sleep", "1000")
    shim.ask("Start", m.Named("c", "e"), m.Pid)

    shim.do("Kill", m.Kill("c", "", signal.SIGKILL, all=True))

    shim.receiver.until(m.TaskExit, m.TaskExit)
    assert [each.id for each in shim.receiver.of(m.TaskExit)] == ["e", "c"]
    assert {each.exit_status for each in shim.receiver.of(m.TaskExit)} == {137}


def test_pause_and_resume(shim: Shim) -> None:
    _running(shim, "sh", "-c", LOOP)

    shim.do("Pause", m.Named("c"))
    assert shim.state("c").status == TaskStatus.PAUSED
    for method in ("Pause", "Delete"):
        with pytest.raises(Failed) as caught:
            shim.do(method, m.Named("c"))
        assert caught.value.code == Code.FAILED_PRECONDITION
    shim.do("Resume", m.Named("c"))

    assert shim.state("c").status == TaskStatus.RUNNING
    shim.receiver.until(m.TaskPaused, m.TaskResumed)


def test_a_checkpoint_is_what_another_container_begins_with(shim: Shim, tmp_path: Path) -> None:
    image = tmp_path / "image"
    script = "mkfifo /dev/asked; echo ready >/dev/shm/told; read line </dev/asked; exit $line"
    _running(shim, "sh", "-c", script)
    shim.exec("c", "e", "sh", "-c", "until [ -e /dev/shm/told ]; do sleep 0.01; done")
    shim.ask("Start", m.Named("c", "e"), m.Pid)
    assert shim.wait("c", "e") == 0

    ends = m.Any("containerd.runc.v1.CheckpointOptions", encode(m.CheckpointOptions(exit=True)))
    shim.do("Checkpoint", m.CheckpointTask("c", str(image), ends))
    assert shim.wait("c") == 137
    shim.do("Delete", m.Named("c"))

    bundle = shim.bundle("d", "sh", "-c", script)
    bundle.write()
    shim.create(bundle, "d", checkpoint=str(image))
    shim.ask("Start", m.Named("d"), m.Pid)
    shim.exec("d", "f", "sh", "-c", "echo 7 >/dev/asked")
    shim.ask("Start", m.Named("d", "f"), m.Pid)
    assert shim.wait("d") == 7


def test_a_paused_task_is_checkpointed_and_stays_paused(shim: Shim, tmp_path: Path) -> None:
    """So clients of containerd have it done."""
    _running(shim, "sh", "-c", LOOP)
    shim.do("Pause", m.Named("c"))

    shim.do("Checkpoint", m.CheckpointTask("c", str(tmp_path / "image")))

    assert shim.state("c").status == TaskStatus.PAUSED
    shim.do("Resume", m.Named("c"))
    shim.exec("c", "e", "true")
    shim.ask("Start", m.Named("c", "e"), m.Pid)
    assert shim.wait("c", "e") == 0


def test_stats_update_and_pids(shim: Shim) -> None:
    _running(shim, "sh", "-c", LOOP)
    shim.exec("c", "e", "sleep", "1000")
    pid = shim.ask("Start", m.Named("c", "e"), m.Pid).pid

    stats = shim.ask("Stats", m.Named("c"), m.Stats).stats
    shim.do("Update", m.Update("c", m.Any("", json.dumps({"pids": {"limit": 50}}).encode())))
    pids = shim.ask("Pids", m.Named("c"), m.Pids).processes

    assert stats is not None and stats.type_url.startswith("io.containerd.cgroups.v")
    assert stats.value
    assert [each.pid for each in pids] == [shim.state("c").pid, pid]
    assert pids[1].info is not None
    assert decode(m.ProcessDetails, pids[1].info.value).exec_id == "e"


def test_a_program_that_memory_runs_out_for_is_told_of(shim: Shim) -> None:
    take = """awk 'BEGIN { for (;;) a[i++] = sprintf("%100000s", "x") }'; sleep 1000"""
    bundle = shim.bundle("c", "sh", "-c", take)
    bundle.document["linux"]["resources"] = {"memory": {"limit": 96 << 20}}
    shim.start(bundle, "c")
    shim.create(bundle, "c")

    shim.ask("Start", m.Named("c"), m.Pid)

    shim.receiver.until(m.TaskStart, m.TaskOOM)


REFUSED = [
    ("Start", m.Named("none"), Code.NOT_FOUND),
    ("Start", m.Named("c"), Code.FAILED_PRECONDITION),
    ("Start", m.Named("c", "none"), Code.NOT_FOUND),
    ("Delete", m.Named("c"), Code.FAILED_PRECONDITION),
    ("Resume", m.Named("c"), Code.FAILED_PRECONDITION),
    ("Create", m.CreateTask("c"), Code.ALREADY_EXISTS),
    ("Create", m.CreateTask("x", options=m.Any("other", b"")), Code.INVALID_ARGUMENT),
    ("Checkpoint", m.CheckpointTask("none", "/x"), Code.NOT_FOUND),
    ("Exec", m.ExecProcess("c", ""), Code.INVALID_ARGUMENT),
    ("Exec", m.ExecProcess("c", "e"), Code.ALREADY_EXISTS),
    ("Exec", m.ExecProcess("none", "e"), Code.NOT_FOUND),
    ("Update", m.Update("c", m.Any("", b"{")), Code.INVALID_ARGUMENT),
]


def test_errors_have_the_codes_that_containerd_looks_for(shim: Shim) -> None:
    _running(shim, "sh", "-c", LOOP)
    shim.exec("c", "e", "true")

    found = []
    for method, request, _ in REFUSED:
        with pytest.raises(Failed) as caught:
            shim.do(method, request)
        found.append((method, request, caught.value.code))

    assert found == REFUSED


def test_a_container_that_cannot_be_made_leaves_nothing_and_can_be_made_then(shim: Shim) -> None:
    bundle = shim.bundle("c", "sh", "-c", "exit 5")
    bundle.document["root"]["path"] = "/nonexistent"
    shim.start(bundle, "c")
    with pytest.raises(Failed, match="nonexistent"):
        shim.create(bundle, "c")

    bundle.document["root"]["path"] = str(shim.rootfs)
    bundle.write()
    shim.create(bundle, "c")
    shim.ask("Start", m.Named("c"), m.Pid)

    assert shim.wait("c") == 5


def test_a_program_that_is_not_there_is_an_error_of_start_or_create(shim: Shim) -> None:
    bundle = shim.bundle("c", "nothing-of-this-name")
    shim.start(bundle, "c")

    with pytest.raises(Failed, match="not found"):
        shim.create(bundle, "c")
        shim.ask("Start", m.Named("c"), m.Pid)


def test_events_wait_for_a_receiver_that_is_away(shim: Shim) -> None:
    _running(shim, "sh", "-c", LOOP)
    shim.receiver.until(m.TaskStart)
    shim.receiver.close()

    shim.do("Pause", m.Named("c"))
    shim.do("Resume", m.Named("c"))
    shim.do("Kill", m.Kill("c", "", signal.SIGKILL))
    assert shim.wait("c") == 137
    shim.receiver.open()

    shim.receiver.until(m.TaskPaused, m.TaskResumed, m.TaskExit)


def test_malformed_frames_do_not_end_it(shim: Shim) -> None:
    _running(shim, "sh", "-c", LOOP)

    for stream, kind, data in ((1001, 1, b"\xff\xff"), (2, 1, b""), (1003, 9, b"x" * 99)):
        shim.raw(ttrpc.frame(stream, kind, data))
        with pytest.raises(Failed) as caught:
            shim.answer(stream, m.Empty)
        assert caught.value.code == Code.INVALID_ARGUMENT
    shim.raw(ttrpc.frame(1005, 1, bytes(ttrpc.MOST + 1)))
    with pytest.raises(Failed) as caught:
        shim.answer(1005, m.Empty)

    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    shim._stream = 2001
    assert shim.state("c").status == TaskStatus.RUNNING


def test_after_sigkill_delete_leaves_nothing(shim: Shim) -> None:
    bundle = _running(shim, "sh", "-c", LOOP)
    shim.exec("c", "e", "sleep", "1000")
    exec_pid = shim.ask("Start", m.Named("c", "e"), m.Pid).pid
    pidfds = [os.pidfd_open(pid) for pid in (shim.pid, shim.state("c").pid, exec_pid)]

    os.kill(shim.pid, signal.SIGKILL)
    done = shim.call(bundle.path, "-id", "c", "-bundle", str(bundle.path), "delete")

    assert done.returncode == 0, done.stderr
    assert decode(m.Deleted, done.stdout).exit_status == 137
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], PATIENCE_S)[0]
    assert not os.path.exists(shim.address.removeprefix("unix://"))


def test_of_a_worker_that_is_killed_while_it_makes_a_container_nothing_is_left(
    shim: Shim,
) -> None:
    bundle = shim.bundle("c", "true")
    bundle.document["linux"]["cgroupsPath"] = f"/runsc-killed-{os.getpid()}"
    bundle.document["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]
    }
    shim.start(bundle, "c")
    with pytest.raises(Failed) as caught:
        shim.create(bundle, "c")
    assert caught.value.code == Code.INTERNAL
    assert shim.containers() == []
    assert cgroups(f"runsc-killed-{os.getpid()}") == []

    del bundle.document["hooks"]
    bundle.write()
    shim.create(bundle, "c")
    shim.ask("Start", m.Named("c"), m.Pid)
    assert shim.wait("c") == 0
    shim.ask("Delete", m.Named("c"), m.Deleted)


def _pod(shim: Shim) -> list[Bundle]:
    """The bundles of a pod and of a container in it."""
    bundles = [shim.bundle(name, "sh", "-c", LOOP) for name in ("pod", "two")]
    for bundle, kind in zip(bundles, ("sandbox", "container"), strict=True):
        bundle.document["annotations"] = {
            "io.kubernetes.cri.sandbox-id": "pod",
            "io.kubernetes.cri.container-type": kind,
        }
    return bundles


def test_containers_of_a_pod_have_one_shim(shim: Shim) -> None:
    first, second = _pod(shim)

    one = shim.start(first, "pod")
    pid = shim.pid
    two = shim.start(second, "two")

    assert (one, pid) == (two, shim.pid)


def test_a_snapshot_goes_on_as_a_container_of_a_pod(shim: Shim, tmp_path: Path) -> None:
    """As CRI has it: paused, written, resumed; then with options that are containerd's own."""
    image = tmp_path / "image"
    script = "mkfifo /dev/asked; echo ready >/dev/shm/told; read line </dev/asked; exit $line"
    first, second = _pod(shim)
    second.args("sh", "-c", script)
    for bundle, name in ((first, "pod"), (second, "two")):
        shim.start(bundle, name)
        shim.create(bundle, name)
        shim.ask("Start", m.Named(name), m.Pid)
    shim.exec("two", "e", "sh", "-c", "until [ -e /dev/shm/told ]; do sleep 0.01; done")
    shim.ask("Start", m.Named("two", "e"), m.Pid)
    assert shim.wait("two", "e") == 0

    shim.do("Pause", m.Named("two"))
    shim.do("Checkpoint", m.CheckpointTask("two", str(image)))
    shim.do("Resume", m.Named("two"))
    shim.exec("two", "f", "sh", "-c", "echo 6 >/dev/asked")
    shim.ask("Start", m.Named("two", "f"), m.Pid)
    assert shim.wait("two") == 6
    shim.do("Delete", m.Named("two"))

    third = shim.bundle("three", "sh", "-c", script)
    third.document["annotations"] = second.document["annotations"]
    shim.start(third, "three")
    own = m.packed("containerd.runc.v1.Options", m.RuncOptions())
    shim.create(third, "three", checkpoint=str(image), options=own)
    shim.ask("Start", m.Named("three"), m.Pid)
    shim.exec("three", "g", "sh", "-c", "echo 7 >/dev/asked")
    shim.ask("Start", m.Named("three", "g"), m.Pid)
    assert shim.wait("three") == 7
    assert shim.state("pod").status == TaskStatus.RUNNING


def test_shim_of_a_pod_ends_with_its_last_container(shim: Shim) -> None:
    """containerd shuts it down once, after the pod's own: others may still be on their way out."""
    first, second = _pod(shim)
    for bundle, name in ((first, "pod"), (second, "two")):
        shim.start(bundle, name)
        shim.create(bundle, name)
        shim.ask("Start", m.Named(name), m.Pid)
    pidfd = os.pidfd_open(shim.pid)
    shim.do("Kill", m.Kill("pod", signal=signal.SIGKILL))
    assert (shim.wait("pod"), shim.wait("two")) == (137, 137)

    shim.ask("Delete", m.Named("pod"), m.Deleted)
    shim.do("Shutdown", m.Shutdown("pod"))
    assert shim.state("two").status == TaskStatus.STOPPED
    shim.ask("Delete", m.Named("two"), m.Deleted)

    assert select.select([pidfd], [], [], PATIENCE_S)[0]


def test_the_address_is_json_for_a_containerd_that_knows_version_3(shim: Shim) -> None:
    shim.settings["MAX_SHIM_VERSION"] = "3"

    said = shim.start(shim.bundle("c", "true"), "c")

    assert json.loads(said) == {"version": 3, "address": shim.address, "protocol": "ttrpc"}


def _is_mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def test_a_root_is_mounted_and_unmounted(shim: Shim, tmp_path: Path) -> None:
    bundle = shim.bundle("c", "sh", "-c", "cat /etc/passwd")
    bundle.document["root"] = {"path": "rootfs"}
    out = Pipe(tmp_path / "out")
    shim.start(bundle, "c")
    mount = m.Mount("bind", str(shim.rootfs), "", ["rbind", "ro"])

    shim.create(bundle, "c", rootfs=[mount], stdout=out.path)
    assert _is_mounted(bundle.path / "rootfs")
    shim.ask("Start", m.Named("c"), m.Pid)
    assert b"root" in out.to_end()
    shim.wait("c")
    shim.ask("Delete", m.Named("c"), m.Deleted)

    assert not _is_mounted(bundle.path / "rootfs")


def test_logs_of_a_file_and_of_a_program(shim: Shim, tmp_path: Path) -> None:
    logger = tmp_path / "logger"
    logger.write_text(
        '#!/bin/sh\nexec 5>&-\necho "$1=$2 $CONTAINER_ID $CONTAINER_NAMESPACE" >'
        f' "{tmp_path}/log"\ncat <&3 >> "{tmp_path}/log"\nmv "{tmp_path}/log" "{tmp_path}/all"\n'
    )
    logger.chmod(0o755)
    _running(shim, "sh", "-c", LOOP)
    shim.exec("c", "f", "sh", "-c", "echo a; echo b >&2", stdout=f"file://{tmp_path}/d/file")
    shim.exec("c", "b", "echo", "text", stdout=f"binary://{logger}?key=value")

    for name in ("f", "b"):
        shim.ask("Start", m.Named("c", name), m.Pid)
        assert shim.wait("c", name) == 0

    assert (tmp_path / "d" / "file").read_text() == "a\nb\n"
    while not (tmp_path / "all").exists():
        select.select([], [], [], 0.01)
    assert (tmp_path / "all").read_text() == "key=value c test\ntext\n"


def test_a_pod_of_the_sandbox_service(shim: Shim) -> None:
    bundle = shim.bundle("pod")
    bundle.document = {}
    shim.start(bundle, "pod")
    of = m.OfSandbox("pod")

    shim.ask("CreateSandbox", m.CreateSandbox("pod", str(bundle.path)), m.Empty, SANDBOX)
    pid = shim.ask("StartSandbox", of, m.SandboxStarted, SANDBOX).pid
    status = shim.ask("SandboxStatus", of, m.SandboxStatus, SANDBOX)
    assert (status.pid, status.state) == (pid, "SANDBOX_READY")
    shim.ask("PingSandbox", of, m.Empty, SANDBOX)
    platform = shim.ask("Platform", of, m.SandboxPlatform, SANDBOX).platform
    assert platform is not None and (platform.os, platform.architecture) == ("linux", "amd64")
    waiting = shim.send("WaitSandbox", of, SANDBOX)
    shim.ask("StopSandbox", of, m.Empty, SANDBOX)

    assert shim.answer(waiting, m.Exited).exit_status == 0
    assert shim.ask("SandboxStatus", of, m.SandboxStatus, SANDBOX).state == "SANDBOX_NOTREADY"
    shim.ask("ShutdownSandbox", of, m.Empty, SANDBOX)


def test_options_that_are_not_known_are_refused_by_name(shim: Shim) -> None:
    body = b'[runsc_config]\n  no-such-flag = "true"\n'
    shim.options = m.packed("runtimeoptions.v1.Options", m.RuntimeOptions(config_body=body))
    bundle = shim.bundle("c", "true")
    shim.start(bundle, "c")

    with pytest.raises(Failed, match="no-such-flag"):
        shim.create(bundle, "c")
    shim.options = m.packed(
        "runtimeoptions.v1.Options", m.RuntimeOptions(config_body=b'colour = "red"\n')
    )
    done = shim.call(bundle.path, "-id", "c", "start")

    assert done.returncode == 1
    assert b"colour is not known" in done.stderr
