"""Rules about faults as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runsc import faults
from runsc.errors import RuntimeFailure
from sentry.faults import MAX_DELAY_NS, InjectRule

LINES = """
# a comment
read,pread64: short=1, path=/a/**, path=/b; gofer: delay=20ms, probability=0.5, seed=7
network: loss, direction=in
"""
TOML = """
[[rule]]
calls = ["read", "pread64"]
short = 1
path = ["/a/**", "/b"]
[[rule]]
calls = "gofer"
delay = "20ms"
probability = 0.5
seed = 7
[[rule]]
calls = ["network"]
loss = true
direction = "in"
"""
RULES = (
    InjectRule(("read", "pread64"), short=1, paths=("/a/**", "/b")),
    InjectRule(("gofer",), delay_ns=20_000_000, probability=0.5, seed=7),
    InjectRule(("network",), drop=True, direction="in"),
)


def test_lines_and_tables_say_the_same() -> None:
    assert faults.rules_of(LINES) == faults.rules_of(TOML) == RULES


def test_rule_is_shown_as_it_can_be_given() -> None:
    more = (
        *RULES,
        InjectRule(("openat",), errno="EIO", programs=("/x",), after=3, count=4),
        InjectRule(("read",), delay_ns=MAX_DELAY_NS, probability=0.123456789),
        InjectRule(("read",), delay_ns=1_234_567_891),
    )
    assert faults.rules_of("\n".join(map(faults.line_of, more))) == more


@pytest.mark.parametrize(
    "wrong",
    [
        "read", "read: errno", "read: nonsense=1", "read: short=x", "read: probability=2",
        "read: short=-5", "read: delay=soon", "[[rule]]\ncalls=1", "[[rule]]\nx=1",
        "y = 2\n[[rule]]\ncalls=['read']", "[rule]\ncalls=['read']",
        "read: errno=EIO;" * 300,
    ],
)  # fmt: skip
def test_what_is_no_rule_is_said(wrong: str) -> None:
    with pytest.raises(ValueError):
        faults.rules_of(wrong)


def test_rules_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(TOML)
    assert faults.read(str(path)) == RULES
    assert faults.read("read: errno=EIO") == (InjectRule(("read",), errno="EIO"),)
    with pytest.raises(RuntimeFailure, match="no such file"):
        faults.read(str(tmp_path / "none"))
    with pytest.raises(RuntimeFailure, match="faults: "):
        faults.read("read: oops")
