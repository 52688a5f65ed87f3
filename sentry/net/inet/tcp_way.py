"""Ways that segments have gone, kept for the next ones: __sk_dst_check(), net/core/sock.c.

What stands before a segment differs in little more than its size from what stood before the last
one. Where all that decides on the way is as it was, nothing is asked again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.socket import ETH_P_IP, ETH_P_IPV6, IPPROTO_TCP
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import partial_sum
from sentry.net.link import ethernet, vnet
from sentry.net.link.link import EthernetLink
from sentry.net.tcp.segment import CWR

if TYPE_CHECKING:
    from sentry.net.ip.layer import IpLayer
    from sentry.net.ip.seam import Path
    from sentry.net.tcp import segment

CHECKSUM_AT: Final = 16
_HEAD4: Final = struct.Struct(">24sBBHIBBH8s")
"""Virtio and link header, then IPv4's."""
_HEAD6: Final = struct.Struct(">24sIHBB32s")
FIRST4: Final = 0x45
FIRST6: Final = 0x60000000


class Way:
    """From one address to another, by a link with neighbours."""

    __slots__ = (
        "_addresses", "_hardware", "_ip_sum", "_is_v4", "_link", "_link_header", "_plain",
        "_pseudo_sum", "_source_hardware", "_target", "path",
    )  # fmt: skip

    def __init__(self, link: EthernetLink, path: Path, source: bytes, target: bytes) -> None:
        """Preconditions: those of `way_by`."""
        self.path = path
        self._link = link
        self._target = target
        self._is_v4 = len(target) == 4
        self._addresses = source + target
        self._hardware = self._source_hardware = b""
        self._link_header = self._plain = b""
        total = partial_sum(self._addresses)
        self._pseudo_sum = total + IPPROTO_TCP
        self._ip_sum = total + (FIRST4 << 8) + ipv4.DONT_FRAGMENT + IPPROTO_TCP

    def send(self, now_ns: int, layer: IpLayer, made: segment.Outgoing, tos: int, ttl: int) -> bool:
        """A segment goes. False: something has changed, or it does not fit, and it has not gone."""
        link, header = self._link, made.header
        size = len(header) + made.size
        ip_size = ipv4.HEADER_SIZE if self._is_v4 else ipv6.HEADER_SIZE
        if not self._is_known(now_ns, layer) or (
            size + ip_size > self.path.mtu and not made.gso_size
        ):
            return False
        next_hop = self.path.next_hop
        hardware = link.neighbours(next_hop).known(now_ns, next_hop)
        if hardware is None:
            return False
        if hardware != self._hardware or link.hardware != self._source_hardware:
            self._learn(hardware)
        begin = self._plain
        if made.gso_size:
            begin = self._virtio(len(header), made.gso_size, header[13] & CWR) + self._link_header
        traffic = tos & ~3 | made.ecn
        if self._is_v4:
            total = size + ipv4.HEADER_SIZE
            check = _folded(self._ip_sum + traffic + total + (ttl << 8)) ^ 0xFFFF
            ip = _HEAD4.pack(
                begin, FIRST4, traffic, total, ipv4.DONT_FRAGMENT, ttl, IPPROTO_TCP, check,
                self._addresses,
            )  # fmt: skip
        else:
            ip = _HEAD6.pack(begin, FIRST6 | traffic << 20, size, IPPROTO_TCP, ttl, self._addresses)
        counters = layer.counters
        counters["Ip.OutRequests" if self._is_v4 else "Ip6OutRequests"] += 1
        counters["IpExt.OutOctets" if self._is_v4 else "Ip6OutOctets"] += size + ip_size
        check = _folded(self._pseudo_sum + size)
        link.pass_on(b"".join((
            ip, header[:CHECKSUM_AT], check.to_bytes(2), header[CHECKSUM_AT + 2 :], *made.pieces
        )))  # fmt: skip
        return True

    def _is_known(self, now_ns: int, layer: IpLayer) -> bool:
        """All that decides is as it was. Preconditions: so are routes and addresses, which
        `IpLayer.on_changes` tells of."""
        if layer.filter is not None or layer.gate is not None:
            return False
        interface = layer.interface(self.path.interface)
        return (
            interface is not None
            and interface.is_up
            and layer.links[interface.index] is self._link
            and layer.mtu_of(interface, is_v4=self._is_v4) == self.path.mtu
            and layer.exceptions.get(now_ns, self._target) is None
        )

    def _learn(self, hardware: bytes) -> None:
        self._hardware, self._source_hardware = hardware, self._link.hardware
        kind = ETH_P_IP if self._is_v4 else ETH_P_IPV6
        self._link_header = ethernet.build(hardware, self._source_hardware, kind)
        self._plain = self._virtio(0, 0, 0) + self._link_header

    def _virtio(self, header_size: int, segment_size: int, cwr: int) -> bytes:
        ip_size = ipv4.HEADER_SIZE if self._is_v4 else ipv6.HEADER_SIZE
        offload = vnet.Offload(ip_size, ip_size + CHECKSUM_AT, segment_size, bool(cwr))
        return vnet.build(
            offload, ethernet.HEADER_SIZE, IPPROTO_TCP, is_v4=self._is_v4,
            header_size=ip_size + header_size,
        )  # fmt: skip


def way_by(layer: IpLayer, now_ns: int, path: Path, source: bytes, target: bytes) -> Way | None:
    """The way that a segment has gone; None: the next one may go another."""
    link = layer.links.get(path.interface)
    if not isinstance(link, EthernetLink):
        return None
    is_plain = (
        link.asks
        and not path.is_broadcast
        and not path.may_fragment
        and layer.filter is None
        and layer.gate is None
        and not layer.fib.asks
        and not layer.is_local(target)
        and layer.exceptions.get(now_ns, target) is None
    )
    return Way(link, path, source, target) if is_plain else None


def _folded(total: int) -> int:
    """A sum of 16-bit words, in one's complement: RFC 1071."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)
