"""What a person at a terminal sees of a command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from runsc.terminals import shown
from tests.e2e.bundle import RUNSC
from tests.e2e.test_terminal import Person

PLAIN = ("NO_COLOR=1",)


def screen(state: Path, line: str, *flags: str, environment: Sequence[str] = PLAIN) -> str:
    """All of it, at its end; `flags` are global ones."""
    variables = ["-u", "NO_COLOR", "-u", "CLICOLOR", *environment]
    words = [*RUNSC, f"--root={state}", *flags, *shlex.split(line)]
    person = Person(["env", *variables, *words])
    while more := shown(person.fd, 4096):
        person.screen += more
    person.leave()
    return person.screen.decode().replace("\r\n", "\n")
