"""Registers, signal frames and pages of the entry code: a program hurts nobody but itself.

`frames SEED 0 CHILD` looks at one child again. The same program runs on an ordinary KVM, in QEMU:
`ci/svm/run tests/fuzz/test_frames.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.fuzz.guest import run_program
from tests.fuzz.running import for_a_while


@for_a_while()
@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened")
def test_registers_and_pages_of_no_sense_hurt_nobody_else(
    bundle: Bundle, tmp_path: Path, seconds: float
) -> None:
    said = run_program(bundle, tmp_path, "frames", seconds)

    print(said.splitlines()[-1])
    assert said.endswith("children\n")
