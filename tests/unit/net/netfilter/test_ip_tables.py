"""Tables of iptables without nftables: how they are read, and what packets do there."""

from __future__ import annotations

import struct

import pytest

from sentry.abi import nftables as nft
from sentry.errors import EINVAL, ELOOP, ENOENT, ENOMEM, EPROTOTYPE, Errno
from sentry.net.netfilter.ip_tables import COUNTERS, INFO, KINDS
from sentry.net.netfilter.ip_tables_blob import REPLACE, UNUSED
from sentry.net.netfilter.ruleset import MOST
from tests.unit.net.netfilter.blobs import (
    ACCEPT,
    DROP,
    RETURN,
    entry,
    error,
    header,
    header6,
    part,
    put,
    standard,
    table,
    with_rules,
)
from tests.unit.net.netfilter.router import (
    COUNTER,
    LEFT,
    RIGHT,
    SYN,
    Router,
    ends,
    equals,
    ip,
    ip6,
    meta,
    tcp,
    udp,
)
from tests.unit.net.netfilter.router import DROP as DROPS

PRE, IN, FORWARD, OUT, POST = range(5)
UDP, TCP = 17, 6
INV_PROTO, GOTO = 0x40, 2
RULE, POLICY = 112, 152
"""Bytes of an entry without a target, and with a verdict."""
FORWARD_AT = POLICY
"""Where FORWARD begins in a filter table without rules at INPUT."""


@pytest.fixture
def router() -> Router:
    return Router()


def of_port(port: int) -> bytes:
    """-m udp --dport."""
    return part("udp", 0, struct.pack("<4HB", 0, 0xFFFF, port, port, 0))


def arrive(router: Router, *ports: int) -> list[int]:
    """Datagrams from the left to the right: the ports of those that get through."""
    for port in ports:
        router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (4000, port)))
    return [ends(each)[3] for each in router.right]


@pytest.mark.parametrize("is_v4", [True, False])
def test_table_is_there_when_somebody_asks_and_lets_all_through(
    router: Router, is_v4: bool
) -> None:
    assert router.layer.filter is None
    made = router.netfilter.ip_table("filter", is_v4=is_v4)
    assert router.layer.filter is router.netfilter
    name, hooks, *rest = INFO.unpack(made.info())
    step = POLICY if is_v4 else 208
    places = [UNUSED, 0, step, 2 * step, UNUSED]
    size = 3 * step + (176 if is_v4 else 232)
    assert (name.rstrip(b"\0"), hooks, rest) == (b"filter", 0b1110, [*places, *places, 4, size])
    assert len(made.dump()) == size
    assert arrive(router, 1, 2) == [1, 2]
    assert [each.packets for each in made.content.entries] == ([0, 2, 0, 0] if is_v4 else [0] * 4)


@pytest.mark.parametrize("name", KINDS)
def test_every_table_stands_at_its_hooks(router: Router, name: str) -> None:
    made = router.netfilter.ip_table(name, is_v4=True)
    arrive(router, 5)
    counted = {
        hook: made.content.entries[made.content.ends[hook]].packets for hook in KINDS[name].hooks
    }
    assert counted == {hook: hook in (PRE, FORWARD, POST) for hook in KINDS[name].hooks}


def test_table_of_no_name_is_not_there(router: Router) -> None:
    with pytest.raises(ENOENT):
        router.netfilter.ip_table("nothing", is_v4=True)


def test_rule_drops_and_counts(router: Router) -> None:
    rule = entry(standard(DROP), of_port(53), head=header(protocol=UDP))
    made = put(router, with_rules("filter", FORWARD, [rule]))
    assert arrive(router, 53, 54, 53) == [54]
    size = len(udp(ip(0, 2), ip(1, 2), (4000, 53)))
    assert [(each.packets, each.octets) for each in made.content.entries[1:3]] == [
        (2, 2 * size), (1, size),
    ]  # fmt: skip
    assert COUNTERS.unpack_from(made.dump(), POLICY + 96) == (2, 2 * size)
    made.add_counters(COUNTERS.pack(5, 1) * 5)
    assert COUNTERS.unpack_from(made.counters(), 16) == (7, 2 * size + 1)
    with pytest.raises(EINVAL):
        made.add_counters(bytes(16))


def test_policy_is_what_is_left(router: Router) -> None:
    rule = entry(standard(ACCEPT), of_port(53), head=header(protocol=UDP))
    put(router, with_rules("filter", FORWARD, [rule], DROP))
    assert arrive(router, 53, 54) == [53]


@pytest.mark.parametrize(
    "head, passes",
    [
        (header(ip(0, 2)), False), (header(ip(0, 3)), True), (header(ip(0, 2), inverted=8), True),
        (header(b"", ip(1, 2)), False), (header(b"", ip(1, 2), inverted=0x10), True),
        (header(protocol=UDP), False), (header(protocol=TCP), True),
        (header(protocol=TCP, inverted=INV_PROTO), False), (header(iif=b"left"), False),
        (header(iif=b"lef"), True), (header(iif=b"left", inverted=1), True),
        (header(oif=b"right"), False), (header(oif=b"left"), True), (header(flags=1), True),
        (header(flags=1, inverted=0x20), False), (header(inverted=0x20), True),
    ],
)  # fmt: skip
def test_header_fits_or_not(router: Router, head: bytes, passes: bool) -> None:
    put(router, with_rules("filter", FORWARD, [entry(standard(DROP), head=head)]))
    assert bool(arrive(router, 7)) == passes


def test_header_of_ipv6_fits_or_not(router: Router) -> None:
    rules = [
        entry(standard(ACCEPT), head=header6(ip6(0, 9)), is_v4=False),
        entry(standard(DROP), head=header6(ip6(0, 2), UDP), is_v4=False),
    ]
    put(router, with_rules("filter", FORWARD, rules, is_v4=False), is_v4=False)
    for number in (2, 3, 9):
        router.hear(LEFT, udp(ip6(0, number), ip6(1, 2), (1, 2)))
    assert [ends(each)[0] for each in router.right] == [ip6(0, 3), ip6(0, 9)]


# --- chains


def with_chain(first: bytes, *rules: bytes, name: str = "mine") -> bytes:
    """A filter table whose FORWARD has one rule, and a chain that begins at CHAIN."""
    return with_rules("filter", FORWARD, [first], DROP, [entry(error(name)), *rules])


CHAIN = POLICY * 4 + 176
"""Where the first rule of that chain is."""


def test_chain_returns_and_a_goto_does_not(router: Router) -> None:
    returns = entry(standard(RETURN))
    made = put(router, with_chain(entry(standard(CHAIN)), returns))
    assert arrive(router, 1) == []
    counted = [each.packets for each in made.content.entries]
    assert counted == [0, 1, 1, 0, 0, 1, 0]
    rules = [entry(standard(CHAIN + POLICY), head=header(flags=GOTO)), entry(standard(ACCEPT))]
    made = put(router, with_rules("filter", FORWARD, rules, DROP, [entry(error("m")), returns]))
    assert arrive(router, 1) == []
    assert [each.packets for each in made.content.entries] == [0, 1, 0, 1, 0, 0, 1, 0]


def test_jump_may_lead_into_the_middle_of_a_chain(router: Router) -> None:
    put(router, with_chain(
        entry(standard(CHAIN + POLICY)), entry(standard(DROP)), entry(standard(ACCEPT))
    ))  # fmt: skip
    assert arrive(router, 1) == [1]


@pytest.mark.parametrize(
    "value",
    [
        with_chain(entry(standard(CHAIN)), entry(standard(CHAIN))),
        with_chain(entry(standard(FORWARD_AT)), entry(standard(RETURN))),
        with_chain(
            entry(standard(CHAIN)), entry(standard(CHAIN + POLICY)), entry(standard(CHAIN)),
            entry(standard(RETURN)),
        ),
        with_chain(entry(standard(CHAIN)), entry(standard(DROP), head=header(protocol=UDP))),
        with_chain(entry(standard(CHAIN + 8)), entry(standard(RETURN))),
        with_chain(entry(standard(0x7FFFFFF8)), entry(standard(RETURN))),
    ],
    ids=["itself", "its hook", "round about", "no end", "between entries", "far away"],
)  # fmt: skip
def test_ways_that_are_circles_or_end_nowhere_are_refused(router: Router, value: bytes) -> None:
    with pytest.raises(ELOOP):
        put(router, value)
    assert arrive(router, 1) == [1]


def test_what_no_hook_leads_to_may_lead_anywhere(router: Router) -> None:
    put(router, with_chain(entry(standard(ACCEPT)), entry(standard(CHAIN))))
    assert arrive(router, 1) == [1]


def test_more_steps_than_there_are_lose_a_packet(router: Router) -> None:
    first = POLICY * 4 + 6 * POLICY
    chains: list[bytes] = []
    for depth in range(14):
        at = first + depth * (176 + 4 * POLICY)
        following = at + 4 * POLICY + 176 + 176 if depth < 13 else 0
        rule = entry(standard(following or RETURN))
        chains += [entry(error(f"c{depth}")), *[rule] * 3, entry(standard(RETURN))]
    rules = [entry(standard(first + 176))] * 6 + [entry(standard(ACCEPT))]
    put(router, with_rules("filter", FORWARD, rules, ACCEPT, chains))
    assert arrive(router, 1) == []


# --- what is wrong


GOOD = entry(standard(ACCEPT), of_port(1), head=header(protocol=UDP))


def spoiled(at: int, value: bytes) -> bytes:
    """The rule with other bytes somewhere."""
    return GOOD[:at] + value + GOOD[at + len(value) :]


@pytest.mark.parametrize(
    "rule",
    [
        spoiled(82, b"\x04"), spoiled(83, b"\x80"), spoiled(88, b"\x08\0"),
        spoiled(88, b"\xff\xff"), spoiled(90, b"\0\0"), spoiled(90, b"\xff\xff"),
        spoiled(90, b"\x01"),
        spoiled(RULE, b"\x1f\0"), spoiled(RULE, b"\xff\0"), spoiled(RULE, b"\x20\0"),
        spoiled(RULE + 48, b"\xff\0"), spoiled(RULE + 48, b"\0\0"), spoiled(RULE + 80, bytes(4)),
        spoiled(RULE + 80, b"\xf0\xff\xff\xff"), spoiled(RULE + 48, b"\x20\0"),
        entry(part("ERROR", 0, b"x" * 30)), entry(part("ERROR", 0, b"x")),
        entry(part("REJECT", 0, bytes(16))), entry(part("SNAT", 0, bytes(24))),
        entry(part("MARK" * 8, 2, bytes(8))), entry(standard(DROP), of_port(1)),
        entry(standard(DROP), part("owner", 1, bytes(24))),
    ],
)  # fmt: skip
def test_entry_that_is_wrong_is_refused(router: Router, rule: bytes) -> None:
    with pytest.raises(EINVAL):
        put(router, with_rules("filter", FORWARD, [rule]))


@pytest.mark.parametrize(
    "rule, wrong",
    [
        (entry(part("NOTHING", 0, b"")), ENOENT), (entry(part("MARK", 9, bytes(8))), ENOENT),
        (entry(part("SNAT", 9, bytes(8))), EPROTOTYPE),
        (entry(standard(DROP), part("nothing", 0, b"")), ENOENT),
        (entry(standard(DROP), part("conntrack", 9, b"")), EPROTOTYPE),
        (entry(standard(DROP), part("icmp6", 0, bytes(8))), ENOENT),
        (entry(standard(DROP), part("udp", 9, bytes(16))), ENOENT),
        (entry(part("", 9, struct.pack("<i", DROP))), ENOENT),
    ],
)  # fmt: skip
def test_extension_that_is_not_known_is_told(
    router: Router, rule: bytes, wrong: type[Errno]
) -> None:
    with pytest.raises(wrong):
        put(router, with_rules("filter", FORWARD, [rule]))


@pytest.mark.parametrize("size", range(0, 632, 8))
def test_table_that_is_cut_is_refused(router: Router, size: int) -> None:
    whole = with_rules("filter", FORWARD, [])
    with pytest.raises(EINVAL):
        put(router, whole[: REPLACE.size + size])


def policies(*verdicts: int) -> list[bytes]:
    return [*[entry(standard(each)) for each in verdicts], entry(error())]


@pytest.mark.parametrize(
    "value",
    [
        table("filter", policies(ACCEPT, ACCEPT, ACCEPT), {1: 0, 2: 1, 3: 1}, {1: 0, 2: 1, 3: 2}),
        table("filter", policies(ACCEPT, ACCEPT, ACCEPT), {1: 0, 2: 2, 3: 1}, {1: 0, 2: 2, 3: 1}),
        table("filter", policies(ACCEPT, ACCEPT, RETURN), {1: 0, 2: 1, 3: 2}, {1: 0, 2: 1, 3: 2}),
        table("filter", policies(ACCEPT, ACCEPT, -4), {1: 0, 2: 1, 3: 2}, {1: 0, 2: 1, 3: 2}),
        table("filter", policies(ACCEPT, ACCEPT, ACCEPT), {1: 0, 2: 1, 3: 2}, {1: 0, 2: 1, 3: 3}),
    ],
    ids=["two of one", "not in order", "returns", "a queue", "an error"],
)  # fmt: skip
def test_hooks_that_begin_or_end_wrongly_are_refused(router: Router, value: bytes) -> None:
    with pytest.raises(EINVAL):
        put(router, value)


def test_tables_have_a_ceiling(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    made = put(router, with_rules("filter", FORWARD, [GOOD]))
    monkeypatch.setitem(MOST, "rules", router.netfilter.counts["rules"] + 1)
    with pytest.raises(ENOMEM):
        put(router, with_rules("filter", FORWARD, [GOOD] * 3))
    assert len(made.content.entries) == 5
    put(router, with_rules("filter", FORWARD, [GOOD] * 2))
    with pytest.raises(ENOMEM):
        router.netfilter.ip_table("raw", is_v4=True)
    put(router, with_rules("filter", FORWARD, []))
    assert router.netfilter.counts["rules"] == 4


# --- with the rest


def ipv4_range(flags: int, address: bytes = bytes(4), port: int = 0) -> bytes:
    """struct nf_nat_ipv4_multi_range_compat."""
    head = struct.pack("<II", 1, flags)
    return head + address * 2 + struct.pack(">HH", port, port)


def test_port_is_published_and_masqueraded(router: Router) -> None:
    flags = nft.NF_NAT_RANGE_MAP_IPS | nft.NF_NAT_RANGE_PROTO_SPECIFIED
    to = part("DNAT", 0, ipv4_range(flags, ip(1, 2), 80))
    masquerade = part("MASQUERADE", 0, ipv4_range(0))
    rules = {
        PRE: entry(to, head=header(protocol=TCP, iif=b"left")),
        POST: entry(masquerade, head=header(oif=b"right")),
    }
    entries: list[bytes] = []
    begins: dict[int, int] = {}
    policy: dict[int, int] = {}
    for hook in KINDS["nat"].hooks:
        begins[hook] = len(entries)
        entries += [rules[hook]] if hook in rules else []
        policy[hook] = len(entries)
        entries.append(entry(standard(ACCEPT)))
    put(router, table("nat", [*entries, entry(error())], begins, policy))
    router.hear(LEFT, tcp(ip(0, 2), ip(0, 1), (4000, 8080), SYN))
    (sent,) = router.right
    assert ends(sent) == (ip(1, 1), 4000, ip(1, 2), 80)
    router.hear(RIGHT, tcp(ip(1, 2), ip(1, 1), (80, 4000), SYN | 16))
    (got,) = router.left
    assert ends(got) == (ip(0, 1), 8080, ip(0, 2), 4000)


def test_mark_of_mangle_is_seen_by_nftables(router: Router) -> None:
    put(router, with_rules("mangle", FORWARD, [
        entry(part("MARK", 2, struct.pack("<II", 5, 0xFF)), of_port(9), head=header(protocol=UDP))
    ]))  # fmt: skip
    chain = router.chain("f", FORWARD)
    router.rule(chain, meta(nft.NFT_META_MARK), equals(struct.pack("<I", 5)), COUNTER, DROPS)
    assert arrive(router, 8, 9) == [8]


def test_what_raw_lets_alone_is_of_no_connection(router: Router) -> None:
    alone = entry(part("CT", 0, b"\1".ljust(40, b"\0")), of_port(9), head=header(protocol=UDP))
    put(router, with_rules("raw", PRE, [alone]))
    router.netfilter.ip_table("nat", is_v4=True)
    arrive(router, 8, 9)
    found = [one.original.target_id for one in router.netfilter.conntrack.connections.values()]
    assert found == [8]


def test_match_on_connections_has_them_followed(router: Router) -> None:
    states = struct.pack("<IIH12H", 0, 0, 0, *[0] * 4, nft.XT_CONNTRACK_STATE, 0, 2, 0, *[0] * 4)
    rule = entry(standard(ACCEPT), part("conntrack", 3, (bytes(128) + states).ljust(168, b"\0")))
    put(router, with_rules("filter", FORWARD, [rule]))
    arrive(router, 8)
    assert router.netfilter.conntrack.connections
    put(router, with_rules("filter", FORWARD, []))
    assert not router.netfilter.counts["tracking"]


def test_end_of_a_namespace_leaves_nothing(router: Router) -> None:
    put(router, with_rules("filter", FORWARD, [GOOD]))
    router.netfilter.end()
    assert router.layer.filter is None
    assert not router.netfilter.ip_tables
