"""Helpers for tests that look at processes from outside."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.e2e.bundle import REPOSITORY
from tests.e2e.killer import Plan, Report
from tests.patience import TIMEOUT_S

STANDIN = Path(__file__).with_name("standin.py")


@dataclass
class Running:
    """A sandbox with stand-ins that has said "ready"."""

    cli: subprocess.Popen[str]
    sentry: int
    gofer: int
    root: Path

    def pidfds(self) -> dict[str, int]:
        """One descriptor a process: they tell when it has ended."""
        pids = {"cli": self.cli.pid, "sentry": self.sentry, "gofer": self.gofer}
        return {name: os.pidfd_open(pid) for name, pid in pids.items()}

    def status(self, pid: int) -> dict[str, str]:
        """/proc/pid/status."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def run(
    root: Path, sentry: str, gofer: str = "serve", *flags: str
) -> subprocess.CompletedProcess[str]:
    """Run two bodies to their end."""
    return subprocess.run(
        [sys.executable, STANDIN, root, sentry, gofer, *flags],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def start(root: Path, sentry: str = "wait", gofer: str = "serve") -> Running:
    """Start a sandbox and wait until its Sentry runs."""
    cli = subprocess.Popen(
        [sys.executable, STANDIN, root, sentry, gofer],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert cli.stdout is not None
    line = cli.stdout.readline()
    assert line == "ready\n", line + cli.communicate()[1]
    state = wait_for_state(root)
    return Running(cli, state["sentryPid"], state["goferPid"], root)


def wait_for_state(root: Path, container: str = "c1") -> dict[str, int]:
    """state.json once it names both processes: `run` writes it beside the program."""
    while True:
        state: dict[str, int] = json.loads((root / container / "state.json").read_text())
        if "goferPid" in state:
            return state
        time.sleep(0.001)


def all_end(pidfds: dict[str, int]) -> bool:
    """Whether all these processes end in time."""
    waiting = dict(pidfds)
    poll = select.poll()
    for fd in waiting.values():
        poll.register(fd, select.POLLIN)
    while waiting:
        ready = {fd for fd, _ in poll.poll(TIMEOUT_S * 1000)}
        if not ready:
            return False
        for name in [name for name, fd in waiting.items() if fd in ready]:
            poll.unregister(waiting[name])
            del waiting[name]
    for fd in pidfds.values():
        os.close(fd)
    return True


def becomes_empty(directory: Path) -> bool:
    """Whether nothing but the lock is left of the state, in time."""
    for _ in range(TIMEOUT_S * 100):
        if not [entry for entry in os.listdir(directory) if entry != ".lock"]:
            return True
        select.select([], [], [], 0.01)
    return False


def killer(plan: Plan) -> subprocess.Popen[str]:
    """Begin it (`tests.e2e.killer`); it prints the report."""
    command = [sys.executable, "-m", "tests.e2e.killer", msgspec.json.encode(plan).decode()]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )


def killed(plan: Plan, patience_s: float = 120) -> Report:
    """Run it to its end: the report."""
    said = killer(plan).communicate(timeout=patience_s)[0]
    return msgspec.json.decode(said, type=Report)


def cgroups(name: str) -> list[str]:
    """Those of this name: others make and remove theirs while one looks."""
    walked = os.walk("/sys/fs/cgroup")
    return [os.path.join(path, name) for path, folders, _ in walked if name in folders]


def mounts(bundle: Path) -> list[str]:
    """Those of this bundle, or made for a sandbox: others mount and unmount meanwhile."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(bundle) in line or " runsc-" in line]
