"""A caller of the OCI command line: what podman, docker and containerd do, without them."""

from __future__ import annotations

import array
import json
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, Bundle, Result

PATIENCE_MS = 1000 * TIMEOUT_S


class Client:
    """One state root, one bundle, containers named by the tests."""

    def __init__(self, bundle: Bundle, platform: str = "kvm") -> None:
        self.bundle = bundle
        self.root = bundle.path / "state"
        self.log = bundle.path / "log.json"
        self.flags = [
            f"--root={self.root}",
            f"--log={self.log}",
            "--log-format=json",
            f"--platform={platform}",
        ]

    def command(self, *args: str) -> list[str]:
        return [*RUNSC, *self.flags, *args]

    def begin(self, *args: str) -> subprocess.Popen[str]:
        """One command that goes on beside the test."""
        return subprocess.Popen(
            self.command(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    def call(self, *args: str) -> Result:
        """One command to its end; its output is a pipe that is read to its end, as clients do."""
        return subprocess.run(
            self.command(*args),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd=REPOSITORY,
        )

    def ok(self, *args: str) -> str:
        """A command that must succeed; what it prints."""
        result = self.call(*args)
        assert result.returncode == 0, (args, result.stdout, result.stderr)
        return result.stdout

    def create(self, name: str, *flags: str, command: str = "create") -> int:
        """The container's output goes to `<name>.out` in the bundle. Gives the pid."""
        path = self.bundle.write()
        pid_file = path / f"{name}.pid"
        with (path / f"{name}.out").open("w") as output:
            done = subprocess.run(
                self.command(command, f"--bundle={path}", f"--pid-file={pid_file}", *flags, name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=TIMEOUT_S,
                check=False,
                cwd=REPOSITORY,
            )
        assert done.returncode == 0, self.output(name)
        return int(pid_file.read_text())

    def output(self, name: str) -> str:
        """What the container has written so far."""
        return (self.bundle.path / f"{name}.out").read_text()

    def state(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.ok("state", name))
        return document

    def error(self, *args: str) -> str:
        """A command that must fail: what a client finds in the log."""
        before = len(self.log.read_bytes()) if self.log.exists() else 0
        result = self.call(*args)
        assert result.returncode == 1, (args, result.stdout, result.stderr)
        lines = self.log.read_bytes()[before:].splitlines()
        entry = json.loads(lines[-1])
        assert entry["level"] == "error"
        assert entry["time"]
        assert entry["msg"] in result.stderr
        return str(entry["msg"])

    def remains(self) -> list[str]:
        """What is in the state root."""
        return sorted(name for name in os.listdir(self.root) if name != ".lock")


@contextmanager
def held_port() -> Iterator[int]:
    """A port of 127.0.0.1 for whoever listens there with SO_REUSEADDR: the host gives it to nobody
    else meanwhile, as it might one that is free."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def wait_for_end(pidfd: int) -> None:
    """Until the process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(PATIENCE_MS), "it does not end"
    os.close(pidfd)


class ConsoleSocket:
    """Takes the master of a terminal, as conmon and containerd's shim do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(str(path))
        self._sock.listen(1)
        self._sock.settimeout(PATIENCE_MS / 1000)

    def take(self) -> int:
        connection, _ = self._sock.accept()
        with connection, self._sock:
            _, ancillary, _, _ = connection.recvmsg(256, socket.CMSG_SPACE(4))
        fds = array.array("i")
        fds.frombytes(ancillary[0][2][:4])
        return fds[0]
