"""Decisions: by example, and against a slow model that goes through the rules."""

from __future__ import annotations

import errno
import ipaddress
from itertools import combinations
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.egress.policy import BROKERED, Policy, Program, Target, Verdict
from sentry.net.egress.ranges import DENIED, forms
from sentry.net.egress.rules import PROTOCOLS, Document, Rule, network, parse, port_range

CURL = Program(7, 1000, "/usr/bin/curl")
OTHER = Program(8, 0, "/bin/sh")
TCP, UDP, ICMP = 6, 17, 1


def ip(address: str) -> bytes:
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def policy(text: str) -> Policy:
    return Policy(parse(text, "f"))


def rule(action: str = "allow", **fields: str) -> str:
    return "\n".join(
        ["[[rule]]", f'action = "{action}"', *(f"{k} = {v}" for k, v in fields.items())]
    )


def allows(
    made: Policy,
    address: str,
    *names: str,
    port: int | None = 443,
    by: Program | None = CURL,
    protocol: int = TCP,
) -> bool:
    return made.judge(Target(protocol, ip(address), port), by, names).allowed


def test_first_rule_that_fits_decides() -> None:
    made = policy(rule("deny", ports="[25]") + "\n" + rule(cidrs='["8.0.0.0/8"]'))

    assert made.judge(Target(TCP, ip("8.8.8.8"), 25), None, ()) == Verdict(
        False, 1, "a rule", errno.ECONNREFUSED
    )
    assert made.judge(Target(TCP, ip("8.8.8.8"), 26), None, ()) == Verdict(True, 2, "")
    assert made.judge(Target(TCP, ip("9.9.9.9"), 26), None, ()) == Verdict(
        False, 0, "the default", errno.ECONNREFUSED
    )


def test_all_conditions_of_a_rule_have_to_hold() -> None:
    made = policy(rule(names='["a.org"]', ports='["400-500"]', protocols='["tcp"]', uids="[1000]",
                       programs='["/usr/bin/curl"]'))  # fmt: skip

    assert allows(made, "8.8.8.8", "a.org")
    assert not allows(made, "8.8.8.8", "b.org")
    assert not allows(made, "8.8.8.8")
    assert not allows(made, "8.8.8.8", "a.org", port=501)
    assert not allows(made, "8.8.8.8", "a.org", protocol=UDP)
    assert not allows(made, "8.8.8.8", "a.org", by=OTHER)
    assert not allows(made, "8.8.8.8", "a.org", by=None)


def test_wildcard_is_all_names_below_and_not_the_name() -> None:
    made = policy(rule(names='["*.a.org"]'))

    assert allows(made, "8.8.8.8", "x.a.org")
    assert allows(made, "8.8.8.8", "y.x.a.org")
    assert not allows(made, "8.8.8.8", "a.org")
    assert not allows(made, "8.8.8.8", "xa.org")
    assert not allows(made, "8.8.8.8", "x.a.org.evil.org")


def test_star_is_every_name_and_no_literal_address() -> None:
    made = policy(rule(names='["*"]'))

    assert allows(made, "8.8.8.8", "a.org")
    assert not allows(made, "8.8.8.8")


def test_denied_range_is_opened_by_a_range_inside_of_it_only() -> None:
    assert not allows(policy(rule()), "10.1.2.3")
    assert not allows(policy('default = "allow"'), "10.1.2.3")
    assert not allows(policy(rule(names='["db.corp"]')), "10.1.2.3", "db.corp")
    assert not allows(policy(rule(cidrs='["0.0.0.0/0", "::/0"]')), "10.1.2.3")
    assert allows(policy(rule(cidrs='["10.0.0.0/8"]')), "10.1.2.3")
    assert allows(policy(rule(cidrs='["10.1.2.3"]')), "10.1.2.3")
    assert not allows(policy(rule(cidrs='["169.254.0.0/16"]')), "169.254.169.254")
    assert allows(policy(rule(cidrs='["169.254.169.254"]')), "169.254.169.254")


def test_name_and_range_of_one_rule_have_to_fit_both() -> None:
    made = policy(rule(names='["db.corp"]', cidrs='["10.0.0.0/8"]'))

    assert allows(made, "10.1.2.3", "db.corp")
    assert not allows(made, "10.1.2.3")
    assert not allows(made, "11.1.2.3", "db.corp")


@pytest.mark.parametrize("address", [
    "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1", "2001::f5ff:fffe",
    "::ffff:0:10.0.0.1", "2600::5efe:10.0.0.1",
])  # fmt: skip
def test_ipv4_address_inside_counts_for_denials(address: str) -> None:
    assert not allows(policy(rule()), address)
    assert not allows(policy(rule(cidrs='["::/0"]')), address)
    assert not allows(policy(rule("deny", cidrs='["10.0.0.1"]') + "\n" + rule()), address)


def test_translated_public_address_is_judged_as_the_public_one() -> None:
    made = policy(rule(cidrs='["8.8.8.0/24"]'))

    assert allows(made, "64:ff9b::8.8.8.8")
    assert not allows(made, "64:ff9b::8.8.9.8")


def test_own_address_is_denied_though_its_range_is_allowed() -> None:
    made = Policy(parse(rule(cidrs='["203.0.113.0/24"]'), "f"), ["203.0.113.9"])

    assert allows(made, "203.0.113.8")
    assert not allows(made, "203.0.113.9")


def test_broker_and_errno_are_in_the_verdict() -> None:
    made = policy('denial = "EPERM"\n' + rule(protocols='["tcp"]', broker='"/b"'))

    assert made.judge(Target(TCP, ip("8.8.8.8"), 1), None, ()).broker == "/b"
    assert made.judge(Target(UDP, ip("8.8.8.8"), 1), None, ()) == Verdict(
        False, 1, BROKERED, errno.EPERM
    )


def test_broker_has_all_that_goes_where_it_leads() -> None:
    broker = rule(names='["a.org"]', ports="[443]", broker='"/b"')
    made = policy(broker + "\n" + rule())

    assert not allows(made, "8.8.8.8", "a.org", protocol=UDP)  # QUIC, by which rule ever
    assert allows(made, "8.8.8.8", "a.org", protocol=UDP, port=80)
    assert allows(made, "8.8.8.8", "b.org", protocol=UDP)
    assert allows(made, "8.8.8.8", "a.org", protocol=ICMP, port=None)
    assert not allows(made, "10.0.0.1", "a.org")  # no range is opened by a broker either


def test_names_that_a_rule_fits_are_told() -> None:
    made = policy(rule(names='["a.org", "*.b.org"]') + "\n" + rule(cidrs='["8.0.0.0/8"]'))

    names = ["c.org", "x.b.org", "a.org", "b.org"]
    assert made.names_for(1, names) == ("x.b.org", "a.org")
    assert made.names_for(2, iter(names)) == tuple(names)


def test_protocol_without_ports_fits_rules_without_ports() -> None:
    assert allows(policy(rule(protocols='["icmp"]')), "8.8.8.8", port=None, protocol=ICMP)
    assert not allows(policy(rule(ports='["0-65535"]')), "8.8.8.8", port=None, protocol=ICMP)


@pytest.mark.parametrize(("text", "allowed"), [
    (rule(names='["a.org"]'), True),
    (rule(names='["a.org"]', ports="[443]", cidrs='["10.0.0.0/8"]'), True),
    (rule(names='["b.org"]'), False),
    (rule(cidrs='["8.0.0.0/8"]'), False),  # says nothing of names
    (rule(ports="[443]"), True),  # of whatever name
    (rule(names='["a.org"]', uids="[5]"), False),
    (rule("deny", names='["a.org"]') + "\n" + rule(), False),
    (rule("deny", names='["a.org"]', ports="[25]") + "\n" + rule(), True),
    (rule("deny", cidrs='["8.0.0.0/8"]') + "\n" + rule(), True),
    (rule("deny") + "\n" + rule(), False),
    ('default = "allow"', True),
    ('default = "allow"\n' + rule("deny", names='["*.org"]'), False),
])  # fmt: skip
def test_name_may_be_asked_for_if_something_is_allowed_with_it(text: str, allowed: bool) -> None:
    assert policy(text).judge_name("a.org", CURL).allowed == allowed


NAMES = ["a.org", "b.a.org", "c.b.a.org", "a.net", "xa.org"]
PATTERNS = ["a.org", "*.a.org", "*.org", "*", "b.a.org", "*.net"]
ADDRESSES = [
    "8.8.8.8", "8.8.9.9", "10.0.0.1", "10.1.0.1", "169.254.169.254", "127.0.0.1", "2600::1",
    "fd00::1", "::1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", "64:ff9b:1::10.0.0.1",
    "2002:808:808::1", "203.0.113.9",
]  # fmt: skip
CIDRS = ["8.8.8.0/24", "8.0.0.0/8", "0.0.0.0/0", "10.0.0.0/8", "10.0.0.1", "0.0.0.0/4", "::/0",
         "169.254.169.254", "fd00::/16", "64:ff9b::/96", "64:ff9b:1::/48", "2600::/12",
         "203.0.113.0/24", "203.0.113.9"]  # fmt: skip
PORTS = [0, 22, 80, 443, 65535]


def some(values: list[object]) -> st.SearchStrategy[object]:
    few = st.lists(st.sampled_from(values), min_size=1, max_size=3).map(tuple)
    return st.none() | st.none() | few


RULES = st.builds(
    Rule,
    action=st.sampled_from(["allow", "deny"]),
    names=some([*PATTERNS]),
    cidrs=some([*CIDRS]),
    ports=some([*PORTS, "0-65535", "22-80", "79-443", "443-444", "0-22"]),
    protocols=some(["tcp", "udp", "icmp", 47]),
    programs=some(["/usr/bin/curl", "/bin/sh"]),
    uids=some([0, 1000]),
)
DOCUMENTS = st.builds(
    Document,
    rule=st.lists(RULES, max_size=8).map(tuple),
    default=st.sampled_from(["allow", "deny"]),
)
OWN = "203.0.113.9"


def is_within(form: int, cidr: str) -> int:
    """The length of its prefix, of 128 bits, or -1."""
    parsed = network(cidr, "")
    first = int(parsed.network_address) | (0xFFFF << 32 if parsed.version == 4 else 0)
    length = parsed.prefixlen + (96 if parsed.version == 4 else 0)
    return length if first >> (128 - length) == form >> (128 - length) else -1


def named(pattern: str, name: str) -> bool:
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return pattern in ("*", name)


def covers(each: Rule, address: int) -> bool:
    if each.cidrs is None and each.action == "deny":
        return True
    lengths = {f: [is_within(f, cidr) for cidr in each.cidrs or ()] for f in forms(address)}
    if each.cidrs is not None and all(length < 0 for all_ in lengths.values() for length in all_):
        return False
    if each.action == "deny":
        return True
    for form in forms(address):
        needed = max(is_within(form, cidr) for cidr in [*DENIED, OWN])
        if needed >= 0 and max(lengths[form], default=-1) < needed:
            return False
    return True


def fits(each: Rule, target: Target, program: Program | None, names: list[str]) -> bool:
    if each.names is not None and not any(named(p, n) for p in each.names for n in names):
        return False
    if each.ports is not None and not any(
        low <= target.port <= high
        for low, high in (port_range(ports, "") for ports in each.ports)
        if target.port is not None
    ):
        return False
    if each.protocols is not None and not any(
        target.protocol in (PROTOCOLS[p] if isinstance(p, str) else (p,)) for p in each.protocols
    ):
        return False
    if each.programs is not None and (program is None or program.path not in each.programs):
        return False
    if each.uids is not None and (program is None or program.uid not in each.uids):
        return False
    return covers(each, int.from_bytes(target.ip))


@given(
    DOCUMENTS,
    st.builds(
        Target,
        st.sampled_from([1, 6, 17, 47, 58]),
        st.sampled_from(ADDRESSES).map(ip),
        st.none() | st.sampled_from([*PORTS, 79, 81, 444, 1000]),
    ),
    st.sampled_from([CURL, OTHER, None]),
    st.lists(st.sampled_from(NAMES), max_size=3),
)
def test_verdict_is_that_of_the_first_rule_that_fits(
    document: Document, target: Target, program: Program | None, names: list[str]
) -> None:
    verdict = Policy(document, [OWN]).judge(target, program, names)

    numbers = [n for n, r in enumerate(document.rule, 1) if fits(r, target, program, names)]
    address = int.from_bytes(target.ip)
    denied = any(is_within(f, cidr) >= 0 for f in forms(address) for cidr in [*DENIED, OWN])
    if numbers:
        assert verdict.rule == numbers[0]
        assert verdict.allowed == (document.rule[numbers[0] - 1].action == "allow")
    else:
        assert verdict.rule == 0
        assert verdict.allowed == (document.default == "allow" and not denied)


@pytest.mark.parametrize("action", ["allow", "deny"])
def test_ranges_of_a_rule_fit_as_the_model_says(action: Literal["allow", "deny"]) -> None:
    for cidrs in [*combinations(CIDRS, 1), *combinations(CIDRS, 2)]:
        each = Rule(action, cidrs=cidrs)
        made = Policy(Document((each,)), [OWN])
        for address in ADDRESSES:
            target = Target(TCP, ip(address), 443)
            fit = made.judge(target, None, ()).rule == 1
            assert fit == fits(each, target, None, []), (cidrs, address)


@given(DOCUMENTS, st.sampled_from(NAMES), st.sampled_from([CURL, OTHER]))
def test_name_that_may_not_be_asked_for_is_worth_nothing(
    document: Document, name: str, program: Program
) -> None:
    made = Policy(document)
    if made.judge_name(name, program).allowed:
        return
    for address in ("8.8.8.8", "10.0.0.1", "2600::1"):
        for port in PORTS:
            target = Target(TCP, ip(address), port)
            with_name = made.judge(target, program, [name])
            assert not with_name.allowed or not document.rule[with_name.rule - 1].names
