"""What the command lines of podman and docker have in common."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod

from tests.e2e.bundle import OVERFLOW, Result

LOOP = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done"
TIMEOUT_S = 60
MEMORY = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
"""Shell: the limit of memory, in either version of cgroups."""
SIGNALS = (
    ((), OVERFLOW, 128 + signal.SIGSEGV),
    (("--pid=host",), "kill -TERM $$", 128 + signal.SIGTERM),
    ((), "kill -TERM $$; exit 3", 3),
    (("--init",), "kill -TERM $$", 128 + signal.SIGTERM),
)
"""Flags of `run`, a script that a signal ends or that is an init, and the exit code."""


class Engine(ABC):
    """One of them, with an image."""

    image: str

    @abstractmethod
    def call(self, *args: str, stdin: str = "") -> Result:
        """A command to its end."""

    def ok(self, *args: str, stdin: str = "") -> str:
        """A command that must succeed; its output without the last line end."""
        result = self.call(*args, stdin=stdin)
        assert result.returncode == 0, (args, result.stdout, result.stderr)
        return result.stdout.removesuffix("\n")

    def run(self, *args: str, stdin: str = "") -> Result:
        """A container without a network that is removed when it has ended."""
        return self.call("run", "--rm", "--network=none", *args, stdin=stdin)

    def detached(self, name: str, *flags: str, script: str = LOOP) -> str:
        """A container without a network that says "up"; its name."""
        command = (self.image, "sh", "-c", script)
        self.ok("run", "-d", f"--name={name}", "--network=none", *flags, *command)
        self.logs(name, "up")
        return name

    def status(self, name: str) -> str:
        return self.ok("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}")

    def logs(self, name: str, text: str) -> None:
        """Wait until a container has written this."""
        end = time.monotonic() + TIMEOUT_S
        while text not in self.ok("logs", name):
            assert time.monotonic() < end, self.ok("logs", name)
