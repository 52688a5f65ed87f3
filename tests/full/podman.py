"""podman with storage of its own, over the runtime of these tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.bundle import Result
from tests.e2e.talker import Talker
from tests.full.engine import TIMEOUT_S, Engine
from tests.full.runtimes import RUNTIME

IMAGE = "localhost/bb"
needs_podman = pytest.mark.skipif(not shutil.which("podman"), reason="needs podman")


class Podman(Engine):
    """podman with storage of its own, and an image called bb."""

    image = IMAGE

    def __init__(
        self, folder: Path, rootfs: Path, prefix: Sequence[str] = (), flags: Sequence[str] = ()
    ) -> None:
        self.state = folder / "state"
        runtime = RUNTIME.script(folder / "runsc", f"--root={self.state}", *flags)
        self.command = [
            *prefix,
            "podman",
            f"--root={folder}/storage",
            f"--runroot={folder}/run",
            f"--runtime={runtime}",
        ]
        if RUNTIME.is_ours:
            self.command.append("--runtime-flag=platform=kvm")
        self.archive = folder / "image.tar"
        subprocess.run(["tar", "-C", rootfs, "-cf", self.archive, "."], check=True)
        self.ok("import", str(self.archive), IMAGE)

    def call(self, *args: str, stdin: str = "") -> Result:
        return subprocess.run(
            [*self.command, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd=self.archive.parent,  # conmon writes files there
            env={**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
        )

    def remove(self, *names: str) -> None:
        self.ok("rm", "--force", "--time=0", *names)

    def at_a_terminal(self, *args: str) -> Result:
        """script(1): a terminal, which pytest does not have."""
        command = " ".join(f"'{word}'" for word in [*self.command, *args])
        return subprocess.run(
            ["script", "-qec", command, "/dev/null"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def end(self) -> None:
        """Nothing of it is left."""
        self.ok("pod", "rm", "--all", "--force", "--time=0")
        self.ok("rm", "--all", "--force", "--time=0")
        if RUNTIME.is_ours:
            assert [name for name in os.listdir(self.state) if name != ".lock"] == []
        self.ok("rmi", "--all", "--force")


AROUND = """
mount -t tmpfs none /run/netns 2>/dev/null
for file in subuid subgid; do touch /etc/$file; mount --bind "$1/sub" /etc/$file; done
ip link set lo up; echo; read end
"""


@contextmanager
def apart(folder: Path, rootfs: Path) -> Iterator[Podman]:
    """One whose bridges, firewall and ranges of users are nobody else's."""
    if not Path("/usr/lib/podman/netavark").exists():
        pytest.skip("needs netavark")
    (folder / "containers.conf").write_text('[network]\nfirewall_driver = "iptables"\n')
    (folder / "sub").write_text("containers:300000:65536\n")
    around = Talker(["unshare", "--net", "--mount", "sh", "-c", AROUND, "sh", str(folder)])
    around.hear()
    enter = ("nsenter", f"--target={around.process.pid}", "--net", "--mount")
    made = Podman(folder, rootfs, (*enter, "env", f"CONTAINERS_CONF={folder}/containers.conf"))
    made.command.append(f"--network-config-dir={folder}/networks")
    try:
        yield made
        made.end()
    finally:
        around.end()
