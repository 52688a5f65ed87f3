"""The ways of running a container: natively, runc, gVisor's runsc, ours. One `Stage` for all.

The stage is a folder with a root file system (an overlay over a cached one, so nothing of that
changes), a folder with the benchmark's program (at /mnt in the container) and one that can be
written (at /srv). It lies in a mount namespace of its own, so its mounts end with the process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parent
GVISOR = "/usr/bin/runsc"
CLONE_NEWNS = 0x20000
TIMEOUT = 900
CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
]  # fmt: skip
NATIVE = """
set -e
cd "$1"; shift
mount --bind bench rootfs/mnt; mount --bind data rootfs/srv
mount -t proc proc rootfs/proc; mount --rbind /dev rootfs/dev
mount -t tmpfs tmpfs rootfs/tmp; mount -t tmpfs tmpfs rootfs/run
exec chroot rootfs /usr/bin/env -i PATH="$PATH" HOME=/root "$@"
"""


class Stage:
    """Where containers of one root file system run."""

    def __init__(self, rootfs: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="bench-"))
        self.bench, self.data = self.path / "bench", self.path / "data"
        for name in ("bench", "data", "rootfs", "upper", "work", "bundle"):
            (self.path / name).mkdir()
        self.data.chmod(0o777)
        layers = f"lowerdir={rootfs},upperdir={self.path}/upper,workdir={self.path}/work"
        run("mount", "-t", "overlay", "overlay", "-o", layers, str(self.path / "rootfs"))
        for name in ("mnt", "srv", "proc", "dev", "sys", "tmp", "run"):
            (self.path / "rootfs" / name).mkdir(exist_ok=True)
        flags = ["-O2", "-static", "-pthread"]
        run("gcc", *flags, "-o", str(self.bench / "cases"), str(HERE / "cases.c"))
        for script in (HERE / "inside").glob("*"):
            shutil.copy(script, self.bench)

    def bundle(self, args: list[str]) -> Path:
        """config.json for this command."""
        root = {"path": str(self.path / "rootfs")}
        tmpfs = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]}
        kinds = ("bounding", "effective", "permitted")
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": [f"PATH={os.environ['PATH']}", "HOME=/root"],
                "cwd": "/",
                "capabilities": dict.fromkeys(kinds, CAPABILITIES),
            },
            "root": root,
            "hostname": "bench",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
                {"destination": "/tmp", **tmpfs},
                {"destination": "/run", **tmpfs},
                bind("/mnt", self.bench, "ro"),
                bind("/srv", self.data, "rw"),
            ],
            "linux": {
                "namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")],
            },
        }
        path = self.path / "bundle"
        (path / "config.json").write_text(json.dumps(config))
        return path

    def close(self) -> None:
        """Take everything away again."""
        run("umount", str(self.path / "rootfs"))
        shutil.rmtree(self.path)


def bind(destination: str, source: Path, mode: str) -> dict[str, object]:
    """A mount of a host folder."""
    options = ["rbind", mode]
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}


def enter_mount_namespace() -> None:
    """Mounts from now on are nobody else's, and end with this process."""
    os.unshare(CLONE_NEWNS)
    run("mount", "--make-rprivate", "/")


def run(*command: str) -> str:
    """Run, or fail with what it said."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


@dataclass
class Way:
    """One way to run containers: the command line of a runtime, or none (natively)."""

    name: str
    runtime: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_runtime(self) -> bool:
        """It has containers that can be created, listed, entered."""
        return bool(self.runtime)

    def command(self, stage: Stage, args: list[str]) -> tuple[list[str], str]:
        """A command line that runs `args` in a new container, and the container's id."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        if not self.runtime:
            sh = ["unshare", "--mount", "sh", "-c", NATIVE, "sh", str(stage.path)]
            return [*sh, *args], name
        return [*self.runtime, "run", "--bundle", str(stage.bundle(args)), name], name

    def run(self, stage: Stage, args: list[str]) -> str:
        """Run to its end; what it wrote. Raises: RuntimeError."""
        return self._run(self.command(stage, args)[0])

    def start(self, stage: Stage, args: list[str]) -> str:
        """Start a container that stays; its id."""
        command, name = self.command(stage, args)
        at = command.index("run") + 1
        self._run([*command[:at], "--detach", *command[at:]], subprocess.DEVNULL)
        return name

    def manage(self, *args: str) -> str:
        """Another command of the runtime."""
        return self._run([*self.runtime, *args])

    def _run(self, command: list[str], output: int = subprocess.PIPE) -> str:
        done = subprocess.run(
            command, check=False, env=os.environ | self.environment, text=True, timeout=TIMEOUT,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.name}: {(done.stderr or '').strip()[-400:]}")
        return done.stdout or ""


def compiled(cache: Path, tree: Path = TREE) -> dict[str, str]:
    """An environment that finds a tree, and its modules compiled as an installed one's are."""
    found = {
        "PYTHONPATH": str(tree),
        "PYTHONPYCACHEPREFIX": str(cache),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    rooms = [tree / name for name in ("runsc", "sentry", "gofer", "kvm", "guest_stubs")]
    command = [sys.executable, "-m", "compileall", "-q", *map(str, rooms)]
    subprocess.run(command, check=True, env=os.environ | found)
    return found


def gvisor(program: str, folder: Path) -> Way:
    """gVisor's runsc."""
    flags = ["--platform=systrap", "--network=none", "--ignore-cgroups"]
    return Way("gVisor systrap", [program, "--root", str(folder / "gvisor"), *flags])


def available(folder: Path) -> list[Way]:
    """Everything that can run here, in the order of the columns."""
    ours = [sys.executable, "-m", "runsc", "--root", str(folder / "ours"), "--network=none"]
    tree = compiled(folder / "compiled")
    found = [Way("native", [])]
    if (runc := shutil.which("runc")) is not None:
        found.append(Way("runc", [runc, "--root", str(folder / "runc")]))
    if os.access(GVISOR, os.X_OK):
        found.append(gvisor(GVISOR, folder))
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        found.append(Way("ours", ours, tree))
        found.append(Way("ours, exits only", [*ours, "--system-calls=exit"], tree))
    found.append(Way("ours, unicorn", [*ours, "--platform=unicorn"], tree))
    return found


DEFAULT = ("native", "runc", "gVisor systrap", "ours")
