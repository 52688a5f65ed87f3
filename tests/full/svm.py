"""The machine of ci/svm/run: a small Debian kernel in QEMU's software CPU, with an ordinary KVM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.e2e.bundle import REPOSITORY

RUN = REPOSITORY / "ci/svm/run"
CPU_S = 1800
PATIENCE_S = 4 * CPU_S
"""On a clock: others may want the CPUs, too."""


def run(*arguments: str) -> str:
    """Tests in it, which must pass; what pytest says."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with subprocess.Popen(
        [RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHON": sys.executable, "TIMEOUT": str(CPU_S)},
    ) as process:
        try:
            output, _ = process.communicate()
        finally:
            process.terminate()  # a test that is given up must not leave its machine behind
    if process.returncode == 77:
        pytest.skip("there is no Debian kernel to be had here")
    assert process.returncode == 0, output[-20_000:]
    return output
