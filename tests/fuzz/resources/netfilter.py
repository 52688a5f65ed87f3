"""Rules for packets, sets, connections that are followed, and who hears of them."""

from __future__ import annotations

import struct

from sentry.abi import ipset
from sentry.abi import nftables as nft
from sentry.abi.ip_tables import IPT_SO_GET_ENTRIES, IPT_SO_SET_REPLACE
from sentry.abi.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
)  # fmt: skip
from sentry.abi.socket import (
    AF_INET,
    AF_NETLINK,
    IPPROTO_RAW,
    SOCK_DGRAM,
    SOCK_RAW,
)  # fmt: skip
from sentry.net.netfilter.machine import be32, nested, text
from sentry.net.netlink.ipset_elements import net32
from sentry.net.netlink.message import attribute, u8
from tests.fuzz.resources.net import inet_at, open_socket
from tests.fuzz.scaling import Bench, Resource
from tests.unit.net.netfilter.blobs import DROP, entry, header, standard, with_rules


class _Nftables:
    """A socket, and batches of one change, in a table with a chain at input."""

    def __init__(self, b: Bench) -> None:
        self._b = b
        self._fd = b.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)
        self._room = b.program.buffer(65536)
        self.change(nft.NFT_MSG_NEWTABLE, text(nft.NFTA_TABLE_NAME, "t"))
        place = be32(nft.NFTA_HOOK_HOOKNUM, nft.NF_INET_LOCAL_IN) + be32(nft.NFTA_HOOK_PRIORITY, 0)
        chain = text(nft.NFTA_CHAIN_TABLE, "t") + text(nft.NFTA_CHAIN_NAME, "in")
        chain += nested(nft.NFTA_CHAIN_HOOK, place)
        self.change(nft.NFT_MSG_NEWCHAIN, chain)

    def change(self, kind: int, body: bytes) -> None:
        """It is acknowledged."""
        flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND
        tables = nft.NFNL_SUBSYS_NFTABLES
        data = self._message(nft.NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, b"", tables)
        data += self._message(tables << 8 | kind, flags, body)
        data += self._message(nft.NFNL_MSG_BATCH_END, NLM_F_REQUEST, b"", tables)
        self._b.ok("sendto", self._fd, data, len(data), 0, 0, 0)
        size = self._b.ok("recvfrom", self._fd, self._room, 65536, 0, 0, 0)
        assert size == 36
        assert self._b.program.read(self._room + 16, 4) == bytes(4)

    def dump(self, kind: int, body: bytes = b"") -> None:
        """All there are."""
        data = self._message(
            nft.NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_REQUEST | NLM_F_DUMP, body
        )
        self._b.ok("sendto", self._fd, data, len(data), 0, 0, 0)
        done = False
        while not done:
            size = self._b.ok("recvfrom", self._fd, self._room, 65536, 0, 0, 0)
            data = self._b.program.read(self._room, size)
            done = struct.unpack_from("<H", data, 4)[0] == NLMSG_DONE

    def _message(self, kind: int, flags: int, body: bytes, resource: int = 0) -> bytes:
        inside = struct.pack(">BBH", nft.NFPROTO_IPV4, 0, resource) + body
        return struct.pack("<IHHII", 16 + len(inside), kind, flags, 1, 0) + inside

    def rule(self, *expressions: tuple[str, bytes]) -> None:
        """At the end of the chain."""
        listed = b"".join(
            nested(nft.NFTA_LIST_ELEM, text(nft.NFTA_EXPR_NAME, name)
                   + nested(nft.NFTA_EXPR_DATA, data))
            for name, data in expressions
        )  # fmt: skip
        body = text(nft.NFTA_RULE_TABLE, "t") + text(nft.NFTA_RULE_CHAIN, "in")
        self.change(nft.NFT_MSG_NEWRULE, body + nested(nft.NFTA_RULE_EXPRESSIONS, listed))


def rules(b: Bench) -> None:
    """Of netfilter, that count, and a packet that meets them all."""
    tables = _Nftables(b)
    b.each("add", lambda _: tables.rule(("counter", b"")))
    with b.measure("dump"):
        tables.dump(nft.NFT_MSG_GETRULE)
    receiver, to = open_socket(b, AF_INET, SOCK_DGRAM), inet_at(4321)
    b.ok("bind", receiver, to, 16)
    with b.measure("send"):
        b.ok("sendto", receiver, b"x", 1, 0, to, 16)
    with b.measure("flush"):
        tables.change(nft.NFT_MSG_DELTABLE, text(nft.NFTA_TABLE_NAME, "t"))


def elements(b: Bench) -> None:
    """Of a set of intervals."""
    tables, start = _Nftables(b), text(nft.NFTA_SET_TABLE, "t") + text(nft.NFTA_SET_NAME, "s")
    about = be32(nft.NFTA_SET_FLAGS, nft.NFT_SET_INTERVAL) + be32(nft.NFTA_SET_KEY_LEN, 4)
    tables.change(nft.NFT_MSG_NEWSET, start + about + be32(nft.NFTA_SET_ID, 1))
    named = text(nft.NFTA_SET_ELEM_LIST_TABLE, "t") + text(nft.NFTA_SET_ELEM_LIST_SET, "s")

    def one(i: int) -> bytes:
        key = nested(nft.NFTA_SET_ELEM_KEY, attribute(nft.NFTA_DATA_VALUE, struct.pack(">I", i)))
        return named + nested(nft.NFTA_SET_ELEM_LIST_ELEMENTS, nested(nft.NFTA_LIST_ELEM, key))

    b.each("add", lambda i: tables.change(nft.NFT_MSG_NEWSETELEM, one(i)))
    with b.measure("dump"):
        tables.dump(nft.NFT_MSG_GETSETELEM, named)
    b.each("remove", lambda i: tables.change(nft.NFT_MSG_DELSETELEM, one(i)))
    tables.change(nft.NFT_MSG_DELTABLE, text(nft.NFTA_TABLE_NAME, "t"))


def connections(b: Bench) -> None:
    """That netfilter follows."""
    tables = _Nftables(b)
    tables.rule(("ct", be32(nft.NFTA_CT_KEY, nft.NFT_CT_STATE) + be32(nft.NFTA_CT_DREG, 1)))
    sender = open_socket(b, AF_INET, SOCK_DGRAM)
    b.each("send", lambda i: b.ok("sendto", sender, b"x", 1, 0, inet_at(2000 + i), 16))
    b.read_all("read nf_conntrack", b"/proc/net/nf_conntrack")
    tables.change(nft.NFT_MSG_DELTABLE, text(nft.NFTA_TABLE_NAME, "t"))


def _member(b: Bench, groups: int) -> int:
    """A socket that hears of netfilter."""
    made = open_socket(b, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)
    b.ok("bind", made, struct.pack("<HHII", AF_NETLINK, 0, 0, groups), 12)
    return made


def rule_listeners(b: Bench) -> None:
    """Who hears of each change of rules."""
    tables = _Nftables(b)
    made = b.each("join", lambda _: _member(b, 1 << nft.NFNLGRP_NFTABLES - 1))
    with b.measure("add"):
        tables.rule(("counter", b""))
    room = b.program.buffer(4096)
    b.each("hear", lambda i: b.ok("recvfrom", made[i], room, 4096, 0, 0, 0))
    b.each("close", lambda i: b.ok("close", made[i]))
    tables.change(nft.NFT_MSG_DELTABLE, text(nft.NFTA_TABLE_NAME, "t"))


def told_connections(b: Bench) -> None:
    """That netfilter follows, while somebody hears of them."""
    tables = _Nftables(b)
    tables.rule(("ct", be32(nft.NFTA_CT_KEY, nft.NFT_CT_STATE) + be32(nft.NFTA_CT_DREG, 1)))
    heard, sender = _member(b, 7), open_socket(b, AF_INET, SOCK_DGRAM)
    b.each("send", lambda i: b.ok("sendto", sender, b"x", 1, 0, inet_at(2000 + i), 16))
    room = b.program.buffer(4096)
    b.each("hear", lambda i: b.ok("recvfrom", heard, room, 4096, 0, 0, 0))
    tables.change(nft.NFT_MSG_DELTABLE, text(nft.NFTA_TABLE_NAME, "t"))
    b.ok("close", heard)


def ip_set(b: Bench) -> None:
    """Networks in a set of ipset, of which each is new for a while."""
    fd = open_socket(b, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)
    room = b.program.buffer(65536)

    def say(command: int, body: bytes = b"", flags: int = NLM_F_ACK) -> None:
        inside = struct.pack(">BBH", nft.NFPROTO_IPV4, 0, 0)
        inside += u8(ipset.IPSET_ATTR_PROTOCOL, ipset.IPSET_PROTOCOL)
        inside += text(ipset.IPSET_ATTR_SETNAME, "s") + body
        kind = nft.NFNL_SUBSYS_IPSET << 8 | command
        head = struct.pack("<IHHII", 16 + len(inside), kind, NLM_F_REQUEST | flags, 1, 0)
        b.ok("sendto", fd, head + inside, 16 + len(inside), 0, 0, 0)
        size, kind = b.ok("recvfrom", fd, room, 65536, 0, 0, 0), 0
        while not flags and kind != NLMSG_DONE:
            size = b.ok("recvfrom", fd, room, 65536, 0, 0, 0)
            (kind,) = struct.unpack_from("<H", b.program.read(room, 16), 4)
        assert not flags or (size == 36 and b.program.read(room + 16, 4) == bytes(4))

    def change(command: int, i: int) -> None:
        ip = net32(ipset.IPSET_ATTR_IPADDR_IPV4, 10 << 24 | i << 8)
        one = nested(ipset.IPSET_ATTR_IP, ip) + u8(ipset.IPSET_ATTR_CIDR, 24)
        say(command, nested(ipset.IPSET_ATTR_DATA, one))

    about = text(ipset.IPSET_ATTR_TYPENAME, "hash:net") + u8(ipset.IPSET_ATTR_REVISION, 0)
    about += u8(ipset.IPSET_ATTR_FAMILY, nft.NFPROTO_IPV4)
    about += nested(ipset.IPSET_ATTR_DATA, net32(ipset.IPSET_ATTR_TIMEOUT, 1000))
    say(ipset.IPSET_CMD_CREATE, about)
    b.each("add", lambda i: change(ipset.IPSET_CMD_ADD, i))
    b.each("renew", lambda i: change(ipset.IPSET_CMD_ADD, i))
    b.each("test", lambda i: change(ipset.IPSET_CMD_TEST, i))
    with b.measure("dump"):
        say(ipset.IPSET_CMD_LIST, flags=0)
    b.each("remove", lambda i: change(ipset.IPSET_CMD_DEL, i))
    say(ipset.IPSET_CMD_DESTROY)


def ip_table(b: Bench) -> None:
    """Rules of iptables without nftables, and a packet that meets them all."""
    fd = open_socket(b, AF_INET, SOCK_RAW, IPPROTO_RAW)
    rule = entry(standard(DROP), head=header(protocol=253))

    def put(count: int, before: int) -> None:
        value = with_rules("filter", nft.NF_INET_LOCAL_IN, [rule] * count, counters=(before, 0))
        b.ok("setsockopt", fd, 0, IPT_SO_SET_REPLACE, value, len(value))

    size = 632 + b.n * len(rule)
    question = struct.pack("<32sI4x", b"filter", size) + bytes(size)
    with b.measure("replace"):
        put(b.n, 4)
    with b.measure("dump"):
        length = struct.pack("<i", len(question))
        b.ok("getsockopt", fd, 0, IPT_SO_GET_ENTRIES, question, length)
    receiver, to = open_socket(b, AF_INET, SOCK_DGRAM), inet_at(4321)
    b.ok("bind", receiver, to, 16)
    with b.measure("send"):
        b.ok("sendto", receiver, b"x", 1, 0, to, 16)
    with b.measure("empty"):
        put(0, 4 + b.n)


RESOURCES: tuple[Resource, ...] = (
    rules, elements, connections, ip_table, rule_listeners, told_connections, ip_set,
)  # fmt: skip
