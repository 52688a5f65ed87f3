"""A packet on the loopback with its link header, and where it goes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    ETH_P_802_2,
    ETH_P_IP,
    ETH_P_IPV6,
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    PACKET_OUTGOING,
)
from sentry.net.inet.raw_header import received4, received6
from sentry.net.link import ethernet, vnet
from sentry.net.packets import ETH_HEADER, TAG_AT, Frame
from sentry.net.sysctls import takes_martians

if TYPE_CHECKING:
    from sentry.net.link.link import Link
    from sentry.net.packets import Packet, Tap
    from sentry.net.stack import Stack

FIRST_ETHERTYPE: Final = 0x600
"""Smaller numbers are lengths: ETH_P_802_3_MIN."""
LOOPBACK_NETWORK: Final = 127
PARSERS: Final = {ETH_P_IP: (received4, AF_INET), ETH_P_IPV6: (received6, AF_INET6)}


def show_frame(stack: Stack, data: bytes, sent_as: int, sender: Tap | None) -> Frame:
    """Packet sockets see a frame go out, but for who sent it, and come in. The latter."""
    (ethertype,) = struct.unpack_from(">H", data, 12)
    if ethertype < FIRST_ETHERTYPE:
        ethertype = ETH_P_802_2
    kind = PACKET_HOST
    if any(data[:6]):
        kind = PACKET_MULTICAST if data[0] & 1 else PACKET_OTHERHOST
    out = Frame(data, sent_as, PACKET_OUTGOING, len(data))
    come = Frame(data, ethertype, kind, len(data), stamp_ns=out.stamp_ns)
    stack.fan_out.begin(_heard(stack, out, come, sender))
    return come


def _heard(stack: Stack, out: Frame, come: Frame, sender: Tap | None) -> Iterator[None]:
    taps = list(stack.taps)
    for tap in taps:
        if tap is not sender and tap in stack.taps:
            tap.hear(out)
            yield
    for tap in taps:
        if tap in stack.taps:
            tap.hear(come)
            yield


def show_link_frame(
    stack: Stack, link: Link, frame: bytes, is_outgoing: bool, *, goes_up: bool = False
) -> None:
    """Packet sockets, of which there are few, see a frame of a link with its virtio header: without
    the outermost VLAN tag, which is told beside it. skb_vlan_untag()."""
    if not stack.taps:
        return
    data, tag = frame[vnet.SIZE :], None
    kind, header = PACKET_HOST, ETH_HEADER if link.hardware else 0
    if header:
        tag = ethernet.tag_of(data)
        if tag is not None:
            data = data[:TAG_AT] + data[TAG_AT + ethernet.TAG_SIZE :]
        (ethertype,) = struct.unpack_from(">H", data, 12)
        if ethertype < FIRST_ETHERTYPE:
            ethertype = ETH_P_802_2
        kind = kind_of(data[:6], link.hardware)
    else:
        ethertype = ETH_P_IPV6 if data[:1] >= b"\x60" else ETH_P_IP
    kind = PACKET_OUTGOING if is_outgoing else kind
    shown = Frame(
        data, ethertype, kind, len(data), link.index, header, tag=tag, goes_up=goes_up
    )
    stack.fan_out.begin(_heard_of_link(stack, shown))


def _heard_of_link(stack: Stack, frame: Frame) -> Iterator[None]:
    for tap in list(stack.taps):
        if tap in stack.taps:
            tap.hear(frame)
            yield


def kind_of(target: bytes, own: bytes) -> int:
    """sll_pkttype of a frame that has come, by its link address and that of the interface."""
    if target == own:
        return PACKET_HOST
    if target == b"\xff" * len(target):
        return PACKET_BROADCAST
    return PACKET_MULTICAST if target[0] & 1 else PACKET_OTHERHOST


def transmit(stack: Stack, data: bytes, sent_as: int, sender: Tap) -> None:
    """A program sends a frame of its own: what comes back goes to IP."""
    from sentry.net.inet.raw import take_in  # noqa: PLC0415  raw sockets show frames, too

    come = show_frame(stack, data, sent_as, sender)
    if come.kind == PACKET_OTHERHOST:
        return
    parse, family = PARSERS.get(come.ethertype, (None, 0))
    found = parse(data[ETH_HEADER:]) if parse is not None else None
    if found is None:
        return
    packet, protocol = found
    if family == AF_INET6 and not stack.interfaces.is_local(packet.target.ip):
        return
    if family == AF_INET and not _is_for_us4(stack, packet):
        return
    take_in(stack, packet, family, protocol)


def _is_for_us4(stack: Stack, packet: Packet) -> bool:
    """ip_route_input_slow(): what seems to come from the host itself is a Martian."""
    source, target = packet.source.ip[12:], packet.target.ip[12:]
    if not stack.interfaces.is_local(target):
        return False
    if LOOPBACK_NETWORK in (source[0], target[0]) and not takes_martians(stack, "route_localnet"):
        return False
    return not stack.interfaces.is_local(source) or takes_martians(stack, "accept_local")
