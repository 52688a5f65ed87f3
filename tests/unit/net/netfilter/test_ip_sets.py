"""Sets of ipset: what is in them, how rules ask and fill them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sentry.abi import ipset as abi
from sentry.abi.nftables import NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC
from sentry.errors import EEXIST, EINVAL, ENOENT, ERANGE, Errno
from sentry.net.netfilter.ip_sets import (
    KINDS,
    MOST_SETS,
    Content,
    Element,
    Given,
    IpSet,
    IpSets,
    Key,
    swap,
)
from sentry.net.netfilter.machine import MAX_STEPS, be32, text
from sentry.net.netfilter.ruleset import MOST
from sentry.net.netfilter.xt_sets import PER_STEP
from sentry.net.netlink.message import attribute
from tests.unit.net.netfilter.blobs import DROP, entry, part, put, standard, with_rules
from tests.unit.net.netfilter.router import DROP as DROPS
from tests.unit.net.netfilter.router import LEFT, SECOND_NS, Router, echo, ip, ip6, made, udp

FORWARD = 2
UDP, ICMP = 17, 1
NOTHING = Given()
NOBODY = struct.pack("<HBB", abi.IPSET_INVALID_ID, 0, 0)
FOREVER = 0xFFFFFFFF


@pytest.fixture
def router() -> Router:
    return Router()


@contextmanager
def refusal(number: int) -> Iterator[None]:
    """IPSET_ERR_*."""
    with pytest.raises(Errno) as caught:
        yield
    assert caught.value.number == number


def sets_of(router: Router) -> IpSets:
    return router.netfilter.ruleset.ip_sets


def make(
    router: Router, name: str, kind: str, *keys: object, family: int = NFPROTO_IPV4,
    **about: object,
) -> IpSet:  # fmt: skip
    """A new set."""
    content = sets_of(router).content(KINDS[kind], family, 0)
    for attribute_name, value in about.items():
        setattr(content, attribute_name, value)
    sets_of(router).create(name, content)
    for key in keys:
        content.add(router.now_ns, key, NOTHING)
    return sets_of(router).named(name)


def number(address: bytes) -> int:
    return int.from_bytes(address)


def asks(group: IpSet, *of_source: bool, inverted: bool = False) -> bytes:
    """-m set --match-set."""
    flags = sum(1 << at + 1 for at, is_so in enumerate(of_source) if is_so) | inverted
    return part("set", 1, struct.pack("<HBB", group.index, len(of_source), flags))


def drops(router: Router, *matches: bytes, is_v4: bool = True) -> None:
    """What fits is dropped where it goes on."""
    rule = entry(standard(DROP), *matches, is_v4=is_v4)
    put(router, with_rules("filter", FORWARD, [rule], is_v4=is_v4), is_v4=is_v4)


def passes(router: Router, host: int = 2, port: int = 53) -> bool:
    """A datagram from the left to the right."""
    router.hear(LEFT, udp(ip(0, host), ip(1, 2), (4000, port)))
    return bool(router.right)


# --- packets


def test_address_is_looked_up(router: Router) -> None:
    group = make(router, "s", "hash:ip", Key(number(ip(0, 2))), Key(number(ip(1, 2))))
    drops(router, asks(group, True))
    assert [passes(router, host) for host in (2, 3)] == [False, True]
    drops(router, asks(group, True, inverted=True))
    assert [passes(router, host) for host in (2, 3)] == [True, False]
    drops(router, asks(group, False))
    assert not passes(router, 3)


def test_address_is_cut_to_a_network(router: Router) -> None:
    group = make(router, "s", "hash:ip", Key(number(ip(0, 4))), netmask=30)
    drops(router, asks(group, True))
    assert [passes(router, host) for host in (3, 4, 7, 8)] == [True, False, False, True]


def test_smallest_network_counts(router: Router) -> None:
    group = make(router, "s", "hash:net", Key(number(ip(0, 0)), 29))
    group.content.add(router.now_ns, Key(number(ip(0, 3)), 32), NOTHING, is_exception=True)
    drops(router, asks(group, True))
    assert [passes(router, host) for host in (2, 3, 9)] == [False, True, True]
    returns = struct.pack("<HBB", group.index, 1, 2 | abi.IPSET_FLAG_RETURN_NOMATCH)
    drops(router, part("set", 2, returns))
    assert [passes(router, host) for host in (2, 3, 9)] == [True, False, True]


@pytest.mark.parametrize("kind, prefix", [("hash:ip,port", 0), ("hash:net,port", 32)])
def test_address_and_port_are_looked_up(router: Router, kind: str, prefix: int) -> None:
    group = make(router, "s", kind, Key(number(ip(0, 2)), prefix, UDP, 53))
    drops(router, asks(group, True, False))
    assert not passes(router)
    assert passes(router, port=54) and passes(router, 3)
    drops(router, asks(group, True))  # too few dimensions
    assert passes(router)


def test_type_and_code_stand_for_a_port(router: Router) -> None:
    group = make(router, "s", "hash:ip,port", Key(number(ip(0, 2)), 0, ICMP, 8 << 8))
    drops(router, asks(group, True, False))
    router.hear(LEFT, echo(ip(0, 2), ip(1, 2), 1))
    assert not router.right


def test_port_is_looked_up_in_a_bitmap(router: Router) -> None:
    group = make(
        router, "s", "bitmap:port", Key(port=53), family=NFPROTO_UNSPEC, first=50, last=60
    )
    drops(router, asks(group, False))
    assert [passes(router, port=each) for each in (53, 54, 65)] == [False, True, True]


def test_set_of_one_family_has_none_of_the_other(router: Router) -> None:
    group = make(router, "s", "hash:ip", Key(number(ip6(0, 2))), family=NFPROTO_IPV6)
    drops(router, asks(group, True))
    assert passes(router)
    drops(router, asks(group, True), is_v4=False)
    router.hear(LEFT, udp(ip6(0, 2), ip6(1, 2), (1, 2)))
    assert not router.right


def test_list_asks_its_sets(router: Router) -> None:
    one = make(router, "a", "hash:ip", Key(number(ip(0, 2))))
    other = make(router, "b", "hash:net", Key(number(ip(0, 8)), 30))
    listed = make(router, "l", "list:set", one, other, family=NFPROTO_UNSPEC)
    drops(router, asks(listed, True))
    assert [passes(router, host) for host in (2, 3, 9)] == [False, True, False]
    listed.content.remove(router.now_ns, other)
    assert passes(router, 9)
    assert (one.use, other.use) == (1, 0)


def test_packets_are_counted_and_the_count_may_decide(router: Router) -> None:
    key = Key(number(ip(0, 2)))
    group = make(router, "s", "hash:ip", key, has_counters=True)
    more = struct.pack(
        "<HBB4xQB7xQB7xI4x", group.index, 1, 2, 2, abi.IPSET_COUNTER_GT, 0,
        abi.IPSET_COUNTER_NONE, 0,
    )  # fmt: skip
    drops(router, part("set", 4, more))
    assert [passes(router) for _ in range(3)] == [True, True, False]
    size = len(udp(ip(0, 2), ip(1, 2), (4000, 53)))
    found = group.content.elements[key]
    assert (found.packets, found.octets) == (3, 3 * size)


def test_target_fills_a_set_and_takes_out_of_another(router: Router) -> None:
    key = Key(number(ip(0, 2)))
    seen = make(router, "seen", "hash:ip", timeout_s=0)
    new = make(router, "new", "hash:ip", key)
    sides = struct.pack("<HBBHBB", seen.index, 1, 2, new.index, 1, 2)
    info = sides + struct.pack("<II", abi.IPSET_FLAG_EXIST, 10)
    put(router, with_rules("filter", FORWARD, [entry(part("SET", 2, info))]))
    assert passes(router)
    assert (list(seen.content.elements), list(new.content.elements)) == ([key], [])
    first = seen.content.elements[key].expires_ns
    assert first == router.now_ns + 10 * SECOND_NS
    router.now_ns += SECOND_NS
    assert passes(router)
    assert seen.content.elements[key].expires_ns == first + SECOND_NS


@pytest.mark.parametrize(
    "target, error",
    [
        (part("SET", 1, struct.pack("<HBB", 7, 1, 2) + NOBODY), ENOENT),
        (part("SET", 1, struct.pack("<HBB", 0, 7, 2) + NOBODY), ERANGE),
        (part("SET", 3, NOBODY * 2 + struct.pack("<HBBII", 0, 1, 2, 0, FOREVER)), EINVAL),
    ],
)
def test_target_that_is_wrong_is_refused(
    router: Router, target: bytes, error: type[Errno]
) -> None:
    make(router, "s", "hash:ip")
    with pytest.raises(error):
        put(router, with_rules("filter", FORWARD, [entry(target)]))


# --- sets


def test_set_in_use_stays(router: Router) -> None:
    group, sets = make(router, "s", "hash:ip"), sets_of(router)
    drops(router, asks(group, True))
    drops(router, asks(group, True))
    assert group.use == 1
    with refusal(abi.IPSET_ERR_BUSY):
        sets.destroy(group)
    with refusal(abi.IPSET_ERR_REFERENCED):
        sets.rename(group, "other")
    put(router, with_rules("filter", FORWARD, []))
    sets.rename(group, "other")
    sets.destroy(sets.named("other"))
    with pytest.raises(ENOENT):
        sets.named("other")


def test_rule_of_nftables_needs_a_set_as_well(router: Router) -> None:
    group = make(router, "s", "hash:ip", Key(number(ip(0, 2))))
    info = struct.pack("<HBB4x", group.index, 1, 2)
    match = made("match", text(1, "set"), be32(2, 1), attribute(3, info))
    chain = router.chain("forward", FORWARD)
    router.rule(chain, match, DROPS)
    assert group.use == 1 and not passes(router)
    with refusal(abi.IPSET_ERR_BUSY):
        sets_of(router).destroy(group)


def test_contents_are_exchanged_and_rules_ask_by_index(router: Router) -> None:
    one = make(router, "a", "hash:ip", Key(number(ip(0, 2))))
    other = make(router, "b", "hash:ip")
    drops(router, asks(one, True))
    swap(one, other)
    assert passes(router)
    assert not one.content.elements and len(other.content.elements) == 1
    assert (one.use, other.use) == (1, 0)
    with refusal(abi.IPSET_ERR_TYPE_MISMATCH):
        swap(one, make(router, "c", "hash:net"))


def test_names_and_numbers_are_taken_once(router: Router) -> None:
    sets = sets_of(router)
    for each in range(MOST_SETS):
        make(router, f"s{each}", "hash:ip")
    with refusal(abi.IPSET_ERR_MAX_SETS):
        make(router, "more", "hash:ip")
    with pytest.raises(EEXIST):
        make(router, "s7", "hash:ip")
    with refusal(abi.IPSET_ERR_EXIST_SETNAME2):
        sets.rename(sets.named("s1"), "s2")
    sets.destroy(sets.named("s7"))
    assert make(router, "more", "hash:ip").index == 7


# --- elements


def test_packet_does_not_ask_sets_without_an_end(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [Key(1 << 127 - each, each + 1) for each in range(128)]
    group = make(router, "s", "hash:net", *sizes, family=NFPROTO_IPV6)
    asked = 0

    def holding(content: Content, now_ns: int, key: Key) -> Iterator[Element]:
        nonlocal asked
        asked += 1
        return iter(())

    monkeypatch.setattr(Content, "holding", holding)
    drops(router, *[asks(group, True, inverted=True)] * 1000, is_v4=False)
    router.hear(LEFT, udp(ip6(0, 2), ip6(1, 2), (4000, 53)))
    assert asked <= MAX_STEPS * PER_STEP // len(sizes)


def test_element_is_there_once(router: Router) -> None:
    content = make(router, "s", "hash:ip", Key(1)).content
    with refusal(abi.IPSET_ERR_EXIST):
        content.add(0, Key(1), NOTHING)
    content.add(0, Key(1), NOTHING, replaces=True)
    content.remove(0, Key(1))
    with refusal(abi.IPSET_ERR_EXIST):
        content.remove(0, Key(1))
    assert not router.netfilter.counts["elements"]


def test_elements_go_when_their_time_is_up(router: Router) -> None:
    content = make(router, "s", "hash:net", timeout_s=5, most=2).content
    content.add(0, Key(1 << 8, 24), NOTHING)
    content.add(0, Key(2 << 8, 25), Given(timeout_s=0))
    assert content.prefixes == [25, 24]
    content.add(SECOND_NS, Key(1 << 8, 24), NOTHING, replaces=True)
    assert content.find(6 * SECOND_NS - 1, Key(1 << 8, 24))
    assert not content.find(6 * SECOND_NS, Key(1 << 8, 24))
    assert len(list(content.living(6 * SECOND_NS))) == 1
    content.add(6 * SECOND_NS, Key(3 << 8, 26), NOTHING)
    assert content.prefixes == [26, 25]
    assert router.netfilter.counts["elements"] == 2
    content.flush()
    assert not router.netfilter.counts["elements"] and not content.prefixes


def test_what_was_renewed_often_is_not_remembered_often(router: Router) -> None:
    content = make(router, "s", "hash:ip", timeout_s=5).content
    for each in range(1000):
        content.add(each, Key(1), NOTHING, replaces=True)
    assert len(content._due) <= 4


def test_full_set_takes_no_more_or_forgets_another(router: Router) -> None:
    content = make(router, "s", "hash:ip", Key(1), most=1).content
    with refusal(abi.IPSET_ERR_HASH_FULL):
        content.add(0, Key(2), NOTHING)
    content.forces = True
    content.add(0, Key(2), NOTHING)
    assert list(content.elements) == [Key(2)]
    content.most = 0
    content.flush()
    with refusal(abi.IPSET_ERR_HASH_FULL):
        content.add(0, Key(2), NOTHING)


def test_all_sets_together_have_a_ceiling(router: Router) -> None:
    content = make(router, "s", "hash:ip").content
    router.netfilter.counts["elements"] = MOST["elements"] - 1
    content.add(0, Key(1), NOTHING)
    with refusal(abi.IPSET_ERR_HASH_FULL):
        content.add(0, Key(2), NOTHING)
