"""Policies are read whole, or refused with the place of what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.egress.policy import Policy
from sentry.net.egress.rules import (
    MAX_BYTES,
    MAX_RULES,
    Document,
    PolicyError,
    Rule,
    is_pattern,
    parse,
    port_range,
)

WHOLE = """
default = "deny"
denial = "EPERM"
inbound = "deny"
dns = { refusal = "REFUSED" }
limits = { bytes_out = 1_000_000, rate_in = 5000, burst = 100 }

[[rule]]
action = "deny"
names = ["tracker.example.org"]

[[rule]]
action = "allow"
names = ["example.org", "*.example.org"]
cidrs = ["10.0.0.0/8", "2001:db8::1"]
ports = [443, "8000-8999"]
protocols = ["tcp"]
programs = ["/usr/bin/curl"]
uids = [0, 1000]
broker = "/run/broker.sock"
limits = { connections = 10, open = 2 }
"""

WRONG = {
    "default = 1": "f: default: Expected `str`, got `int`",
    'default = "maybe"': "f: default: Invalid enum value 'maybe'",
    "defaults = 1": "f: Object contains unknown field `defaults`",
    "a = [": "f: Invalid value (at end of document)",
    "rule = 1": "f: rules are written as [[rule]]",
    "limits = { rate_in = 0 }": "f: limits: rate_in = 0 is below 1",
    "[[rule]]": "f: rule 1: Object missing required field `action`",
    '[[rule]]\naction = "allow"\n[[rule]]\naction = "alow"':
        "f: rule 2: action: Invalid enum value 'alow'",
    '[[rule]]\naction = "allow"\nport = [1]': "f: rule 1: Object contains unknown field `port`",
    '[[rule]]\naction = "allow"\nports = []': "f: rule 1: ports: an empty list fits nothing",
    '[[rule]]\naction = "allow"\nports = [true]':
        "f: rule 1: ports[0]: Expected `int | str`, got `bool`",
    '[[rule]]\naction = "allow"\nports = [70000]':
        "f: rule 1: ports: 70000 is no port or range of ports",
    '[[rule]]\naction = "allow"\nports = ["9-8"]':
        "f: rule 1: ports: 9-8 is no port or range of ports",
    '[[rule]]\naction = "allow"\nports = ["http"]':
        "f: rule 1: ports: 'http' is no port, and no range as 8000-8999",
    '[[rule]]\naction = "allow"\nprotocols = ["tpc"]':
        "f: rule 1: protocols: 'tpc' is none of icmp, tcp, udp, and no number",
    '[[rule]]\naction = "allow"\ncidrs = ["10.0.0.1/8"]':
        "f: rule 1: cidrs: 10.0.0.1/8 has host bits set",
    '[[rule]]\naction = "allow"\ncidrs = ["fe80::1%eth0"]':
        "f: rule 1: cidrs: 'fe80::1%eth0' has a zone",
    '[[rule]]\naction = "allow"\nnames = ["*x.org"]':
        "f: rule 1: names: '*x.org' is no name, *.name or *",
    '[[rule]]\naction = "allow"\nprograms = ["curl"]':
        "f: rule 1: programs: 'curl' is no absolute path",
    '[[rule]]\naction = "allow"\nuids = [-1]': "f: rule 1: uids: -1 is no user id",
    '[[rule]]\naction = "deny"\nbroker = "/x"':
        'f: rule 1: broker: only for what is allowed with protocols = ["tcp"]',
    '[[rule]]\naction = "allow"\nprotocols = ["tcp"]\nbroker = "x"':
        "f: rule 1: broker: 'x' is no absolute path",
    '[[rule]]\naction = "deny"\nlimits = { open = 1 }':
        "f: rule 1: limits: only for what is allowed",
    '[[rule]]\naction = "allow"\nlimits = { open = -1 }':
        "f: rule 1: limits: open = -1 is below 0",
    "x = " + "9" * 5000: "f: Exceeds the limit",
    "x = " + "[" * 100_000: "f: nested too deeply",
    "#" * (MAX_BYTES + 1): "f: more than 1048576 bytes",
    '[[rule]]\naction = "deny"\n' * (MAX_RULES + 1): "f: more than 1024 rules",
}  # fmt: skip


def test_policy_of_all_that_there_is_is_read() -> None:
    document = parse(WHOLE, "f")

    assert (document.default, document.denial, document.inbound) == ("deny", "EPERM", "deny")
    assert document.dns.refusal == "REFUSED"
    assert document.limits.bytes_out == 1_000_000
    deny, allow = document.rule
    assert deny == Rule("deny", names=("tracker.example.org",))
    assert allow.ports == (443, "8000-8999")
    assert (allow.limits.connections, allow.limits.open) == (10, 2)
    assert allow.broker == "/run/broker.sock"


def test_empty_policy_denies_all() -> None:
    assert parse("", "f") == Document()
    assert Document().default == "deny"


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[-40:].replace("\n", " "))
def test_mistake_is_named_with_its_place(text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(WRONG[text])


@pytest.mark.parametrize("name", [
    "a", "example.org", "*.example.org", "*", "_sip._tcp.example.org", "xn--bcher-kva.example",
])  # fmt: skip
def test_pattern_of_names_is_taken(name: str) -> None:
    assert is_pattern(name)


@pytest.mark.parametrize("name", [
    "", ".", "a.", ".a", "a..b", "*.", "**.a", "a.*.b", "*.*.a", "A.org", "bücher.example", "a b",
    "a\\b", "a" * 64, ".".join(["a" * 60] * 5),
])  # fmt: skip
def test_pattern_that_fits_no_name_is_refused(name: str) -> None:
    assert not is_pattern(name)


def test_ports_are_read_as_ranges() -> None:
    assert port_range(443, "") == (443, 443)
    assert port_range("0-65535", "") == (0, 65535)


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    try:
        Policy(parse(text, "f"))
    except PolicyError as error:
        assert str(error).startswith("f: ")
