"""The runtime below the engines of these tests: this one, or the one RUNSC_TEST_RUNTIME names.

`runc` shows what is right, `gvisor` (Debian's package, unpacked by `ci/rootfs gvisor`) what its
users have. `python -m tests.full.clients` runs the tests with each and writes docs/clients.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, kvm_is_usable

PYTHON = {"PYTHONPATH": str(REPOSITORY)} | {
    name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ
}
FOUND = " ".join(f'{name}="{value}"' for name, value in PYTHON.items())
"""How a shell tells Python where this tree is, and where a benchmark has compiled it."""


@dataclass(frozen=True)
class Runtime:
    """An OCI runtime, as an engine is told of it."""

    name: str
    command: tuple[str, ...]
    keeping: tuple[str, ...] = ()
    """Flags with which what is written to a root file system stays there, if it needs any."""
    missing: str = ""
    """Why it cannot run here."""

    @property
    def is_ours(self) -> bool:
        return self.name == "ours"

    def script(self, path: Path, *flags: str) -> Path:
        """A program for the engine that calls it with these flags."""
        words = " ".join(f"'{word}'" for word in (*self.command, *flags))
        path.write_text(f'#!/bin/sh\n{FOUND} exec {words} "$@"\n')
        path.chmod(0o755)
        return path


def _ours() -> Runtime:
    command = (sys.executable, "-m", "runsc")
    missing = "" if kvm_is_usable() else "/dev/kvm cannot be used here"
    return Runtime("ours", command, missing=missing)


def _runc() -> Runtime:
    found = shutil.which("runc")
    return Runtime("runc", (found or "runc",), missing="" if found else "needs runc")


def _gvisor() -> Runtime:
    """From the environment, else made by ci/rootfs, as root file systems are."""
    place, missing = os.environ.get("RUNSC_ROOTFS_GVISOR", ""), ""
    if not place:
        made = subprocess.run(
            [REPOSITORY / "ci" / "rootfs", "gvisor"], capture_output=True, text=True, check=False
        )
        place, missing = made.stdout.strip(), made.stderr[-200:] if made.returncode else ""
    # its own stack refuses a newer Linux: "network enabled in root network namespace"
    command = (f"{place}/usr/bin/runsc", "--platform=systrap", "--network=host")
    return Runtime("gvisor", command, ("--overlay2=none",), missing)


RUNTIMES = {"ours": _ours, "runc": _runc, "gvisor": _gvisor}
RUNTIME = RUNTIMES[os.environ.get("RUNSC_TEST_RUNTIME", "ours")]()
is_there = pytest.mark.skipif(bool(RUNTIME.missing), reason=RUNTIME.missing)
only_ours = pytest.mark.skipif(not RUNTIME.is_ours, reason="about this runtime's own state")
