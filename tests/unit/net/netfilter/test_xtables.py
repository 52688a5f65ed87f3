"""Extensions of iptables: their structs, and what they do."""

from __future__ import annotations

import struct

import pytest

from sentry.abi import nftables as nft
from sentry.errors import EINVAL, ENOENT
from sentry.net.netfilter.machine import be32, text
from sentry.net.netlink.message import attribute
from tests.unit.net.netfilter.router import (
    ACCEPT,
    DROP,
    LEFT,
    RIGHT,
    SYN,
    Router,
    ends,
    ip,
    made,
    tcp,
    udp,
)

PRE, IN, FORWARD, OUT, POST = range(5)
ADDRESSES = bytes(128)


@pytest.fixture
def router() -> Router:
    made = Router()
    made.table.family = nft.NFPROTO_IPV4
    return made


def match(name: str, revision: int, info: bytes) -> bytes:
    """A match of iptables."""
    return made(
        "match", text(nft.NFTA_MATCH_NAME, name), be32(nft.NFTA_MATCH_REV, revision),
        attribute(nft.NFTA_MATCH_INFO, info),
    )  # fmt: skip


def target(name: str, revision: int, info: bytes) -> bytes:
    """A target of iptables."""
    return made(
        "target", text(nft.NFTA_TARGET_NAME, name), be32(nft.NFTA_TARGET_REV, revision),
        attribute(nft.NFTA_TARGET_INFO, info),
    )  # fmt: skip


def of_state(bits: int) -> bytes:
    """-m conntrack --ctstate."""
    rest = struct.pack("<IIH12H", 0, 0, 0, *[0] * 4, nft.XT_CONNTRACK_STATE, 0, bits, 0, *[0] * 4)
    return match("conntrack", 3, (ADDRESSES + rest).ljust(168, b"\0"))


def test_what_is_answered_comes_in(router: Router) -> None:
    forward = router.chain("FORWARD", FORWARD, policy=nft.NF_DROP)
    router.rule(forward, of_state(2 | 4), ACCEPT)
    addrtype = struct.pack("<HHI", 0, nft.XT_ADDRTYPE_UNICAST, 0)
    comment = b"from inside".ljust(256, b"\0")
    router.rule(
        forward, of_state(8), match("addrtype", 1, addrtype), match("comment", 0, comment), ACCEPT
    )
    router.hear(RIGHT, udp(ip(1, 2), ip(0, 255), (53, 4000)))
    router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (4000, 53)))
    router.hear(RIGHT, udp(ip(1, 2), ip(0, 2), (53, 4000)))
    assert len(router.right) == len(router.left) == 1


def test_port_is_published_and_masqueraded(router: Router) -> None:
    pre = router.chain("PREROUTING", PRE, -100, "nat")
    flags = nft.NF_NAT_RANGE_MAP_IPS | nft.NF_NAT_RANGE_PROTO_SPECIFIED
    where = struct.pack("<I", flags) + ip(1, 2).ljust(16, b"\0") * 2
    where += struct.pack(">HHH", 80, 80, 0)
    local = match("addrtype", 1, struct.pack("<HHI", 0, nft.XT_ADDRTYPE_LOCAL, 0))
    router.rule(pre, local, target("DNAT", 2, where.ljust(48, b"\0")))
    post = router.chain("POSTROUTING", POST, 100, "nat")
    nothing = struct.pack("<II", 1, 0).ljust(24, b"\0")
    router.rule(post, target("MASQUERADE", 0, nothing))
    router.hear(LEFT, tcp(ip(0, 2), ip(0, 1), (4000, 8080), SYN))
    (sent,) = router.right
    assert ends(sent) == (ip(1, 1), 4000, ip(1, 2), 80)
    router.hear(RIGHT, tcp(ip(1, 2), ip(1, 1), (80, 4000), SYN | 16))
    (got,) = router.left
    assert ends(got) == (ip(0, 1), 8080, ip(0, 2), 4000)


def test_marks_are_set_and_seen(router: Router) -> None:
    forward = router.chain("f", FORWARD)
    router.rule(forward, target("MARK", 2, struct.pack("<II", 5, 0xFF)))
    router.rule(forward, match("mark", 1, struct.pack("<IIB", 5, 0xFF, 0).ljust(16, b"\0")), DROP)
    router.hear(LEFT, udp(ip(0, 2), ip(1, 2), (1, 2)))
    assert not router.right


@pytest.mark.parametrize("name, revision", [("nothing", 0), ("conntrack", 1), ("tcp", 7)])
def test_extension_that_is_not_known_is_not_there(
    router: Router, name: str, revision: int
) -> None:
    with pytest.raises(ENOENT):
        router.rule(router.chain("f", FORWARD), match(name, revision, bytes(8)))


def test_struct_of_another_size_is_refused(router: Router) -> None:
    forward = router.chain("f", FORWARD)
    for one in (match("conntrack", 3, bytes(164)), target("MARK", 2, bytes(16))):
        with pytest.raises(EINVAL):
            router.rule(forward, one)


def test_translation_in_another_table_is_refused(router: Router) -> None:
    nothing = struct.pack("<II", 1, 0).ljust(24, b"\0")
    with pytest.raises(EINVAL):
        router.rule(router.chain("post", POST), target("MASQUERADE", 0, nothing))
    with pytest.raises(EINVAL):
        router.rule(router.chain("pre", PRE, -100, "nat"), target("MASQUERADE", 0, nothing))


def test_port_match_needs_its_protocol(router: Router) -> None:
    with pytest.raises(EINVAL):
        router.rule(router.chain("f", FORWARD), match("tcp", 0, bytes(16)))
