"""Rules as TOML, and the Python that they mean."""

from __future__ import annotations

import pytest

from runsc.launch.policy_rules import source


def test_a_rule_is_a_handler() -> None:
    made = source(
        'allowed_calls = ["read"]\n[default]\nbind = "deny"\n'
        '[[rule]]\non = ["open", "unlink"]\npath = "/a\'\\"b"\nwrites = true\nverdict = "kill"\n'
        '[[rule]]\non = "connect"\nport = [80, "90-99"]\nverdict = "ask"\ntext = "?"\n'
    )
    assert made == (
        "from runsc.policy import *\n\n"
        "@on.open(path='/a\\'\"b')\n@on('unlink', path='/a\\'\"b')\n"
        "def rule_1(event):\n    if event.writes is True:\n        return KILL\n\n"
        "@on.connect(port=[80, '90-99'])\nasync def rule_2(event):\n"
        "    return await ask('?', deadline=60, otherwise=DENY(1))\n\n"
        "@on.bind()\ndef default_bind(event):\n    return DENY(1)\n\n"
        "@on.other_calls('read')\ndef other_calls(event):\n    return DENY\n"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rule", "Expected '=' after a key"),
        ('[[rule]]\non = "open"\nverdict = "deny"\nand = 1', "unknown field `and`"),
        ('[[rule]]\non = "connect"\nverdict = "deny"\nhash = "x"', "no filter 'hash'"),
        ('[[rule]]\non = "connect"\nverdict = "deny"\nwrites = true', "writes is of files"),
        ('[[rule]]\non = "open"\nverdict = "ask"\ndeadline = 0', "a deadline is"),
        ('[default]\nread = "deny"', "default: 'read' is none of"),
        ('allowed_calls = ["reed"]', "no system call is named 'reed'"),
        ("[[rule]]\non = 'open'\nverdict = 'deny'\n" * 1001, "more than 1000 rules"),
    ],
)
def test_what_is_wrong_is_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        source(text)
