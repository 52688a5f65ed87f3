"""What README.md and docs/start.md say, done word by word in a Debian on which nothing is yet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.full.packages import BUILD_S, CODENAMES, Debian, cloned

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
    pytest.mark.timeout(BUILD_S),
]
STEPS = (
    "an environment", "pip install .", "runsc check", "runsc do", "ci/rootfs debian", "runsc spec",
    "runsc run", "first example", "a fork", "podman run",
)  # fmt: skip


@pytest.mark.parametrize("codename", CODENAMES)
@pytest.mark.parametrize("who", ["root", "guest"])
def test_from_the_readme_to_a_fork(codename: str, who: str, tmp_path: Path) -> None:
    done = Debian(codename).call("new_user.sh", who, folders={"/clone": cloned(tmp_path)})

    assert done.returncode == 0, done.stdout + done.stderr
    taken = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    print(*taken, sep="\n")
    names = [line.removeprefix("step ").partition(": ")[0] for line in taken]
    assert names == [*(["ci/demo"] if who == "root" else []), *STEPS]
    assert [line for line in done.stdout.splitlines() if line in {"42", "warm", "6.12.0"}] == [
        "42", "42", "warm", "6.12.0",
    ]  # fmt: skip
