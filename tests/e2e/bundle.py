"""Bundles over cached root file systems, run by us and natively."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from runsc.commands.spec import example
from tests import patience

REPOSITORY = Path(__file__).resolve().parent.parent.parent
STEPS = Path(tempfile.mkdtemp(prefix="runsc-steps-")) / "steps"
"""Where sandboxes write what held up their kernel threads: `no_step_is_long` in conftest.py."""
STEPS.parent.chmod(0o755)
STEPS.touch()
STEPS.chmod(0o666)  # for tests as another user
atexit.register(shutil.rmtree, STEPS.parent, ignore_errors=True)
PLAIN = [sys.executable, "-m", "runsc", f"--TESTONLY-steps={STEPS}"]
RUNSC = [*PLAIN, "--overlay2=root:memory"]
"""The root file systems of bundles are shared by all tests, and not to be written to."""
KEPT = "--overlay2=none"
"""For a root of one's own: as it is by default."""
TIMEOUT_S = patience.TIMEOUT_S
OVERFLOW = "ulimit -s 100; exec sh -c 'f() { f; }; f'"
"""Shell: a process that dies of SIGSEGV, also one that is an init."""
Document = dict[str, Any]
Result = subprocess.CompletedProcess[str]


def kvm_is_usable() -> bool:
    """Whether this user may open /dev/kvm."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


class Bundle:
    """A folder with a config.json; the root file system lies elsewhere and is shared."""

    def __init__(self, path: Path, rootfs: Path) -> None:
        path.mkdir(parents=True)
        self.path = path
        self.rootfs = rootfs
        self.document: Document = msgspec.to_builtins(example())
        self.document["process"]["terminal"] = False
        self.document["root"] = {"path": str(rootfs)}

    def configure(self, change: Callable[[Document], object]) -> Bundle:
        """Change the document."""
        change(self.document)
        return self

    def args(self, *args: str) -> Bundle:
        """What the container runs."""
        self.document["process"]["args"] = list(args)
        return self

    def write(self) -> Path:
        """Write config.json."""
        (self.path / "config.json").write_text(json.dumps(self.document))
        return self.path

    def command(self, platform: str = "kvm", flags: Sequence[str] = ()) -> list[str]:
        """The command line that runs it."""
        state = self.path / "state"
        return [
            *RUNSC,
            f"--root={state}",
            f"--platform={platform}",
            *flags,
            "run",
            f"--bundle={self.write()}",
            "test",
        ]

    def run(self, platform: str = "kvm", stdin: str = "", flags: Sequence[str] = ()) -> Result:
        """Run the container to its end."""
        return execute(self.command(platform, flags), stdin)


def execute(command: Sequence[str | Path], stdin: str = "") -> Result:
    """Run a program on the host, in the repository, so that `python -m runsc` is ours."""
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=REPOSITORY,
    )


NATIVE_ROOT = """
set -e
mount -t tmpfs none "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" none "$2/root"
cd "$2/root"
mount -t proc none proc
mount -t tmpfs none dev
[ -z "$3" ] || mount --bind "$3" mnt
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 none dev/pts
mount -t tmpfs -o mode=1777 none dev/shm
while read -r name major minor; do
    mknod -m 666 dev/$name c $major $minor
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
shift 3
exec chroot . "$@"
"""
"""Shell: a throw-away copy of the root $1 below the folder $2, with $3 (or nothing) on /mnt."""


def native_command(
    namespaces: Sequence[str], rootfs: Path, scratch: Path, shared: Path | None, setup: str = ""
) -> list[str]:
    """What comes before a command to run it on the host's kernel, in a copy of a root. As root."""
    shell = ["sh", "-c", setup + NATIVE_ROOT, "sh", str(rootfs), str(scratch), str(shared or "")]
    return ["unshare", "--mount", *namespaces, *shell]


def natively(rootfs: Path, args: Sequence[str], env: Sequence[str], stdin: str = "") -> Result:
    """The same program on the host's kernel: Linux is the oracle. Needs root."""
    with tempfile.TemporaryDirectory(prefix="runsc-native-") as scratch:
        command = native_command((), rootfs, Path(scratch), None)
        return execute([*command, "/usr/bin/env", "-i", *env, *args], stdin)
