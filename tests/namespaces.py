"""Network namespaces of a test's own, on the host."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from runsc import host
from sentry.abi.sched import CLONE_NEWNET


class Namespace:
    """A network namespace, by a thread that is in it."""

    def __init__(self) -> None:
        self.fd = -1
        self.run(self._make)

    def _make(self) -> None:
        host.unshare(CLONE_NEWNET)
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def run(self, body: Callable[[], Any]) -> Any:
        """What `body` gives there."""
        result: list[Any] = []

        def inside() -> None:
            if self.fd >= 0:
                host.setns(self.fd, CLONE_NEWNET)
            result.append(body())

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        (value,) = result
        return value

    def ip(self, *commands: str) -> None:
        """ip(8) there."""
        for command in commands:
            self.run(lambda command=command: subprocess.run(["ip", *command.split()], check=True))

    def hardware(self) -> str:
        """The address of its eth0, as text."""
        command = ["ip", "-o", "link", "show", "eth0"]
        shown = self.run(lambda: subprocess.check_output(command, text=True))
        return str(shown).split("link/ether ")[1].split()[0]
