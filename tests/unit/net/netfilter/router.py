"""A router between 10.0.0.0/24 (fd00::/64) and 10.0.1.0/24 (fd01::/64), with rules.

Links have no neighbours; packets go in by `hear` and come out of `left` and `right`.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

from sentry.abi import nftables as nft
from sentry.abi.netlink import ARPHRD_NONE, IFF_LOWER_UP, IFF_RUNNING, IFF_UP, RT_SCOPE_UNIVERSE
from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP
from sentry.net.interfaces import Address, Interface, Interfaces
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.layer import IpLayer
from sentry.net.link.link import PointLink
from sentry.net.netfilter.hooks import Netfilter
from sentry.net.netfilter.machine import be32, nested, parse_expression, text
from sentry.net.netfilter.ruleset import Chain, Rule, Table
from sentry.net.netfilter.transaction import Scope, Transaction
from sentry.net.netlink.message import attribute
from sentry.net.routes import Routes
from sentry.wait.steps import at_once

LEFT, RIGHT = 2, 3
SECOND_NS = 1_000_000_000
CHECKSUM_AT = {IPPROTO_TCP: 16, IPPROTO_UDP: 6}
SYN, ACK, RST, FIN = 2, 16, 4, 1


def ip(net: int, number: int) -> bytes:
    """10.0.net.number."""
    return bytes((10, 0, net, number))


def ip6(net: int, number: int) -> bytes:
    """fd00 + net::number."""
    return bytes((0xFD, net)) + bytes(13) + bytes([number])


class Router:
    """The host and its tables."""

    def __init__(self) -> None:
        self.interfaces = Interfaces()
        for index, name, net in ((LEFT, "left", 0), (RIGHT, "right", 1)):
            flags = IFF_UP | IFF_RUNNING | IFF_LOWER_UP
            made = Interface(index, name, ARPHRD_NONE, flags, 1500, b"")
            scope = RT_SCOPE_UNIVERSE
            made.addresses = [
                Address(AF_INET, ip(net, 1), 24, scope, name, ip(net, 255)),
                Address(AF_INET6, ip6(net, 1), 64, scope),
            ]
            self.interfaces.insert(made)
        self.sysctls = {
            "net/ipv4/conf/all/forwarding": "1", "net/ipv6/conf/all/forwarding": "1",
        }  # fmt: skip
        self.layer = IpLayer(self.interfaces, self.sysctls, lambda size: bytes([7] * size))
        self.links = {index: PointLink(index, b"", self.layer) for index in (LEFT, RIGHT)}
        self.layer.links.update(self.links)
        at_once(self.layer.refresh(Routes(self.interfaces)))
        self.now_ns = SECOND_NS
        self.log: list[str] = []
        kernel = SimpleNamespace(
            log=SimpleNamespace(write=self.log.append), loop=SimpleNamespace(now_ns=self.time)
        )
        self.stack: Any = SimpleNamespace(
            sysctls=self.sysctls, ip=self.layer, interfaces=self.interfaces, kernel=kernel
        )
        self.netfilter = self.stack.netfilter = Netfilter(self.stack)
        self.table = Table(nft.NFPROTO_INET, "t")
        batch = self._batch()
        batch.add_table(self.table)
        batch.commit()

    def time(self) -> int:
        """The clock."""
        return self.now_ns

    def _batch(self) -> Transaction:
        return Transaction(self.netfilter.ruleset, self.now_ns, 1)

    def chain(
        self, name: str, hook: int = -1, priority: int = 0, kind: str = "filter",
        policy: int = nft.NF_ACCEPT,
    ) -> Chain:  # fmt: skip
        """A new chain; with a hook a base chain."""
        made = Chain(self.table, name)
        if hook >= 0:
            made.is_base, made.has_counters = True, True
            made.hook, made.priority, made.kind, made.policy = hook, priority, kind, policy
        batch = self._batch()
        batch.add_chain(made)
        batch.commit()
        self.netfilter.apply()
        return made

    def rule(self, chain: Chain, *expressions: bytes, at: int = -1) -> Rule:
        """A new rule, at the end. Raises: what its expressions raise."""
        batch = self._batch()
        scope = Scope(batch, self.table, chain)
        made = Rule(chain, [parse_expression(scope, each) for each in expressions], b"")
        batch.add_rule(made, len(chain.rules) if at < 0 else at)
        batch.commit()
        self.netfilter.apply()
        return made

    def hear(self, index: int, packet: bytes, left: bytes = bytes(10)) -> None:
        """A packet comes."""
        self.links[index].received(self.now_ns, left + packet)

    def take(self, index: int) -> list[bytes]:
        """What has left by a link since the last time."""
        return [frame[10:] for frame in self.links[index].take_outgoing(10_000, 1 << 30)]

    @property
    def right(self) -> list[bytes]:
        """The same of one."""
        return self.take(RIGHT)

    @property
    def left(self) -> list[bytes]:
        """And of the other."""
        return self.take(LEFT)


# --- packets


def udp(source: bytes, target: bytes, ports: tuple[int, int], data: bytes = b"x") -> bytes:
    """With its checksums."""
    return _whole(IPPROTO_UDP, source, target, struct.pack(
        ">HHHH", *ports, 8 + len(data), 0
    ) + data)  # fmt: skip


def tcp(
    source: bytes, target: bytes, ports: tuple[int, int], flags: int, data: bytes = b""
) -> bytes:
    """A segment."""
    head = struct.pack(">HHIIBBHHH", *ports, 1000, 2000, 5 << 4, flags, 1000, 0, 0)
    return _whole(IPPROTO_TCP, source, target, head + data)


def echo(source: bytes, target: bytes, ident: int, kind: int = 8) -> bytes:
    """An echo request, or a reply."""
    return icmp(source, target, struct.pack(">BBHHH", kind, 0, 0, ident, 1) + b"data")


def icmp(source: bytes, target: bytes, message: bytes) -> bytes:
    """Any message, with its checksum."""
    message = message[:2] + checksum(message).to_bytes(2) + message[4:]
    return _headed(IPPROTO_ICMP, source, target, message)


def _whole(protocol: int, source: bytes, target: bytes, transport: bytes) -> bytes:
    at = CHECKSUM_AT[protocol]
    total = checksum(transport, pseudo_sum(source, target, protocol, len(transport)))
    return _headed(
        protocol, source, target, transport[:at] + total.to_bytes(2) + transport[at + 2 :]
    )


def _headed(protocol: int, source: bytes, target: bytes, transport: bytes) -> bytes:
    if len(source) == 16:
        return ipv6.build(ipv6.Header(0, 0, len(transport), protocol, 64, source, target)) + (
            transport
        )
    return ipv4.build(ipv4.Header(
        20, 20 + len(transport), 0, 1, ipv4.DONT_FRAGMENT, 64, protocol, source, target
    )) + transport  # fmt: skip


def ends(packet: bytes) -> tuple[bytes, int, bytes, int]:
    """Source, port, target, port. Preconditions: its checksums are right, which is checked."""
    size = 20 if packet[0] >> 4 == 4 else 40
    source, target = (packet[12:16], packet[16:20]) if size == 20 else (packet[8:24], packet[24:40])
    protocol = packet[9] if size == 20 else packet[6]
    transport = packet[size:]
    if size == 20:
        assert checksum(packet[:20]) == 0
    if protocol in CHECKSUM_AT:
        before = pseudo_sum(source, target, protocol, len(transport))
        assert checksum(transport, before) == 0
    else:
        assert checksum(transport) == 0
    first, last = struct.unpack_from(">HH", transport)
    return source, first, target, last


# --- expressions


def made(name: str, *attributes: bytes) -> bytes:
    """Any."""
    return text(nft.NFTA_EXPR_NAME, name) + nested(nft.NFTA_EXPR_DATA, b"".join(attributes))


def value(kind: int, data: bytes) -> bytes:
    """NFTA_DATA_VALUE in an attribute."""
    return nested(kind, attribute(nft.NFTA_DATA_VALUE, data))


def verdict(code: int, chain: str = "") -> bytes:
    """An immediate one."""
    inner = be32(nft.NFTA_VERDICT_CODE, code)
    inner += text(nft.NFTA_VERDICT_CHAIN, chain) if chain else b""
    data = nested(nft.NFTA_IMMEDIATE_DATA, nested(nft.NFTA_DATA_VERDICT, inner))
    return made("immediate", be32(nft.NFTA_IMMEDIATE_DREG, nft.NFT_REG_VERDICT), data)


def immediate(data: bytes, register: int = nft.NFT_REG_1) -> bytes:
    """A value into registers."""
    return made(
        "immediate", be32(nft.NFTA_IMMEDIATE_DREG, register), value(nft.NFTA_IMMEDIATE_DATA, data)
    )


def equals(data: bytes, op: int = nft.NFT_CMP_EQ) -> bytes:
    """Register 1 and a value."""
    return made(
        "cmp", be32(nft.NFTA_CMP_SREG, nft.NFT_REG_1), be32(nft.NFTA_CMP_OP, op),
        value(nft.NFTA_CMP_DATA, data),
    )  # fmt: skip


def meta(key: int) -> bytes:
    """Into register 1."""
    return made("meta", be32(nft.NFTA_META_DREG, nft.NFT_REG_1), be32(nft.NFTA_META_KEY, key))


def payload(base: int, offset: int, size: int, register: int = nft.NFT_REG_1) -> bytes:
    """Into a register."""
    return made(
        "payload", be32(nft.NFTA_PAYLOAD_DREG, register), be32(nft.NFTA_PAYLOAD_BASE, base),
        be32(nft.NFTA_PAYLOAD_OFFSET, offset), be32(nft.NFTA_PAYLOAD_LEN, size),
    )  # fmt: skip


def to_port(port: int) -> tuple[bytes, bytes]:
    """Of UDP or TCP."""
    base = nft.NFT_PAYLOAD_TRANSPORT_HEADER
    return payload(base, 2, 2), equals(port.to_bytes(2))


def state(*bits: int) -> tuple[bytes, bytes, bytes]:
    """ct state, any of these."""
    mask = sum(bits).to_bytes(4, "little")
    return (
        made("ct", be32(nft.NFTA_CT_KEY, nft.NFT_CT_STATE), be32(nft.NFTA_CT_DREG, nft.NFT_REG_1)),
        made(
            "bitwise", be32(nft.NFTA_BITWISE_SREG, nft.NFT_REG_1),
            be32(nft.NFTA_BITWISE_DREG, nft.NFT_REG_1), be32(nft.NFTA_BITWISE_LEN, 4),
            value(nft.NFTA_BITWISE_MASK, mask), value(nft.NFTA_BITWISE_XOR, bytes(4)),
        ),
        equals(bytes(4), nft.NFT_CMP_NEQ),
    )  # fmt: skip


def translate(kind: int, address: bytes, port: int = 0) -> tuple[bytes, ...]:
    """snat or dnat to an address, and a port if it is not 0."""
    family = nft.NFPROTO_IPV4 if len(address) == 4 else nft.NFPROTO_IPV6
    attributes = [
        be32(nft.NFTA_NAT_TYPE, kind), be32(nft.NFTA_NAT_FAMILY, family),
        be32(nft.NFTA_NAT_REG_ADDR_MIN, nft.NFT_REG_1),
    ]  # fmt: skip
    before = [immediate(address)]
    if port:
        before.append(immediate(port.to_bytes(2), nft.NFT_REG_2))
        attributes.append(be32(nft.NFTA_NAT_REG_PROTO_MIN, nft.NFT_REG_2))
    return (*before, made("nat", *attributes))


COUNTER = made("counter")
DROP, ACCEPT = verdict(nft.NF_DROP), verdict(nft.NF_ACCEPT)
MASQUERADE = made("masq")


def write_at(offset: int, size: int, base: int = nft.NFT_PAYLOAD_NETWORK_HEADER) -> bytes:
    """What is in a register, into a header."""
    return made(
        "payload", be32(nft.NFTA_PAYLOAD_SREG, nft.NFT_REG_1), be32(nft.NFTA_PAYLOAD_BASE, base),
        be32(nft.NFTA_PAYLOAD_OFFSET, offset), be32(nft.NFTA_PAYLOAD_LEN, size),
    )  # fmt: skip
