"""File systems of the host that a test mounts for itself."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest


def layered(
    place: Path, lowers: list[Path], upper: Path, ends: ExitStack, more: str = ""
) -> Path:
    """An overlayfs at `place`; `upper`: where its upper layer and its work go; `more`: options."""
    for path in (place, upper / "upper", upper / "work"):
        path.mkdir(parents=True, exist_ok=True)
    below = ":".join(map(str, lowers))
    layers = f"lowerdir={below},upperdir={upper}/upper,workdir={upper}/work{more}"
    mounted(ends, place, "-t", "overlay", "-o", layers, "none")
    return place


def mounted(ends: ExitStack, place: Path, *arguments: str) -> None:
    """mount(8), until the end of the test."""
    command = ["mount", *arguments, str(place)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no mount of one's own: {found.stderr.strip()}")
    ends.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
