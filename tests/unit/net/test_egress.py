"""Attempts to get past a policy, with the resolver and the flows of a sandbox: none gets through.

Each is a function that says whether something got out that should not have; each is in the log,
but for those that no rule has to decide. Before it the sandbox does what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable

import dns.edns
import pytest

from sentry.net.egress.denials import RATE
from sentry.net.egress.flows import TCP, UDP
from sentry.net.egress.fragments import Datagram
from sentry.net.egress.limits import Way
from sentry.net.egress.policy import Policy, Program
from sentry.net.egress.rules import parse
from sentry.net.names.asking import Transport
from tests.unit.net.egress.sandbox import (
    CURL,
    EVIL,
    GIT,
    GOOD,
    INSIDE,
    METADATA,
    OWN,
    POLICY,
    TIME,
    Sandbox,
    ip,
)
from tests.unit.net.names.wires import answer, query

GRE, IPIP, SIX, ICMP, SCTP, UDPLITE = 47, 4, 41, 1, 132, 136

Attempt = Callable[[Sandbox], bool]
ATTEMPTS: list[Attempt] = []
SILENT: list[Attempt] = []
"""Those where nothing is decided: what is sent means nothing, or belongs to nothing."""


def attempt(function: Attempt) -> Attempt:
    ATTEMPTS.append(function)
    return function


def silent(function: Attempt) -> Attempt:
    SILENT.append(function)
    return function


def rebound(address: str) -> Attempt:
    """A name that is allowed is given another address, with a TTL of 0."""
    return lambda s: s.resolve("x.good.org", address, ttl=0) and s.sends(address)


REBOUND = [
    METADATA, "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
    "100.64.1.1", "100.100.100.200", "169.254.170.2", "224.0.0.1", "255.255.255.255", OWN,
    "::1", "::", "fe80::1", "fd00:ec2::254", "fd12::1", "ff02::1",
    "::ffff:169.254.169.254",  # mapped
    "::169.254.169.254",  # compatible
    "::ffff:0:169.254.169.254",  # translated
    "64:ff9b::169.254.169.254",  # NAT64
    "64:ff9b::203.0.113.9",  # the host, by NAT64
    "64:ff9b:1::169.254.169.254", "64:ff9b:1:a9fe:a9:fe00::",  # RFC 8215
    "2002:a9fe:a9fe::1",  # 6to4
    "2001:0:c633:6442:0:0:5601:5601",  # Teredo: the client
    "2001:0:a9fe:a9fe:0:0:0:0",  # Teredo: the server
    "2600::5efe:169.254.169.254",  # ISATAP
]  # fmt: skip


@attempt
def address_that_nobody_has_asked_for(s: Sandbox) -> bool:
    return s.sends(EVIL)


@attempt
def address_of_an_allowed_name_at_another_port(s: Sandbox) -> bool:
    return s.sends(GOOD, 22) or s.sends(GOOD, 0) or s.sends(GOOD, 65535)


@attempt
def address_of_an_allowed_name_over_udp(s: Sandbox) -> bool:
    return s.sends(GOOD, 443, UDP)


@attempt
def address_of_an_allowed_name_after_its_time(s: Sandbox) -> bool:
    s.later(60 + 60)
    return s.sends(GOOD)


@attempt
def address_of_one_name_with_the_port_of_another(s: Sandbox) -> bool:
    return s.sends(TIME, 443) or s.sends(GOOD, 123, UDP)


@attempt
def name_that_is_denied(s: Sandbox) -> bool:
    return s.resolve("evil.org", EVIL) or s.sends(EVIL)


@attempt
def denied_name_below_an_allowed_one(s: Sandbox) -> bool:
    return s.resolve("secret.good.org", EVIL) or s.resolve("SECRET.Good.org", EVIL)


@attempt
def names_that_look_allowed(s: Sandbox) -> bool:
    names = ("notgood.org", "good.org.evil.org", "good.orgs", "org", "good", "x-good.org")
    return any(s.resolve(name, EVIL) for name in names)


@attempt
def denied_name_over_tcp(s: Sandbox) -> bool:
    return s.asks_for(query("evil.org."), Transport.TCP)


@attempt
def denied_name_by_another_type(s: Sandbox) -> bool:
    return any(s.asks_for(query("evil.org.", kind)) for kind in ("TXT", "AAAA", "HTTPS", "MX"))


@attempt
def data_in_the_name_of_a_denied_zone(s: Sandbox) -> bool:
    return s.asks_for(query("c2VjcmV0." * 20 + "evil.org."))


@attempt
def another_nameserver(s: Sandbox) -> bool:
    return s.sends("8.8.8.8", 53, UDP) or s.sends("8.8.8.8", 53)


@attempt
def dns_over_tls_and_https(s: Sandbox) -> bool:
    return s.sends("1.1.1.1", 853) or s.sends("1.1.1.1", 443) or s.sends("1.1.1.1", 443, UDP)


@attempt
def alias_of_an_allowed_name_to_a_denied_range(s: Sandbox) -> bool:
    return s.resolve("x.good.org", METADATA, alias="metadata.internal") and s.sends(METADATA)


@attempt
def name_in_the_middle_of_a_chain(s: Sandbox) -> bool:
    s.resolve("x.good.org", EVIL, alias="evil.org", ttl=1)
    return s.resolve("evil.org", EVIL)


@attempt
def address_that_was_said_of_another_name(s: Sandbox) -> bool:
    s.resolve("x.good.org", GOOD, more=[f"evil.org. 60 IN A {EVIL}"])
    return s.sends(EVIL)


@attempt
def address_of_another_type_than_was_asked_for(s: Sandbox) -> bool:
    s.resolve("x.good.org", GOOD, more=["x.good.org. 60 IN AAAA 2600::66"])
    return s.sends("2600::66")


@attempt
def address_that_a_wrong_server_has_said(s: Sandbox) -> bool:
    s.program_asks(query("x.good.org."), program=CURL)
    ask = s.asks[0]
    forged = answer(ask.data, f"x.good.org. 60 IN A {EVIL}")
    s.note(s.forwarder.answered(forged, ask.server._replace(port=5353), ask.port, s.now_ns))
    s.note(s.forwarder.answered(b"\0\0" + forged[2:], ask.server, ask.port, s.now_ns))
    return s.sends(EVIL)


@attempt
def udp_to_another_address_than_was_connected(s: Sandbox) -> bool:
    assert s.sends(TIME, 123, UDP, source=1234)
    return s.sends(EVIL, 123, UDP, source=1234)


@attempt
def udp_connected_anew(s: Sandbox) -> bool:
    assert s.sends(TIME, 123, UDP, source=1234)
    return s.flows.check(s.key(METADATA, 123, UDP, 1234), CURL, s.now_ns).allowed


@attempt
def raw_packets_of_other_protocols(s: Sandbox) -> bool:
    return any(s.sends(GOOD, 0, protocol) for protocol in (ICMP, GRE, IPIP, SIX, 255, 0))


@attempt
def ports_of_other_protocols(s: Sandbox) -> bool:
    return s.sends(GOOD, 443, SCTP) or s.sends(TIME, 123, UDPLITE)


@attempt
def echo_to_anywhere(s: Sandbox) -> bool:
    return s.sends(EVIL, 0, ICMP) or s.sends("2600::66", 0, 58)


@attempt
def wide_range_for_metadata_and_private_ranges(s: Sandbox) -> bool:
    return any(s.sends(a, 9418, by=GIT) for a in (METADATA, "10.0.0.1", "127.0.0.1", "0.0.0.0"))


@attempt
def address_of_the_host_in_an_allowed_range(s: Sandbox) -> bool:
    assert s.sends("203.0.113.8", 9418, by=GIT)
    return s.sends(OWN, 9418, by=GIT) or s.sends(f"::ffff:{OWN}", 9418, by=GIT)


@attempt
def rule_of_another_program(s: Sandbox) -> bool:
    return s.sends(EVIL, 9418) or s.sends(EVIL, 9418, by=Program(9, 0, "/tmp/usr/bin/git"))


@attempt
def forwarded_packet_of_nobody(s: Sandbox) -> bool:
    return s.sends(EVIL, 9418, by=None)


@attempt
def new_connection_from_the_port_of_a_passed_socket(s: Sandbox) -> bool:
    assert s.sends(EVIL, 9418, by=GIT, source=77)
    return s.sends("8.8.4.4", 9418, by=CURL, source=77)


@attempt
def connection_that_was_open_before_the_rule_changed(s: Sandbox) -> bool:
    flow = s.send(GOOD, source=77)
    s.flows.change(Policy(parse("", "f")))
    first = s.sends(GOOD, source=77)
    return flow.open or first or s.sends(GOOD, source=77)


@attempt
def connection_that_says_nothing_after_the_rule_changed(s: Sandbox) -> bool:
    flow = s.send(GOOD, source=77)
    s.flows.change(Policy(parse("", "f")))
    return flow not in (s.flows.sweep(100, s.now_ns) or ())


@attempt
def name_that_was_asked_for_before_the_rule_changed(s: Sandbox) -> bool:
    s.flows.change(Policy(parse('[[rule]]\naction = "allow"\nnames = ["time.net"]', "f")))
    return s.sends(GOOD) or s.asks_for(query("good.org."))


@attempt
def ports_of_a_connection_that_has_ended(s: Sandbox) -> bool:
    s.flows.ended(s.send(GOOD, source=77))
    s.later(3600)
    return s.sends(GOOD, source=77)


@attempt
def answer_to_someone_who_came_from_outside_at_another_port(s: Sandbox) -> bool:
    assert s.flows.arriving(s.key(EVIL, 5000, TCP, 80), None, s.now_ns)
    assert s.sends(EVIL, 5000, source=80)
    return s.sends(EVIL, 5001, source=80) or s.sends(EVIL, 5000, source=81)


@attempt
def flow_that_began_outside_after_that_was_denied(s: Sandbox) -> bool:
    s.flows.arriving(s.key(EVIL, 5000, TCP, 80), None, s.now_ns)
    s.flows.change(Policy(parse('inbound = "deny"', "f")))
    return s.sends(EVIL, 5000, source=80)


@attempt
def more_connections_than_the_quota(s: Sandbox) -> bool:
    return all(s.sends(GOOD) for _ in range(51))


@attempt
def more_bytes_than_the_quota_over_many_connections(s: Sandbox) -> bool:
    flows = [s.send(GOOD) for _ in range(11)]
    return all(s.flows.move(flow, Way.OUT, 100_000, s.now_ns) == 0 for flow in flows)


@attempt
def more_bytes_than_the_quota_with_a_new_policy_of_the_same_rule(s: Sandbox) -> bool:
    flow = s.send(GOOD)
    assert s.flows.move(flow, Way.OUT, 1_000_000, s.now_ns) == 0
    s.flows.change(Policy(parse('dns = { refusal = "REFUSED" }' + POLICY, "f")))
    return s.flows.move(s.send(GOOD), Way.OUT, 1, s.now_ns) is not None


@attempt
def denial_behind_a_thousand_others(s: Sandbox) -> bool:
    for _ in range(1000):
        s.sends("8.8.8.8")
    return s.sends(EVIL) or s.flows.denials.untold < 1001 - RATE


@attempt
def tables_that_are_full(s: Sandbox) -> bool:
    for n in range(3000):
        s.forwarder.given.remember(ip(f"2600::{n:x}"), "good.org", 0, s.now_ns)
    return s.sends(EVIL) or s.sends("2600::ffff")


@silent
def name_with_a_dot_or_a_zero_in_a_label(s: Sandbox) -> bool:
    return any(
        s.asks_for(query(name))
        for name in (r"evil\.good.org.", r"evil.org\000.good.org.", r"\\.good.org.")
    )


@silent
def second_question_of_a_message(s: Sandbox) -> bool:
    wire = query("new.good.org.")
    return s.asks_for(wire[:5] + b"\2" + wire[6:] + b"\4evil\3org\0\0\1\0\1")


@silent
def other_classes_types_and_operations(s: Sandbox) -> bool:
    update = query("new.good.org.")
    return (
        s.asks_for(query("new.good.org.", "TXT", rdclass="CH"))
        or s.asks_for(query("new.good.org.", "AXFR"))
        or s.asks_for(query("new.good.org.", "ANY"))
        or s.asks_for(update[:2] + b"\x28" + update[3:])
    )


@silent
def data_in_options_of_a_question(s: Sandbox) -> bool:
    options = [dns.edns.GenericOption(65001, b"secret" * 100)]
    s.program_asks(query("new.good.org.", use_edns=0, options=options), program=CURL)
    return any(b"secret" in ask.data for ask in s.asks)


@silent
def fragment_without_a_first_one(s: Sandbox) -> bool:
    datagram = Datagram(UDP, ip(INSIDE), ip(EVIL), 7)
    return s.fragments.later(datagram, 8, s.now_ns) is not None


@silent
def fragment_of_an_allowed_packet_to_elsewhere(s: Sandbox) -> bool:
    s.fragments.first(Datagram(UDP, ip(INSIDE), ip(TIME), 7), s.send(TIME, 123, UDP), s.now_ns)
    return s.fragments.later(Datagram(UDP, ip(INSIDE), ip(EVIL), 7), 8, s.now_ns) is not None


@silent
def fragment_over_the_ports_of_an_allowed_packet(s: Sandbox) -> bool:
    datagram = Datagram(TCP, ip(INSIDE), ip(GOOD), 7)
    s.fragments.first(datagram, s.send(GOOD), s.now_ns)
    return any(s.fragments.later(datagram, offset, s.now_ns) for offset in (0, 8, 16))


@silent
def error_that_quotes_no_packet_of_ours(s: Sandbox) -> bool:
    return s.error(EVIL, 443, 77) or s.error(GOOD, 443, 78)


def allowed() -> Sandbox:
    """What is allowed works."""
    s = Sandbox()
    assert s.resolve("good.org", GOOD)
    assert s.resolve("time.net", TIME)
    assert s.sends(GOOD) and s.sends(TIME, 123, UDP)
    assert s.sends(EVIL, 9418, by=GIT)
    assert s.flows.denials.count == 0
    return s


@pytest.mark.parametrize("tried", ATTEMPTS, ids=lambda tried: tried.__name__)
def test_attempt_is_stopped_and_in_the_log(tried: Attempt) -> None:
    s = allowed()

    assert not tried(s)
    assert s.flows.denials.since(0)


@pytest.mark.parametrize("address", REBOUND)
def test_rebinding_is_stopped_and_in_the_log_with_its_name(address: str) -> None:
    s = allowed()

    assert not rebound(address)(s)
    (entry,) = s.flows.denials.since(0)
    assert (entry.target.ip, entry.names, entry.program) == (ip(address), ("x.good.org",), CURL)
    assert entry.reason not in ("", "the default")


@pytest.mark.parametrize("tried", SILENT, ids=lambda tried: tried.__name__)
def test_attempt_that_means_nothing_is_stopped(tried: Attempt) -> None:
    assert not tried(allowed())


def test_there_are_forty_of_them() -> None:
    assert len(ATTEMPTS) + len(SILENT) >= 40
