from __future__ import annotations

import pytest

from runsc.launch import policy_rules
from runsc.launch.toml_places import placed
from sentry.net.egress.rules import PolicyError, parse

EGRESS = """\
default = "deny"
# of the office

[[rule]]
action = "allow"
ports = [443]

[dns]
servers = ["10.0.0.53"]

[[rule]]
action = "allow"
names = ["example.org"]
[rule.limits]
open = 5
"""


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('"deny"', '"no"', "line 1: default: Invalid enum value 'no'"),
        ("default", "defalt", "line 1: Object contains unknown field `defalt`"),
        ("[443]", "[70000]", "line 6: rule 1: ports: 70000 is no port or range of ports"),
        ("10.0.0.53", "x", "line 9: dns: servers: 'x' does not appear to be an IPv4 or IPv6"
         " address"),
        ("names", "nams", "line 13: rule 2: Object contains unknown field `nams`"),
        ("example.org", "a b", "line 13: rule 2: names: 'a b' is no name, *.name or *"),
        ("open = 5", "open = -5", "line 15: rule 2: limits: open = -5 is below 0"),
        ("[dns]", "[dnss]", "line 8: Object contains unknown field `dnss`"),
        ('[[rule]]\naction = "allow"\nports', "[[rule]]\nports",
         "line 4: rule 1: Object missing required field `action`"),
        ("443]", "443", "Unclosed array (at line 8, column 1)"),
    ],
)  # fmt: skip
def test_error_of_an_egress_policy_is_told_with_its_line(
    right: str, wrong: str, told: str
) -> None:
    assert right in EGRESS
    text = EGRESS.replace(right, wrong, 1)
    with pytest.raises(PolicyError) as caught:
        parse(text, "f")
    assert placed(text, str(caught.value).removeprefix("f: ")).startswith(told)


RULES = """\
allowed_calls = ["read"]

[[rule]]
on = "open"
path = "/etc/**"
verdict = "deny EACCES"

[[rule]]
on = "connect"
verdict = "ask"
deadline = 5
"""


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('"read"', '"reed"', "no system call is named 'reed'"),
        ("path", "pth", "line 5: Object contains unknown field `pth` - at `$.rule[0]`"),
        ('"/etc/**"', "7", "line 5: Expected `str | array | null`, got `int` - at `$.rule[0]"),
        ("deadline = 5", "deadline = 0", "line 11: rule 2: a deadline is up to a week of seconds"),
        ('"connect"', '"conect"', "line 8: rule 2: "),
    ],
)
def test_error_of_a_policy_is_told_with_its_line(right: str, wrong: str, told: str) -> None:
    assert right in RULES
    text = RULES.replace(right, wrong, 1)
    with pytest.raises(ValueError) as caught:
        policy_rules.source(text)
    assert placed(text, str(caught.value)).startswith(told)
