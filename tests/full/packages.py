"""The files of a release, built once for each commit, and clean Debians to install them in."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from tests.e2e.bundle import REPOSITORY, Result

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runsc"
CODENAMES = {"bookworm": "3.11", "trixie": "3.13"}
"""Debian releases that there are packages for, and the Python of each."""
PYTHONS = {**CODENAMES, "testing": "3.14"}
"""Those that wheels are installed in."""
SCRIPTS = Path(__file__).parent / "installed"
BUILD_S = 3600


def ok(*command: str | Path, env: dict[str, str] | None = None, limit_s: int = BUILD_S) -> str:
    """A command that must succeed, and what it prints."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        cwd=REPOSITORY, env={**os.environ, **(env or {})}, timeout=limit_s,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def built() -> Path:
    """The folder with all of it, of the last commit: ci/wheels, ci/deb."""
    commit = ok("git", "rev-parse", "HEAD").strip()
    place = CACHE / "packages"
    place.mkdir(parents=True, exist_ok=True)
    folder = place / commit
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for other in place.iterdir():
                if other.is_dir():
                    shutil.rmtree(other)
            fresh = place / "new"
            ok("ci/wheels", fresh)
            ok("ci/deb", fresh)
            fresh.rename(folder)
    return folder


class Debian:
    """A clean one: what a script has done to it is gone when it ends."""

    def __init__(self, codename: str) -> None:
        self.root = ok("ci/rootfs", "clean", codename).strip()

    def call(self, script: str, *words: str, folders: dict[str, Path]) -> Result:
        """A file of tests/full/installed, with these folders of the host."""
        binds = [f"{there}:{here}" for here, there in {"/scripts": SCRIPTS, **folders}.items()]
        done = subprocess.run(
            [REPOSITORY / "ci/packages/inside", self.root, *binds, "--",
             "/bin/bash", "-e", f"/scripts/{script}", *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=BUILD_S,
        )  # fmt: skip
        return Result(done.args, done.returncode, done.stdout, done.stderr)
