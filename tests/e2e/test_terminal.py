"""An interactive shell: `runsc run` with process.terminal, at a terminal of the host."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from runsc.terminals import shown
from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.client import Client, ConsoleSocket, wait_for_end
from tests.e2e.processes import wait_for_state

SIZES = "trap 'stty size' WINCH; stty size; echo ready; while :; do sleep 0.01; done"

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


class Person:
    """Types at a terminal and looks at the screen."""

    def __init__(self, command: list[str] | int) -> None:
        """At a terminal of their own with a command, or at one that is there."""
        self.screen = b""
        if isinstance(command, int):
            self.pid, self.fd = 0, command
            return
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup(1) around the tests is not theirs
            os.chdir(REPOSITORY)
            os.execvp(command[0], command)

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def see(self, text: bytes) -> bytes:
        """Wait until the text is on the screen; what came before it is given, and forgotten."""
        end = time.monotonic() + PATIENCE_S
        while text not in self.screen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} is not in {self.screen!r}"
            more = shown(self.fd, 4096)
            assert more, f"{text!r} is not in {self.screen!r}"
            self.screen += more
        before, self.screen = self.screen.split(text, 1)
        return before

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def leave(self) -> int:
        """Wait for the command; its exit code."""
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened")
def test_interactive_shell_has_job_control(tmp_path: Path, debian: Path) -> None:
    def at_a_terminal(document: dict[str, Any]) -> None:
        document["process"]["terminal"] = True
        document["process"]["env"] = ["PATH=/usr/bin:/bin", "PS1=ready> ", "TERM=dumb"]

    bundle = Bundle(tmp_path / "bundle", debian).configure(at_a_terminal)
    bundle.args("/bin/bash", "--norc", "-i")
    command = bundle.command()
    command[0] = sys.executable if command[0].endswith("python") else command[0]
    person = Person(command)
    person.see(b"ready> ")
    person.type(b"tty; cat\n")
    person.see(b"/dev/pts/0\r\n")
    person.type(b"echoed\x7f\x7fes\n")
    person.see(b"es\r\n")  # the echo of the edited line
    person.see(b"echoes\r\n")  # what cat made of it
    person.type(b"\x03")
    person.see(b"^C")
    person.see(b"ready> ")
    # No child of vfork(2) that may stop before its execve(2): its parent would not, on Linux too.
    person.type(b"sh -c '(echo be''gun; exec sleep 1000); true'\n")
    person.see(b"begun\r\n")
    person.type(b"\x1a")
    person.see(b"Stopped")
    person.type(b"kill %1; wait %1; exit 7\n")
    assert person.leave() == 7


def _at_a_terminal(bundle: Bundle, *args: str) -> Bundle:
    bundle.document["process"]["terminal"] = True
    bundle.document["process"]["env"] = ["PATH=/bin:/usr/bin", "TERM=dumb"]
    return bundle.args(*args)


def test_console_socket_gets_the_terminal_and_its_sizes_reach_the_program(
    bundle: Bundle, platform: str, tmp_path: Path
) -> None:
    _at_a_terminal(bundle, "sh", "-c", f"tty; {SIZES}")
    bundle.document["process"]["consoleSize"] = {"height": 25, "width": 81}
    client, console = Client(bundle, platform), ConsoleSocket(tmp_path / "console")

    pid = client.create("c", f"--console-socket={console.path}")
    pidfd = os.pidfd_open(pid)
    person = Person(console.take())
    client.ok("start", "c")

    person.see(b"/dev/pts/0\r\n")
    person.see(b"25 81\r\n")
    person.see(b"ready\r\n")
    person.resize(40, 100)
    person.see(b"40 100\r\n")
    assert client.output("c") == ""
    person.type(b"\x03")
    wait_for_end(pidfd)
    client.ok("delete", "c")
    os.close(person.fd)


def test_closed_console_hangs_up(bundle: Bundle, platform: str, tmp_path: Path) -> None:
    _at_a_terminal(
        bundle, "sh", "-c", "trap 'exit 3' HUP; echo ready; while :; do sleep 0.01; done"
    )
    client, console = Client(bundle, platform), ConsoleSocket(tmp_path / "console")
    pidfd = os.pidfd_open(
        client.create("c", "-d", f"--console-socket={console.path}", command="run")
    )

    person = Person(console.take())
    person.see(b"ready\r\n")

    os.close(person.fd)

    wait_for_end(pidfd)
    client.ok("delete", "c")


def test_window_size_of_the_callers_terminal_reaches_the_program(
    bundle: Bundle, platform: str
) -> None:
    _at_a_terminal(bundle, "sh", "-c", SIZES)
    person = Person(bundle.command(platform))
    person.see(b"ready\r\n")

    person.resize(33, 99)

    person.see(b"33 99\r\n")
    person.type(b"\x03")
    assert person.leave() == 130


@pytest.mark.parametrize("victim", ["sentryPid", "goferPid"])
def test_callers_terminal_is_put_right_when_a_process_is_killed(
    bundle: Bundle, platform: str, victim: str
) -> None:
    _at_a_terminal(bundle, "sh", "-c", "echo ready; sleep 1000")
    person = Person(bundle.command(platform))
    before = termios.tcgetattr(person.fd)  # of a master: the slave's (tty_ioctl(4))
    person.see(b"ready\r\n")
    assert termios.tcgetattr(person.fd) != before

    os.kill(wait_for_state(bundle.path / "state", "test")[victim], signal.SIGKILL)

    person.see(b"has ended" if victim == "goferPid" else b"was killed by signal 9")
    status = os.waitpid(person.pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 1
    assert termios.tcgetattr(person.fd) == before
    os.close(person.fd)


def test_console_that_nobody_reads_keeps_only_its_writer_waiting(
    bundle: Bundle, platform: str, tmp_path: Path
) -> None:
    _at_a_terminal(bundle, "sh", "-c", "while :; do echo a line that fills the terminal; done")
    client, console = Client(bundle, platform), ConsoleSocket(tmp_path / "console")
    pidfd = os.pidfd_open(
        client.create("c", "-d", f"--console-socket={console.path}", command="run")
    )
    terminal = console.take()

    assert client.ok("exec", "c", "echo", "hello") == "hello\n"

    client.ok("kill", "c", "KILL")
    wait_for_end(pidfd)
    client.ok("delete", "c")
    os.close(terminal)


HELD = """
yes a line that fills the terminal &
while :; do stty -echo; stty echo; done  # waits for what yes writes
"""


def test_settings_of_a_donated_terminal_that_nobody_reads_keep_only_who_asks_waiting(
    bundle: Bundle, platform: str
) -> None:
    master, slave = pty.openpty()
    client = Client(bundle.args("sh", "-c", HELD), platform)
    command = client.command("run", f"--bundle={bundle.write()}", "c")
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as run:
        assert select.select([master], [], [], PATIENCE_S)[0]
        threads = Path(f"/proc/{wait_for_state(client.root, 'c')['sentryPid']}/task")
        while not any(_waits_in_a_write(thread) for thread in threads.iterdir()):
            time.sleep(0.01)

        assert client.ok("exec", "c", "echo", "hello") == "hello\n"

        client.ok("kill", "c", "KILL")
        run.wait(PATIENCE_S)
    os.close(slave)
    os.close(master)


def _waits_in_a_write(thread: Path) -> bool:
    """pwritev2(2), by its number: proc_pid_syscall(5)."""
    return (thread / "syscall").read_text().startswith("328 ")


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("terminal") / "terminal"
    source = Path(__file__).with_name("terminal.c")
    subprocess.run(["gcc", "-O1", "-static", "-o", target, source], check=True)
    return target


def _asks_at_a_terminal(command: list[str]) -> None:
    person = Person(command)
    person.see(b"asks\r\n")
    person.type(b"typed\n")
    person.see(b"done\r\n")
    assert person.leave() == 0


def test_linux_answers_what_programs_ask_of_a_terminal(asks: Path) -> None:
    _asks_at_a_terminal([str(asks)])


def test_donated_terminal_answers_as_on_linux(bundle: Bundle, platform: str, asks: Path) -> None:
    bundle.document["mounts"].append(
        {"destination": "/asks", "type": "bind", "source": str(asks), "options": ["ro"]}
    )
    _asks_at_a_terminal(bundle.args("/asks").command(platform))
