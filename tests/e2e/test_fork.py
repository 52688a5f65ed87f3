"""Forks of a sandbox that runs: the same programs go on in each, by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from runsc import (
    AsyncSandbox,
    AsyncTemplate,
    CommandNotStarted,
    Sandbox,
    SandboxEnded,
    SandboxError,
    Template,
)
from runsc.api.blocking.forking import Forker
from runsc.api.order import ForkWish
from sentry.abi import unistd
from sentry.protobuf import decode
from sentry.watch.messages import Syscall
from tests.e2e.bundle import REPOSITORY, RUNSC, Bundle, execute, kvm_is_usable
from tests.e2e.listener import listening, session
from tests.e2e.sandboxes import (
    ANSWERS,
    FLAGS,
    made,
    noted,
    said,
    wait_until_gone,
    wait_until_idle,
    wait_until_stopped,
)
from tests.e2e.test_slow_files import needs_fuse, slow_folder

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
MAKER = """
import sys
import time
from runsc import Sandbox
root, state, flag = sys.argv[1:]
sandbox = Sandbox.create(root=root, state=state, forkable=True, flags=[flag])
forks = sandbox.fork(3)
print(sandbox.sandbox_id, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sandbox(tmp_path: Path, busybox: Path) -> Iterator[Sandbox]:
    with made(tmp_path, busybox, forkable=True) as found:
        yield found
    assert noted(tmp_path) == []


# --- what a fork is


def test_forks_that_nobody_knows_of_end(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_out = Forker._wish

    def interrupted(self: Forker, wish: ForkWish) -> None:
        carried_out(self, wish)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Forker, "_wish", interrupted)
        sandbox.fork(2)
    (fork,) = sandbox.fork()
    assert noted(tmp_path) == sorted([sandbox.sandbox_id, fork.sandbox_id])


def test_a_fork_has_what_was_there_and_keeps_its_own_to_itself(sandbox: Sandbox) -> None:
    said(sandbox, "mkdir /made; echo before > /made/file; echo old > /etc/name")
    first, second = sandbox.fork(2)

    said(first, "echo first > /made/file; rm /etc/name; touch /made/more")
    said(sandbox, "echo after > /made/file")
    (third,) = sandbox.fork()
    files = [said(each, "cat /made/file; ls /made") for each in (sandbox, first, second, third)]

    assert files == ["after\nfile", "first\nfile\nmore", "before\nfile", "after\nfile"]
    assert said(second, "cat /etc/name") == "old"
    assert first.commands.run("cat /etc/name").exit_code == 1


def test_who_listens_to_a_sandbox_hears_nothing_of_its_forks(
    tmp_path: Path, busybox: Path
) -> None:
    config = tmp_path / "session.json"
    with listening(tmp_path / "s") as listener:
        points = "syscall/mkdir/enter", "syscall/getpid/enter"
        config.write_text(json.dumps(session(tmp_path / "s", *points)))
        flags = [*FLAGS, f"--pod-init-config={config}"]
        with made(tmp_path, busybox, forkable=True, flags=flags) as sandbox:
            said(sandbox, "mkdir /before")
            (fork,) = sandbox.fork()
            said(fork, "mkdir /fork")
            said(sandbox, "mkdir /parent")
            listed = subprocess.run(
                [*RUNSC, f"--root={tmp_path}/state", "trace", "list", fork.sandbox_id],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            sandbox.kill()
        found = [decode(Syscall, each.raw[8:]) for each in listener.ended()]
    assert [each.sysno for each in found].count(unistd.mkdir) == 2
    assert listed == "SESSIONS (0)\n"


def test_who_listens_hears_all_until_it_goes_back(tmp_path: Path, busybox: Path) -> None:
    config = tmp_path / "session.json"
    with listening(tmp_path / "s") as listener:
        config.write_text(json.dumps(session(tmp_path / "s", "syscall/mkdir/enter")))
        flags = [*FLAGS, f"--pod-init-config={config}"]
        with made(tmp_path, busybox, forkable=True, flags=flags) as sandbox:
            template = sandbox.create_template()
            said(sandbox, "mkdir /one /two")
            sandbox.rollback(template)
            found = [decode(Syscall, each.raw[8:]) for each in listener.ended()]
    assert [each.sysno for each in found].count(unistd.mkdir) == 2


def test_memory_is_copied_when_either_side_writes(sandbox: Sandbox) -> None:
    keeps = "a=$(head -c 300000 /dev/urandom | od -An -tx1 -v)"
    tells = f'{keeps}; while read l; do a=${{a}}x; echo $l ${{#a}} $(echo "$a" | md5sum); done'
    with ExitStack() as closing:
        handle = closing.enter_context(sandbox.commands.run(tells, background=True))
        handle.send_stdin("start\n")
        before = next(handle.stdout.lines()).split()
        forks = sandbox.fork(2)
        connect = [each.commands.connect(handle.pid) for each in forks]
        handles = [handle, *map(closing.enter_context, connect)]
        for each in handles:
            each.send_stdin("again\n")
        after = [next(each.stdout.lines()).split() for each in handles]

    assert before[0] == "start"
    assert after[0][0] == "again" and int(after[0][1]) == int(before[1]) + 1
    assert after[1:] == after[:1] * 2 and after[0][2] != before[2]


def test_a_fork_has_the_memory_of_what_it_is_a_copy_of(sandbox: Sandbox) -> None:
    size = 16 << 20
    sandbox.files.write("/kept", bytes(range(256)) * (size >> 8))
    before = sandbox.stats().memory
    assert before >= size
    (fork,) = sandbox.fork()
    assert size <= fork.stats().memory <= before + size // 2
    fork.files.write("/more", bytes(range(256)) * (size >> 8))
    assert fork.stats().memory >= 2 * size
    fork.files.remove("/more")
    fork.files.remove("/kept")
    assert fork.stats().memory < size


def test_each_is_another_machine(sandbox: Sandbox) -> None:
    forks = sandbox.fork(12, hostname="twin")
    uuid = "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1"
    machines = [sandbox, *forks]

    assert len({said(each, BOOT_ID) for each in machines}) == 13
    assert len({said(each, uuid) for each in machines}) == 13
    assert {said(each, "hostname") for each in forks} == {"twin"} != {said(sandbox, "hostname")}
    assert len({each.sandbox_id for each in machines}) == 13


def test_clocks_and_what_sleeps_go_on(sandbox: Sandbox) -> None:
    sandbox.commands.run("(sleep 0.2; echo woke > /woke) & mkfifo /f; (cat /f > /got) &")
    (fork,) = sandbox.fork()
    said(fork, "echo through > /f")

    wait = "while [ ! -s /woke ] || [ ! -s /got ]; do sleep 0.01; done; cat /woke /got"
    assert said(fork, wait) == "woke\nthrough"
    wait = "while [ ! -s /woke ] || [ ! -e /got ]; do sleep 0.01; done; cat /woke /got"
    assert said(sandbox, wait) == "woke"
    uptimes = [float(said(each, "cut -d' ' -f1 /proc/uptime")) for each in (sandbox, fork)]
    assert uptimes == sorted(uptimes)


def test_programs_that_run_are_copied_in_the_middle(sandbox: Sandbox) -> None:
    counts = "i=0; while :; do i=$((i+1)); [ $((i%1000)) != 0 ] || echo $i >> /count; done"
    handles = [sandbox.commands.run(counts, background=True) for _ in range(3)]
    grows = "n=$(wc -l < /count); while [ $(wc -l < /count) -lt $((n+3)) ]; do :; done"
    for _ in range(3):
        (fork,) = sandbox.fork()
        said(fork, f"touch /count; {grows}")
        fork.kill()
    said(sandbox, grows)
    for handle in handles:
        handle.close()
    wait_until_idle(sandbox)


@pytest.mark.parametrize("way", ["mailbox", "exit", "inline"])
def test_however_system_calls_reach_the_kernel(tmp_path: Path, busybox: Path, way: str) -> None:
    flags = [*FLAGS, "--TESTONLY-trap", f"--system-calls={way}", f"--debug-log={tmp_path}/log"]
    with (
        made(tmp_path, busybox, forkable=True, flags=flags) as sandbox,
        sandbox.commands.run(ANSWERS, background=True) as handle,
    ):
        for number in range(3):
            (fork,) = sandbox.fork()
            with fork.commands.connect(handle.pid) as command:
                command.send_stdin("here\n")
                assert next(command.stdout.lines()) == f"{number + 1} here"
            with pytest.raises(SandboxEnded):
                fork.commands.run("kill -9 1; sleep 1000")
            handle.send_stdin("there\n")
            assert next(handle.stdout.lines()) == f"{number + 1} there"
    assert (tmp_path / "log").read_text() == ""


def test_files_of_the_root_can_be_found_in_a_fork(sandbox: Sandbox, busybox: Path) -> None:
    said(sandbox, "ls /bin > /dev/null; cat /etc/passwd > /dev/null")
    (fork,) = sandbox.fork()

    assert said(fork, "ls /bin").split() == sorted(os.listdir(busybox / "bin"))
    count = "find / -xdev -type f | wc -l"
    assert said(fork, count) == said(sandbox, count)
    assert fork.files.read("/etc/passwd") == sandbox.files.read("/etc/passwd")


# --- streams


@needs_fuse
def test_who_waits_for_the_host_hears_of_it_in_a_fork(tmp_path: Path, busybox: Path) -> None:
    mounts = {"/slow": tmp_path / "slow"}
    with (
        slow_folder(tmp_path / "slow") as server,
        made(tmp_path, busybox, forkable=True, mounts=mounts) as sandbox,
    ):
        (fork,) = sandbox.fork()
        with fork.commands.run("cat /slow/file", background=True) as reader:
            assert server.hear() == "read"
            server.say("go on")
            assert list(reader.stdout.lines()) == ["late"]


def test_a_command_has_no_streams_until_somebody_connects(sandbox: Sandbox) -> None:
    with sandbox.commands.run(ANSWERS, background=True) as handle:
        handle.send_stdin("one\n")
        lines = handle.stdout.lines()
        assert next(lines) == "1 one"
        forks = sandbox.fork(2)
        for number, fork in enumerate(forks):
            with fork.commands.connect(handle.pid) as command:
                command.send_stdin(f"fork {number}\n")
                assert next(command.stdout.lines()) == f"2 fork {number}"
                with pytest.raises(CommandNotStarted, match="belongs to somebody"):
                    fork.commands.connect(handle.pid)
                command.close_stdin()
                assert command.wait().exit_code == 0
        handle.send_stdin("two\n")
        assert next(lines) == "2 two"
        with pytest.raises(CommandNotStarted, match="belongs to somebody"):
            sandbox.commands.connect(handle.pid)
        with pytest.raises(CommandNotStarted, match="no process"):
            forks[0].commands.connect(1)


def test_what_nobody_reads_is_gone(sandbox: Sandbox) -> None:
    talks = "while :; do echo 0123456789; done"
    with sandbox.commands.run(talks, background=True) as handle:
        (fork,) = sandbox.fork()
        assert fork.stats().processes >= 2
        with fork.commands.connect(handle.pid) as command:
            assert b"0123456789\n" in command.stdout.read()
        wait_until_idle(fork)
        assert b"0123456789\n" in handle.stdout.read()


# --- being told


def test_a_program_that_asks_gets_a_signal(sandbox: Sandbox) -> None:
    told = "/proc/self/sandbox_forks"
    hears = f"trap 'cat {told} > /told' USR1; echo 10 > /proc/$$/sandbox_forks; echo ok"
    asks = f"{hears}; while :; do sleep 0.01; done"
    with sandbox.commands.run(asks, background=True) as handle:
        assert next(handle.stdout.lines()) == "ok"
        (fork,) = sandbox.fork()
        assert said(fork, "while [ ! -s /told ]; do sleep 0.01; done; cat /told") == "1 0"
        assert said(fork, f"cat /proc/{handle.pid}/sandbox_forks") == "1 10"
        assert said(sandbox, f"cat {told}; ls / | grep -c told || true") == "0 0\n0"
        assert sandbox.commands.run(f"echo 65 > {told}").exit_code == 1


# --- what it costs


def test_a_sandbox_that_is_forked_again_and_again_does_not_grow(sandbox: Sandbox) -> None:
    works = "for i in 1 2 3 4 5; do head -c 200000 /dev/zero > /file; cat /file /file > /both; done"
    said(sandbox, works)
    for _ in range(5):
        sandbox.fork()[0].kill()
        said(sandbox, works)
    before = sandbox.stats().memory
    for _ in range(20):
        sandbox.fork()[0].kill()
        said(sandbox, works)

    assert sandbox.stats().memory - before < 8 << 20


REWRITES = """
import os, sys
memory = bytearray(b"x") * (200 << 20)
for line in sys.stdin:
    for at in range(0, len(memory), 4096):
        memory[at] ^= 1
    for _ in range(3000):
        os.close(os.open("/etc/passwd", os.O_RDONLY))
    print(line.strip(), flush=True)
"""


def test_what_is_written_again_after_a_fork_counts_once(tmp_path: Path, debian: Path) -> None:
    """It is copied, and the memory that it was stays in the file."""
    with (
        made(tmp_path, debian, forkable=True, memory=300 << 20) as sandbox,
        sandbox.commands.run(["python3", "-c", REWRITES], background=True) as handle,
    ):
        lines = handle.stdout.lines()
        for word in ("before", "after", "again"):
            handle.send_stdin(f"{word}\n")
            assert next(lines) == word
            (fork,) = sandbox.fork()
            with fork.commands.connect(handle.pid) as command:
                command.send_stdin("there\n")
                assert next(command.stdout.lines()) == "there"
            fork.kill()
        assert sandbox.stats().oom_kills == 0


def test_a_fork_has_limits_of_its_own(tmp_path: Path, debian: Path) -> None:
    takes = "import sys; kept = bytearray(b'x') * (int(sys.argv[1]) << 20); print(len(kept) >> 20)"

    def taken(sandbox: Sandbox, mib: int) -> str:
        result = sandbox.commands.run(["python3", "-c", takes, str(mib)])
        return result.stdout.strip() if not result.exit_code else "refused"

    with made(tmp_path, debian, forkable=True, memory=512 << 20) as sandbox:
        sandbox.files.write("/kept", bytes(range(256)) * (60 << 12))
        (small,), (large,) = sandbox.fork(memory=128 << 20), sandbox.fork(memory=1 << 40)
        assert small.stats().memory_limit == 128 << 20
        assert large.stats().memory_limit == sandbox.stats().memory_limit == 512 << 20
        assert [taken(each, 200) for each in (small, large, sandbox)] == ["refused", "200", "200"]
        assert taken(small, 20) == "20" and said(small, "md5sum < /kept") == said(
            sandbox, "md5sum < /kept"
        )
        assert small.stats().processes == 1


# --- templates


def test_a_template_stays_as_it_is(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox, forkable=True) as sandbox, ExitStack() as closing:
        handle = closing.enter_context(sandbox.commands.run(ANSWERS, background=True))
        handle.send_stdin("warm\n")
        assert next(handle.stdout.lines()) == "1 warm"
        template = Template.of(sandbox)
        for number in range(3):
            for fork in template.fork(3):
                with fork.commands.connect(handle.pid) as command:
                    command.send_stdin(f"{number}\n")
                    assert next(command.stdout.lines()) == f"2 {number}"
                fork.kill()
        assert sandbox.info().status == "paused"
        template.kill()
    wait_until_gone(tmp_path, sandbox.sandbox_id)


def test_without_blocking(tmp_path: Path, busybox: Path) -> None:
    async def make() -> list[str]:
        given = {"root": busybox, "state": tmp_path / "state", "flags": FLAGS}
        sandbox = await AsyncSandbox.create(forkable=True, **given)
        async with await AsyncTemplate.of(sandbox) as template:
            some = await asyncio.gather(*(template.fork(2) for _ in range(3)))
            forks = [each for pair in some for each in pair]
            ids = await asyncio.gather(*(each.commands.run(BOOT_ID) for each in forks))
            await asyncio.gather(*(each.kill() for each in forks[::2]))
            return [each.stdout for each in ids]

    assert len(set(asyncio.run(make()))) == 6
    assert noted(tmp_path) == []


# --- forks of forks


def test_forks_have_forks(sandbox: Sandbox) -> None:
    said(sandbox, "echo 1 > /generation")
    family = [sandbox]
    for number in range(2, 6):
        (fork,) = family[-1].fork(forkable=True)
        said(fork, f"echo {number} > /generation; head -c 3000000 /dev/urandom > /kept")
        family.append(fork)
    twins = family[-1].fork(2)

    assert [said(each, "cat /generation") for each in family] == list("12345")
    assert len({said(each, BOOT_ID) for each in (*family, *twins)}) == 7
    assert len({said(each, "md5sum < /kept") for each in (*twins, family[-1])}) == 1
    assert len({said(each, "md5sum < /kept") for each in family[1:]}) == 4
    assert said(twins[0], "cat /proc/self/sandbox_forks") == "5 0"
    said(twins[0], "rm /kept")
    assert twins[0].stats().memory < twins[1].stats().memory


def test_forks_of_a_fork_end_with_it(tmp_path: Path, sandbox: Sandbox) -> None:
    first, second = sandbox.fork(2, forkable=True)
    below, other = first.fork(forkable=True)[0], second.fork()[0]
    lowest = below.fork(2)
    assert len(noted(tmp_path)) == 7
    first.kill()

    assert not any(each.is_running() for each in (below, *lowest))
    assert [said(each, "echo here") for each in (second, other)] == ["here"] * 2
    second.kill()
    assert noted(tmp_path) == [sandbox.sandbox_id]


def test_a_fork_may_be_a_template(sandbox: Sandbox) -> None:
    with sandbox.commands.run(ANSWERS, background=True) as handle:
        (fork,) = sandbox.fork(forkable=True)
        said(fork, "echo prepared > /file")
        with Template.of(fork) as template:
            for each in template.fork(3):
                assert said(each, "cat /file; echo changed > /file") == "prepared"
                with each.commands.connect(handle.pid) as command:
                    command.send_stdin("line\n")
                    assert next(command.stdout.lines()) == "1 line"
        assert said(sandbox, "ls / | grep -c file || true") == "0"


# --- ends


def test_one_ends_and_the_others_do_not(sandbox: Sandbox) -> None:
    first, second, third = sandbox.fork(3)
    assert first.kill() and not first.kill()
    with pytest.raises(SandboxEnded):
        second.commands.run("kill -9 1; sleep 1000")
    wait_until_stopped(second)
    assert [said(each, "echo here") for each in (sandbox, third)] == ["here", "here"]


def test_its_time_ends_a_fork_alone(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox, forkable=True, timeout=600) as sandbox:
        short, long = (sandbox.fork(timeout=seconds)[0] for seconds in (0.3, None))
        with pytest.raises(SandboxError, match="has ended"):
            short.commands.run("sleep 1000")
        assert long.info().expires_in is None
        assert said(long, "echo here") == "here"


@pytest.mark.parametrize("number", [0, signal.SIGKILL])
def test_forks_end_with_their_maker(tmp_path: Path, busybox: Path, number: int) -> None:
    words = [sys.executable, "-c", MAKER, str(busybox), str(tmp_path / "state"), FLAGS[0]]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        name = process.stdout.readline().strip()
        assert len(noted(tmp_path)) == 4
        if number:
            process.send_signal(number)
        process.stdin.close()
    wait_until_gone(tmp_path, name)


def test_forks_end_with_what_they_are_copies_of(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox, forkable=True) as sandbox:
        sandbox.fork(3)
    wait_until_gone(tmp_path, sandbox.sandbox_id)


def test_a_sandbox_that_is_forked_is_not_paused(sandbox: Sandbox) -> None:
    """For others it runs all the time: its commands are carried out."""
    with ThreadPoolExecutor() as pool:
        forking = [pool.submit(sandbox.fork, 8) for _ in range(5)]
        while not all(each.done() for each in forking):
            assert said(sandbox, "echo here") == "here"
            assert sandbox.info().status == "running"
        for each in forking:
            each.result()


# --- refusals


def test_what_cannot_be_forked_is_said(tmp_path: Path, busybox: Path, sandbox: Sandbox) -> None:
    with made(tmp_path, busybox) as other:
        with pytest.raises(SandboxError, match="not started with --forkable"):
            other.fork()
        assert said(other, "echo here") == "here"
    (fork,) = sandbox.fork()
    with pytest.raises(SandboxError, match="was not made as one that can be forked"):
        fork.fork()
    assert said(fork, "echo here") == "here"
    with pytest.raises(ValueError, match="count"):
        sandbox.fork(0)
    with pytest.raises(SandboxError, match="at most 64 bytes"):
        sandbox.fork(hostname="n" * 65)
    with sandbox.pty.create(), pytest.raises(SandboxError, match="has a terminal"):
        sandbox.fork()
    assert fork.kill()


def test_no_fork_has_a_network_that_the_policy_does_not_judge(
    tmp_path: Path, busybox: Path
) -> None:
    refused = "an egress policy does not judge the network of a fork"
    with made(tmp_path, busybox, forkable=True, egress='default = "deny"\n') as sandbox:
        (fork,) = sandbox.fork(forkable=True)
        for each in (sandbox, fork):
            with pytest.raises(SandboxError, match=refused):
                each.fork(network="sandbox")
        words = [f"--root={tmp_path}/state", "fork", "--network=sandbox", sandbox.sandbox_id, "x"]
        assert refused in execute([*RUNSC, *words]).stderr
    with made(tmp_path, busybox, forkable=True) as sandbox:
        words = [words[0], "--egress=/nowhere", *words[1:3], sandbox.sandbox_id, "x"]
        assert refused in execute([*RUNSC, *words]).stderr


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"flags": ["--overlay2=none"]}, "two sandboxes cannot own one tree"),
        ({"flags": ["--overlay2=root:self"]}, "in a file of the host"),
        ({"platform": "unicorn"}, "--platform=unicorn cannot be forked"),
    ],
)
def test_what_cannot_be_copied_is_refused_at_the_start(
    tmp_path: Path, busybox: Path, given: dict[str, object], why: str
) -> None:
    with pytest.raises(SandboxError, match=f"--forkable: .*{why}"):
        Sandbox.create(root=busybox, state=tmp_path / "state", forkable=True, **given)  # type: ignore[arg-type]
    assert noted(tmp_path) == []


# --- the command line


def test_the_command_line_forks(tmp_path: Path, busybox: Path) -> None:
    bundle = Bundle(tmp_path / "bundle", busybox).args("sleep", "1000")
    flags = (f"--root={tmp_path}/state", "--overlay2=root:memory", "--network=none")

    def runsc(*words: str) -> subprocess.CompletedProcess[str]:
        return execute([*RUNSC, *flags, *words])

    try:
        words = ["run", "--detach", "--forkable", f"--bundle={bundle.write()}", "warm"]
        nowhere = subprocess.DEVNULL
        subprocess.run([*RUNSC, *flags, *words], stdout=nowhere, check=True, cwd=REPOSITORY)
        assert runsc("fork", "--hostname=copy", "warm", "one", "two").returncode == 0
        taken = runsc("fork", "warm", "three", "two")
        assert taken.returncode == 1 and "already exists" in taken.stderr
        assert runsc("exec", "one", "hostname").stdout == "copy\n"
        assert runsc("list").stdout.count(" running ") == 3
        assert runsc("update", "--pids-limit=10", "one").returncode == 0
        many = "for n in 1 2 3 4 5 6 7 8 9 10 11; do sleep 1000 >/dev/null 2>&1 & done"
        assert "can't fork" in runsc("exec", "one", "sh", "-c", many).stderr
        assert runsc("exec", "two", "sh", "-c", many).stderr == ""
        assert runsc("delete", "--force", "one").returncode == 0
        assert runsc("fork", "two", "other").returncode == 1
        assert runsc("fork", "--forkable", "warm", "three").returncode == 0
        assert runsc("fork", "three", "four").returncode == 0
        assert runsc("exec", "four", "cat", "/proc/self/sandbox_forks").stdout == "2 0\n"
        assert runsc("kill", "warm", "KILL").returncode == 0
    finally:
        for name in ("one", "two", "three", "four", "warm"):
            runsc("delete", "--force", name)
    assert runsc("list", "--quiet").stdout == ""


def test_who_reads_a_fifo_of_the_host_waits_in_a_fork(tmp_path: Path, busybox: Path) -> None:
    """And holds nobody else up."""
    os.mkfifo(tmp_path / "fifo", 0o666)
    bundle = Bundle(tmp_path / "bundle", busybox)
    bundle.document["mounts"].append(
        {"destination": "/fifo", "source": str(tmp_path / "fifo"), "options": ["bind"]}
    )
    bundle.args("sh", "-c", "while read line; do echo $line > /got; done < /fifo; sleep 1000")
    flags = (f"--root={tmp_path}/state", "--overlay2=root:memory", "--network=none")

    def runsc(*words: str) -> str:
        done = execute([*RUNSC, *flags, *words])
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = ["run", "--detach", "--forkable", f"--bundle={bundle.write()}", "warm"]
    nowhere = subprocess.DEVNULL
    subprocess.run([*RUNSC, *flags, *words], stdout=nowhere, check=True, cwd=REPOSITORY)
    try:
        with open(tmp_path / "fifo", "w") as fifo:
            fifo.write("one\n")
            fifo.flush()
            runsc("exec", "warm", "sh", "-c", "while [ ! -s /got ]; do sleep 0.01; done")
            runsc("fork", "warm", "copy")
            assert runsc("exec", "copy", "cat", "/got") == "one\n"
            fifo.write("two\n")
            fifo.flush()
            waits = "while [ $(cat /got) != two ]; do sleep 0.01; done"
            runsc("exec", "warm", "sh", "-c", waits)
            assert runsc("exec", "copy", "cat", "/got") == "one\n"
    finally:
        for name in ("copy", "warm"):
            execute([*RUNSC, *flags, "delete", "--force", name])
