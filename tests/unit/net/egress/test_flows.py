"""Flows are judged once, remembered within bounds, and judged again if the policy changes."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.egress import flows as module
from sentry.net.egress.flows import INBOUND, OTHER_BROKER, OVER, SECOND, TCP, UDP, Flows, Key
from sentry.net.egress.limits import Way
from sentry.net.egress.policy import BROKERED, Policy, Program, Target
from sentry.net.egress.rules import parse
from sentry.net.names.given import Given

CURL = Program(7, 1000, "/usr/bin/curl")
V4 = bytes(10) + b"\xff\xff"
INSIDE = V4 + bytes([10, 88, 0, 2])
OUTSIDE = V4 + bytes([8, 8, 8, 8])
ELSEWHERE = V4 + bytes([9, 9, 9, 9])
BY_NAME = '[[rule]]\naction = "allow"\nnames = ["a.org"]\n'
EIGHT = '[[rule]]\naction = "allow"\ncidrs = ["8.0.0.0/8"]\n'


def policy(text: str) -> Policy:
    return Policy(parse(text, "f"))


def made(text: str = EIGHT) -> tuple[Flows, Given]:
    given = Given()
    return Flows(policy(text), given), given


def key(port: int = 443, source: int = 40000, protocol: int = TCP, to: bytes = OUTSIDE) -> Key:
    return Key(protocol, INSIDE, source, to, port)


def test_flow_is_judged_once_and_its_packets_are_known() -> None:
    flows, _ = made()
    first = flows.leaving(key(), CURL, 0)

    assert first.verdict.allowed
    assert flows.leaving(key(), CURL, SECOND) is first
    assert flows.arriving(key(), None, SECOND) is first
    assert flows.counters.judged == 1


def test_denied_flow_is_not_remembered_and_stands_in_the_log() -> None:
    flows, given = made(BY_NAME)
    denied = flows.leaving(key(), CURL, 0)

    assert (denied.verdict.allowed, denied.verdict.errno) == (False, errno.ECONNREFUSED)
    assert len(flows) == 0
    (entry,) = flows.denials.since(0)
    assert (entry.target.ip, entry.target.port, entry.program) == (OUTSIDE, 443, CURL)
    given.remember(OUTSIDE, "a.org", 0, 0)
    assert flows.leaving(key(), CURL, 0).verdict.allowed


def test_early_answer_remembers_nothing() -> None:
    flows, _ = made()

    assert flows.check(key(), CURL, 0).allowed
    assert not flows.check(key(to=ELSEWHERE), CURL, 0).allowed
    assert len(flows) == 0


def test_flow_of_a_name_outlives_the_name() -> None:
    flows, given = made(BY_NAME)
    given.remember(OUTSIDE, "a.org", 0, 0)
    flow = flows.leaving(key(), CURL, 0)
    late_ns = 3600 * SECOND

    assert not given.names_of(OUTSIDE, late_ns)
    assert flows.leaving(key(), CURL, late_ns) is flow
    assert not flows.leaving(key(source=40001), CURL, late_ns).verdict.allowed


def test_change_of_policy_finds_what_is_to_be_reset() -> None:
    flows, given = made(BY_NAME + EIGHT)
    given.remember(ELSEWHERE, "a.org", 0, 0)
    by_range = flows.leaving(key(), CURL, 0)
    by_name = flows.leaving(key(to=ELSEWHERE), CURL, 0)

    flows.change(policy(BY_NAME))

    assert flows.sweep(10, 3600 * SECOND) == [by_range]
    assert flows.sweep(10, 3600 * SECOND) is None
    assert (by_range.open, by_name.open) == (False, True)
    assert (by_range.verdict.allowed, flows.counters.revoked) == (False, 1)
    assert len(flows.denials.since(0)) == 1


def test_name_that_a_flow_got_at_a_change_stays_its_own() -> None:
    flows, given = made()
    flow = flows.leaving(key(), CURL, 0)
    flows.change(policy(BY_NAME))
    given.remember(OUTSIDE, "a.org", 0, 0)
    assert flows.leaving(key(), CURL, SECOND) is flow

    flows.change(policy(BY_NAME))

    assert flows.leaving(key(), CURL, 3600 * SECOND) is flow


def test_packet_after_a_change_is_judged_before_the_sweep_comes() -> None:
    flows, _ = made()
    flow = flows.leaving(key(), CURL, 0)
    flows.change(policy(""))

    assert not flows.leaving(key(), CURL, 1).verdict.allowed
    assert not flow.open
    assert flows.sweep(10, 1) == []


def test_sweep_goes_in_steps() -> None:
    flows, _ = made()
    for source in range(10):
        flows.leaving(key(source=source), CURL, 0)
    flows.change(policy(""))

    assert [len(flows.sweep(4, 1) or ()) for _ in range(3)] == [4, 4, 2]
    assert flows.sweep(4, 1) is None
    assert len(flows) == 0


def test_flow_goes_on_under_another_rule_and_counts_there() -> None:
    flows, _ = made()
    flow = flows.leaving(key(), CURL, 0)
    new = '[[rule]]\naction = "allow"\nports = [443]\nlimits = { bytes_out = 10 }\n'
    flows.change(policy(new))

    assert flows.sweep(10, 0) == []
    assert flows.move(flow, Way.OUT, 11, 0) is None


def test_quota_of_connections_denies() -> None:
    flows, _ = made("limits = { open = 1 }\n" + EIGHT)
    flow = flows.leaving(key(), CURL, 0)
    second = flows.leaving(key(source=2), CURL, 0)

    assert (second.verdict.allowed, second.verdict.reason) == (False, OVER)
    flows.ended(flow)
    assert flows.leaving(key(source=2), CURL, 0).verdict.allowed


def test_quota_of_bytes_ends_a_flow_and_goes_on_to_count_after_a_change() -> None:
    text = EIGHT + "limits = { bytes_out = 100 }\n"
    flows, _ = made(text)
    flow = flows.leaving(key(), CURL, 0)

    assert flows.move(flow, Way.OUT, 100, 0) == 0
    assert flows.move(flow, Way.IN, 1000, 0) == 0
    assert flows.move(flow, Way.OUT, 1, 0) is None
    flows.change(policy('default = "deny"\n' + text))
    assert flows.sweep(10, 0) == []
    assert flows.move(flow, Way.OUT, 1, 0) is None


def test_rate_makes_bytes_wait() -> None:
    flows, _ = made("limits = { rate_out = 100, burst = 100 }\n" + EIGHT)
    flow = flows.leaving(key(), CURL, 0)

    assert flows.move(flow, Way.OUT, 200, SECOND) == 0
    wait_ns = flows.move(flow, Way.OUT, 1, SECOND)
    assert wait_ns == SECOND + 1
    assert flows.move(flow, Way.OUT, 1, SECOND + wait_ns) == 0
    assert flows.move(flow, Way.IN, 1 << 30, SECOND) == 0


def test_flow_from_outside_is_answered_if_the_policy_lets_it_in() -> None:
    flows, _ = made("")
    inbound = flows.arriving(key(), None, 0)

    assert inbound is not None and inbound.inbound
    assert flows.leaving(key(), CURL, 0) is inbound
    flows.change(policy('inbound = "deny"'))
    assert flows.sweep(10, 0) == [inbound]
    assert flows.arriving(key(), None, 0) is None
    assert flows.denials.since(0)[0].reason == INBOUND


def test_what_comes_for_a_flow_that_was_revoked_begins_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flows, _ = made()
    dns = key(53, protocol=UDP)
    flows.leaving(dns, CURL, 0)
    flows.change(policy(""))
    assert not flows.leaving(dns, CURL, 1).verdict.allowed
    for minute in range(10):
        assert flows.arriving(dns, None, minute * 60 * SECOND) is None
    assert flows.arriving(dns._replace(source_port=2), None, 0) is not None
    assert flows.arriving(dns, None, 1000 * SECOND) is not None
    monkeypatch.setattr(module, "MAX_FLOWS", 1)
    flows.change(policy(EIGHT))
    ours = [key(53, source, UDP) for source in (5, 6)]
    for each in ours:
        flows.leaving(each, CURL, 1000 * SECOND)
        flows.change(policy(""))
        flows.leaving(each, CURL, 1000 * SECOND)
        flows.change(policy(EIGHT))
    assert [flows.arriving(each, None, 1000 * SECOND) is None for each in ours] == [False, True]


def test_error_belongs_to_the_flow_that_it_quotes() -> None:
    flows, _ = made()
    flow = flows.leaving(key(), CURL, 0)

    assert flows.of_error(key(), 0) is flow
    assert flows.of_error(Key(TCP, OUTSIDE, 443, INSIDE, 40000), 0) is flow
    assert flows.of_error(key(source=1), 0) is None


def test_idle_flow_is_judged_again() -> None:
    flows, given = made(BY_NAME)
    given.remember(OUTSIDE, "a.org", 0, 0)
    flow = flows.leaving(key(protocol=UDP), CURL, 0)

    assert flows.leaving(key(protocol=UDP), CURL, 100 * SECOND) is flow
    assert not flows.leaving(key(protocol=UDP), CURL, 300 * SECOND).verdict.allowed
    assert len(flows) == 0


def test_table_is_bounded_and_connections_stay_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FLOWS", 4)
    flows, _ = made()
    connection = flows.leaving(key(), CURL, 0)
    for source in range(10):
        flows.leaving(key(source=source, protocol=UDP), CURL, 1)

    assert len(flows) == 4
    assert connection.open
    assert flows.counters.pushed_out == 7
    assert flows.total.open == 4


def test_question_for_a_name_that_is_denied_stands_in_the_log() -> None:
    flows, _ = made(BY_NAME)

    assert flows.may_ask("a.org", CURL, 0)
    assert not flows.may_ask("b.org", CURL, 0)
    (entry,) = flows.denials.since(0)
    assert (entry.names, entry.target.ip) == (("b.org",), b"")


BROKER = EIGHT + 'broker = "/b"\n'


def test_connection_of_a_broker_is_a_flow_without_packets() -> None:
    flows, _ = made(BROKER)
    target = Target(TCP, OUTSIDE, 443)
    assert flows.broker_of(target, CURL, 0) == "/b"
    flow = flows.hand_on(key(), CURL, "/b", 0)
    assert flow.open and flow.verdict.allowed
    assert (len(flows), flows.counters.handed_on, flows.total.open) == (1, 1, 1)
    for protocol in (TCP, UDP, 1):
        packet = flows.leaving(key(protocol=protocol), CURL, 0)
        assert (packet.verdict.allowed, packet.verdict.reason) == (False, BROKERED)
        assert flows.known(key(protocol=protocol), 0) is None
    assert not flows.check(key(), CURL, 0).allowed
    assert flows.broker_of(Target(TCP, ELSEWHERE, 443), CURL, 0) is None
    assert flows.move(flow, Way.OUT, 10, 0) == 0 and flows.total.bytes[Way.OUT] == 10
    flows.is_not_served(flow, "not there", 0)
    assert [(each.rule, each.reason) for each in flows.denials.since(0)][-1] == (1, "not there")
    flows.ended(flow)
    assert (len(flows), flows.total.open) == (0, 0)


def test_connection_of_a_broker_is_judged_again() -> None:
    flows, _ = made(BROKER)
    flow = flows.hand_on(key(), CURL, "/b", 0)
    flows.change(policy('default = "allow"\n' + BROKER))
    assert flows.sweep(10, 0) == [] and flows.goes_on(flow, 0)
    for text in (EIGHT, BROKER.replace("/b", "/c"), ""):
        flows.change(policy(BROKER))
        flow = flows.hand_on(key(), CURL, "/b", 0)
        flows.change(policy(text))
        assert not flows.goes_on(flow, 0) and not flow.open
    assert flow.verdict.errno == errno.ECONNREFUSED
    reasons = [each.reason for each in flows.denials.since(0)]
    assert reasons == [OTHER_BROKER, OTHER_BROKER, "the default"]
    assert flows.arriving(key(), None, 0) is not None  # what comes is of no flow of a broker


def test_packets_are_not_the_links_when_a_broker_is_to_have_them() -> None:
    flows, _ = made()
    flow = flows.leaving(key(), CURL, 0)
    flows.change(policy(BROKER))
    assert flows.sweep(10, 0) == [flow] and flow.verdict.reason == BROKERED


POLICIES = [
    policy(EIGHT),
    policy(BROKER),
    policy(BROKER.replace("/b", "/c") + "limits = { open = 1 }\n"),
    policy(BY_NAME),
    policy(BY_NAME + EIGHT + "limits = { open = 2 }\n"),
    policy('inbound = "deny"\n' + EIGHT),
    policy(""),
]
KEYS = st.builds(
    lambda source, protocol, to: key(source=source, protocol=protocol, to=to),
    st.integers(1, 4), st.sampled_from([TCP, UDP, 1]), st.sampled_from([OUTSIDE, ELSEWHERE]),
)  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.sampled_from(["leaving", "leaving", "arriving", "ended", "check"]), KEYS),
    st.tuples(st.just("hand on"), KEYS.map(lambda each: each._replace(protocol=TCP))),
    st.tuples(st.sampled_from(["goes on", "is over"]), st.integers(0, 3)),
    st.tuples(st.just("change"), st.sampled_from(POLICIES)),
    st.tuples(st.just("sweep"), st.integers(1, 3)),
    st.tuples(st.just("later"), st.sampled_from([1, 70, 200])),
    st.tuples(st.just("named"), st.sampled_from([OUTSIDE, ELSEWHERE])),
)


@given(st.lists(STEPS, max_size=40))
def test_no_packet_leaves_that_the_policy_of_now_denies(steps: list[tuple[str, Any]]) -> None:
    flows, known = made()
    flows.change(POLICIES[0])
    now_ns = 0
    handed: list[Any] = []
    for what, value in steps:
        now_ns += 1
        match what:
            case "leaving":
                flow = flows.leaving(value, CURL, now_ns)
                target = module.target_of(value)
                judged = flows.policy.judge(target, CURL, flow.names)
                if flow.verdict.allowed:
                    assert (judged.allowed and judged.broker is None) or flow.inbound
                    assert not flow.inbound or flows.policy.document.inbound == "allow"
                    assert set(flow.names) <= {"a.org"}
                else:
                    reasons = (OVER, BROKERED)
                    assert flow.verdict.reason in reasons or not judged.allowed or flow.inbound
                    assert not flow.open
            case "hand on":
                broker = flows.broker_of(module.target_of(value), CURL, now_ns)
                if broker is not None:
                    handed.append(flows.hand_on(value, CURL, broker, now_ns))
                    assert handed[-1].open or handed[-1].verdict.reason == OVER
            case "goes on" if handed:
                flow = handed[value % len(handed)]
                if flows.goes_on(flow, now_ns):
                    target = module.target_of(flow.key)
                    assert flows.policy.judge(target, CURL, flow.names).broker == flow.broker
            case "is over" if handed:
                flows.ended(handed[value % len(handed)])
            case "arriving":
                came = flows.arriving(value, None, now_ns)
                assert came is None or came.open
            case "check":
                flows.check(value, CURL, now_ns)
            case "ended":
                flows.ended(flows.leaving(value, CURL, now_ns))
            case "change":
                flows.change(value)
            case "sweep":
                assert all(not flow.open for flow in flows.sweep(value, now_ns) or ())
            case "later":
                now_ns += value * SECOND
            case "named":
                known.remember(value, "a.org", 0, now_ns)
        in_table = [*flows._flows.values(), *flows._handed_on]
        assert flows.total.open == len(in_table)
        for usage in flows.by_rule.values():
            assert usage.open == sum(usage in flow.usages for flow in in_table)
        assert all(flow.open for flow in in_table)


def test_what_was_used_before_goes_on_to_count() -> None:
    limited = EIGHT + 'limits = { connections = 1, bytes_out = 9 }\n'
    flows, _ = made(limited)
    flow = flows.leaving(key(), CURL, 0)
    for usage in flow.usages:
        usage.take(Way.OUT, 7, 0)
    assert flows.used() == [(7, 0, 1), (7, 0, 1)]
    again, _ = made(limited)
    again.go_on_from(flows.used())
    assert again.used() == flows.used()
    assert again.leaving(key(), CURL, 0).verdict.reason == OVER
