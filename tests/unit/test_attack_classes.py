"""docs/attack-classes.md: each class has tests, and they exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "attack-classes.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| class |")
]
LEAST = 16


def test_no_class_was_lost() -> None:
    assert len(ROWS) >= LEAST
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_class_has_tests_that_exist(row: list[str]) -> None:
    name, origin, defence, tests = row
    assert name and origin and len(defence) > 20
    named = re.findall(r"`(tests/[^`]+)`", tests)
    assert named
    for test in named:
        path, _, function = test.partition("::")
        text = (ROOT / path).read_text()
        if function:
            assert f"\ndef {function}(" in text, test
        else:
            assert path.startswith("tests/abi/") and "int main(" in text, test
