"""A fork takes on what another process has; what it cannot take is said."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from runsc import host
from runsc.zygote.traits import Process, Traits, Unlike, admit, take_on
from sentry.abi import capability, prctl, sched

SECBIT_NOROOT, SECBIT_NOROOT_LOCKED = 1, 2
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


@contextmanager
def caller(change: Callable[[], object]) -> Iterator[Process]:
    """A process that has made some change to itself."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            change()
            os.write(writer, b"+")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    said = os.read(reader, 1)
    os.close(reader)
    found = Process(pid)
    try:
        assert said == b"+"
        yield found
    finally:
        found.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def taken(of: Process) -> str:
    """What a fork says that tried; "" if it is alike then."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        said, own = "it failed", Process(os.getpid())
        try:
            wanted = of.traits()
            take_on(of)
            seen = msgspec.structs.replace(own.traits(), cgroup=wanted.cgroup)
            said = "" if seen == wanted else "it is not alike"
        except Unlike as reason:
            said = f"unlike: {reason}"
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def test_a_process_is_like_itself() -> None:
    with caller(lambda: None) as found:
        assert taken(found) == ""


def limits() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 2000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def priorities() -> None:
    os.nice(3)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    host.set_io_priority(3 << 13)
    Path("/proc/self/oom_score_adj").write_text("500")


def signals() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def places() -> None:
    os.umask(0o027)
    os.chdir("/usr")


@pytest.mark.parametrize("change", [limits, priorities, signals, places])
def test_what_an_ordinary_process_has_is_taken(change: Callable[[], None]) -> None:
    with caller(change) as found:
        assert taken(found) == ""


def namespaces() -> None:
    host.unshare(
        sched.CLONE_NEWNS | sched.CLONE_NEWNET | sched.CLONE_NEWUTS | sched.CLONE_NEWIPC
        | sched.CLONE_NEWCGROUP
    )  # fmt: skip
    os.chdir("/usr")


def new_root() -> None:
    os.chroot("/usr")
    os.chdir("/bin")


def more_rights() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, -7)
    os.setgroups([4, 20])


def fewer_rights() -> None:
    kept = (capability.CAP_SYS_ADMIN, capability.CAP_CHOWN)
    for number in set(range(capability.CAP_LAST_CAP + 1)) - set(kept):
        host.prctl(prctl.PR_CAPBSET_DROP, number)
    mask = sum(1 << number for number in kept)
    host.capset(1 << capability.CAP_CHOWN, mask, 1 << capability.CAP_CHOWN)


@root_only
@pytest.mark.parametrize("change", [namespaces, new_root, more_rights, fewer_rights])
def test_what_root_may_have_is_taken(change: Callable[[], None]) -> None:
    with caller(change) as found:
        assert taken(found) == ""


@root_only
def test_a_cgroup_is_taken(cgroup_v2: Path) -> None:
    with caller(lambda: cgroup_v2.joinpath("cgroup.procs").write_text("0")) as found:
        assert taken(found) == ""
        pids = cgroup_v2.joinpath("cgroup.procs").read_text().split()
        assert pids == [str(found.pid)]


@pytest.fixture
def cgroup_v2() -> Iterator[Path]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    if not found:
        pytest.skip("no cgroup2 here")
    made = found[0] / f"runsc-test-{os.getpid()}"
    made.mkdir()
    yield made
    made.rmdir()


def no_new_privs() -> None:
    host.prctl(prctl.PR_SET_NO_NEW_PRIVS, 1)


def other_users() -> None:
    host.unshare(sched.CLONE_NEWUSER)


def other_pids() -> None:
    host.unshare(sched.CLONE_NEWPID)


def filtered() -> None:
    no_new_privs()
    host.install_filter(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000), 0)  # ret ALLOW


def traced() -> None:
    ctypes.CDLL(None).ptrace(0, 0, None, None)  # PTRACE_TRACEME


@pytest.mark.parametrize("change", [no_new_privs, other_users, other_pids, filtered, traced])
def test_what_confines_the_caller_is_no_way_out_of_it(change: Callable[[], None]) -> None:
    with caller(change) as found:
        assert taken(found).startswith("unlike: ")


def root_in_name() -> None:
    host.prctl(prctl.PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED)
    host.capset(1 << capability.CAP_CHOWN, 1 << capability.CAP_CHOWN)


@root_only
def test_who_gets_no_rights_by_executing_a_program_is_not_served() -> None:
    with caller(root_in_name) as found:
        assert taken(found).startswith("unlike: ")


def test_the_name_of_a_process_says_nothing_about_its_parent() -> None:
    with caller(lambda: Path("/proc/self/comm").write_text("PPid:\t1")) as found:
        assert found.parent == os.getpid()


@pytest.mark.parametrize("change", [filtered, other_users])
def test_of_who_is_confined_nothing_is_read(change: Callable[[], None]) -> None:
    with caller(change) as found, pytest.raises(Unlike):
        admit(found)


@root_only
def test_an_ordinary_user_cannot_be_what_root_is() -> None:
    with caller(lambda: None) as found:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(65534, 65534, 65534)
                take_on(found)
            except Unlike:
                os.write(writer, b"unlike")
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            assert file.read() == "unlike"
        os.waitpid(pid, 0)


def test_a_process_that_has_ended_shows_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    found = Process(process.pid)
    process.wait()

    assert found.has_ended
    with pytest.raises((OSError, KeyError)):
        found.traits()
    found.close()


def test_every_trait_is_looked_at() -> None:
    own = Process(os.getpid())
    assert own.parent == os.getppid()
    assert isinstance(own.traits(), Traits)
    own.close()
