"""Killing a process of a sandbox that runs a real program."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.e2e import processes
from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle

MESSAGES = {
    "cli": "",
    "sentry": "the sandbox process was killed by signal 9",
    "gofer": "the gofer process was killed by signal 9: the sandbox has ended",
}


def _start(
    bundle: Bundle, platform: str, script: str
) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """A container that has said "ready", and pidfds of its processes."""
    command = bundle.args("/bin/sh", "-c", f"echo ready; {script}").command(platform)
    cli = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert cli.stdout is not None
    line = cli.stdout.readline()
    assert line == "ready\n", cli.communicate()
    state = processes.wait_for_state(bundle.path / "state", "test")
    pids = {
        "cli": cli.pid,
        "stand-in": state["pid"],
        "sentry": state["sentryPid"],
        "gofer": state["goferPid"],
    }
    return cli, {name: os.pidfd_open(pid) for name, pid in pids.items()}


@pytest.mark.parametrize("victim", MESSAGES)
@pytest.mark.parametrize(
    "script", ["sleep 1000", "while :; do :; done", "while :; do ls /bin >/dev/null; done"]
)
def test_kill_in_mid_run_leaves_nothing(
    bundle: Bundle, platform: str, victim: str, script: str
) -> None:
    mounts = processes.mounts(bundle.path)
    cli, pidfds = _start(bundle, platform, script)

    signal.pidfd_send_signal(pidfds[victim], signal.SIGKILL)

    assert processes.all_end(pidfds)
    _, errors = cli.communicate(timeout=TIMEOUT_S)
    assert processes.becomes_empty(bundle.path / "state")
    assert processes.mounts(bundle.path) == mounts
    assert MESSAGES[victim] in errors
    assert "Traceback" not in errors
    assert cli.returncode == (-9 if victim == "cli" else 1)
