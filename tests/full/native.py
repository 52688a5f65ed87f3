"""A command over a root file system of installed packages: in a sandbox and natively.

What is written is gone afterwards: the sandbox has its overlay in memory, the native run one in
namespaces of its own. A folder of the repository lies in /mnt.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.bundle import REPOSITORY, Bundle, Result, native_command
from tests.e2e.installed import NAMESPACES

ENVIRONMENT = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
]
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "NET_RAW",
        "SETGID", "SETUID", "SYS_CHROOT",
    )
]  # fmt: skip
PATIENCE_S = 1200


class Comparison:
    """Runs commands in a sandbox, and on the host's kernel."""

    def __init__(self, folder: Path, rootfs: Path, shared: Path) -> None:
        self.folder = folder
        self.rootfs = rootfs
        self.shared = shared

    def bundle(self, *args: str) -> Bundle:
        """What runs a command in a sandbox."""
        bundle = Bundle(self.folder / "bundle", self.rootfs).args(*args)
        process = bundle.document["process"]
        process["env"] = ENVIRONMENT
        process["cwd"] = "/tmp"
        process["noNewPrivileges"] = False
        process["rlimits"] = []
        process["capabilities"] = dict.fromkeys(process["capabilities"], CAPABILITIES)
        bundle.document["root"]["readonly"] = False
        bundle.document["mounts"].append(
            {"destination": "/mnt", "source": str(self.shared), "options": ["bind", "ro"]}
        )
        return bundle

    def inside(self, *args: str) -> Result:
        """The command in a sandbox on kvm."""
        return _patiently(self.bundle(*args).command())

    def natively(self, *args: str) -> Result:
        """The command on the host's kernel; a death by signal is the exit code that OCI gives."""
        scratch = self.folder / "native"
        scratch.mkdir()
        own = native_command(NAMESPACES, self.rootfs, scratch, self.shared, "ip link set lo up\n")
        there = ["/usr/bin/env", "-i", "--chdir=/tmp", *ENVIRONMENT, *args]
        done = _patiently([*own, *there])
        if done.returncode < 0:
            done.returncode = 128 - done.returncode
        return done

    def same(self, script: str) -> str:
        """A script for bash says and returns the same in both; what it says."""
        ours = self.inside("/bin/bash", "-c", script)
        linux = self.natively("/bin/bash", "-c", script)
        assert ours.stdout == linux.stdout, (ours, linux)
        assert (ours.stderr, ours.returncode) == (linux.stderr, linux.returncode), (ours, linux)
        return linux.stdout


def _patiently(command: list[str]) -> Result:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE_S,
        check=False,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
    )
