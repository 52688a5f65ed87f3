"""An interactive shell: `runsc run` with process.terminal, at a terminal of the host."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


class Person:
    """Types at a terminal and looks at the screen."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(REPOSITORY)
            os.execvp(command[0], command)
        self.screen = b""

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def see(self, text: bytes) -> None:
        """Wait until the text is on the screen; what came before it is forgotten."""
        end = time.monotonic() + PATIENCE_S
        while text not in self.screen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} is not in {self.screen!r}"
            try:
                self.screen += os.read(self.fd, 4096)
            except OSError:
                raise AssertionError(f"{text!r} is not in {self.screen!r}") from None
        self.screen = self.screen.split(text, 1)[1]

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
    person.type(b"sh -c 'echo be''gun; sleep 1000'\n")
    person.see(b"begun\r\n")
    person.type(b"\x1a")
    person.see(b"Stopped")
    person.type(b"kill %1; wait %1; exit 7\n")
    assert person.leave() == 7
