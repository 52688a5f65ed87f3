"""Terminals and streams of a container beside others in a sandbox."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from pathlib import Path

from tests.e2e.client import ConsoleSocket, wait_for_end
from tests.e2e.pod import Pod, joins


def at_terminal(pod: Pod, tmp_path: Path, script: str) -> tuple[int, int]:
    """A container beside "pause" that has a terminal: its master, and a pidfd."""
    client = pod.client("app")
    client.bundle.args("sh", "-c", script)
    client.bundle.configure(joins(network=pod.path("pause", "net")))
    client.bundle.document["process"]["terminal"] = True
    console = ConsoleSocket(tmp_path / "console")
    pod.pids["app"] = client.create("app", f"--console-socket={console.path}")
    pidfd = os.pidfd_open(pod.pids["app"])
    master = console.take()
    client.ok("start", "app")
    return master, pidfd


def read_until(master: int, text: bytes) -> None:
    seen = b""
    while text not in seen:
        seen += os.read(master, 1000)


def test_terminal_of_its_own(pod: Pod, tmp_path: Path) -> None:
    first = pod.run("pause")
    master, pidfd = at_terminal(pod, tmp_path, "tty; read word; echo got $word")

    read_until(master, b"/dev/pts/0\r\n")
    os.write(master, b"it\n")
    read_until(master, b"got it")

    wait_for_end(pidfd)
    os.close(master)
    assert first.ok("exec", "pause", "echo", "alive") == "alive\n"


def test_new_size_of_its_terminal_reaches_the_program_at_once(pod: Pod, tmp_path: Path) -> None:
    pod.run("pause")
    script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.01; done"
    master, pidfd = at_terminal(pod, tmp_path, script)
    read_until(master, b"ready\r\n")

    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))

    read_until(master, b"40 100\r\n")
    wait_for_end(pidfd)
    os.close(master)


def test_run_in_the_foreground(pod: Pod) -> None:
    pod.run("pause")
    client = pod.client("app")
    client.bundle.args("sh", "-c", "echo hello; exit 5").configure(
        joins(network=pod.path("pause", "net"))
    )

    result = client.call("run", f"--bundle={client.bundle.write()}", "app")

    assert (result.returncode, result.stdout) == (5, "hello\n"), result.stderr
    assert "app" not in client.remains()
