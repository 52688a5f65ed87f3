"""`runsc do` behaves as a program that is run at a terminal, or without one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, execute, kvm_is_usable
from tests.e2e.processes import all_end, becomes_empty
from tests.e2e.test_terminal import SIZES, Person

pytestmark = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")

SHELL = ("bash", "--norc", "-i")
Do = Callable[..., list[str]]


@pytest.fixture
def do(tmp_path: Path, debian: Path) -> Do:
    """The command line of `do` over a root file system."""
    state = f"--root={tmp_path}/state"
    assert os.path.isabs(sys.executable)
    clean = ["env", "-i", "--default-signal=HUP,INT,QUIT,TERM", "PATH=/usr/bin:/bin"]
    clean += ["PS1=ready> ", "TERM=dumb"]

    def command(*args: str, by: str = "env") -> list[str]:
        return [*clean, by, *RUNSC, state, "do", f"--root={debian}", "--cwd=/", *args]

    return command


def _processes(state: Path) -> list[str]:
    """Command lines that name this state root."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if os.fsencode(state) in line:
            found.append(f"{entry.name}: {line!r}")
    return found


def _nothing_is_left(state: Path) -> None:
    assert becomes_empty(state)  # the janitor, if there was one, is done with it
    assert str(state) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize(("key", "code"), [(b"\x03", 130), (b"\x1c", 131)])
def test_key_ends_the_program(do: Do, tmp_path: Path, key: bytes, code: int) -> None:
    person = Person(do("sh", "-c", "echo ready; exec sleep 1000"))
    before = termios.tcgetattr(person.fd)
    person.see(b"ready\r\n")

    person.type(key)

    person.see(b"^C" if key == b"\x03" else b"^\\")
    assert os.waitstatus_to_exitcode(os.waitpid(person.pid, 0)[1]) == code
    assert termios.tcgetattr(person.fd) == before
    os.close(person.fd)
    _nothing_is_left(tmp_path / "state")
    assert not _processes(tmp_path / "state")


def test_shell_hands_its_keys_to_the_foreground(do: Do) -> None:
    person = Person(do(*SHELL))
    person.see(b"ready> ")
    person.type(b"tty; sh -c 'echo be''gun; exec sleep 1000'\n")
    person.see(b"/dev/pts/0\r\n")
    person.see(b"begun\r\n")
    person.type(b"\x03")
    person.see(b"ready> ")
    person.type(b"echo code $?; sh -c '(echo be''gun; exec sleep 1000); true'\n")
    person.see(b"code 130\r\n")
    person.see(b"begun\r\n")
    person.type(b"\x1a")
    person.see(b"Stopped")
    person.type(b"kill %1; wait %1; exit 7\n")
    assert person.leave() == 7


def test_window_size_reaches_the_program(do: Do) -> None:
    person = Person(["sh", "-c", 'stty rows 25 cols 81; exec "$@"', "sh", *do("sh", "-c", SIZES)])
    person.see(b"25 81\r\n")
    person.see(b"ready\r\n")
    person.resize(33, 99)
    person.see(b"33 99\r\n")
    person.type(b"\x03")
    assert person.leave() == 130


@pytest.mark.parametrize("between", [[], ["sh", "-c", '"$@"; true', "sh"]])
def test_closed_terminal_ends_it_and_leaves_nothing(
    do: Do, tmp_path: Path, between: list[str]
) -> None:
    person = Person([*between, *do(*SHELL)])
    person.see(b"ready> ")
    person.type(b"sh -c 'echo be''gun; exec sleep 1000'\n")
    person.see(b"begun\r\n")
    state = tmp_path / "state"
    pidfds = {line: os.pidfd_open(int(line.partition(":")[0])) for line in _processes(state)}

    os.close(person.fd)

    status = os.waitpid(person.pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == (129 if not between else -signal.SIGHUP)
    assert all_end(pidfds)
    _nothing_is_left(state)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_terminal_is_put_right_when_the_command_line_is_killed(
    do: Do, tmp_path: Path, number: int
) -> None:
    person = Person(["sh", "-c", '"$@"; echo code $?; read x', "sh", *do("sh", "-c", "cat; :")])
    before = termios.tcgetattr(person.fd)
    person.type(b"echo\n")
    person.see(b"echo\r\necho\r\n")
    assert termios.tcgetattr(person.fd) != before

    os.kill(_command_line(tmp_path / "state"), number)

    person.see(b"code %d" % (128 + number))
    _nothing_is_left(tmp_path / "state")
    assert termios.tcgetattr(person.fd) == before
    person.type(b"\n")
    person.leave()


def _command_line(state: Path) -> int:
    """The pid of the one `do` that there is: the container is called after it."""
    (name,) = (path.name for path in state.glob("runsc-do-*"))
    return int(name.removeprefix("runsc-do-"))


def _without_a_terminal(command: list[str]) -> subprocess.Popen[str]:
    """Started, and so far that it has said "ready"."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate()
    return process


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM"])
def test_signal_without_a_terminal_ends_the_program(do: Do, tmp_path: Path, name: str) -> None:
    process = _without_a_terminal(do("sh", "-c", "echo ready; exec sleep 1000"))
    number = signal.Signals[f"SIG{name}"]

    process.send_signal(number)

    assert process.communicate(timeout=TIMEOUT_S) == ("", "")
    assert process.returncode == 128 + number
    _nothing_is_left(tmp_path / "state")
    assert not _processes(tmp_path / "state")


def test_interrupt_without_a_terminal_reaches_a_shell_and_its_child(do: Do) -> None:
    script = "echo ready; sleep 1000; echo the shell would wait for it"
    process = _without_a_terminal(do("bash", "-c", script))

    process.send_signal(signal.SIGINT)

    assert process.communicate(timeout=TIMEOUT_S) == ("", "")
    assert process.returncode == 130


def test_handler_of_the_program_decides(do: Do) -> None:
    script = "trap 'echo heard; exit 9' INT; echo ready; while :; do sleep 0.01; done"
    process = _without_a_terminal(do("bash", "-c", script))

    process.send_signal(signal.SIGINT)

    assert process.communicate(timeout=TIMEOUT_S)[0] == "heard\n"
    assert process.returncode == 9


def test_what_nohup_ignores_does_not_reach_the_program(do: Do) -> None:
    process = _without_a_terminal(do("sh", "-c", "echo ready; exec sleep 1000", by="nohup"))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + signal.SIGTERM


def test_signal_while_it_starts_leaves_nothing(do: Do, tmp_path: Path) -> None:
    fifo = tmp_path / "config"
    os.mkfifo(fifo)
    state = tmp_path / "state"
    command = do("true")
    # a `run` whose config.json is not written yet
    (tmp_path / "config.json").symlink_to(fifo)
    command = [*command[: command.index("do")], "run", f"--bundle={tmp_path}", "x"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    writer = os.open(fifo, os.O_WRONLY)  # once it reads

    process.send_signal(signal.SIGTERM)

    assert process.communicate(timeout=TIMEOUT_S)[1] == ""
    os.close(writer)
    assert process.returncode == 128 + signal.SIGTERM
    assert not state.exists()
    assert not _processes(state)


def test_program_dies_of_its_own_signals_as_anywhere(do: Do) -> None:
    done = subprocess.run(
        do("sh", "-c", "kill -TERM $$; echo alive"), capture_output=True, text=True, check=False,
        timeout=TIMEOUT_S, cwd=REPOSITORY,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (143, "")


def test_terminal_of_a_shell_stays_its_own_while_it_runs_in_the_background(do: Do) -> None:
    person = Person(["env", "PS1=host> ", "TERM=dumb", *SHELL, "-c", "exec bash --norc -i"])
    person.see(b"host> ")
    # a shell that has just begun a command may keep its SIGINT for later; one with a trap does not
    script = "trap exit INT; cat; echo read nothing; while :; do sleep 0.1; done"
    words = " ".join(f"'{word}'" for word in do("sh", "-c", script))
    person.type(words.encode() + b" &\n")
    person.see(b"read nothing\r\n")

    person.type(b"echo echoes\n")

    person.see(b"echo echoes\r\n")
    person.see(b"echoes\r\n")
    shell = os.tcgetpgrp(person.fd)
    person.type(b"fg\n")
    while os.tcgetpgrp(person.fd) == shell:  # it says what it will do before it does it
        time.sleep(0.001)
    person.type(b"\x03")
    person.see(b"host> ")
    person.type(b"exit 5\n")
    assert person.leave() == 5


def test_job_whose_output_is_piped_stops_and_goes_on(do: Do, tmp_path: Path) -> None:
    person = Person(["env", "--default-signal=TSTP", "PS1=host> ", "TERM=dumb", *SHELL])
    person.see(b"host> ")
    loop = "while :; do echo ti''ck; sleep 0.01; done"
    person.type(shlex.join(do("sh", "-c", loop)).encode() + b" | cat\n")
    person.see(b"tick\r\n")

    person.type(b"\x1a")

    person.see(b"Stopped")
    state = tmp_path / "state"
    look = [*RUNSC, f"--root={state}", "exec", f"runsc-do-{_command_line(state)}", "true"]
    while "cannot exec in a paused container" not in execute(look).stderr:
        time.sleep(0.001)
    person.type(b"fg\n")
    person.see(b"tick\r\n")
    person.type(b"\x03")
    person.see(b"host> ")
    person.type(b"exit 5\n")
    assert person.leave() == 5
    _nothing_is_left(state)


def test_network_process_that_is_killed_is_told_and_the_program_goes_on(
    do: Do, tmp_path: Path
) -> None:
    command = do("sh", "-c", "echo ready; read line; exit 7")
    command.insert(command.index("do"), "--network=host")
    person = Person(command)
    person.see(b"ready\r\n")
    title = f"runsc-network: runsc-do-{_command_line(tmp_path / 'state')}".encode()
    (pid,) = (
        int(each.parent.name) for each in Path("/proc").glob("[0-9]*/cmdline")
        if _read(each).startswith(title)
    )  # fmt: skip

    os.kill(pid, signal.SIGKILL)

    person.see(
        b"runsc: warning: the network process was killed by signal 9: the container goes on,"
        b" and reaches nobody by it\r\n"
    )
    person.type(b"\n")
    assert person.leave() == 7


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_trace_at_the_same_terminal_has_whole_lines(do: Do) -> None:
    command = do("echo", "hello")
    command.insert(command.index("do"), "--strace-syscalls=%file,write")
    person = Person(command)

    before = person.see(b"exited with 0 +++")

    assert b"openat(" in before
    assert b'write(1, "hello' in before
    assert b"\n" not in before.replace(b"\r\n", b"")
    person.leave()
