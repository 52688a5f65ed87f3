"""What a person at a terminal sees of a command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.bundle import RUNSC
from tests.e2e.test_terminal import Person

PLAIN = ("NO_COLOR=1",)


def screen(state: Path, line: str, *flags: str, environment: Sequence[str] = PLAIN) -> str:
    """All of it, at its end; `flags` are global ones."""
    variables = ["-u", "NO_COLOR", "-u", "CLICOLOR", *environment]
    words = [*RUNSC, f"--root={state}", *flags, *shlex.split(line)]
    person = Person(["env", *variables, *words])
    try:
        while True:
            person.screen += os.read(person.fd, 4096)
    except OSError:  # it has ended
        pass
    person.leave()
    return person.screen.decode().replace("\r\n", "\n")
