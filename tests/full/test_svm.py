"""The tests of the platform on an ordinary KVM: SYSCALL enters ring 0, and IRETQ leaves it.

Machines of developers and of CI may have another kind, or none. ci/svm/run boots one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent.parent.parent / "ci/svm/run"
PROGRAMS = (
    "exec_programs", "futex_basic", "memory_map", "memory_threads", "signals_faults",
    "signals_frame", "signals_threads", "time_clocks",
)  # fmt: skip
SKIPPED = "not names_the_operand and not that_cpuid_shows"
"""Many, and about the CPU alone, which is QEMU's here."""
PATIENCE_S = 900

pytestmark = [pytest.mark.full, pytest.mark.svm, pytest.mark.timeout(PATIENCE_S + 60)]


def run(*arguments: str) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with subprocess.Popen(
        [RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHON": sys.executable, "TIMEOUT": str(PATIENCE_S)},
    ) as process:
        try:
            output, _ = process.communicate()
        finally:
            process.terminate()  # a test that is given up must not leave its machine behind
    if process.returncode == 77:
        pytest.skip("there is no Debian kernel to be had here")
    assert process.returncode == 0, output[-20_000:]


def test_platform_with_nested_paging() -> None:
    run("--npt=1", "tests/contract", "-k", f"(kvm-mailbox or kvm-exit) and {SKIPPED}")


def test_platform_with_shadow_paging() -> None:
    run("--npt=0", "tests/contract", "-k", f"kvm-mailbox and {SKIPPED}")


def test_programs_under_the_whole_sentry() -> None:
    run("--npt=1", "tests/abi", "-k", f"kvm and ({' or '.join(PROGRAMS)})")


def test_registers_and_frames_of_no_sense() -> None:
    run("--npt=1", "tests/fuzz/test_frames.py", "-k", "briefly")
