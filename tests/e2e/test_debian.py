"""The quick ones of tests/full/programs, over the small Debian root file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, kvm_is_usable
from tests.e2e.installed import Installed

SCRIPTS = REPOSITORY / "tests" / "full" / "programs"


@pytest.mark.root
@pytest.mark.kvm
@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.parametrize("script", ["bash.sh", "modules.sh"])
def test_script_says_the_same_as_on_linux(script: str, tmp_path: Path, debian: Path) -> None:
    Installed(tmp_path, debian, SCRIPTS).compare(script)
