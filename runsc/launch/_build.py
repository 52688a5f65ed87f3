"""Compile the stand-in process: `build(target)` writes runsc/launch/built/stand_in below it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
FREESTANDING = ("-ffreestanding", "-fno-stack-protector", "-fcf-protection=none", "-fno-pie")
LINKED = ("-static", "-no-pie", "-nostdlib", "-s", "-Wl,--build-id=none,-z,noexecstack")


def build(target: Path, warnings: Iterable[str] = ()) -> list[Path]:
    """Give the files made."""
    place = target / "runsc" / "launch" / "built"
    place.mkdir(parents=True, exist_ok=True)
    made = place / "stand_in"
    fresh = made.with_suffix(".new")
    options = ["-Os", *FREESTANDING, *warnings, *LINKED]
    command: list[str | Path] = ["gcc", *options, HERE / "stand_in.c", "-o", fresh]
    subprocess.run(command, check=True)
    fresh.replace(made)
    return [made]
