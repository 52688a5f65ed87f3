"""A command over a root file system of installed packages: in a sandbox and natively.

What is written is gone afterwards: the sandbox has its overlay in memory, the native run one in
namespaces of its own. A folder of the repository lies in /mnt.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.bundle import REPOSITORY, Bundle, Result

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
NATIVE_ROOT = """
set -e
mount -t tmpfs none "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" none "$2/root"
cd "$2/root"
mount -t proc none proc
mount -t tmpfs none dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 none dev/pts
mount -t tmpfs -o mode=1777 none dev/shm
for name in null zero full random urandom; do
    mknod -m 666 dev/$name c 1 "$(stat -c %T /dev/$name)"
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount --bind "$3" mnt
ip link set lo up
shift 3
exec chroot . "$@"
"""


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
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts"]
        shell = ["sh", "-c", NATIVE_ROOT, "sh", self.rootfs, scratch, self.shared]
        there = ["/usr/bin/env", "-i", "--chdir=/tmp", *ENVIRONMENT, *args]
        done = _patiently([*namespaces, *map(str, shell), *there])
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
