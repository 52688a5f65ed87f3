"""Elements of sets as ipset(8) says and hears them: which of them a message is about.

net/netfilter/ipset/ip_set_hash_ip.c, _hash_net.c, _hash_ipport.c, _hash_netport.c,
ip_set_bitmap_port.c: their _uadt() and _list() functions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import ipset as abi
from sentry.abi.netlink import NLA_F_NET_BYTEORDER, NLA_TYPE_MASK
from sentry.abi.nftables import NFPROTO_IPV4
from sentry.abi.socket import IPPROTO_ICMP, IPPROTO_ICMPV6
from sentry.errors import EINVAL, ERANGE
from sentry.net.netfilter.ip_sets import (
    MOST_AT_ONCE,
    SECOND_NS,
    U64,
    Given,
    Key,
    masked,
    refused,
)
from sentry.net.netfilter.machine import NESTED, nested, text
from sentry.net.netfilter.xt_sets import MOST_S, PORTED
from sentry.net.netlink.message import attribute, u8
from sentry.net.netlink.nfnetlink import attribute_places

if TYPE_CHECKING:
    from sentry.net.netfilter.ip_sets import Content, Element

ALL4: Final = (1 << 32) - 1


class Fields:
    """Attributes whose numbers have their most significant byte first, and say so."""

    __slots__ = ("_found",)

    def __init__(self, data: bytes) -> None:
        self._found: dict[int, tuple[int, bytes]] = {}
        for at, size, kind in attribute_places(data, 0, len(data)):
            (flags,) = struct.unpack_from("<H", data, at + 2)
            self._found[kind] = flags, data[at + 4 : at + size]

    def __contains__(self, kind: int) -> bool:
        return kind in self._found

    def number(self, kind: int, size: int, default: int | None = None) -> int:
        """Raises: IPSET_ERR_PROTOCOL for one that is not there, or the other way round."""
        if kind not in self._found:
            if default is None:
                raise refused(abi.IPSET_ERR_PROTOCOL, f"attribute {kind} is missing")
            return default
        flags, value = self._found[kind]
        if len(value) < size or (size > 1 and not flags & NLA_F_NET_BYTEORDER):
            raise refused(abi.IPSET_ERR_PROTOCOL, f"attribute {kind}")
        return int.from_bytes(value[:size])

    @property
    def line(self) -> int:
        """IPSET_ATTR_LINENO, which is the other way round; 0: there is none."""
        _, value = self._found.get(abi.IPSET_ATTR_LINENO, (0, b""))
        return int.from_bytes(value[:4], "little")

    def text(self, kind: int, most: int) -> str:
        """Raises: IPSET_ERR_PROTOCOL for one that is not there, EINVAL without an end."""
        if kind not in self._found:
            raise refused(abi.IPSET_ERR_PROTOCOL, f"attribute {kind} is missing")
        value = self._found[kind][1][:most]
        if b"\0" not in value:
            raise EINVAL(f"attribute {kind} has no end")
        return value.split(b"\0", 1)[0].decode(errors="surrogateescape")

    def inside(self, kind: int) -> Fields:
        """Raises: IPSET_ERR_PROTOCOL."""
        return Fields(self._nested(kind))

    def inside_each(self, kind: int) -> Iterator[Fields]:
        """Of a list of IPSET_ATTR_DATA. Raises: IPSET_ERR_PROTOCOL."""
        data = self._nested(kind)
        for at, size, _ in attribute_places(data, 0, len(data)):
            (flags,) = struct.unpack_from("<H", data, at + 2)
            if flags & NLA_TYPE_MASK != abi.IPSET_ATTR_DATA or not flags & NESTED:
                raise refused(abi.IPSET_ERR_PROTOCOL, "a list of something else")
            yield Fields(data[at + 4 : at + size])

    def _nested(self, kind: int) -> bytes:
        flags, value = self._found.get(kind, (0, b""))
        if not flags & NESTED:
            raise refused(abi.IPSET_ERR_PROTOCOL, f"attribute {kind}")
        return value


# --- what is said


def given_of(content: Content, data: Fields) -> Given:
    """ip_set_get_extensions(). Raises: IPSET_ERR_TIMEOUT, _COUNTER, _COMMENT, _PROTOCOL."""
    timeout_s: int | None = None
    packets: int | None = None
    octets: int | None = None
    comment = ""
    if abi.IPSET_ATTR_TIMEOUT in data:
        if content.timeout_s is None:
            raise refused(abi.IPSET_ERR_TIMEOUT, "its elements stay")
        timeout_s = min(data.number(abi.IPSET_ATTR_TIMEOUT, 4), MOST_S)
    for kind in (abi.IPSET_ATTR_BYTES, abi.IPSET_ATTR_PACKETS):
        if kind in data and not content.has_counters:
            raise refused(abi.IPSET_ERR_COUNTER, "nothing is counted")
    if abi.IPSET_ATTR_BYTES in data:
        octets = data.number(abi.IPSET_ATTR_BYTES, 8)
    if abi.IPSET_ATTR_PACKETS in data:
        packets = data.number(abi.IPSET_ATTR_PACKETS, 8)
    if abi.IPSET_ATTR_COMMENT in data:
        if not content.has_comments:
            raise refused(abi.IPSET_ERR_COMMENT, "it has no comments")
        comment = data.text(abi.IPSET_ATTR_COMMENT, abi.IPSET_MAX_COMMENT_SIZE + 1)
    return Given(timeout_s, packets, octets, comment)


def keys_of(
    content: Content, data: Fields, charge: Callable[[int], None], *, is_test: bool = False
) -> Iterator[Key]:
    """Those that a message is about, of a set that is no list; `charge` hears how many first.

    Raises: IPSET_ERR_*, ERANGE for more than may be at once, what `charge` raises.
    """
    kind = content.kind
    if not kind.has_ip:
        found = _bitmap_ports(content, data, is_test)
        charge(len(found))
        return (Key(port=port) for port in found)
    ip = _address(content, data, abi.IPSET_ATTR_IP)
    protocol, ports = 0, range(1)
    if kind.has_port:
        protocol, ports = _ports(content, data, is_test)
    places: Sequence[tuple[int, int]] | Sequence[int]
    if kind.has_prefix:
        places = _networks(content, data, ip, is_test)
    else:
        places = _addresses(content, data, ip, is_test)
    number = len(places) * len(ports)
    if number > MOST_AT_ONCE:
        raise ERANGE(f"{len(places)} addresses, {len(ports)} ports")
    charge(number)
    nets = (each if isinstance(each, tuple) else (each, 0) for each in places)
    return (Key(*place, protocol, port) for place in nets for port in ports)


def _address(content: Content, data: Fields, kind: int) -> int:
    """ip_set_get_ipaddr4(), ip_set_get_ipaddr6()."""
    if kind not in data:
        raise refused(abi.IPSET_ERR_PROTOCOL, "an address is missing")
    if content.family == NFPROTO_IPV4:
        return data.inside(kind).number(abi.IPSET_ATTR_IPADDR_IPV4, 4)
    return data.inside(kind).number(abi.IPSET_ATTR_IPADDR_IPV6, 16)


def _addresses(content: Content, data: Fields, ip: int, is_test: bool) -> Sequence[int]:
    """One, or a range."""
    width, netmask, is_bare = content.width, content.netmask, not content.kind.has_port
    first = masked(ip, netmask, width)
    if is_bare and not first:
        raise refused(abi.IPSET_ERR_HASH_ELEM, "no address")
    prefix = data.number(abi.IPSET_ATTR_CIDR, 1, width)
    if width > 32:
        if abi.IPSET_ATTR_IP_TO in data:
            raise refused(abi.IPSET_ERR_HASH_RANGE_UNSUPPORTED, "a range of IPv6")
        if prefix != width:
            raise refused(abi.IPSET_ERR_INVALID_CIDR, f"{prefix}")
        return [first]
    if is_test:
        return [first]
    last = first
    if abi.IPSET_ATTR_IP_TO in data:
        first, last = sorted((first, _address(content, data, abi.IPSET_ATTR_IP_TO)))
    else:
        if not 0 < prefix <= width:
            raise refused(abi.IPSET_ERR_INVALID_CIDR, f"{prefix}")
        first = masked(first, prefix, width)
        last = first + (1 << width - prefix) - 1
    if is_bare and not first:
        raise refused(abi.IPSET_ERR_HASH_ELEM, "no address")
    found = range(masked(first, netmask, width), last + 1, 1 << width - netmask)
    if len(found) > MOST_AT_ONCE:
        raise ERANGE(f"{len(found)} addresses")
    return found


def _networks(content: Content, data: Fields, ip: int, is_test: bool) -> list[tuple[int, int]]:
    """One with its prefix, or those of a range."""
    width = content.width
    prefix = data.number(abi.IPSET_ATTR_CIDR, 1, width)
    if not 0 < prefix <= width:
        raise refused(abi.IPSET_ERR_INVALID_CIDR, f"{prefix}")
    if width > 32 and abi.IPSET_ATTR_IP_TO in data:
        raise refused(abi.IPSET_ERR_HASH_RANGE_UNSUPPORTED, "a range of IPv6")
    if is_test or abi.IPSET_ATTR_IP_TO not in data:
        return [(masked(ip, prefix, width), prefix)]
    first, last = sorted((ip, _address(content, data, abi.IPSET_ATTR_IP_TO)))
    if (first, last) == (0, ALL4):
        raise refused(abi.IPSET_ERR_HASH_RANGE, "all addresses")
    return list(_split(first, last))


def _split(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A range of IPv4 as networks, each as large as can be: ip_set_range_to_cidr()."""
    while first <= last:
        bits = (first & -first).bit_length() - 1 if first else 32
        bits = min(bits, (last - first + 1).bit_length() - 1)
        yield first, 32 - bits
        first += 1 << bits


def _ports(content: Content, data: Fields, is_test: bool) -> tuple[int, range]:
    """A protocol, and its ports, or a type and code."""
    port = data.number(abi.IPSET_ATTR_PORT, 2)
    if abi.IPSET_ATTR_PROTO not in data:
        raise refused(abi.IPSET_ERR_MISSING_PROTO, "of which protocol?")
    protocol = data.number(abi.IPSET_ATTR_PROTO, 1)
    if not protocol:
        raise refused(abi.IPSET_ERR_INVALID_PROTO, "of which protocol?")
    last = data.number(abi.IPSET_ATTR_PORT_TO, 2, port)
    if protocol not in PORTED:
        icmp = IPPROTO_ICMP if content.family == NFPROTO_IPV4 else IPPROTO_ICMPV6
        port = last = port if protocol == icmp else 0
    if is_test:
        last = port
    port, last = sorted((port, last))
    return protocol, range(port, last + 1)


def _bitmap_ports(content: Content, data: Fields, is_test: bool) -> range:
    port = data.number(abi.IPSET_ATTR_PORT, 2)
    last = port if is_test else data.number(abi.IPSET_ATTR_PORT_TO, 2, port)
    port, last = sorted((port, last))
    if port < content.first or last > content.last:
        raise refused(abi.IPSET_ERR_BITMAP_RANGE, f"{port}-{last}")
    return range(port, last + 1)


def is_exception(data: Fields) -> bool:
    """nomatch."""
    return bool(data.number(abi.IPSET_ATTR_CADT_FLAGS, 4, 0) & abi.IPSET_FLAG_NOMATCH)


# --- what is told


def net16(kind: int, value: int) -> bytes:
    """An attribute that says that its most significant byte comes first."""
    return attribute(kind | NLA_F_NET_BYTEORDER, (value & 0xFFFF).to_bytes(2))


def net32(kind: int, value: int) -> bytes:
    """The same with 4 bytes."""
    return attribute(kind | NLA_F_NET_BYTEORDER, (value & 0xFFFFFFFF).to_bytes(4))


def net64(kind: int, value: int) -> bytes:
    """The same with 8 bytes."""
    return attribute(kind | NLA_F_NET_BYTEORDER, (value & U64).to_bytes(8))


def element_body(content: Content, key: Any, element: Element, now_ns: int) -> bytes:
    """IPSET_ATTR_DATA of one."""
    kind, made = content.kind, b""
    if kind.is_list:
        made += text(abi.IPSET_ATTR_NAME, key.name)
    if kind.has_ip:
        is_v4 = content.family == NFPROTO_IPV4
        inner = abi.IPSET_ATTR_IPADDR_IPV4 if is_v4 else abi.IPSET_ATTR_IPADDR_IPV6
        ip = key.ip.to_bytes(4 if is_v4 else 16)
        made += nested(abi.IPSET_ATTR_IP, attribute(inner, ip))
    if kind.has_port:
        made += net16(abi.IPSET_ATTR_PORT, key.port)
    if kind.has_prefix:
        made += u8(abi.IPSET_ATTR_CIDR, key.prefix)
    if kind.has_port and kind.has_ip:
        made += u8(abi.IPSET_ATTR_PROTO, key.protocol)
    if element.is_exception:
        made += net32(abi.IPSET_ATTR_CADT_FLAGS, abi.IPSET_FLAG_NOMATCH)
    if content.timeout_s is not None:
        left_s = max(1, (element.expires_ns - now_ns) // SECOND_NS) if element.expires_ns else 0
        made += net32(abi.IPSET_ATTR_TIMEOUT, left_s)
    if content.has_counters:
        made += net64(abi.IPSET_ATTR_BYTES, element.octets)
        made += net64(abi.IPSET_ATTR_PACKETS, element.packets)
    if element.comment:
        made += text(abi.IPSET_ATTR_COMMENT, element.comment)
    return nested(abi.IPSET_ATTR_DATA, made)
