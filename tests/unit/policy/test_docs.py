"""The policies of docs/policies.md and of examples are such."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runsc.launch import policy_rules
from sentry.policy.guard import Guard
from sentry.policy.module import load

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "policies.md").read_text()
BLOCKS = [
    block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S)
    if block.startswith("from runsc.policy")
]  # fmt: skip
RULES = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
EXAMPLE = ROOT / "examples" / "ask_before_connect" / "policy.py"


@pytest.mark.parametrize("source", [*BLOCKS, EXAMPLE.read_text()])
def test_a_policy_that_is_shown_can_be_loaded(source: str) -> None:
    assert load("shown", source, Guard(), lambda _: None).rules


def test_there_are_some() -> None:
    assert (len(BLOCKS), len(RULES)) == (2, 1)


def test_rules_that_are_shown_mean_something() -> None:
    source = policy_rules.source(RULES[0])
    rules = load("shown", source, Guard(), lambda _: None).rules
    assert [rule.kind for rule in rules] == ["exec", "open", "address", "address"]
    assert rules[2].waits
