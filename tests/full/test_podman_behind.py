"""podman: what a container leaves, whose root is written behind, is what runc's leaves."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full import leavings
from tests.full.podman import IMAGE, Podman, needs_podman
from tests.full.runtimes import RUNTIME, is_there

pytestmark = [
    pytest.mark.full, pytest.mark.root, needs_podman, is_there,
    pytest.mark.skipif(not RUNTIME.is_ours, reason="compares ours with runc"),
    pytest.mark.skipif(not shutil.which("runc"), reason="needs runc"),
]  # fmt: skip


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Podman]:
    folder = tmp_path_factory.mktemp("behind")
    made = Podman(folder, leavings.image(folder, busybox))
    yield made
    made.end()


def over_runc(podman: Podman) -> Podman:
    """The same storage."""
    found = copy.copy(podman)
    kept = [part for part in podman.command if not part.startswith("--runtime")]
    found.command = [*kept, "--runtime=runc"]
    return found


def binary(podman: Podman) -> leavings.Binary:
    def call(*args: str) -> bytes:
        return subprocess.run([*podman.command, *args], capture_output=True, check=True).stdout

    return call


def test_container_leaves_what_that_of_runc_leaves(podman: Podman) -> None:
    native = over_runc(podman)
    wanted = leavings.of_container(native, binary(native), "native")
    leavings.compare(wanted, leavings.of_container(podman, binary(podman), "behind"))


def test_build_leaves_what_that_of_runc_leaves(podman: Podman, tmp_path: Path) -> None:
    native = over_runc(podman)
    flags = ("--isolation=oci", "--ulimit=nofile=1000:1000", "--ulimit=nproc=1000:1000")
    wanted = leavings.of_build(native, binary(native), tmp_path / "native", *flags)
    got = leavings.of_build(podman, binary(podman), tmp_path / "behind", *flags)
    leavings.compare(wanted, got)


def test_copied_into_a_running_container_is_seen_and_diff_shows_what_exec_did(
    podman: Podman, tmp_path: Path
) -> None:
    """`podman cp` writes into the root from outside, over what the container has looked at."""
    (tmp_path / "passwd").write_text("copied\n")
    podman.ok("run", "--name=seen", "--network=none", "--detach", IMAGE, "sleep", "1000")
    look = "ls -lR / >/dev/null 2>&1; cat /etc/passwd /new 2>&1; touch /etc/mine"
    assert "copied" not in podman.ok("exec", "seen", "sh", "-c", look)
    podman.ok("cp", str(tmp_path / "passwd"), "seen:/etc/passwd")
    podman.ok("cp", str(tmp_path / "passwd"), "seen:/new")
    wait = "until [ $(cat /etc/passwd) = copied ] && cat /new; do :; done"
    seen = podman.ok("exec", "seen", "timeout", "60", "sh", "-c", wait)
    assert seen == "copied"
    podman.ok("exec", "seen", "rm", "/new", "/bin/yes")
    shown = podman.ok("diff", "seen").splitlines()
    assert "D /bin/yes" in shown
    assert not any("/new" in line for line in shown)
    podman.remove("seen")
