"""A router with a policy: what comes from inside leaves by an uplink as what it is there.

At the left are programs, which write whatever they like, as if it came from anybody; at the right
is the uplink. `ATTEMPTS` are ways to get something out there that the policy denies.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress

import pytest

from sentry.abi import nftables as nft
from sentry.errors import ECONNREFUSED, Errno
from sentry.net.egress.flows import Flows, Key
from sentry.net.egress.gate import ALIEN, UNJUDGED, Gate
from sentry.net.egress.policy import Policy
from sentry.net.egress.rules import parse
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import Bytes
from sentry.net.ip.output import send_frame
from sentry.net.ip.seam import Arrived, Outgoing
from sentry.net.names.given import Given
from tests.unit.net.netfilter.router import (
    ACK,
    LEFT,
    MASQUERADE,
    RIGHT,
    RST,
    SYN,
    Router,
    echo,
    ends,
    icmp,
    immediate,
    ip,
    ip6,
    tcp,
    translate,
    udp,
    write_at,
)
from tests.unit.net.wired import Keeper

PRE, FORWARD, OUT, POST = 0, 2, 3, 4
TCP, UDP, FRAGMENT, ICMPV6 = 6, 17, 44, 58
INNER, INNER6 = ip(0, 2), ip6(0, 2)
OWN, OWN6 = ip(1, 1), ip6(1, 1)
GOOD, GOOD6 = ip(1, 2), ip6(1, 2)
BAD, BAD6 = ip(1, 66), ip6(1, 66)
POLICY = """
[[rule]]
action = "allow"
cidrs = ["10.0.1.2", "fd01::2"]
ports = [80]
protocols = ["tcp"]
[[rule]]
action = "allow"
cidrs = ["10.0.1.2"]
programs = ["/usr/bin/curl"]
"""


class Judged(Router):
    """The left link stays inside."""

    def __init__(self, policy: str = POLICY) -> None:
        super().__init__()
        self.links[LEFT].stays_inside = True
        self.given = Given()
        self.flows = Flows(Policy(parse(policy, "f")), self.given)
        self.was_reset: list[Key] = []
        self.layer.gate = Gate(self.flows, self.was_reset.append, self.layer.is_outside)

    def masquerade(self) -> None:
        """As engines do it for their containers."""
        self.rule(self.chain("post", POST, 100, "nat"), MASQUERADE)

    def publish(self, target: bytes) -> None:
        """What comes is for somebody inside."""
        self.rule(self.chain("pre", PRE, -100, "nat"), *translate(nft.NFT_NAT_DNAT, target))

    @property
    def denied(self) -> list[str]:
        """Reasons in the log."""
        return [each.reason for each in self.flows.denials.since(0)]


Attempt = Callable[[Judged], object]
ATTEMPTS: list[Attempt] = []
SILENT: list[Attempt] = []
"""What means nothing, or belongs to nothing: nothing is decided."""


def attempt(function: Attempt) -> Attempt:
    ATTEMPTS.append(function)
    return function


def silent(function: Attempt) -> Attempt:
    SILENT.append(function)
    return function


@attempt
def connection_to_a_denied_address(j: Judged) -> None:
    j.masquerade()
    j.hear(LEFT, tcp(INNER, BAD, (4000, 80), SYN))


@attempt
def connection_to_another_port(j: Judged) -> None:
    j.masquerade()
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 81), SYN))


@attempt
def datagram_to_an_allowed_port(j: Judged) -> None:
    j.masquerade()
    j.hear(LEFT, udp(INNER, GOOD, (4000, 80)))


@attempt
def echo_to_an_allowed_address(j: Judged) -> None:
    j.masquerade()
    j.hear(LEFT, echo(INNER, GOOD, 7))


@attempt
def segment_of_no_connection(j: Judged) -> None:
    j.masquerade()
    j.hear(LEFT, tcp(INNER, BAD, (4000, 80), ACK, b"secret"))


@attempt
def address_that_is_not_ours(j: Judged) -> None:
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 80), SYN))


@attempt
def address_of_somebody_outside(j: Judged) -> None:
    """Whom the answer would tell 32 bits of the program's choice."""
    j.hear(LEFT, tcp(BAD, GOOD, (4000, 80), SYN))


@attempt
def address_of_ours_that_is_inside(j: Judged) -> None:
    j.rule(j.chain("post", POST, 100, "nat"), *translate(nft.NFT_NAT_SNAT, ip(0, 1)))
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 80), SYN))


@attempt
def translation_to_the_address_of_somebody_else(j: Judged) -> None:
    j.rule(j.chain("post", POST, 100, "nat"), *translate(nft.NFT_NAT_SNAT, BAD))
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 80), SYN))


@attempt
def translation_of_an_allowed_target(j: Judged) -> None:
    j.masquerade()
    j.publish(BAD)
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 80), SYN))


@attempt
def own_packet_from_an_address_inside(j: Judged) -> None:
    j.layer.send(j.now_ns, Outgoing(GOOD, TCP, (tcp(OWN, GOOD, (9, 80), SYN)[20:],), ip(0, 1)))


@attempt
def answer_to_a_connection_as_from_somebody(j: Judged) -> None:
    j.layer.handlers[True, TCP] = Keeper()
    j.hear(LEFT, tcp(BAD, OWN, (4000, 22), SYN))
    j.layer.send(j.now_ns, Outgoing(BAD, TCP, (tcp(OWN, BAD, (22, 4000), SYN | ACK)[20:],), OWN))


@attempt
def answer_to_a_datagram_as_from_somebody(j: Judged) -> None:
    j.layer.handlers[True, UDP] = Keeper()
    j.hear(LEFT, udp(BAD, OWN, (4000, 53)))
    j.layer.send(j.now_ns, Outgoing(BAD, UDP, (udp(OWN, BAD, (53, 4000))[20:],), OWN))


@attempt
def echo_as_from_somebody(j: Judged) -> None:
    j.hear(LEFT, echo(BAD, OWN, 5))


@attempt
def complaint_about_a_packet_as_from_somebody(j: Judged) -> None:
    j.hear(LEFT, udp(BAD, OWN, (4000, 9999)))


@attempt
def complaint_about_a_packet_that_has_come_too_far(j: Judged) -> None:
    whole = udp(BAD, GOOD, (4000, 80))
    header = ipv4.parse(whole)
    assert header is not None
    j.hear(LEFT, ipv4.build(header._replace(ttl=1)) + whole[20:])


@attempt
def complaint_about_a_denial_as_from_somebody(j: Judged) -> None:
    j.hear(LEFT, udp(BAD, GOOD, (4000, 80)))


@attempt
def error_that_quotes_a_flow_of_others(j: Judged) -> None:
    _begin(j)
    quoted = tcp(OWN, GOOD, (4000, 80), SYN)
    j.hear(LEFT, icmp(INNER, BAD, bytes((3, 3)) + bytes(6) + quoted + b"secret"))


@attempt
def fragments_of_a_packet_to_a_denied_address(j: Judged) -> None:
    for piece in _fragments(tcp(INNER, BAD, (4000, 80), SYN, bytes(60))):
        j.hear(LEFT, piece)


@attempt
def fragments_behind_rules(j: Judged) -> None:
    j.masquerade()
    for piece in _fragments(tcp(INNER, BAD, (4000, 80), SYN, bytes(60))):
        j.hear(LEFT, piece)


@attempt
def header_with_options(j: Judged) -> None:
    j.rule(j.chain("post", POST, 100, "nat"), *translate(nft.NFT_NAT_SNAT, OWN))
    j.hear(LEFT, _with_options(tcp(INNER, GOOD, (4000, 80), SYN), b"\1\1\1\0"))


@attempt
def frame_by_the_uplink(j: Judged) -> None:
    send_frame(j.layer, j.now_ns, RIGHT, bytes(12) + b"\x08\0" + udp(OWN, BAD, (9, 80)), None)


@attempt
def connection_of_six_to_a_denied_address(j: Judged) -> None:
    j.masquerade()
    j.hear(LEFT, tcp(INNER6, BAD6, (4000, 80), SYN))


@attempt
def address_of_six_that_is_not_ours(j: Judged) -> None:
    j.hear(LEFT, tcp(INNER6, GOOD6, (4000, 80), SYN))


@attempt
def fragment_of_six(j: Judged) -> None:
    whole = tcp(INNER6, GOOD6, (4000, 80), SYN, bytes(64))
    head = ipv6.build(ipv6.Header(0, 0, 8 + 40, FRAGMENT, 64, INNER6, GOOD6))
    j.hear(LEFT, head + ipv6.build_fragment(ipv6.Fragment(TCP, 0, True, 9)) + whole[40:80])


@attempt
def routing_header(j: Judged) -> None:
    whole = tcp(INNER6, GOOD6, (4000, 80), SYN)
    head = ipv6.build(ipv6.Header(0, 0, 8 + len(whole) - 40, 43, 64, INNER6, GOOD6))
    j.hear(LEFT, head + bytes((TCP, 0, 0, 0, 0, 0, 0, 0)) + whole[40:])


@attempt
def flow_from_outside_that_becomes_one_of_ours(j: Judged) -> None:
    j.publish(INNER)
    j.hear(RIGHT, tcp(BAD, OWN, (4000, 8080), SYN))
    assert len(j.left) == 1
    j.hear(LEFT, tcp(INNER, BAD, (8080, 4000), SYN))


@silent
def reset_for_a_segment_as_from_somebody(j: Judged) -> None:
    reset = tcp(OWN, BAD, (22, 4000), RST)[20:]
    j.layer.send(j.now_ns, Outgoing(BAD, TCP, (reset,), OWN, by_itself=True))


@silent
def fragment_of_nothing(j: Judged) -> None:
    j.hear(LEFT, _fragments(tcp(INNER, BAD, (4000, 80), SYN, bytes(60)))[1])


@silent
def source_route(j: Judged) -> None:
    j.hear(LEFT, _with_options(tcp(OWN, GOOD, (4000, 80), SYN), b"\x83\x07\x04" + BAD + b"\0"))


@silent
def address_of_ours(j: Judged) -> None:
    """Nobody at a link has one."""
    j.hear(LEFT, tcp(OWN, GOOD, (4000, 80), SYN))


@attempt
def question_for_a_neighbour_that_turns_to_somebody(j: Judged) -> None:
    j.rule(j.chain("out", OUT), immediate(BAD6), write_at(24, 16))
    asks = bytes([135, 0, 0, 0]) + b"secret".ljust(20)
    j.layer.send_or_drop(j.now_ns, Outgoing(GOOD6, ICMPV6, (asks,), OWN6, by_itself=True))


@attempt
def question_for_a_neighbour_that_turns_into_an_echo(j: Judged) -> None:
    write = write_at(0, 1, nft.NFT_PAYLOAD_TRANSPORT_HEADER)
    j.rule(j.chain("out", OUT), immediate(bytes([128])), write)
    asks = bytes([135, 0, 0, 0]) + b"secret".ljust(20)
    j.layer.send_or_drop(j.now_ns, Outgoing(BAD6, ICMPV6, (asks,), OWN6, by_itself=True))


@silent
def connection_by_a_neighbour_who_is_denied(j: Judged) -> None:
    j.masquerade()
    j.rule(j.chain("forward", FORWARD), immediate(GOOD), write_at(16, 4))
    j.hear(LEFT, tcp(INNER, BAD, (4000, 80), SYN))


def _begin(j: Judged) -> None:
    """A connection of our own, which is allowed."""
    j.layer.send(j.now_ns, Outgoing(GOOD, TCP, (tcp(OWN, GOOD, (4000, 80), SYN)[20:],), OWN))
    assert len(j.right) == 1


def _fragments(whole: bytes) -> list[bytes]:
    header = ipv4.parse(whole)
    assert header is not None
    found = []
    for offset, data in ((0, whole[20:52]), (4, whole[52:])):
        more = ipv4.MORE_FRAGMENTS if not offset else 0
        own = header._replace(total=20 + len(data), fragment=more | offset)
        found.append(ipv4.build(own) + data)
    return found


def _with_options(whole: bytes, options: bytes) -> bytes:
    header = ipv4.parse(whole)
    assert header is not None
    size = 20 + len(options)
    header = header._replace(size=size, total=size + len(whole) - 20)
    return ipv4.build(header, options) + whole[20:]


@pytest.mark.parametrize("tried", [*ATTEMPTS, *SILENT], ids=lambda each: each.__name__)
def test_attempt_is_stopped_and_in_the_log(tried: Attempt) -> None:
    j = Judged()
    with suppress(Errno):
        tried(j)
    assert not j.right
    assert bool(j.denied) == (tried in ATTEMPTS)


def test_there_are_thirty() -> None:
    assert len(ATTEMPTS) + len(SILENT) >= 30


# --- what is allowed


@pytest.mark.parametrize("six", [False, True])
def test_masqueraded_connection_goes_and_is_answered(six: bool) -> None:
    inner, good, own = (INNER6, GOOD6, OWN6) if six else (INNER, GOOD, OWN)
    j = Judged()
    j.masquerade()
    j.hear(LEFT, tcp(inner, good, (4000, 80), SYN))
    (sent,) = j.right
    source, port, target, _ = ends(sent)
    assert (source, target) == (own, good)
    j.hear(RIGHT, tcp(good, own, (80, port), SYN | ACK))
    (came,) = j.left
    assert ends(came) == (good, 80, inner, 4000)
    j.hear(RIGHT, tcp(good, own, (81, port), SYN | ACK))
    assert not j.left and not j.denied


def test_what_stays_inside_is_judged_by_nobody() -> None:
    j = Judged("")
    j.layer.send(j.now_ns, Outgoing(INNER, UDP, (udp(ip(0, 1), INNER, (1, 2))[20:],)))
    send_frame(j.layer, j.now_ns, LEFT, b"anything", None)
    assert len(j.left) == 2
    kept = j.layer.handlers[True, UDP] = Keeper()
    j.hear(LEFT, udp(INNER, ip(0, 1), (1, 2)))
    assert len(kept.packets) == 1
    assert not j.denied and not len(j.flows)


@pytest.mark.parametrize("six", [False, True])
def test_what_comes_from_outside_is_let_in_as_the_policy_says(six: bool) -> None:
    inner, bad = (INNER6, BAD6) if six else (INNER, BAD)
    j = Judged()
    j.hear(RIGHT, tcp(bad, inner, (4000, 22), ACK))
    assert not j.left
    j.hear(RIGHT, tcp(bad, inner, (4000, 22), SYN))
    assert len(j.left) == 1
    j.hear(LEFT, tcp(inner, bad, (22, 4000), SYN | ACK))
    assert len(j.right) == 1
    j.hear(LEFT, tcp(inner, bad, (23, 4000), SYN | ACK))
    assert not j.right and j.denied == [ALIEN]
    closed = Judged('inbound = "deny"')
    closed.hear(RIGHT, tcp(bad, inner, (4000, 22), SYN))
    assert not closed.left and not closed.right


def test_published_port_is_answered_from_where_it_was_reached() -> None:
    j = Judged()
    j.publish(INNER)
    j.hear(RIGHT, tcp(BAD, OWN, (4000, 8080), SYN))
    (came,) = j.left
    assert ends(came) == (BAD, 4000, INNER, 8080)
    j.hear(LEFT, tcp(INNER, BAD, (8080, 4000), SYN | ACK))
    (answer,) = j.right
    assert ends(answer) == (OWN, 8080, BAD, 4000)
    assert not j.denied


def test_name_of_an_address_counts_whoever_goes_there() -> None:
    j = Judged('[[rule]]\naction = "allow"\nnames = ["good.org"]\ncidrs = ["10.0.1.0/24"]')
    j.masquerade()
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 80), SYN))
    assert not j.right and j.denied == ["a private range"]
    j.given.remember(bytes(10) + b"\xff\xff" + GOOD, "good.org", 60, j.now_ns)
    j.hear(LEFT, tcp(INNER, GOOD, (4001, 80), SYN))
    assert len(j.right) == 1


@pytest.mark.parametrize("rules", [False, True])
@pytest.mark.parametrize(("policy", "code"), [("", 3), ('denial = "EPERM"', 13)])
def test_who_has_sent_what_is_denied_hears_so(policy: str, code: int, rules: bool) -> None:
    j = Judged(policy)
    if rules:
        j.masquerade()
    whole = udp(INNER, BAD, (4000, 80), b"question")
    j.hear(LEFT, whole)
    (told,) = j.left
    assert told[12:20] == ip(0, 1) + INNER and told[20:22] == bytes((3, code))
    quoted = told[28:]
    assert quoted[12:20] == INNER + BAD and quoted[20:] == whole[20:]


def test_who_has_sent_what_is_denied_over_six_hears_so() -> None:
    j = Judged()
    j.hear(LEFT, udp(INNER6, BAD6, (4000, 80), b"question"))
    (told,) = j.left
    assert told[24:40] == INNER6 and told[40:42] == bytes((1, 4))


def test_reset_of_a_flow_that_was_broken_off_still_goes() -> None:
    j = Judged()
    _begin(j)
    j.flows.change(Policy(parse("", "f")))
    segment = tcp(OWN, GOOD, (4000, 80), ACK)[20:]
    with pytest.raises(ECONNREFUSED):
        j.layer.send(j.now_ns, Outgoing(GOOD, TCP, (segment,), OWN))
    reset = tcp(OWN, GOOD, (4000, 80), RST)[20:]
    j.layer.send(j.now_ns, Outgoing(GOOD, TCP, (reset,), OWN, by_itself=True))
    assert len(j.right) == 1


def test_limits_count_what_goes_on() -> None:
    j = Judged(POLICY.replace('["tcp"]', '["tcp"]\nlimits = { bytes_out = 100, open = 1 }'))
    j.masquerade()
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 80), SYN))
    assert len(j.right) == 1
    j.hear(RIGHT, tcp(GOOD, OWN, (80, 4000), SYN | ACK))
    j.hear(LEFT, tcp(INNER, GOOD, (4001, 80), SYN))
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 80), ACK, bytes(200)))
    assert not j.right and j.denied == ["a quota"] * 2


def test_question_of_somebody_inside_may_be_answered_here() -> None:
    j = Judged()
    j.masquerade()
    asked: list[tuple[bytes, bytes, bytes]] = []

    def answers(packet: Arrived, datagram: Bytes) -> bool:
        asked.append((packet.source, packet.target, bytes(datagram[8:])))
        return datagram[8:9] == b"q"

    j.layer.answers = answers
    j.hear(LEFT, udp(INNER, BAD, (4000, 53), b"question"))
    j.hear(LEFT, udp(INNER6, BAD6, (4000, 53), b"question"))
    assert asked == [(INNER, BAD, b"question"), (INNER6, BAD6, b"question")]
    assert not j.left and not j.right and not j.denied
    j.hear(LEFT, udp(INNER, BAD, (4000, 53), b"other"))
    assert len(asked) == 3 and j.denied == ["a private range"]
    j.hear(LEFT, tcp(INNER, BAD, (4000, 53), SYN))
    j.hear(RIGHT, udp(BAD, INNER, (4000, 53), b"question"))  # from outside
    j.hear(LEFT, udp(INNER, ip(0, 3), (4000, 53), b"question"))  # nothing that leaves
    assert len(asked) == 3


def test_reason_says_what_could_not_be_told() -> None:
    j = Judged()
    j.hear(LEFT, _with_options(tcp(INNER, GOOD, (4000, 80), SYN), b"\1\1\1\0"))
    assert j.denied == [UNJUDGED]


def test_large_segment_is_judged_by_its_beginning_and_counts_whole() -> None:
    j = Judged()
    j.masquerade()
    large = tcp(INNER, GOOD, (4000, 80), ACK, bytes(30_000))
    head = struct.pack("<BBHHHH", 1, 1, 40, 1400, 20, 16)
    j.hear(LEFT, tcp(INNER, GOOD, (4000, 80), SYN))
    assert len(j.right) == 1
    j.hear(RIGHT, tcp(GOOD, OWN, (80, 4000), SYN | ACK))
    before = j.flows.total.bytes[0]
    j.hear(LEFT, large, head)
    assert len(j.right) == 1
    assert j.flows.total.bytes[0] - before == 30_020
