"""What the processes of a sandbox can do on the host, tried from inside and seen from outside."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from gofer.shared import POOL_THREADS
from kvm.binding import lib as kvm
from sentry.abi import ioctl, mman, sched, unistd
from tests.e2e import processes

FORK = 17
PATH = "buffer"
FORBIDDEN_TO_BOTH = {
    "open": f"{unistd.open} {PATH} 0",
    "socket": f"{unistd.socket} 2 1 0",
    "execve": f"{unistd.execve} {PATH} 0 0",
    "execveat": f"{unistd.execveat} 0 {PATH} 0 0 0",
    "fork": f"{unistd.fork}",
    "vfork": f"{unistd.vfork}",
    "clone of a process": f"{unistd.clone} {FORK} 0 0 0 0",
    "clone into a user namespace": f"{unistd.clone} {FORK | sched.CLONE_NEWUSER} 0 0 0 0",
    "unshare": f"{unistd.unshare} {sched.CLONE_NEWUSER}",
    "setns": f"{unistd.setns} 3 0",
    "mount": f"{unistd.mount} {PATH} {PATH} {PATH} 0 0",
    "move_mount": f"{unistd.move_mount} 0 {PATH} 0 {PATH} 0",
    "pivot_root": f"{unistd.pivot_root} {PATH} {PATH}",
    "chroot": f"{unistd.chroot} {PATH}",
    "ptrace": f"{unistd.ptrace} 0 0 0 0",
    "process_vm_readv": f"{unistd.process_vm_readv} 1 0 0 0 0 0",
    "kill": f"{unistd.kill} 1 0",
    "writable and executable memory": f"{unistd.mmap} 0 4096 {mman.PROT_EXEC | 3} 0x22 -1 0",
    "making memory executable": f"{unistd.mprotect} 0x10000 4096 {mman.PROT_EXEC}",
    "pkey_mprotect": f"{unistd.pkey_mprotect} 0x10000 4096 1 0",
    "bpf": f"{unistd.bpf} 0 0 0",
    "io_uring": f"{unistd.io_uring_setup} 8 0",
    "userfaultfd": f"{unistd.userfaultfd} 0",
    "keyctl": f"{unistd.keyctl} 0 0 0 0 0",
    "perf_event_open": f"{unistd.perf_event_open} 0 0 0 0 0",
    "init_module": f"{unistd.init_module} 0 0 0",
    "prctl": f"{unistd.prctl} 38 0 0 0 0",
    "seccomp": f"{unistd.seccomp} 0 0 0",
    "personality": f"{unistd.personality} 0",
    "setuid": f"{unistd.setuid} 0",
    "x32 getpid": f"{0x40000000 + unistd.getpid}",
    "TIOCSTI": f"{unistd.ioctl} 0 {ioctl.TIOCSTI} {PATH}",
}
FORBIDDEN_TO_SENTRY = {
    **FORBIDDEN_TO_BOTH,
    "openat": f"{unistd.openat} -100 {PATH} 0",
    "openat2": f"{unistd.openat2} -100 {PATH} 0 0",
    "creat": f"{unistd.creat} {PATH} 0",
    "newfstatat by name": f"{unistd.newfstatat} -100 {PATH} {PATH} 0",
    "connect": f"{unistd.connect} 3 {PATH} 16",
    "tgkill of another process": f"{unistd.tgkill} 2 2 0",
    "F_SETFL": f"{unistd.fcntl} 0 4 0",
    "KVM_CREATE_VM": f"{unistd.ioctl} 0 {kvm.KVM_CREATE_VM} 0",
    "memfd_create": f"{unistd.memfd_create} {PATH} 0",
    "clone3": f"{unistd.clone3} {PATH} 88",
    "clone of a thread": f"{unistd.clone} 0x3d0f00 0 0 0 0",
}


@pytest.mark.parametrize("name", FORBIDDEN_TO_SENTRY)
def test_forbidden_call_in_the_sentry_kills_it(tmp_path: Path, name: str) -> None:
    result = processes.run(tmp_path, f"call {FORBIDDEN_TO_SENTRY[name]}")

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        "the sandbox process was killed by signal 31 (a system call that its filter forbids)\n"
    )


@pytest.mark.parametrize("name", FORBIDDEN_TO_BOTH)
def test_forbidden_call_in_the_gofer_kills_it(tmp_path: Path, name: str) -> None:
    result = processes.run(tmp_path, "wait", f"call {FORBIDDEN_TO_BOTH[name]}")

    assert result.returncode == 1
    assert "the gofer process was killed by signal 31" in result.stderr


def test_clone3_in_the_gofer_is_answered_with_enosys(tmp_path: Path) -> None:
    running = processes.start(tmp_path, "wait", f"call {unistd.clone3} buffer 88")
    assert running.cli.stderr is not None
    answer = running.cli.stderr.readline()
    running.cli.kill()
    running.cli.communicate()

    assert answer == "-> errno 38\n"


def test_traceback_in_the_sentry_opens_no_file(tmp_path: Path) -> None:
    result = processes.run(tmp_path, "raise")

    assert (result.returncode, result.stdout) == (0, "printed\n")
    assert "ValueError: seen" in result.stderr


def test_late_import_in_the_sentry_is_an_import_error(tmp_path: Path) -> None:
    result = processes.run(tmp_path, "late-import")

    assert (result.returncode, result.stdout) == (0, "ImportError\n")


@pytest.fixture
def running(tmp_path: Path) -> processes.Running:
    made = processes.start(tmp_path)
    yield made
    made.cli.kill()
    made.cli.communicate()


@pytest.mark.parametrize("role", ["sentry", "gofer"])
def test_status_seen_from_outside_shows_no_rights(running: processes.Running, role: str) -> None:
    status = running.status(getattr(running, role))

    kept = 0 if role == "sentry" else 1 << 1 | 1 << 2
    rights = {name: int(status[name], 16) for name in ("CapInh", "CapAmb", "CapBnd", "CapEff")}
    assert rights == {"CapInh": 0, "CapAmb": 0, "CapBnd": kept, "CapEff": kept}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["NSpid"].split()[-1] == "1"
    if os.geteuid() == 0:
        user = "65534" if role == "sentry" else "0"
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {user}
        assert status["Groups"].split() == [] or role == "gofer"


@pytest.mark.parametrize("role", ["sentry", "gofer"])
def test_namespaces_are_of_its_own(running: processes.Running, role: str) -> None:
    pid = getattr(running, role)
    other = running.gofer if role == "sentry" else running.sentry

    for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup"):
        own = os.readlink(f"/proc/{pid}/ns/{kind}")
        assert own != os.readlink(f"/proc/self/ns/{kind}")
        assert own != os.readlink(f"/proc/{other}/ns/{kind}")


@pytest.mark.parametrize("role", ["sentry", "gofer"])
def test_root_is_empty_and_read_only(running: processes.Running, role: str) -> None:
    pid = getattr(running, role)

    assert os.listdir(f"/proc/{pid}/root") == []
    mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    assert len(mounts) == 1
    assert re.search(r" / / ro,nosuid,nodev,noexec\S* - tmpfs runsc-empty ro,", mounts[0])


def test_descriptors_of_the_sentry_are_the_listed_ones(running: processes.Running) -> None:
    folder = Path(f"/proc/{running.sentry}/fd")
    targets = {int(entry.name): os.readlink(entry) for entry in folder.iterdir()}

    kinds = Counter(re.sub(r":.*| .*|\d+|^/dev", "", target) for target in targets.values())
    assert kinds.pop("/kvm", 1) == 1
    # 0 and 1 and the caller's input; the log twice and the caller's output and error;
    # 9P, control, its listener, the stand-in; RAM; how much memory it takes, what of it has changed
    assert kinds == {"/null": 3, "pipe": 4, "socket": 4, "/#": 1, "//statm": 1, "//pagemap": 1}
    assert not any(os.path.isdir(folder / str(fd)) for fd in targets)


def test_descriptors_of_the_gofer_are_its_socket_its_log_and_its_trees(
    running: processes.Running,
) -> None:
    folder = Path(f"/proc/{running.gofer}/fd")
    targets = [os.readlink(entry) for entry in folder.iterdir()]

    assert sum(target.startswith("socket:") for target in targets) == 1
    assert sum(target == "/" for target in targets) == 1
    assert not any("kvm" in target for target in targets)


def test_memory_of_the_sandbox_cannot_be_dumped(running: processes.Running) -> None:
    for pid in (running.sentry, running.gofer):
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0
        limits = _limits(pid)
        assert limits["Max core file size"] == limits["Max locked memory"] == ("0", "0")


def test_sentry_can_make_no_thread_and_the_gofer_those_of_its_pool(
    running: processes.Running,
) -> None:
    name = "Max processes"
    assert _limits(running.sentry)[name] == ("0", "0")
    if os.geteuid():  # Linux does not bound root
        most = str(1 + POOL_THREADS)
        assert _limits(running.gofer)[name] == (most, most)


def _limits(pid: int) -> dict[str, tuple[str, str]]:
    """Soft and hard limits by their names."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines}
