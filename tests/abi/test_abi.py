"""Every program of this folder: it passes on the host's Linux, on kvm, and on unicorn.

A program that needs what unicorn cannot do (AVX, parallel threads) says so in its first lines:
`/* platforms: native kvm */`.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import bundles

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(path.stem for path in HERE.glob("*.c"))


def compile_program(name: str, folder: Path) -> Path:
    """Compile one program, or take it from $ABI_PROGRAMS, for a machine without a compiler."""
    if made := os.environ.get("ABI_PROGRAMS"):
        return Path(made) / name
    target = folder / name
    source = HERE / f"{name}.c"
    subprocess.run(
        ["gcc", "-O1", "-w", "-static", "-pthread", "-o", target, source, "-lm"], check=True
    )
    return target


def wants(name: str, platform: str) -> None:
    """Skip a platform that the program does not name."""
    head = (HERE / f"{name}.c").read_text()[:400]
    found = re.search(r"platforms: ([a-z ]+)", head)
    if found and platform not in found[1].split():
        pytest.skip(f"{name} is for {found[1].strip()}")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("platform", ["native", "kvm", "unicorn"])
def test_abi_program_passes(name: str, platform: str, tmp_path: Path) -> None:
    wants(name, platform)
    program = compile_program(name, tmp_path)
    if platform == "native":
        (tmp_path / "cwd").mkdir()
        done = subprocess.run(
            [program], cwd=tmp_path / "cwd", capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return
    bundles.need(platform)
    bundle = bundles.Bundle(
        [f"/abi/{name}"],
        bundles.root_filesystem("busybox"),
        cwd="/tmp",
        binds={program: f"/abi/{name}"},
    )
    result = bundles.run(bundle, tmp_path / "bundle", platform)
    assert (result.code, result.err) == (0, "")
