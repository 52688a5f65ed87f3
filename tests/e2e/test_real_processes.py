"""The processes of a sandbox that runs a real program: what the Gofer has, and killing one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

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


@pytest.mark.parametrize("hooks", [{}, {"createContainer": [{"path": "/bin/true"}]}])
def test_gofer_has_its_trees_and_sockets_alone(
    bundle: Bundle, platform: str, hooks: dict[str, object]
) -> None:
    """Whether it was there before the command line knew what for, or is a fork of that."""
    bundle.configure(lambda document: document.update(hooks=hooks))
    cli, pidfds = _start(bundle, platform, "sleep 1000")
    pid = processes.wait_for_state(bundle.path / "state", "test")["goferPid"]
    place = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    targets = {int(each.name): os.readlink(each) for each in (place / "fd").iterdir()}
    title = (place / "cmdline").read_bytes()
    spaces = {kind: os.readlink(place / "ns" / kind) for kind in ("mnt", "pid", "net", "ipc")}
    own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in spaces}
    maps = (place / "maps").read_text()
    root, mounts = os.listdir(place / "root"), (place / "mountinfo").read_text().splitlines()
    signal.pidfd_send_signal(pidfds["sentry"], signal.SIGKILL)
    assert processes.all_end(pidfds)
    errors = cli.communicate(timeout=TIMEOUT_S)[1]

    kinds = Counter(re.sub(r":.*|\d+| .*", "", target) for target in targets.values())
    of_trees = {kind for kind in kinds if kind.startswith("/")} - {"/null"}
    others = {kind: count for kind, count in kinds.items() if kind not in of_trees}
    # the log twice, the Sentry's end, the loop and the pool
    assert others == {"/null": 2, "pipe": 2, "socket": 1, "anon_inode": 2}, targets
    assert "/" in of_trees, "the root's tree"
    assert "runsc-ram" not in maps and "/dev/kvm" not in maps and "kvm-v" not in maps
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert status["NSpid"].split()[-1] == "1"
    assert b"gofer" in title
    assert all(spaces[kind] != own[kind] for kind in spaces)
    assert root == [] and len(mounts) == 1
    assert "Traceback" not in errors


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
