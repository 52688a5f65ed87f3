"""stress-ng's stressors verify what they do: here as natively, and without a word in the log."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, kvm_is_usable
from tests.full.native import Comparison

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
CLASSES = ["filesystem", "interrupt", "io", "memory", "network", "os", "pipe", "scheduler", "vm"]
RACES = [
    "futex", "pthread", "mutex", "sem", "sem-sysv", "pipe", "epoll", "sock", "sockpair", "fork",
    "vfork", "clone", "signal", "sigchld", "sigq", "wait", "eventfd", "inotify", "lockf", "mq",
    "msg", "timer", "mmapfork", "vm", "ptrace", "pidfd", "rename", "aio", "procfs",
]  # fmt: skip
NOT_HERE = {
    "fpunch": "fails on the host's overlay and tmpfs too",
    "handle": "files of an overlay have no handles",
    "physpage": "/proc/PID/pagemap",
    "rawpkt": "AF_PACKET",
    "swap": "swapon",
}


def _stress(folder: Path, rootfs: Path, *args: str) -> set[str]:
    """Run it in a sandbox: the stressors that failed. Whatever the Sentry logs is a failure."""
    log = folder / "log"
    command = ("stress-ng", "--verify", "--timeout=1", *args)
    bundle = Comparison(folder, rootfs, Path(__file__).parent).bundle(*command)
    done = subprocess.run(
        bundle.command(flags=["--network=none", f"--debug-log={log}"]),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=800,
        check=False,
        cwd=REPOSITORY,
    )
    assert log.read_text() == ""
    assert "run completed" in done.stdout, done
    failed = re.search(r"failed: \d+: (.*)", done.stdout)
    return set(re.findall(r"([a-z0-9-]+) \(", failed[1])) if failed else set()


@pytest.mark.parametrize("name", CLASSES)
def test_stressors_of_a_class_verify(tmp_path: Path, languages: Path, name: str) -> None:
    failed = _stress(tmp_path, languages, f"--class={name}", "--sequential=1")

    assert failed <= NOT_HERE.keys()


@pytest.mark.alike
@pytest.mark.parametrize("name", RACES)
def test_stressor_beside_itself_verifies(tmp_path: Path, languages: Path, name: str) -> None:
    assert _stress(tmp_path, languages, f"--{name}=4") == set()
