"""Ordinary programs from Debian packages: scripts say the same in a sandbox as on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.e2e.installed import Installed

SCRIPTS = Path(__file__).parent / "programs"

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.alike,
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
    pytest.mark.timeout(900),
]


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_script_says_the_same_as_on_linux(script: str, tmp_path: Path, programs: Path) -> None:
    Installed(tmp_path, programs, SCRIPTS).compare(script)
