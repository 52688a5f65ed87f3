"""The examples of README.md and of docs/ in Python: each block prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runsc.api import states
from tests.e2e.bundle import REPOSITORY, kvm_is_usable

ELSEWHERE = {
    "policies": "tests/unit/policy/test_docs.py, tests/e2e/test_policies.py",
    "providers": "tests/full/test_providers.py, with the frameworks",
    "pytest": "tests/e2e/test_pytest_plugin.py runs them by pytest",
}
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCKS = {
    f"{page.relative_to(REPOSITORY).with_suffix('')}-{number}": block
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
    if page.stem not in ELSEWHERE
}
PRINTS = re.compile(r"^\s*print\(.*\)  # (.*)$", re.M)

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_example_prints_what_it_says(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(states, "default_root", lambda: str(tmp_path / "state"))
    expected = PRINTS.findall(block)

    exec(compile(block, "example", "exec"), {"__name__": "example"})

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) >= len(expected)
    for line in expected:
        assert any(line in found for found in printed), (line, printed)
    assert [path for path in (tmp_path / "state").iterdir() if path.name != ".lock"] == []
