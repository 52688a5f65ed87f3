"""Bundles for tests: made over the cached root file systems, run by our command line.

`Machine` says on which platform; without /dev/kvm its tests skip with that reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNSC = (sys.executable, "-m", "runsc")
ALL_CAPS = (
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE "
    "DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN "
    "MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID "
    "SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE "
    "SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"
)
PATIENCE_S = 90


def root_filesystem(name: str) -> Path:
    """The cached root file system of ci/rootfs, made if it is not there."""
    made = subprocess.run([ROOT / "ci/rootfs", name], check=True, stdout=subprocess.PIPE, text=True)
    return Path(made.stdout.strip().splitlines()[-1])


def need(platform: str) -> None:
    """Skip where the platform cannot run."""
    if platform == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm cannot be opened")
    if platform == "unicorn":
        pytest.importorskip("unicorn", reason="the unicorn extra is not installed")


@dataclass
class Bundle:
    """What to run. Paths of `binds` are source → destination, read-only."""

    args: Sequence[str]
    root: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    binds: Mapping[Path, str] = field(default_factory=dict)
    uid: int = 0

    def config(self) -> dict[str, Any]:
        """config.json: every capability, the usual mounts, a writable root."""
        caps = [f"CAP_{name}" for name in ALL_CAPS.split()]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **self.env}
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ]  # fmt: skip
        mounts += [
            {"destination": to, "type": "bind", "source": str(path), "options": ["bind", "ro"]}
            for path, to in self.binds.items()
        ]
        return {
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": self.uid, "gid": self.uid},
                "args": list(self.args),
                "env": [f"{name}={value}" for name, value in env.items()],
                "cwd": self.cwd,
                "capabilities": {
                    kind: caps if self.uid == 0 else []
                    for kind in ("bounding", "effective", "permitted")
                },
            },
            "root": {"path": str(self.root), "readonly": False},
            "hostname": "test",
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")]
            },
        }

    def write(self, folder: Path) -> Path:
        """Make the bundle; its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config(), indent=1))
        return folder


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    code: int
    out: str
    err: str


def run(
    bundle: Bundle,
    folder: Path,
    platform: str,
    *flags: str,
    stdin: str = "",
    timeout: float = PATIENCE_S,
) -> Result:
    """`runsc run`; deaths by signal are 128 + n."""
    bundle.write(folder)
    done = subprocess.run(
        [*RUNSC, "--root", folder / "state", "--platform", platform, *flags, "run",
         "--bundle", folder, f"t{os.getpid()}"],
        input=stdin, capture_output=True, text=True, errors="replace",
        timeout=timeout, check=False, cwd=ROOT,
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


def run_native(bundle: Bundle, stdin: str = "", timeout: float = PATIENCE_S) -> Result:
    """The same program in a chroot with a private /proc, for comparison. Needs root."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **bundle.env}
    script = (
        'root=$1; shift; mount --rbind "$root" /mnt && cd /mnt && mount -t proc proc proc && '
        'mount --rbind /dev dev && mount -t tmpfs tmpfs tmp && exec chroot . "$@"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
         "sh", "-c", script, "sh", bundle.root, *bundle.args],
        input=stdin, capture_output=True, text=True, errors="replace",
        timeout=timeout, check=False, env=env,
    )  # fmt: skip
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Result(code, done.stdout, done.stderr)
