"""Batches of nftables that nobody would send but to do harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.errors import EINVAL
from sentry.net.netfilter.machine import be32, text
from tests.unit.net.netlink.test_nfnetlink import (
    TABLE,
    TABLES,
    Port,
    change,
    expression,
    message,
    rule,
)
from tests.world import World


@pytest.fixture
def port() -> Iterator[Port]:
    with World() as world:
        yield Port(world.program())


def of_table(kind: int, *attributes: bytes, flags: int = 0) -> bytes:
    return change(kind, text(nft.NFTA_RULE_TABLE, "t") + b"".join(attributes), flags)


def chain(name: str, *attributes: bytes) -> bytes:
    return of_table(nft.NFT_MSG_NEWCHAIN, text(nft.NFTA_CHAIN_NAME, name), *attributes)


def lookup(name: str, *attributes: bytes) -> bytes:
    head = text(nft.NFTA_LOOKUP_SET, name) + be32(nft.NFTA_LOOKUP_SET_ID, 1)
    register = be32(nft.NFTA_LOOKUP_SREG, nft.NFT_REG32_00)
    return expression("lookup", head + register + b"".join(attributes))


def told(port: Port, kind: int, *attributes: bytes) -> list[dict[int, bytes]]:
    """What a dump says."""
    body = text(nft.NFTA_RULE_TABLE, "t") + b"".join(attributes)
    port.send(message(TABLES | kind, abi.NLM_F_DUMP, body))
    *found, last = port.receive()
    assert last.kind == abi.NLMSG_DONE
    return [each.attributes for each in found]


# --- what is in expressions


@pytest.mark.parametrize("flags", [nft.NF_NAT_RANGE_MAP_IPS, nft.NF_NAT_RANGE_NETMAP, 0x41])
def test_translation_to_no_address_is_refused(port: Port, flags: int) -> None:
    data = be32(nft.NFTA_NAT_TYPE, nft.NFT_NAT_DNAT) + be32(nft.NFTA_NAT_FAMILY, nft.NFPROTO_IPV4)
    wrong = rule("out", expression("nat", data + be32(nft.NFTA_NAT_FLAGS, flags)))
    (found,) = port.batch(TABLE, chain("out"), wrong)
    assert found.error == EINVAL.number
