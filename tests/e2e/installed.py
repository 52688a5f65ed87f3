"""Commands over a root file system of installed packages: in a sandbox, and natively.

Both see the same root, and what they write is gone afterwards: the sandbox has its overlay in
memory, the native run an overlay in a tmpfs of its own mount namespace. Scripts lie in /mnt. Root
of the sandbox has the capabilities that docker gives, and CAP_SYS_PTRACE.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.bundle import REPOSITORY, Bundle, Document, Result, native_command

PATIENCE_S = 900
ENVIRONMENT = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
    "TERM=xterm",
    "DEBIAN_FRONTEND=noninteractive",
]
CAPABILITIES = [
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
]  # fmt: skip
NAMESPACES = ("--pid", "--fork", "--net", "--ipc", "--uts")
SETUP = "ip link set lo up; ulimit -n 1024\n"


class Installed:
    """A root file system of installed packages."""

    def __init__(
        self, folder: Path, rootfs: Path, scripts: Path, more: Sequence[str] = ()
    ) -> None:
        """`more`: capabilities beyond the usual ones."""
        self.capabilities = [*CAPABILITIES, *more]
        self.folder = folder
        self.scripts = scripts
        self.rootfs = rootfs
        self.runs = 0

    def bundle(self, *args: str) -> Bundle:
        """What runs a command: root with the usual rights, in /root."""
        self.runs += 1
        bundle = Bundle(self.folder / f"bundle{self.runs}", self.rootfs).args(*args)

        def rights(document: Document) -> None:
            process = document["process"]
            process["env"] = ENVIRONMENT
            process["cwd"] = "/root"
            process["noNewPrivileges"] = False
            process["capabilities"] = dict.fromkeys(process["capabilities"], self.capabilities)
            document["root"]["readonly"] = False
            bind = {"type": "bind", "source": str(self.scripts), "options": ["bind", "ro"]}
            document["mounts"].append({"destination": "/mnt", **bind})

        return bundle.configure(rights)

    def inside(self, *args: str, stdin: str = "") -> Result:
        """The command in a sandbox on kvm."""
        return _patiently(self.bundle(*args).command(), stdin)

    def natively(self, *args: str, stdin: str = "") -> Result:
        """The command on the host's kernel, in namespaces and a copy of the root of its own."""
        scratch = self.folder / "native"
        scratch.mkdir(exist_ok=True)
        own = native_command(NAMESPACES, self.rootfs, scratch, self.scripts, SETUP)
        there = ["/usr/bin/env", "-i", "--chdir=/root", *ENVIRONMENT, *args]
        return _patiently([*own, *there], stdin)

    def compare(self, script: str) -> str:
        """A script must say the same in both, and end well; give what it says."""
        command = ("/bin/bash", f"/mnt/{script}")
        ours = self.inside(*command)
        linux = self.natively(*command)
        assert linux.returncode == 0, (linux.stdout, linux.stderr)
        assert ours.stdout == linux.stdout, f"{ours.stdout}\non Linux:\n{linux.stdout}"
        assert (ours.returncode, ours.stderr) == (0, linux.stderr)
        return ours.stdout


def _patiently(command: list[str], stdin: str) -> Result:
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE_S,
        check=False,
        cwd=REPOSITORY,
    )
