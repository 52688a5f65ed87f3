"""What was learnt of a build, a web server under load and a shell session lets them run again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import rootfs_of
from tests.e2e.bundle import PLAIN, REPOSITORY, kvm_is_usable
from tests.full.recorded import PROGRAMS

PATIENCE_S = 300
pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(4 * PATIENCE_S),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _run(folder: Path, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*PLAIN, f"--root={folder / 'state'}", *flags]
    return subprocess.run(
        [*command, "sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False, cwd=REPOSITORY, env={**os.environ, "PATH": PATH},
    )  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_was_learnt_is_enough_to_run_again(tmp_path: Path, name: str) -> None:
    rootfs, script, shows = PROGRAMS[name]
    learnt, seen = tmp_path / "learnt.toml", tmp_path / "seen"
    over = ["--root", str(rootfs_of(rootfs)), "--cwd", "/"]
    first = _run(
        tmp_path, script,
        "policy", "learn", "-o", str(learnt), "--record", str(seen), *over,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert shows in first.stdout

    tested = subprocess.run(
        [*PLAIN, "policy", "test", str(learnt), str(seen)], capture_output=True, text=True,
        check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert (tested.returncode, tested.stdout, tested.stderr) == (0, "", "")

    told = tmp_path / "told"
    session = tmp_path / "session.json"
    session.write_text(json.dumps({"trace_session": {
        "points": [{"name": "sentry/policy"}],
        "sinks": [{"name": "json", "config": {"path": str(told)}}],
    }}))  # fmt: skip
    again = _run(
        tmp_path, script,
        f"--pod-init-config={session}", "do", "--policy", str(learnt), *over,
    )  # fmt: skip
    denied = [line for line in told.read_text().splitlines() if '"deny' in line]
    assert denied == []
    assert again.returncode == 0, again.stderr
    assert shows in again.stdout

    other = _run(
        tmp_path, "cat /etc/fstab /etc/login.defs; nc -h; mkdir /tmp/z; true",
        "do", "--policy", str(learnt), *over,
    )  # fmt: skip
    assert "ermission denied" in other.stderr
