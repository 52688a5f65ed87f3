"""What ipset(8) is told: the protocol, kinds of sets, sets and what is in them.

net/netfilter/ipset/ip_set_core.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi import ipset as abi
from sentry.abi.nftables import NFNL_SUBSYS_IPSET, NFPROTO_IPV4
from sentry.net.netfilter.machine import nested, text
from sentry.net.netlink.ipset import (
    SUBSYSTEM,
    kind_of,
    now_ns_of,
    read,
    set_named,
    sets_of,
)
from sentry.net.netlink.ipset_elements import Fields, element_body, net16, net32
from sentry.net.netlink.message import Reply, u8
from sentry.net.netlink.nfnetlink import Asked, asks

if TYPE_CHECKING:
    from sentry.net.netfilter.ip_sets import Content, IpSet

HEAD: Final = bytes([NFPROTO_IPV4, 0, 0, 0])
"""struct nfgenmsg."""
PER_MESSAGE: Final = 8
"""Elements: with the longest comments there is room for them in what is read at once."""
BASE_SIZE, ELEMENT_SIZE = 200, 64
"""Bytes that a set and an element cost, about."""


@asks(abi.IPSET_CMD_PROTOCOL, subsystem=NFNL_SUBSYS_IPSET)
def get_protocol(asked: Asked) -> Iterable[Reply]:
    """IPSET_CMD_PROTOCOL."""
    read(asked, least=0)
    body = u8(abi.IPSET_ATTR_PROTOCOL, abi.IPSET_PROTOCOL)
    body += u8(abi.IPSET_ATTR_PROTOCOL_MIN, abi.IPSET_PROTOCOL_MIN)
    return [(SUBSYSTEM | abi.IPSET_CMD_PROTOCOL, HEAD + body)]


@asks(abi.IPSET_CMD_TYPE, subsystem=NFNL_SUBSYS_IPSET)
def get_type(asked: Asked) -> Iterable[Reply]:
    """IPSET_CMD_TYPE. Raises: IPSET_ERR_FIND_TYPE."""
    data = read(asked)
    kind, family = kind_of(data), data.number(abi.IPSET_ATTR_FAMILY, 1)
    body = _protocol(data) + text(abi.IPSET_ATTR_TYPENAME, kind.name)
    body += u8(abi.IPSET_ATTR_FAMILY, family) + u8(abi.IPSET_ATTR_REVISION, kind.newest)
    body += u8(abi.IPSET_ATTR_REVISION_MIN, 0)
    return [(SUBSYSTEM | abi.IPSET_CMD_TYPE, HEAD + body)]


@asks(abi.IPSET_CMD_HEADER, subsystem=NFNL_SUBSYS_IPSET)
def get_header(asked: Asked) -> Iterable[Reply]:
    """IPSET_CMD_HEADER. Raises: ENOENT."""
    data = read(asked)
    group = set_named(asked, data)
    body = _protocol(data) + text(abi.IPSET_ATTR_SETNAME, group.name) + _type(group.content)
    return [(SUBSYSTEM | abi.IPSET_CMD_HEADER, HEAD + body)]


@asks(abi.IPSET_CMD_GET_BYNAME, subsystem=NFNL_SUBSYS_IPSET)
def get_index(asked: Asked) -> Iterable[Reply]:
    """IPSET_CMD_GET_BYNAME. Raises: ENOENT."""
    data = read(asked, least=abi.IPSET_PROTOCOL)
    group = set_named(asked, data)
    body = _protocol(data) + u8(abi.IPSET_ATTR_FAMILY, group.content.family)
    body += net16(abi.IPSET_ATTR_INDEX, group.index)
    return [(SUBSYSTEM | abi.IPSET_CMD_GET_BYNAME, HEAD + body)]


@asks(abi.IPSET_CMD_GET_BYINDEX, subsystem=NFNL_SUBSYS_IPSET)
def get_name(asked: Asked) -> Iterable[Reply]:
    """IPSET_CMD_GET_BYINDEX. Raises: ENOENT."""
    data = read(asked, least=abi.IPSET_PROTOCOL)
    group = sets_of(asked).at(data.number(abi.IPSET_ATTR_INDEX, 2))
    body = _protocol(data) + text(abi.IPSET_ATTR_SETNAME, group.name)
    return [(SUBSYSTEM | abi.IPSET_CMD_GET_BYINDEX, HEAD + body)]


def _protocol(data: Fields) -> bytes:
    return u8(abi.IPSET_ATTR_PROTOCOL, data.number(abi.IPSET_ATTR_PROTOCOL, 1))


def _type(content: Content) -> bytes:
    made = text(abi.IPSET_ATTR_TYPENAME, content.kind.name)
    made += u8(abi.IPSET_ATTR_FAMILY, content.family)
    return made + u8(abi.IPSET_ATTR_REVISION, content.revision)


@asks(abi.IPSET_CMD_LIST, abi.IPSET_CMD_SAVE, subsystem=NFNL_SUBSYS_IPSET)
def get_sets(asked: Asked) -> Iterator[Reply]:
    """IPSET_CMD_LIST, IPSET_CMD_SAVE: one, or all, lists at last. Raises: ENOENT."""
    data = read(asked)
    flags = data.number(abi.IPSET_ATTR_FLAGS, 4, 0)
    if abi.IPSET_ATTR_SETNAME in data:
        every = [set_named(asked, data)]
    else:
        every = sorted(sets_of(asked).by_index.values(), key=lambda each: each.content.kind.is_list)
    protocol = _protocol(data)
    for group in every:
        begin = HEAD + protocol + text(abi.IPSET_ATTR_SETNAME, group.name)
        for part in _told(asked, group, flags):
            yield SUBSYSTEM | abi.IPSET_CMD_LIST, begin + part


def _told(asked: Asked, group: IpSet, flags: int) -> Iterator[bytes]:
    """Of one, in some messages, what flags ask for."""
    if flags & abi.IPSET_FLAG_LIST_SETNAME:
        yield b""
        return
    content, now_ns = group.content, now_ns_of(asked)
    living = list(content.living(now_ns))
    begin = _type(content) + net16(abi.IPSET_ATTR_INDEX, group.index)
    begin += _header(group, len(living))
    if flags & abi.IPSET_FLAG_LIST_HEADER:
        yield begin
        return
    for at in range(0, len(living) or 1, PER_MESSAGE):
        part = living[at : at + PER_MESSAGE]
        told = b"".join([element_body(content, *each, now_ns) for each in part])
        yield begin + nested(abi.IPSET_ATTR_ADT, told)
        begin = b""


def _header(group: IpSet, number: int) -> bytes:
    """IPSET_ATTR_DATA: mtype_head(), bitmap_port_head(), list_set_head()."""
    content, made = group.content, b""
    kind = content.kind
    if kind.is_hash:
        size = 1 << (content.hash_size - 1).bit_length()
        made += net32(abi.IPSET_ATTR_HASHSIZE, size) + net32(abi.IPSET_ATTR_MAXELEM, content.most)
        if content.netmask != content.width:
            made += u8(abi.IPSET_ATTR_NETMASK, content.netmask)
    elif kind.is_list:
        made += net32(abi.IPSET_ATTR_SIZE, content.hash_size)
    else:
        made += net16(abi.IPSET_ATTR_PORT, content.first)
        made += net16(abi.IPSET_ATTR_PORT_TO, content.last)
    made += net32(abi.IPSET_ATTR_REFERENCES, group.use)
    made += net32(abi.IPSET_ATTR_MEMSIZE, BASE_SIZE + number * ELEMENT_SIZE)
    made += net32(abi.IPSET_ATTR_ELEMENTS, number)
    if content.timeout_s is not None:
        made += net32(abi.IPSET_ATTR_TIMEOUT, content.timeout_s)
    flags = sum(
        bit
        for bit, is_so in (
            (abi.IPSET_FLAG_WITH_COUNTERS, content.has_counters),
            (abi.IPSET_FLAG_WITH_COMMENT, content.has_comments),
            (abi.IPSET_FLAG_WITH_FORCEADD, content.forces),
        )
        if is_so
    )
    if flags:
        made += net32(abi.IPSET_ATTR_CADT_FLAGS, flags)
    return nested(abi.IPSET_ATTR_DATA, made)
