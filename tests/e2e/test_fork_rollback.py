"""A sandbox, or a fork of it, goes on from a template of it, in its own place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc import Sandbox, SandboxError, cli
from runsc.api import states
from runsc.errors import RuntimeFailure
from runsc.fs import Device, MemoryFileSystem, OpenDevice, ProcFile
from runsc.launch.forking import Origin, Supply
from runsc.launch.succession import roll_back
from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, Bundle, execute, kvm_is_usable
from tests.e2e.sandboxes import (
    ANSWERS,
    made,
    noted,
    said,
    wait_until_gone,
    wait_until_idle,
    wait_until_stopped,
)
from tests.e2e.test_wait import WAIT

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]


@pytest.fixture
def sandbox(tmp_path: Path, busybox: Path) -> Iterator[Sandbox]:
    with made(tmp_path, busybox, forkable=True) as found:
        yield found
    assert noted(tmp_path) == []


def test_a_sandbox_goes_back_to_its_template_again_and_again(sandbox: Sandbox) -> None:
    said(sandbox, "echo before > /file; head -c 5000000 /dev/urandom > /kept")
    kept = said(sandbox, "md5sum < /kept")
    (other,) = sandbox.fork()
    template = sandbox.create_template()
    for _ in range(3):
        said(sandbox, "echo after > /file; rm /kept; touch /more; (sleep 1000 > /dev/null &)")
        sandbox.rollback(template)
        assert said(sandbox, "cat /file; md5sum < /kept; ls / | grep -c more || true") == (
            f"before\n{kept}\n0"
        )
        wait_until_idle(sandbox)
    said(sandbox, "echo later > /file")
    later = sandbox.create_template()
    sandbox.rollback(template)
    assert said(sandbox, "cat /file") == "before"
    sandbox.rollback(later)
    assert said(sandbox, "cat /file") == "later"
    template.kill()
    assert said(sandbox, "cat /file; md5sum < /kept") == f"later\n{kept}"
    (fork,) = sandbox.fork()
    assert [said(each, "cat /file") for each in (fork, other)] == ["later", "before"]


def test_its_forks_go_back_too(sandbox: Sandbox) -> None:
    (fork,) = sandbox.fork(forkable=True)
    said(fork, "echo before > /file")
    template = fork.create_template()
    for _ in range(3):
        said(fork, "echo after > /file")
        fork.rollback(template)
        assert said(fork, "cat /file") == "before"
    with pytest.raises(SandboxError, match="is no template of"):
        sandbox.rollback(template)
    assert fork.kill()
    assert said(sandbox, "ls / | grep -c file || true") == "0"
    with pytest.raises(SandboxError):
        template.fork()


def test_who_goes_back_stays_who_it_is(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox, forkable=True, timeout=600) as sandbox:
        with sandbox.commands.run(ANSWERS, background=True) as handle:
            handle.send_stdin("one\n")
            assert next(handle.stdout.lines()) == "1 one"
            template = sandbox.create_template()
            handle.send_stdin("two\n")
            assert next(handle.stdout.lines()) == "2 two"
            before = sandbox.info()
            sandbox.rollback(template)
            with pytest.raises(SandboxError):
                handle.wait()
        after = sandbox.info()
        assert (after.sandbox_id, after.status, after.created) == (
            before.sandbox_id, "running", before.created
        )  # fmt: skip
        assert after.expires_in is not None and 0 < after.expires_in <= before.expires_in
        with sandbox.commands.connect(handle.pid) as command:
            command.send_stdin("three\n")
            assert next(command.stdout.lines()) == "2 three"
        sandbox.pause()
        sandbox.rollback(template)
        assert sandbox.info().status == "running"
        with pytest.raises(SandboxError, match="stands still"):
            Sandbox.connect(template.sandbox_id, state=tmp_path / "state").resume()
    wait_until_gone(tmp_path, sandbox.sandbox_id)


def test_without_a_way_back_it_goes_on(tmp_path: Path, sandbox: Sandbox) -> None:
    (fork,) = sandbox.fork(forkable=True)
    for each in (sandbox, fork):
        template = each.create_template()
        found = states.load(str(tmp_path / "state"), template.sandbox_id)
        os.kill(found.sentry_pid, signal.SIGKILL)
        with pytest.raises(SandboxError):
            each.rollback(template)
        assert said(each, "echo here") == "here"


def test_a_command_that_was_killed_on_the_way_back_hinders_nobody(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    template = sandbox.create_template()
    (tmp_path / "state" / sandbox.sandbox_id / "next.sock").touch()
    sandbox.rollback(template)
    assert said(sandbox, "echo here") == "here"


class NoMemory(Supply):
    """Files that nobody can map."""

    def take(self, count: int, size: int) -> list[int]:
        return [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(count)]


HUGE = 2 << 20
"""Bytes: what files on a tmpfs of huge pages have for st_blksize."""


def has_huge_pages(sandbox: Sandbox, state: Path) -> bool:
    """Whether the memory of its programs is a file of such."""
    numbers = Path(f"/proc/{states.load(str(state), sandbox.sandbox_id).sentry_pid}/fd")
    return any(os.stat(each).st_blksize == HUGE for each in numbers.iterdir())


def test_who_goes_back_has_huge_pages_as_before(tmp_path: Path, sandbox: Sandbox) -> None:
    (fork,) = sandbox.fork(forkable=True)
    fork.rollback(fork.create_template())
    state = tmp_path / "state"
    assert has_huge_pages(fork, state) == has_huge_pages(sandbox, state)


def test_who_cannot_be_made_takes_no_place(tmp_path: Path, sandbox: Sandbox) -> None:
    """The sandbox gives way to one that has a machine."""
    flags = cli.global_flags([f"--root={tmp_path / 'state'}"])
    (fork,) = sandbox.fork(forkable=True)
    for each in (sandbox, fork):
        template = each.create_template()
        said(each, "echo after > /file")
        origin = Origin(flags, template.sandbox_id)
        with pytest.raises(RuntimeFailure, match="the fork failed"):
            roll_back(flags.store(), each.sandbox_id, origin, NoMemory())
        assert said(each, "cat /file") == "after"
        each.rollback(template)
        assert said(each, "ls / | grep -c file || true") == "0"


def test_others_may_have_a_fork_go_back(tmp_path: Path, sandbox: Sandbox) -> None:
    """Who keeps it keeps the process that it is then."""
    (fork,) = sandbox.fork(forkable=True)
    said(fork, "echo before > /file")
    template = fork.create_template()
    words = [*RUNSC, f"--root={tmp_path}/state", "rollback", fork.sandbox_id, template.sandbox_id]
    for _ in range(3):
        said(fork, "echo after > /file")
        done = execute(words)
        assert done.returncode == 0, done.stderr
        assert sandbox.fork()[0].kill()  # who keeps it has seen that
        assert said(fork, "cat /file") == "before"
    assert fork.kill()
    assert fork.sandbox_id not in noted(tmp_path)
    wait_until_stopped(fork)


class Text(ProcFile):
    def show(self) -> str:
        return "text\n"


class Nothing(Device):
    def open(self, flags: int) -> OpenDevice:
        return OpenDevice()


USES = "cat /proc/served; cat /data/file; exec 3<>/dev/some"


def test_what_is_served_now_is_served_when_it_has_gone_back(sandbox: Sandbox) -> None:
    files = MemoryFileSystem({"/file": b"old\n"})
    sandbox.mount("/data", files)
    sandbox.add_device("/dev/some", Nothing())
    template = sandbox.create_template()
    sandbox.add_proc_file("served", Text())
    (fork,) = sandbox.fork(forkable=True)
    with pytest.raises(SandboxError, match="is no template of"):
        sandbox.rollback(fork.create_template())
    assert said(sandbox, USES) == "text\nold"
    said(sandbox, "echo new > /data/file; rm /dev/some")
    for _ in range(2):
        sandbox.rollback(template)
        assert said(sandbox, USES) == "text\nnew"  # what this process has does not go back
        assert said(sandbox, "grep -c ' /data ' /proc/mounts") == "1"
    sandbox.unmount("/data")
    sandbox.rollback(template)
    assert "Input/output error" in sandbox.commands.run("cat /data/file").stderr


class Sleeps(ProcFile):
    """Whoever reads it waits."""

    def __init__(self) -> None:
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()

    def show(self) -> str:
        self.is_asked.set()
        self.may_go_on.wait()
        return ""


def test_a_method_that_does_not_return_is_said_and_the_others_are_served(
    sandbox: Sandbox,
) -> None:
    sleeps, template = Sleeps(), sandbox.create_template()
    sandbox.add_proc_file("sleeps", sleeps, timeout=8)
    sandbox.add_proc_file("served", Text())
    handle = sandbox.commands.run("cat /proc/sleeps", background=True)
    sleeps.is_asked.wait()
    with pytest.raises(SandboxError, match=r"sleeps: a method .* does not return"):
        sandbox.rollback(template)
    assert said(sandbox, "cat /proc/served; ls /proc | grep -c sleeps || true") == "text\n0"
    sleeps.may_go_on.set()
    sandbox.rollback(template)
    assert said(sandbox, "ls /proc/sleeps") == "/proc/sleeps"
    handle.close()


DENIES = """
from runsc.policy import on, DENY

@on("openat", path="/note")
def reads(event):
    return DENY
"""


def test_policy_and_faults_are_those_of_now(sandbox: Sandbox) -> None:
    note = "cat /note; cat /etc/hosts /etc/hosts > /dev/null"
    sandbox.files.write("/note", "text")
    sandbox.files.write("/etc/hosts", "")
    plain = sandbox.create_template()
    sandbox.policy.load(DENIES)
    sandbox.inject("openat: errno=EIO, path=/etc/hosts, after=1, count=1")
    failed = sandbox.commands.run(note).stderr.splitlines()
    assert len(failed) == 2 and "not permitted" in failed[0] and "Input/output" in failed[1]
    sandbox.rollback(plain)
    (state,) = sandbox.faults()
    assert (state.fitted, state.injected) == (2, 1)
    assert sandbox.commands.run(note).stderr.splitlines() == failed[:1]  # it has come, once
    judged = sandbox.create_template()
    sandbox.policy.load(None)
    sandbox.inject()
    sandbox.rollback(judged)
    assert (sandbox.commands.run(note).stderr, sandbox.faults()) == ("", [])
    (fork,) = judged.fork()  # that is what it was then
    assert fork.commands.run(note).stderr.splitlines() == failed[:1]


def test_it_may_end_after_it_went_back(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox, forkable=True) as sandbox:
        template = sandbox.create_template()
        sandbox.rollback(template)
        sandbox.rollback(template)
        with pytest.raises(SandboxError):
            sandbox.commands.run("kill -9 1; sleep 1000")
        wait_until_stopped(sandbox)
        with pytest.raises(SandboxError):
            sandbox.rollback(template)
    wait_until_gone(tmp_path, sandbox.sandbox_id)


def test_programs_that_run_are_held_while_it_goes_back(sandbox: Sandbox) -> None:
    counts = "i=0; while :; do i=$((i+1)); echo $i > /count; cat /count > /dev/null; done"
    handle = sandbox.commands.run(counts, background=True)
    said(sandbox, "while [ ! -s /count ]; do :; done")
    template = sandbox.create_template()
    grows = "a=$(cat /count); while b=$(cat /count); [ ${b:-0} -le ${a:-0} ]; do :; done"
    for _ in range(3):
        sandbox.rollback(template)
        said(sandbox, grows)
    handle.close()


def test_the_command_line_goes_back(tmp_path: Path, busybox: Path) -> None:
    """Who has started the container has its streams, its signals and its end all the time."""
    reads = "(while read -r line; do echo $line $((n=n+1)); done; exit 7) <&3 &"
    waits = "while :; do wait $!; code=$?; [ $code -gt 128 ] || exit $code; done"
    reads = f"exec 3<&0; trap 'echo told' USR1; {reads} {waits}"
    bundle = Bundle(tmp_path / "bundle", busybox).args("sh", "-c", reads)
    flags = (f"--root={tmp_path}/state", "--overlay2=root:memory", "--network=none")

    def runsc(*words: str) -> str:
        done = execute([*RUNSC, *flags, *words])
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = [*RUNSC, *flags, "run", "--forkable", f"--bundle={bundle.write()}", "warm"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY) as process:
        assert process.stdin is not None and process.stdout is not None

        def answer(line: str) -> str:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert answer("one") == "one 1"
        runsc("fork", "--template", "warm", "before")
        assert answer("two") == "two 2"
        waiting = subprocess.Popen(
            [*RUNSC, *flags, "wait", "warm"], stdout=pipe, text=True, cwd=REPOSITORY
        )
        while not json.loads(runsc("debug", "--counts", "warm")).get(WAIT):
            pass
        for word in ("three", "four"):
            runsc("rollback", "warm", "before")
            assert answer(word) == f"{word} 2"
            assert answer("more") == "more 3"
            process.send_signal(signal.SIGUSR1)
            assert process.stdout.readline() == "told\n"
        refused = execute([*RUNSC, *flags, "rollback", "before", "warm"])
        assert refused.returncode == 1 and "is no template of" in refused.stderr
        runsc("delete", "--force", "before")
        process.stdin.close()
        assert process.wait(TIMEOUT_S) == 7
    with waiting:
        assert json.loads(waiting.communicate(timeout=TIMEOUT_S)[0])["exitStatus"] == 7
    assert runsc("list", "--quiet") == ""
