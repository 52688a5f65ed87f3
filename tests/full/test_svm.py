"""The tests of the platform on an ordinary KVM: SYSCALL enters ring 0, and IRETQ leaves it.

Machines of developers and of CI may have another kind, or none. ci/svm/run boots one.
"""

from __future__ import annotations

import pytest

from tests.full.svm import PATIENCE_S, run

PROGRAMS = (
    "exec_programs", "futex_basic", "memory_map", "memory_threads", "signals_faults",
    "signals_frame", "signals_threads", "time_clocks",
)  # fmt: skip
SKIPPED = "not names_the_operand and not that_cpuid_shows"
"""Many, and about the CPU alone, which is QEMU's here."""

pytestmark = [pytest.mark.full, pytest.mark.svm, pytest.mark.timeout(PATIENCE_S + 60)]


def test_platform_with_nested_paging() -> None:
    run("--npt=1", "tests/contract", "-k", f"(kvm-mailbox or kvm-exit) and {SKIPPED}")


def test_platform_with_shadow_paging() -> None:
    run("--npt=0", "tests/contract", "-k", f"kvm-mailbox and {SKIPPED}")


def test_programs_under_the_whole_sentry() -> None:
    run("--npt=1", "tests/abi", "-k", f"kvm and ({' or '.join(PROGRAMS)})")


def test_registers_and_frames_of_no_sense() -> None:
    run("--npt=1", "tests/fuzz/test_frames.py", "-k", "briefly")
