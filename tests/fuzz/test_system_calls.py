"""Calls with arguments that nobody means: the program may die of them, the Sentry has no exception.

To look at one round again: `calls SEED 0 ROUND` tells what its processes do; the log has the
exceptions.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.fuzz.call_table import table
from tests.fuzz.guest import run_program
from tests.fuzz.running import for_a_while


@for_a_while(20, 120)
@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened")
def test_no_call_is_an_exception_in_the_sentry(
    bundle: Bundle, tmp_path: Path, seconds: float
) -> None:
    (tmp_path / "calls.h").write_text(table())
    said = run_program(bundle, tmp_path, "calls", seconds)

    print(said.splitlines()[-1])
    assert said.endswith("rounds\n")
