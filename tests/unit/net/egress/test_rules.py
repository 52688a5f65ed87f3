"""Policies are read whole, or refused with the place of what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.egress.policy import Policy
from sentry.net.egress.rules import (
    MAX_BROKERS,
    MAX_BYTES,
    MAX_HOSTS,
    MAX_RULES,
    Document,
    PolicyError,
    Rule,
    brokers,
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
        'f: rule 1: broker: only for what is allowed, and for "tcp" alone',
    '[[rule]]\naction = "allow"\nprotocols = ["tcp", "udp"]\nbroker = "/x"':
        'f: rule 1: broker: only for what is allowed, and for "tcp" alone',
    '[[rule]]\naction = "allow"\nprotocols = ["tcp"]\nbroker = "x"':
        "f: rule 1: broker: 'x' is no absolute path",
    '[[rule]]\naction = "allow"\nbroker = "/x\\u0000"':
        "f: rule 1: broker: '/x\\x00' is no absolute path",
    "".join(f'[[rule]]\naction = "allow"\nbroker = "/{n}"\n' for n in range(MAX_BROKERS + 1)):
        "f: more than 64 brokers",
    'dns.hosts = { "*.org" = ["192.0.2.1"] }': "f: dns: hosts: '*.org' is no name",
    'dns.hosts = { "A.org" = ["192.0.2.1"] }': "f: dns: hosts: 'A.org' is no name",
    'dns.hosts = { "a.org" = ["x"] }': "f: dns: hosts: 'x' does not appear",
    'dns.hosts = { "a.org" = ["fe80::1%eth0"] }': "f: dns: hosts: 'fe80::1%eth0' has a zone",
    'dns.hosts = { "a.org" = "192.0.2.1" }': "f: dns.hosts[...]: Expected `array`, got `str`",
    "dns.hosts = { " + ", ".join(f'"{n}.org" = []' for n in range(MAX_HOSTS + 1)) + " }":
        "f: dns: hosts: more than 1024 names and addresses",
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


def test_each_broker_is_listed_once_in_the_order_of_the_rules() -> None:
    rules = [f'[[rule]]\naction = "allow"\nbroker = "/{name}"\n' for name in "bacb"]
    assert brokers(parse("".join(rules), "f")) == ("/b", "/a", "/c")
    assert brokers(parse("", "f")) == ()


def test_addresses_of_names_are_read() -> None:
    text = 'dns.hosts = { "a.org" = ["192.0.2.1", "2001:db8::1"], b = [] }'
    assert parse(text, "f").dns.hosts == {"a.org": ("192.0.2.1", "2001:db8::1"), "b": ()}


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


VALUES = st.sampled_from([
    '"allow"', '"deny"', '["tcp"]', '["tcp", 6]', '["*"]', '["a.org", "*.b"]', '["10.0.0.0/8"]',
    '["::/0"]', '"/run/b.sock"', '"b"', '"\\u0000"', "[443, \"1-9\"]", "[]", "{}", "-1", "1e400",
    "{ open = 1 }", "{ rate_out = 0 }", '{ "a.org" = ["192.0.2.1"] }', "1979-05-27", "[[[]]]",
    "9" * 30, "true", "nan", '"NXDOMAIN"',
])  # fmt: skip
KEYS = st.sampled_from([
    "action", "names", "cidrs", "ports", "protocols", "programs", "uids", "broker", "limits",
    "default", "denial", "inbound", "dns", "dns.hosts", "dns.servers", "dns.refusal", "x",
    "[rule]", "[[rule]]", "[dns]",
])  # fmt: skip
LINES = st.one_of(
    st.builds(lambda key, value: key if key[0] == "[" else f"{key} = {value}", KEYS, VALUES),
    st.just('[[rule]]\naction = "allow"'),
)


@given(st.text(max_size=200) | st.lists(LINES, max_size=12).map("\n".join))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    try:
        document = parse(text, "f")
    except PolicyError as error:
        assert str(error).startswith("f: ")
        return
    Policy(document)
    assert all(path.startswith("/") and "\0" not in path for path in brokers(document))
