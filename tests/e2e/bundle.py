"""Bundles over cached root file systems, run by us and natively."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from runsc.commands.spec import example

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RUNSC = [sys.executable, "-m", "runsc"]
TIMEOUT_S = 60
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


def natively(rootfs: Path, args: Sequence[str], env: Sequence[str], stdin: str = "") -> Result:
    """The same program on the host's kernel: Linux is the oracle. Needs root."""
    inside = 'mount --rbind /dev "$1/dev" && exec chroot "$@"'
    command = ["unshare", "--mount", "sh", "-c", inside, "sh", rootfs]
    return execute([*command, "/usr/bin/env", "-i", *env, *args], stdin)
