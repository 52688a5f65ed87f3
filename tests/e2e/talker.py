"""A process that says lines and hears lines."""

from __future__ import annotations

import subprocess

from tests.e2e.bundle import REPOSITORY


class Talker:
    """A process that says lines and hears lines."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> list[str]:
        """No more to say; what it said since."""
        return self.process.communicate(timeout=60)[0].split("\n")[:-1]
