"""The recording of README.md: the same commands say the same now."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.unit.ci.test_recording import recording  # noqa: F401  a fixture

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.root,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
DIFFERS = re.compile(r"\d+-\d+-\d+T\S+|\[\d+\]")
"""Times and numbers of processes."""


def test_a_new_recording_shows_what_the_readme_shows(
    tmp_path: Path, debian: Path, recording: ModuleType  # noqa: F811
) -> None:  # fmt: skip
    pieces = recording.record(tmp_path, debian)

    shown = recording.text_of(recording.svg(recording.lines_of(pieces)))
    wanted = recording.text_of(recording.PICTURE.read_text())
    assert [DIFFERS.sub("…", line) for line in shown] == [DIFFERS.sub("…", line) for line in wanted]
    assert list((tmp_path / "state").iterdir()) in ([], [tmp_path / "state/.lock"])
