"""The examples of docs/python.md: each block of Python prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runsc.api import states
from tests.e2e.bundle import REPOSITORY, kvm_is_usable

PAGE = REPOSITORY / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
PRINTS = re.compile(r"^\s*print\(.*\)  # (.*)$", re.M)

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_example_prints_what_it_says(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(states, "default_root", lambda: str(tmp_path / "state"))
    expected = PRINTS.findall(block)

    exec(compile(block, str(PAGE), "exec"), {"__name__": "example"})

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) >= len(expected)
    for line in expected:
        assert any(line in found for found in printed), (line, printed)
    assert [path for path in (tmp_path / "state").iterdir() if path.name != ".lock"] == []
