"""Compile the processes that are no Python: `build(target)` writes runsc/launch/built below it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = ("stand_in", "oom_victim", "pause")
FREESTANDING = ("-ffreestanding", "-fno-stack-protector", "-fcf-protection=none", "-fno-pie")
LINKED = ("-static", "-no-pie", "-nostdlib", "-s", "-Wl,--build-id=none,-z,noexecstack")


def build(target: Path, warnings: Iterable[str] = ()) -> list[Path]:
    """Give the files made."""
    place = target / "runsc" / "launch" / "built"
    place.mkdir(parents=True, exist_ok=True)
    made = []
    for name in PROGRAMS:
        program = place / name
        fresh = program.with_suffix(".new")
        options = ["-Os", *FREESTANDING, *warnings, *LINKED]
        command: list[str | Path] = ["gcc", *options, HERE / f"{name}.c", "-o", fresh]
        subprocess.run(command, check=True)
        fresh.replace(program)
        made.append(program)
    return made
