"""`runsc zygote`: what starts from a fork of it is as without, for programs, engines and callers.

Each test has a mount namespace, in which nobody else's zygote is, and a variable of the
interpreter: names of its own for all that is in no mount namespace.
"""

from __future__ import annotations

import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.e2e.bundle import REPOSITORY, Bundle
from tests.e2e.processes import wait_for_state

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount namespace")
Result = subprocess.CompletedProcess[str]
TIMEOUT_S = 60


class Machine:
    """Where /run/runsc is empty at first."""

    def __init__(self, bundle: Bundle, holder: int) -> None:
        self.bundle = bundle
        self.holder = holder
        self.root = bundle.path / "state"
        self.home = REPOSITORY
        self.variables = [f"PYTHON_RUNSC_TEST={bundle.path}"]

    def words(self, *args: str) -> list[str]:
        enter = ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", f"--wd={self.home}", "--"]
        return [*enter, "env", *self.variables, sys.executable, "-m", "runsc", *args]

    def call(self, *args: str, **more: Any) -> Result:
        given = {"stdin": subprocess.DEVNULL, "capture_output": True, **more}
        return subprocess.run(
            self.words(*args), text=True, timeout=TIMEOUT_S, check=False, **given
        )

    def zygote(self, *args: str) -> str:
        done = self.call("zygote", *args)
        assert done.returncode == 0, done
        return done.stdout

    def flags(self, *args: str) -> tuple[str, ...]:
        return ("--debug", "--overlay2=root:memory", f"--root={self.root}", *args)

    @property
    def path(self) -> str:
        return str(self.bundle.write())

    def run(self, *args: str, **more: Any) -> Result:
        """A container, to its end."""
        return self.call(*self.flags("run", f"--bundle={self.path}", *args, "c"), **more)

    @property
    def pid(self) -> int:
        """Of the zygote."""
        return int(self.zygote("status").split()[1].strip(","))

    @property
    def asked(self) -> int:
        return int(self.zygote("status").split()[-2])


@pytest.fixture
def machine(bundle: Bundle) -> Iterator[Machine]:
    script = "mkdir -p /run/runsc; mount -t tmpfs -o mode=700 none /run/runsc; echo; exec cat"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        made = Machine(bundle, holder.pid)
        yield made
        made.call("zygote", "stop")
        holder.kill()


@pytest.fixture
def started(machine: Machine) -> Machine:
    machine.zygote("start")
    return machine


def is_forked(result: Result) -> bool:
    return "without a zygote" not in result.stderr


def test_a_zygote_is_started_shown_and_stopped(machine: Machine) -> None:
    assert machine.call("zygote", "status").returncode == 3
    machine.zygote("start")
    pid = machine.pid
    machine.zygote("start")
    assert machine.pid == pid
    pidfd = os.pidfd_open(pid)

    machine.zygote("stop")

    assert machine.call("zygote", "status").returncode == 3
    await_end(pidfd)
    assert machine.call("zygote", "stop").returncode == 0


def test_without_one_a_container_runs_as_ever(machine: Machine) -> None:
    machine.bundle.args("sh", "-c", "echo out; exit 3")

    done = machine.run()

    assert (done.returncode, done.stdout) == (3, "out\n")
    assert not is_forked(done)


def test_a_program_has_its_streams_environment_and_code(started: Machine) -> None:
    started.bundle.args("sh", "-c", "cat; echo err >&2; exit 7")

    done = started.run(stdin=None, input="to it\n")

    assert is_forked(done)
    assert (done.returncode, done.stdout) == (7, "to it\n")
    assert "err\n" in done.stderr
    assert list(started.root.glob("*/state.json")) == []


def listens(machine: Machine) -> bool:
    """Whether one does, soon."""
    with begins(machine) as waits:
        if waits is not None:
            await_claim_s_end(waits)
    return machine.call("zygote", "status").returncode == 0


@contextmanager
def begins(machine: Machine) -> Iterator[socket.socket | None]:
    """What ends when one that begins listens; None: none begins."""
    claim = f"\0runsc-zygote-0-{machine.zygote('path').rstrip()[-8:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waits:
        yield waits if waits.connect_ex(claim) == 0 else None


def await_claim_s_end(waits: socket.socket) -> None:
    waits.settimeout(TIMEOUT_S)
    with suppress(ConnectionResetError):
        waits.recv(1)


def own_root(machine: Machine, *args: str, **more: Any) -> Result:
    """A command whose containers are in the user's own folder."""
    return machine.call("--debug", "--overlay2=root:memory", *args, **more)


def test_one_begins_after_the_first_command_that_finds_none(machine: Machine) -> None:
    machine.bundle.args("echo", "out")
    held, other = os.pipe()
    words = ("run", f"--bundle={machine.path}", "c")

    first = own_root(machine, *words, pass_fds=[other], env={**os.environ, "MARK": "secret"})

    os.close(other)
    assert (first.returncode, first.stdout, is_forked(first)) == (0, "out\n", False)
    assert os.read(held, 1) == b""  # nobody has it any more
    os.close(held)
    assert listens(machine)
    assert b"MARK" not in Path(f"/proc/{machine.pid}/environ").read_bytes()
    assert os.getsid(machine.pid) == machine.pid
    second = own_root(machine, *words)
    assert (second.returncode, second.stdout, is_forked(second)) == (0, "out\n", True)


def test_of_many_commands_one_begins_one(machine: Machine) -> None:
    words = machine.words("do", "true")
    many = [subprocess.Popen(words, stdin=subprocess.DEVNULL) for _ in range(5)]
    assert [each.wait(TIMEOUT_S) for each in many] == [0] * 5
    assert listens(machine)
    found = subprocess.run(
        ["pgrep", "-f", f"^[^ ]*python[^ ]* -P -m runsc zygote serve|runsc-zygote.*{REPOSITORY}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    here = os.readlink(f"/proc/{machine.holder}/ns/mnt")  # other tests have theirs elsewhere
    places = []
    for pid in map(int, found.stdout.split()):
        with suppress(OSError):
            if os.getsid(pid) == pid:  # else a fork, which has answered and ends
                places.append(os.readlink(f"/proc/{pid}/ns/mnt"))
    assert places.count(here) == 1


WAITS = """
import sys
if "serve" in sys.orig_argv:
    open({!r}).read()
"""
"""Of the interpreter: a zygote begins when somebody has opened this to write to it."""


def test_stop_ends_one_that_begins(machine: Machine, tmp_path: Path) -> None:
    machine.bundle.args("true")
    os.mkfifo(tmp_path / "begins")
    (tmp_path / "sitecustomize.py").write_text(WAITS.format(str(tmp_path / "begins")))
    machine.variables.append(f"PYTHONPATH={tmp_path}")
    assert own_root(machine, "run", f"--bundle={machine.path}", "c").returncode == 0
    with begins(machine) as waits:
        assert waits is not None

        stopping = subprocess.Popen(machine.words("zygote", "stop"), stdin=subprocess.DEVNULL)
        os.close(os.open(tmp_path / "begins", os.O_WRONLY))

        assert stopping.wait(TIMEOUT_S) == 0
        waits.setblocking(False)
        with suppress(ConnectionResetError):  # it ends no later
            assert waits.recv(1) == b""
    assert machine.call("zygote", "status").returncode == 3


@pytest.mark.parametrize(
    "flags", [("--zygote=off", "run"), ("--root=/tmp/state", "run"), ("create",)]
)
def test_none_begins_where_it_is_off_the_folder_is_another_or_an_engine_asks(
    machine: Machine, flags: tuple[str, ...], tmp_path: Path
) -> None:
    machine.bundle.args("true")
    given = [flag.replace("/tmp/state", str(tmp_path / "state")) for flag in flags]

    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    words = machine.words("--overlay2=root:memory", *given, f"--bundle={machine.path}", "c")
    done = subprocess.run(words, timeout=TIMEOUT_S, check=False, **streams)

    assert done.returncode == 0
    assert not listens(machine)
    if flags == ("create",):
        assert own_root(machine, "delete", "--force", "c").returncode == 0


def test_none_begins_after_a_command_that_makes_no_sandbox(machine: Machine) -> None:
    assert own_root(machine, "run", "--bundle=/nowhere", "c").returncode == 1
    assert not listens(machine)


def test_none_begins_for_who_is_confined(machine: Machine) -> None:
    words = ["setpriv", "--no-new-privs", "--", *machine.words("do", "true")]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0
    assert not listens(machine)


def test_restore_starts_from_it(started: Machine, reaper: None) -> None:
    started.bundle.args("sh", "-c", "read line; echo got $line")
    image, bundle = started.bundle.path / "image", f"--bundle={started.path}"
    held, other = os.pipe()
    assert started.call(*started.flags("run", "--detach", bundle, "first"), stdin=held,
                        capture_output=False).returncode == 0  # fmt: skip
    written = started.call(*started.flags("checkpoint", f"--image-path={image}", "first"))
    assert written.returncode == 0, written
    os.close(held)
    os.close(other)

    words = started.flags("restore", f"--image-path={image}", bundle, "second")
    done = started.call(*words, stdin=None, input="it\n")

    assert is_forked(done)
    assert (done.returncode, done.stdout) == (0, "got it\n"), done
    assert started.call(*started.flags("delete", "--force", "first")).returncode == 0


API = """
import sys
from runsc import Sandbox
root, given = sys.argv[1], dict(word.split(":") for word in sys.argv[2:])
if "flags" in given:
    given["flags"] = [given["flags"]]
with Sandbox.create(root=root, **given) as sandbox:
    print(sandbox.commands.run("echo out").stdout, end="")
"""


def test_the_python_api_begins_one_and_starts_from_it(machine: Machine, busybox: Path) -> None:
    words = machine.words()[:-2]

    def run(*given: str) -> None:
        done = subprocess.run([*words, "-c", API, str(busybox), *given], text=True, check=False,
                              stdin=subprocess.DEVNULL, capture_output=True)  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "out\n"), done

    run(f"state:{machine.root}")
    run("flags:--zygote=off")
    assert not listens(machine)
    run()
    assert listens(machine)
    before = machine.asked

    run()
    run(f"state:{machine.root}")
    run("flags:--zygote=off")

    assert machine.asked == before + 3  # who asks how often


def test_words_are_bytes(started: Machine) -> None:
    started.bundle.args("true")
    odd = os.fsencode(started.bundle.path) + b"-\xff"
    os.symlink(started.path, odd)

    done = started.call(*started.flags("run", f"--bundle={os.fsdecode(odd)}", "c"))

    assert is_forked(done)
    assert done.returncode == 0, done


def test_nothing_of_the_environment_of_who_starts_it_stays(machine: Machine) -> None:
    assert machine.call("zygote", "start", env={**os.environ, "MARK": "secret"}).returncode == 0

    variables = Path(f"/proc/{machine.pid}/environ").read_bytes()

    assert b"PATH=" in variables
    assert b"MARK" not in variables


def test_do_has_the_folder_and_the_variables_of_its_caller(started: Machine) -> None:
    words = started.words(*started.flags("do", "sh", "-c", "pwd; echo $MARK; umask"))
    words[2] = "--wd=/usr/bin"

    done = subprocess.run(
        words, text=True, capture_output=True, timeout=TIMEOUT_S, check=False, umask=0o027,
        stdin=subprocess.DEVNULL, env={**os.environ, "MARK": "seen", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip

    assert is_forked(done)
    assert done.stdout.splitlines()[:2] == ["/usr/bin", "seen"]


def test_off_asks_nobody(started: Machine) -> None:
    started.bundle.args("true")
    before = started.asked

    done = started.call(*started.flags("--zygote=off", "run", f"--bundle={started.path}", "c"))

    assert done.returncode == 0
    assert started.asked == before + 1  # who asks how often


def test_a_state_folder_that_others_may_change_is_not_served(started: Machine) -> None:
    started.root.mkdir(mode=0o700)
    started.root.chmod(0o770)
    before = started.asked

    done = started.run()

    assert "others may write to it" in done.stderr
    assert started.asked == before + 1


@contextmanager
def begun(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """A `run` that says that it is ready."""
    words = machine.flags("run", f"--bundle={machine.path}", "c")
    with subprocess.Popen(
        machine.words(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    ) as command:  # fmt: skip
        try:
            assert line(command.stdout) == "ready\n"
            yield command
        finally:
            command.kill()


def line(file: IO[str] | None) -> str:
    assert file is not None
    return file.readline()


def test_signals_of_the_command_line_reach_the_program(started: Machine) -> None:
    started.bundle.args("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")
    with begun(started) as command:
        command.send_signal(signal.SIGTERM)

        assert command.wait(TIMEOUT_S) == 5


def test_a_killed_command_line_leaves_nothing(started: Machine) -> None:
    started.bundle.args("sh", "-c", "echo ready; exec sleep 1000")
    with begun(started) as command:
        pidfds = [os.pidfd_open(pid) for pid in processes(started)]

        command.kill()

        assert command.wait(TIMEOUT_S) == -signal.SIGKILL
        for pidfd in pidfds:
            await_end(pidfd)


def processes(machine: Machine) -> list[int]:
    """Stand-in, Sentry, Gofer of the container."""
    state = wait_for_state(machine.root, "c")
    return [state["pid"], state["sentryPid"], state["goferPid"]]


def await_end(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(TIMEOUT_S * 1000)
    os.close(pidfd)


def create(machine: Machine, **more: Any) -> int:
    """A container that waits for `start`; its output goes to a file. Gives its pid."""
    pid_file = machine.bundle.path / "pid"
    with machine.bundle.path.joinpath("out").open("w") as output:
        words = machine.flags("create", f"--bundle={machine.path}", f"--pid-file={pid_file}", "c")
        done = subprocess.run(
            machine.words(*words), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            timeout=TIMEOUT_S, check=False, **more,
        )  # fmt: skip
    said = machine.bundle.path.joinpath("out").read_text()
    assert done.returncode == 0, said
    assert "without a zygote" not in said
    return int(pid_file.read_text())


def test_who_creates_waits_for_a_child_of_its_own(started: Machine, reaper: None) -> None:
    started.bundle.args("sh", "-c", "exit 9")
    pid = create(started)

    assert started.call(*started.flags("start", "c")).returncode == 0

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert started.call(*started.flags("delete", "c")).returncode == 0


def test_processes_of_a_container_have_what_the_caller_has(
    started: Machine, reaper: None
) -> None:
    started.bundle.args("sleep", "1000")

    def change() -> None:
        os.nice(4)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 41))
        os.sched_setaffinity(0, {0})
        Path("/proc/self/oom_score_adj").write_text("321")

    pid = create(started, preexec_fn=change)

    for each in processes(started):
        assert os.getpriority(os.PRIO_PROCESS, each) == os.getpriority(os.PRIO_PROCESS, 0) + 4
        limits = Path(f"/proc/{each}/limits").read_text()
        assert re.search(rf"Max file size +{1 << 40} +{1 << 41} ", limits)
        assert os.sched_getaffinity(each) == {0}
        assert Path(f"/proc/{each}/oom_score_adj").read_text() == "321\n"
    assert started.call(*started.flags("delete", "--force", "c")).returncode == 0
    os.waitpid(pid, 0)


def opened(pid: int) -> set[str]:
    """What descriptors of a process are of."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(os.readlink(each))
    return found


def test_nothing_of_a_container_stays_in_the_zygote(started: Machine, reaper: None) -> None:
    started.bundle.args("sleep", "1000")
    zygote = started.pid
    before = opened(zygote)

    pid = create(started)

    assert started.pid == zygote
    more = opened(zygote) - before - {f"/proc/{zygote}/stat"}  # CPython's look behind a fork
    assert {each.partition(":")[0] for each in more} <= {"socket"}
    assert len(more) <= 1  # the connection of `status`, which is closed a moment later
    assert started.call(*started.flags("delete", "--force", "c")).returncode == 0
    os.waitpid(pid, 0)


def test_containers_outlive_the_zygote(started: Machine, reaper: None) -> None:
    started.bundle.args("sh", "-c", "exit 4")
    pid = create(started)

    started.zygote("stop")

    assert started.call(*started.flags("start", "c")).returncode == 0
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    assert started.call(*started.flags("delete", "c")).returncode == 0


def test_who_is_confined_is_not_served(started: Machine) -> None:
    started.bundle.args("true")
    words = started.words(*started.flags("run", f"--bundle={started.path}", "c"))

    done = subprocess.run(
        ["setpriv", "--no-new-privs", *words], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
    )  # fmt: skip

    assert done.returncode == 0
    assert not is_forked(done)


def test_who_says_what_is_no_request_changes_nothing(started: Machine) -> None:
    found = Path(f"/proc/{started.holder}/root/run/runsc")
    path = next(found.glob("zygote@*"))
    for packet in (b"", b"x", b"\0" * 1000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(path))
            sock.send(packet)
            assert sock.recv(1000)[:1] in (b"-", b"")

    started.bundle.args("true")
    done = started.run()

    assert done.returncode == 0
    assert is_forked(done)


ACTIVATE = """
import os, socket, sys
unit = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
unit.bind(sys.argv[1])
unit.listen()
os.dup2(os.dup(unit.fileno()), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="zygote.socket")
os.execv(sys.executable, [sys.executable, "-m", "runsc", "zygote", "serve"])
"""
"""What systemd does when somebody asks at the socket of a unit: sd_listen_fds(3)."""


def test_the_socket_of_a_unit_is_taken_and_left(machine: Machine) -> None:
    path = machine.zygote("path").strip()
    words = [*machine.words()[:-2], "-c", ACTIVATE, path]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as unit:
        assert unit.stdout is not None
        unheard = Path(f"/proc/{machine.holder}/root/{path}")
        while not unheard.exists():
            assert unit.poll() is None

        assert machine.pid == unit.pid  # it begins yet: who wants to know waits for it
        assert unit.stdout.readline() == f"listening at {path}\n".encode()
        assert is_forked(machine.run())
        machine.zygote("stop")
        assert unit.wait() == 0
    there = [*machine.words()[:-3], "test", "-S", path]
    assert subprocess.run(there, check=False).returncode == 0


def test_it_ends_when_nobody_asks(machine: Machine) -> None:
    with subprocess.Popen(
        machine.words("zygote", "serve", "--idle=1"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert line(process.stdout).startswith("listening at /run/runsc/zygote@")

        assert process.wait(TIMEOUT_S) == 0

    found = Path(f"/proc/{machine.holder}/root/run/runsc")
    assert list(found.glob("zygote@*")) == []


def install(machine: Machine, tmp_path: Path) -> Path:
    """A copy of the program; where it lies."""
    home = tmp_path / "home"
    home.mkdir()
    for room in ("kvm", "sentry", "gofer", "guest_stubs"):
        home.joinpath(room).symlink_to(REPOSITORY / room)
    shutil.copytree(REPOSITORY / "runsc", home / "runsc")
    machine.home = home
    return home


def test_a_successor_finds_the_program_where_its_predecessor_did(
    machine: Machine, tmp_path: Path
) -> None:
    home = install(machine, tmp_path)
    machine.variables.insert(0, "--unset=PYTHONPATH")  # what else is in it is another program
    with subprocess.Popen(
        machine.words("zygote", "serve"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert line(process.stdout).startswith("listening at ")
        os.utime(home / "runsc" / "errors.py")

        pid = machine.pid

        assert line(process.stdout).startswith("listening at ")
        assert pid == process.pid
        machine.zygote("stop")


def test_a_changed_program_is_another_zygote(machine: Machine, tmp_path: Path) -> None:
    home = install(machine, tmp_path)
    machine.zygote("start")
    machine.bundle.args("true")
    assert is_forked(machine.run())
    pid = machine.pid

    os.utime(home / "runsc" / "errors.py")

    assert not is_forked(machine.run())
    assert machine.pid == pid  # which answers once it has begun anew
    assert is_forked(machine.run())
