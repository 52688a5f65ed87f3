"""Rules at the hooks of a router: what they drop, reject, follow and translate."""

from __future__ import annotations

import struct

import pytest

from sentry.abi import nftables as nft
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import EINVAL, EMLINK, EOPNOTSUPP, EPERM
from sentry.net.ip import ipv4
from sentry.net.ip.seam import Arrived, Outgoing
from sentry.net.netfilter.acting import Counter
from sentry.net.netfilter.hooks import MOST_AT_ONCE
from sentry.net.netfilter.machine import BASE_STEPS, MAX_STEPS, be32
from sentry.net.netlink.message import attribute
from sentry.net.routes import Route, Routes
from sentry.wait.steps import at_once
from tests.unit.net.netfilter.router import (
    ACCEPT,
    ACK,
    COUNTER,
    DROP,
    LEFT,
    MASQUERADE,
    RIGHT,
    RST,
    SYN,
    Router,
    echo,
    ends,
    equals,
    icmp,
    immediate,
    ip,
    ip6,
    made,
    meta,
    state,
    tcp,
    to_port,
    translate,
    udp,
    verdict,
    write_at,
)
from tests.unit.net.wired import Keeper

PRE, IN, FORWARD, OUT, POST = range(5)
ESTABLISHED, RELATED, NEW = 2, 4, 8
UDP, TCP = 17, 6


@pytest.fixture
def router() -> Router:
    return Router()


def keep(router: Router, protocol: int) -> Keeper:
    kept = Keeper()
    router.layer.handlers[True, protocol] = router.layer.handlers[False, protocol] = kept
    return kept


def test_without_base_chains_the_layer_knows_of_nothing(router: Router) -> None:
    router.chain("plain")
    assert router.layer.filter is None
    router.chain("in", IN)
    assert router.layer.filter is router.netfilter


@pytest.mark.parametrize("address", [ip, ip6])
def test_what_goes_on_is_dropped_by_its_port(router: Router, address: object) -> None:
    of = ip if address is ip else ip6
    forward = router.chain("f", FORWARD)
    router.rule(forward, *to_port(53), COUNTER, DROP)
    router.hear(LEFT, udp(of(0, 2), of(1, 2), (4000, 53)))
    router.hear(LEFT, udp(of(0, 2), of(1, 2), (4000, 54)))
    assert [ends(each)[3] for each in router.right] == [54]
    counter = forward.rules[0].expressions[2]
    assert isinstance(counter, Counter) and counter.packets == 1
    assert forward.packets == 1


def test_policy_of_input_loses_what_is_for_us_and_nothing_else(router: Router) -> None:
    kept = keep(router, UDP)
    router.chain("in", IN, policy=nft.NF_DROP)
    router.hear(LEFT, udp(ip(0, 2), ip(0, 1), (1, 2)))
    router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (1, 2)))
    assert not kept.packets
    assert len(router.right) == 1


def test_what_is_sent_is_dropped_with_an_error_unless_it_is_tcp(router: Router) -> None:
    router.rule(router.chain("out", OUT), DROP)
    with pytest.raises(EPERM):
        router.layer.send(router.now_ns, Outgoing(ip(1, 2), UDP, (bytes(8),)))
    router.layer.send(router.now_ns, Outgoing(ip(1, 2), TCP, (bytes(20),)))
    assert not router.right


def test_jumps_return_and_gotos_do_not(router: Router) -> None:
    forward, inner, last = router.chain("f", FORWARD), router.chain("i"), router.chain("l")
    router.rule(forward, *to_port(1), verdict(nft.NFT_JUMP, "i"))
    router.rule(forward, *to_port(2), verdict(nft.NFT_GOTO, "l"))
    router.rule(forward, DROP)
    router.rule(inner, verdict(nft.NFT_RETURN))
    router.rule(inner, ACCEPT)
    router.rule(last, COUNTER)
    for port in (1, 2):
        router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (9, port)))
    assert [ends(each)[3] for each in router.right] == [2]


def test_chains_that_lead_to_themselves_are_refused(router: Router) -> None:
    forward, inner = router.chain("f", FORWARD), router.chain("i")
    router.rule(forward, verdict(nft.NFT_JUMP, "i"))
    with pytest.raises(EMLINK):
        router.rule(inner, verdict(nft.NFT_JUMP, "i"))


def test_chains_seventeen_deep_are_refused(router: Router) -> None:
    chain = router.chain("f", FORWARD)
    for depth in range(15):
        following = router.chain(f"c{depth}")
        router.rule(chain, verdict(nft.NFT_JUMP, following.name))
        chain = following
    router.chain("last")
    with pytest.raises(EMLINK):
        router.rule(chain, verdict(nft.NFT_JUMP, "last"))


def test_more_steps_than_there_are_lose_a_packet(router: Router) -> None:
    chains = [router.chain(f"c{depth}") for depth in range(14)]
    forward = router.chain("f", FORWARD)
    for one, following in zip([forward, *chains], chains, strict=False):
        for _ in range(3):
            router.rule(one, verdict(nft.NFT_JUMP, following.name))
    router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (9, 9)))
    assert not router.right


def test_packets_of_a_moment_have_a_ceiling_together(router: Router) -> None:
    chain = router.chain("c", FORWARD)
    for _ in range(MAX_STEPS // 20):
        router.rule(chain, COUNTER)
    packet = udp(ip(0, 2), ip(1, 2), (1, 2))
    most = MOST_AT_ONCE // (BASE_STEPS + 2 * len(chain.rules))
    for _ in range(most + 10):
        router.hear(LEFT, packet)
    assert most - 1 <= len(router.right) <= most + 1
    router.now_ns += 1
    router.hear(LEFT, packet)
    assert len(router.right) == 1


def test_rejected_datagram_is_answered_by_icmp(router: Router) -> None:
    reject = made(
        "reject", *with_code(nft.NFT_REJECT_ICMPX_UNREACH, nft.NFT_REJECT_ICMPX_PORT_UNREACH)
    )
    router.rule(router.chain("f", FORWARD), reject)
    router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (9, 9)))
    (answer,) = router.left
    assert (answer[9], answer[20:22], answer[16:20]) == (1, b"\x03\x03", ip(0, 2))
    assert not router.right


def with_code(kind: int, code: int) -> list[bytes]:
    return [be32(nft.NFTA_REJECT_TYPE, kind), attribute(nft.NFTA_REJECT_ICMP_CODE, bytes([code]))]


def test_rejected_segment_is_answered_by_a_reset(router: Router) -> None:
    router.rule(router.chain("f", FORWARD), made("reject", *with_code(nft.NFT_REJECT_TCP_RST, 0)))
    router.hear(LEFT, tcp(ip(0, 2), ip(1, 2), (9, 80), SYN))
    (answer,) = router.left
    assert ends(answer) == (ip(1, 2), 80, ip(0, 2), 9)
    assert answer[33] == RST | ACK
    assert struct.unpack_from(">I", answer, 28)[0] == 1001
    router.hear(LEFT, tcp(ip(0, 2), ip(1, 2), (9, 80), RST))
    assert not router.left


def firewall(router: Router) -> None:
    """What begins at the left may be answered."""
    forward = router.chain("f", FORWARD, policy=nft.NF_DROP)
    router.rule(forward, *state(ESTABLISHED, RELATED), ACCEPT)
    router.rule(forward, *from_left(), *state(NEW), ACCEPT)


def from_left() -> tuple[bytes, bytes]:
    return meta(nft.NFT_META_IIFNAME), equals(b"left".ljust(16, b"\0"))


def test_answers_come_in_and_others_do_not(router: Router) -> None:
    firewall(router)
    router.hear(RIGHT, udp(ip(1, 2), ip(0, 2), (53, 4000)))
    assert not router.left
    router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (4000, 53)))
    assert len(router.right) == 1
    router.hear(RIGHT, udp(ip(1, 2), ip(0, 2), (53, 4000)))
    router.hear(RIGHT, udp(ip(1, 2), ip(0, 2), (53, 4001)))
    assert [ends(each)[3] for each in router.left] == [4000]
    router.now_ns += 121 * 10**9
    router.hear(RIGHT, udp(ip(1, 2), ip(0, 2), (53, 4000)))
    assert not router.left


def test_error_about_a_connection_comes_in(router: Router) -> None:
    firewall(router)
    sent = udp(ip(0, 2), ip(1, 2), (4000, 53))
    about = struct.pack(">BBHI", 3, 3, 0, 0)
    router.hear(RIGHT, icmp(ip(1, 2), ip(0, 2), about + sent))
    assert not router.left
    router.hear(LEFT, sent)
    router.hear(RIGHT, icmp(ip(1, 2), ip(0, 2), about + sent))
    assert len(router.left) == 1


def test_connection_of_tcp_is_followed_to_its_end(router: Router) -> None:
    firewall(router)
    ports, back = (4000, 80), (80, 4000)
    router.hear(LEFT, tcp(ip(0, 2), ip(1, 2), ports, SYN))
    router.hear(RIGHT, tcp(ip(1, 2), ip(0, 2), back, SYN | ACK))
    router.hear(LEFT, tcp(ip(0, 2), ip(1, 2), ports, ACK))
    (connection,) = router.netfilter.conntrack.connections.values()
    assert connection.state == 3
    assert connection.status & nft.IPS_ASSURED
    router.hear(RIGHT, tcp(ip(1, 2), ip(0, 2), back, RST))
    assert connection.state == 8
    router.now_ns += 11 * 10**9
    router.hear(RIGHT, tcp(ip(1, 2), ip(0, 2), back, ACK))
    assert [each[33] for each in router.left] == [SYN | ACK, RST]


def masquerading(router: Router) -> None:
    router.rule(router.chain("post", POST, 100, "nat"), *to_right(), MASQUERADE)


def to_right() -> tuple[bytes, bytes]:
    return meta(nft.NFT_META_OIFNAME), equals(b"right".ljust(16, b"\0"))


@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
def test_source_is_masqueraded_and_back(router: Router, protocol: str) -> None:
    masquerading(router)
    if protocol == "icmp":
        out, back = echo(ip(0, 2), ip(1, 2), 7), echo(ip(1, 2), ip(1, 1), 7, 0)
    elif protocol == "udp":
        out = udp(ip(0, 2), ip(1, 2), (4000, 53))
        back = udp(ip(1, 2), ip(1, 1), (53, 4000))
    else:
        out = tcp(ip(0, 2), ip(1, 2), (4000, 53), SYN)
        back = tcp(ip(1, 2), ip(1, 1), (53, 4000), SYN | ACK)
    router.hear(LEFT, out)
    (sent,) = router.right
    assert (ends(sent)[0], ends(sent)[2]) == (ip(1, 1), ip(1, 2))
    router.hear(RIGHT, back)
    (got,) = router.left
    assert (ends(got)[0], ends(got)[2]) == (ip(1, 2), ip(0, 2))


def test_two_with_the_same_port_get_two(router: Router) -> None:
    masquerading(router)
    for number in (2, 3):
        router.hear(LEFT, udp(ip(0, number), ip(1, 2), (4000, 53)))
    first, second = (ends(each)[1] for each in router.right)
    assert first == 4000 != second
    router.hear(RIGHT, udp(ip(1, 2), ip(1, 1), (53, second)))
    (got,) = router.left
    assert ends(got)[2:] == (ip(0, 3), 4000)


def test_error_about_a_masqueraded_packet_says_what_was_sent(router: Router) -> None:
    masquerading(router)
    router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (4000, 53)))
    (sent,) = router.right
    router.hear(RIGHT, icmp(ip(1, 2), ip(1, 1), struct.pack(">BBHI", 3, 3, 0, 0) + sent))
    (got,) = router.left
    assert ends(got)[2] == ip(0, 2)
    inner = got[28:]
    assert (inner[12:16], inner[20:22]) == (ip(0, 2), (4000).to_bytes(2))


def test_port_is_published(router: Router) -> None:
    rule = translate(nft.NFT_NAT_DNAT, ip(1, 2), 80)
    router.rule(router.chain("pre", PRE, -100, "nat"), *to_port(8080), *rule)
    router.hear(LEFT, tcp(ip(0, 2), ip(0, 1), (4000, 8080), SYN))
    (sent,) = router.right
    assert ends(sent) == (ip(0, 2), 4000, ip(1, 2), 80)
    router.hear(RIGHT, tcp(ip(1, 2), ip(0, 2), (80, 4000), SYN | ACK))
    (got,) = router.left
    assert ends(got) == (ip(0, 1), 8080, ip(0, 2), 4000)


def test_what_we_send_goes_to_another_target_and_its_answer_comes_back(router: Router) -> None:
    kept = keep(router, UDP)
    rule = translate(nft.NFT_NAT_DNAT, ip(0, 9))
    router.rule(router.chain("out", OUT, -100, "nat"), *rule)
    out = Outgoing(ip(1, 2), UDP, (udp(ip(1, 1), ip(1, 2), (5, 6))[20:],), ip(1, 1))
    router.layer.send(router.now_ns, out)
    assert not router.right
    (sent,) = router.left
    assert ends(sent) == (ip(1, 1), 5, ip(0, 9), 6)
    router.hear(LEFT, udp(ip(0, 9), ip(1, 1), (6, 5)))
    (got,) = kept.packets
    assert (got.source, got.target) == (ip(1, 2), ip(1, 1))


def test_what_was_to_leave_may_turn_to_us_and_is_answered(router: Router) -> None:
    kept = keep(router, UDP)
    rule = translate(nft.NFT_NAT_DNAT, ip(0, 1), 77)
    router.rule(router.chain("out", OUT, -100, "nat"), *rule)
    inside = router.chain("in", IN)
    router.rule(inside, *to_port(77), COUNTER)
    out = Outgoing(ip(1, 9), UDP, (udp(ip(1, 1), ip(1, 9), (5, 6))[20:],), ip(1, 1))
    router.layer.send(router.now_ns, out)
    assert not kept.packets
    router.layer.inward.go_on(router.now_ns)
    (got,) = kept.packets
    assert (got.source, got.target, got.payload[2:4]) == (ip(1, 1), ip(0, 1), b"\0\x4d")
    back = Outgoing(ip(1, 1), UDP, (udp(ip(0, 1), ip(1, 1), (77, 5))[20:],), ip(0, 1))
    router.layer.send(router.now_ns, back)
    router.layer.inward.go_on(router.now_ns)
    answer = kept.packets[1]
    assert (answer.source, answer.target, answer.payload[:2]) == (ip(1, 9), ip(1, 1), b"\0\x06")
    assert not router.left + router.right
    assert inside.packets == 2


def test_what_was_for_us_may_turn_to_somebody_else_and_leaves(router: Router) -> None:
    kept = keep(router, UDP)
    rule = translate(nft.NFT_NAT_DNAT, ip(0, 9))
    router.rule(router.chain("out", OUT, -100, "nat"), *rule)
    out = Outgoing(ip(1, 1), UDP, (udp(ip(1, 1), ip(1, 1), (5, 6))[20:],), ip(1, 1))
    router.layer.send(router.now_ns, out)
    router.layer.inward.go_on(router.now_ns)
    assert not kept.packets
    (sent,) = router.left
    assert ends(sent) == (ip(1, 1), 5, ip(0, 9), 6)


def test_what_turns_to_us_may_be_dropped_on_its_way(router: Router) -> None:
    kept = keep(router, UDP)
    rule = translate(nft.NFT_NAT_DNAT, ip(0, 1))
    router.rule(router.chain("out", OUT, -100, "nat"), *rule)
    router.chain("in", IN, policy=nft.NF_DROP)
    router.layer.send(router.now_ns, Outgoing(ip(1, 9), UDP, (bytes(8),), ip(1, 1)))
    router.layer.inward.go_on(router.now_ns)
    assert not kept.packets
    router.chain("post", POST, policy=nft.NF_DROP)
    with pytest.raises(EPERM):
        router.layer.send(router.now_ns, Outgoing(ip(1, 9), UDP, (bytes(8),), ip(1, 1)))


def test_what_turns_to_us_and_is_rejected_is_answered(router: Router) -> None:
    kept = keep(router, TCP)
    rule = translate(nft.NFT_NAT_DNAT, ip(0, 1), 77)
    router.rule(router.chain("out", OUT, -100, "nat"), *rule)
    reset = made("reject", *with_code(nft.NFT_REJECT_TCP_RST, 0))
    router.rule(router.chain("in", IN), *to_port(77), reset)
    segment = tcp(ip(1, 1), ip(1, 9), (5, 6), SYN)[20:]
    router.layer.send(router.now_ns, Outgoing(ip(1, 9), TCP, (segment,), ip(1, 1)))
    for _ in range(2):
        router.layer.inward.go_on(router.now_ns)
    (answer,) = kept.packets
    assert (answer.source, answer.payload[:4], answer.payload[13]) == (
        ip(1, 9), b"\0\x06\0\x05", RST | ACK
    )  # fmt: skip


def test_translation_stands_in_chains_of_its_type(router: Router) -> None:
    with pytest.raises(EOPNOTSUPP):
        router.rule(router.chain("f", FORWARD), MASQUERADE)


def test_connections_have_a_ceiling(router: Router) -> None:
    masquerading(router)
    router.sysctls["net/netfilter/nf_conntrack_max"] = "20"
    for port in range(1000, 1100):
        router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (port, 53)))
    assert len(router.netfilter.conntrack.connections) <= 20


def test_fragments_are_put_together_before_rules(router: Router) -> None:
    router.rule(router.chain("f", FORWARD), *to_port(53), DROP)
    whole = udp(ip(0, 2), ip(1, 2), (4000, 53), bytes(64))
    header = ipv4.parse(whole)
    assert header is not None
    for offset, data in ((0, whole[20:52]), (4, whole[52:])):
        more = ipv4.MORE_FRAGMENTS if not offset else 0
        own = header._replace(total=20 + len(data), fragment=more | offset)
        router.hear(LEFT, ipv4.build(own) + data)
    assert not router.right


class Gate:
    """It keeps what it is asked, and lets come what is from 10.0.1.2."""

    def __init__(self) -> None:
        self.left: list[tuple[bytes, bytes]] = []
        self.came: list[tuple[bytes, bytes]] = []

    def leaving(self, now_ns: int, out: Outgoing, source: bytes) -> bool:
        self.left.append((source, out.target))
        return out.target != ip(0, 9)

    def arriving(self, now_ns: int, packet: Arrived) -> bool:
        self.came.append((packet.source, packet.target))
        return packet.source == ip(1, 2)

    def passing(self, now_ns: int, packet: bytes, size: int) -> bool:
        return True

    def frame(self, now_ns: int, frame: bytes, sender: object) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("before", [ip(1, 2), ip(1, 1)], ids=["somebody", "us"])
def test_gate_judges_where_a_packet_goes_and_not_where_it_was_to_go(
    router: Router, before: bytes
) -> None:
    gate = router.layer.gate = Gate()
    rule = translate(nft.NFT_NAT_DNAT, ip(0, 9))
    router.rule(router.chain("out", OUT, -100, "nat"), *rule)
    router.layer.send(router.now_ns, Outgoing(before, UDP, (bytes(8),), ip(1, 1)))
    assert gate.left == [(ip(1, 1), ip(0, 9))]
    assert not router.left
    assert not router.right


def test_gate_judges_what_has_come_and_not_what_becomes_of_it(router: Router) -> None:
    kept, gate = keep(router, UDP), Gate()
    router.layer.gate = gate
    pre = router.chain("pre", PRE, -300)
    router.rule(pre, immediate(ip(1, 2)), write_at(12, 4))
    router.hear(RIGHT, udp(ip(1, 3), ip(1, 1), (1, 2)))
    assert gate.came == [(ip(1, 3), ip(1, 1))]
    assert not kept.packets
    router.hear(RIGHT, udp(ip(1, 2), ip(1, 1), (1, 2)))
    assert len(kept.packets) == 1


@pytest.mark.parametrize("hook", [FORWARD, POST], ids=["forward", "postrouting"])
@pytest.mark.parametrize("near", [ip(1, 9), ip6(1, 9)], ids=["4", "6"])
def test_what_turns_behind_routing_leaves_by_its_own_way(
    router: Router, hook: int, near: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_v4 = len(near) == 4
    router.layer.gate = Gate()
    router.links[LEFT].stays_inside = True
    far = b"\xc6\x33\x64\x09".ljust(len(near), b"\1")
    gateway = ip(1, 254) if is_v4 else ip6(1, 254)
    family = AF_INET if is_v4 else AF_INET6
    way = Route(family, bytes(len(near)), 0, RIGHT, gateway=gateway)
    at_once(router.layer.refresh([*Routes(router.interfaces), way]))
    hops: list[bytes] = []
    monkeypatch.setattr(router.links[RIGHT], "send", lambda now, hop, packet: hops.append(hop))
    write = write_at(16 if is_v4 else 24, len(near))
    own, inside = (ip(1, 1), ip(0, 2)) if is_v4 else (ip6(1, 1), ip6(0, 2))
    router.rule(router.chain("c", hook), immediate(far), write)

    router.hear(LEFT, udp(inside, near, (1, 2)))
    if hook == POST:
        with pytest.raises(EPERM):
            router.layer.send(router.now_ns, Outgoing(near, UDP, (bytes(8),), own))
    assert near not in hops
    router.hear(LEFT, udp(inside, far, (1, 2)))
    assert hops and set(hops) == {gateway}


def test_source_that_is_not_ours_does_not_pass_a_gate(router: Router) -> None:
    router.layer.gate = Gate()
    router.rule(router.chain("post", POST, 100, "nat"), *translate(nft.NFT_NAT_SNAT, ip(1, 77)))
    with pytest.raises(EINVAL):
        router.layer.send(router.now_ns, Outgoing(ip(1, 2), UDP, (bytes(8),), ip(1, 1)))
    assert not router.right
