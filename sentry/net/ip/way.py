"""Ways that packets have gone, kept for the next ones: __sk_dst_check(), net/core/sock.c.

What stands before a segment or a datagram differs in little more than its size from what stood
before the last one. Where all that decides on the way is as it was, nothing is asked again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.netlink import IFF_UP
from sentry.abi.socket import ETH_P_IP, ETH_P_IPV6
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import partial_sum
from sentry.net.link import ethernet, vnet
from sentry.net.link.link import EthernetLink

if TYPE_CHECKING:
    from sentry.net.ip.layer import IpLayer
    from sentry.net.ip.seam import Path

_HEAD4: Final = struct.Struct(">24sBBHIBBH8s")
"""Virtio and link header, then IPv4's."""
_HEAD6: Final = struct.Struct(">24sIHBB32s")
FIRST4: Final = 0x45
FIRST6: Final = 0x60000000
MAX_WAYS: Final = 1024
"""That are kept: a ceiling of ours."""
Ends = tuple[bytes, bytes, int, int]
"""Both addresses, the interface by which it has to be, or 0, and the protocol."""


class Way:
    """From one address to another, by a link with neighbours."""

    __slots__ = (
        "_addresses", "_checksum_at", "_hardware", "_ip_sum", "_is_v4", "_link_header", "_plain",
        "_protocol", "_pseudo_sum", "_source_hardware", "_target", "link", "path",
    )  # fmt: skip

    def __init__(
        self, link: EthernetLink, path: Path, addresses: tuple[bytes, bytes], protocol: int,
        checksum_at: int,
    ) -> None:  # fmt: skip
        """Preconditions: those of `way_by`."""
        self.path = path
        self.link = link
        self._protocol, self._checksum_at = protocol, checksum_at
        self._target = addresses[1]
        self._is_v4 = len(self._target) == 4
        self._addresses = b"".join(addresses)
        self._hardware = self._source_hardware = b""
        self._link_header = self._plain = b""
        total = partial_sum(self._addresses)
        self._pseudo_sum = total + protocol
        self._ip_sum = total + (FIRST4 << 8) + ipv4.DONT_FRAGMENT + protocol

    def begin(
        self, now_ns: int, layer: IpLayer, size: int, traffic: int, ttl: int,
        *, header_size: int = 0, gso_size: int = 0, has_cwr: bool = False,
    ) -> bytes:  # fmt: skip
        """What stands before so many bytes that go now, which begin with a header of the transport:
        of `header_size`, if they are to be cut. Empty: something has changed, or they do not fit,
        and they go another way."""
        link, is_v4 = self.link, self._is_v4
        ip_size = ipv4.HEADER_SIZE if is_v4 else ipv6.HEADER_SIZE
        if not self._is_known(now_ns, layer) or (size + ip_size > self.path.mtu and not gso_size):
            return b""
        next_hop = self.path.next_hop
        hardware = link.neighbours(next_hop).known(now_ns, next_hop)
        if hardware is None:
            return b""
        if hardware != self._hardware or link.hardware != self._source_hardware:
            self._learn(hardware)
        before = self._plain
        if gso_size:
            before = self._virtio(header_size, gso_size, has_cwr=has_cwr) + self._link_header
        counters = layer.counters
        counters["Ip.OutRequests" if is_v4 else "Ip6OutRequests"] += 1
        counters["IpExt.OutOctets" if is_v4 else "Ip6OutOctets"] += size + ip_size
        if not is_v4:
            first = FIRST6 | traffic << 20
            return _HEAD6.pack(before, first, size, self._protocol, ttl, self._addresses)
        total = size + ipv4.HEADER_SIZE
        check = _folded(self._ip_sum + traffic + total + (ttl << 8)) ^ 0xFFFF
        return _HEAD4.pack(
            before, FIRST4, traffic, total, ipv4.DONT_FRAGMENT, ttl, self._protocol, check,
            self._addresses,
        )  # fmt: skip

    def pseudo_sum(self, size: int) -> int:
        """What stands in place of the checksum of so many bytes, which the link fills in."""
        return _folded(self._pseudo_sum + size)

    def _is_known(self, now_ns: int, layer: IpLayer) -> bool:
        """All that decides is as it was. Preconditions: so are routes and addresses."""
        if layer.filter is not None or layer.gate is not None:
            return False
        interface = layer.interface(self.path.interface)
        return bool(
            interface is not None
            and interface.flags & IFF_UP
            and layer.links[interface.index] is self.link
            and layer.mtu_of(interface, is_v4=self._is_v4) == self.path.mtu
            and layer.exceptions.get(now_ns, self._target) is None
        )

    def _learn(self, hardware: bytes) -> None:
        self._hardware, self._source_hardware = hardware, self.link.hardware
        kind = ETH_P_IP if self._is_v4 else ETH_P_IPV6
        self._link_header = ethernet.build(hardware, self._source_hardware, kind)
        self._plain = self._virtio(0, 0, has_cwr=False) + self._link_header

    def _virtio(self, header_size: int, segment_size: int, *, has_cwr: bool) -> bytes:
        ip_size = ipv4.HEADER_SIZE if self._is_v4 else ipv6.HEADER_SIZE
        offload = vnet.Offload(ip_size, ip_size + self._checksum_at, segment_size, has_cwr)
        return vnet.build(
            offload, ethernet.HEADER_SIZE, self._protocol, is_v4=self._is_v4,
            header_size=ip_size + header_size,
        )  # fmt: skip


class Ways:
    """Those of a layer, since routes and addresses have changed."""

    def __init__(self) -> None:
        self._all: dict[Ends, Way] = {}

    def get(self, ends: Ends) -> Way | None:
        """Which may not be what it was: `Way.begin`."""
        return self._all.get(ends)

    def keep(self, ends: Ends, way: Way | None) -> None:
        """The one that a packet has gone."""
        if way is not None:
            if len(self._all) >= MAX_WAYS:
                self._all.clear()
            self._all[ends] = way

    def clear(self) -> None:
        """Let go of them, and so of links that are no more."""
        self._all.clear()


def way_by(
    layer: IpLayer, now_ns: int, path: Path, addresses: tuple[bytes, bytes], protocol: int,
    checksum_at: int,
) -> Way | None:  # fmt: skip
    """The way that a packet has gone, from one address to another; None: the next one may go
    another."""
    link, target = layer.links.get(path.interface), addresses[1]
    if not isinstance(link, EthernetLink):
        return None
    is_plain = (
        link.asks
        and not path.is_broadcast
        and not path.may_fragment
        and not ethernet.group_address(path.next_hop)
        and layer.filter is None
        and layer.gate is None
        and not layer.fib.asks
        and not layer.is_local(target)
        and layer.exceptions.get(now_ns, target) is None
    )
    return Way(link, path, addresses, protocol, checksum_at) if is_plain else None


def _folded(total: int) -> int:
    """A sum of 16-bit words, in one's complement: RFC 1071."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)
