"""Neighbour discovery, as a host does it: RFC 4861, 6 to 8; net/ipv6/ndisc.c.

On a link that is an interface of the host, addresses, default routers and duplicate detection are
the host's: its routes and addresses are followed. On others they are `autoconf.py`'s. Of what
routers advertise the rest is heeded on all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.netlink import NUD_REACHABLE, NUD_STALE
from sentry.abi.socket import AF_INET6, IP_PMTUDISC_DONT, IPPROTO_ICMPV6
from sentry.net.ip import ipv6
from sentry.net.ip.seam import Arrived, Outgoing
from sentry.net.link import ethernet, ndp
from sentry.net.link.link import EthernetLink
from sentry.net.link.ndp import (
    ADVERTISEMENT,
    HOP_LIMIT,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    SOLICITATION,
)
from sentry.net.link.neighbours import VALID, Claim

if TYPE_CHECKING:
    from sentry.net.ip.ground import Ground
    from sentry.net.link.link import Link

MAX_REACHABLE_MS: Final = 3_600_000
"""RFC 4861, 6.2.1."""
KINDS: Final = range(ndp.ROUTER_SOLICITATION, REDIRECT + 1)


def arrived(layer: Ground, now_ns: int, packet: Arrived) -> None:
    """A message with a right checksum: ndisc_rcv()."""
    link = layer.links.get(packet.index)
    data = bytes(packet.payload)
    if not isinstance(link, EthernetLink) or packet.ttl != HOP_LIMIT or data[1]:
        return
    if data[0] == SOLICITATION:
        _solicited(layer, now_ns, link, packet, ndp.parse_neighbour(data, SOLICITATION))
    elif data[0] == ADVERTISEMENT:
        _advertised(layer, now_ns, link, packet, ndp.parse_neighbour(data, ADVERTISEMENT))
    elif data[0] == ROUTER_ADVERTISEMENT:
        _routed(layer, now_ns, link, packet, ndp.parse_router(data))
    elif data[0] == REDIRECT:
        redirect = ndp.parse_redirect(data)
        if redirect is not None and ipv6.is_link_local(packet.source):
            _redirected(layer, now_ns, link, packet, redirect)


def _solicited(
    layer: Ground, now_ns: int, link: EthernetLink, packet: Arrived, asked: ndp.Neighbour | None
) -> None:
    """ndisc_recv_ns(): who looks whether an address is free has none yet; all hear the answer."""
    if asked is None or not layer.is_local(asked.target):
        return
    is_probe = packet.source == ipv6.ANY
    if is_probe and (asked.hardware or packet.target != ipv6.solicited_node(asked.target)):
        return
    if asked.hardware:
        if not ethernet.is_usable(asked.hardware):
            return
        claim = Claim(packet.source, asked.hardware, NUD_STALE, override=True, creates=True)
        link.neighbours6.heard(now_ns, claim)
    body = ndp.build_advertisement(
        asked.target, link.hardware, is_solicited=not is_probe,
        is_router=layer.forwards(is_v4=False),
    )  # fmt: skip
    target = ipv6.ALL_NODES if is_probe else packet.source
    _send(layer, now_ns, link, ADVERTISEMENT, body, asked.target, target)


def _advertised(
    layer: Ground, now_ns: int, link: EthernetLink, packet: Arrived, told: ndp.Neighbour | None
) -> None:
    """ndisc_recv_na(): about somebody who is asked for or known."""
    if told is None or layer.is_local(told.target) or (packet.is_group and told.is_solicited):
        return
    known = link.neighbours6.get(told.target)
    if known is None:
        return
    hardware = told.hardware or (known.hardware if known.state & VALID else b"")
    if not ethernet.is_usable(hardware):
        return
    state = NUD_REACHABLE if told.is_solicited else NUD_STALE
    claim = Claim(told.target, hardware, state, told.overrides, unsettles=True)
    link.neighbours6.heard(now_ns, claim)


def _routed(
    layer: Ground, now_ns: int, link: EthernetLink, packet: Arrived, told: ndp.Router | None
) -> None:
    """ndisc_router_discovery(), but for what is above."""
    if told is None or not ipv6.is_link_local(packet.source) or not layer.accepts_routers(link):
        return
    if ethernet.is_usable(told.hardware):
        claim = Claim(packet.source, told.hardware, NUD_STALE, override=True, creates=True)
        link.neighbours6.heard(now_ns, claim)
    if 0 < told.reachable_ms <= MAX_REACHABLE_MS:
        link.neighbours6.reachable_ns = told.reachable_ms * 1_000_000
    if told.mtu >= ipv6.LEAST_MTU:
        link.mtu6 = told.mtu
    autoconf = layer.autoconf.get(link.index)
    if autoconf is not None:
        autoconf.heard(now_ns, packet.source, told)


def _redirected(
    layer: Ground, now_ns: int, link: EthernetLink, packet: Arrived, told: ndp.Redirect
) -> None:
    """ndisc_redirect_rcv(): the destination itself, or another router of this link."""
    is_neighbour = told.target == told.destination
    if not is_neighbour and not ipv6.is_link_local(told.target):
        return
    is_believed = layer.redirect(now_ns, packet, told.destination, told.target)
    if is_believed and ethernet.is_usable(told.hardware):
        claim = Claim(told.target, told.hardware, NUD_STALE, override=True, creates=True)
        link.neighbours6.heard(now_ns, claim)


def solicit(layer: Ground, now_ns: int, link: EthernetLink, ip: bytes, hardware: bytes) -> None:
    """Ask for a neighbour: all who may have the address, or one whether it is still there."""
    source = layer.source_towards(link, ip)
    if not source:
        return
    target = ip if hardware else ipv6.solicited_node(ip)
    body = ndp.build_solicitation(ip, link.hardware)
    _send(layer, now_ns, link, SOLICITATION, body, source, target)


def send_redirect(
    layer: Ground, now_ns: int, link: EthernetLink, packet: Arrived, better: bytes
) -> None:
    """ndisc_send_redirect(): to its sender, whose packets for that target had better go there."""
    interface = layer.interface(link.index)
    addresses = interface.of_family(AF_INET6) if interface is not None else ()
    own = next((each.ip for each in addresses if ipv6.is_link_local(each.ip)), b"")
    if not own:
        return
    known = link.neighbours6.get(better)
    hardware = known.hardware if known is not None and known.state & VALID else b""
    quoted = packet.head + bytes(packet.payload)
    body = ndp.build_redirect(better, packet.target, hardware, quoted)
    _send(layer, now_ns, link, REDIRECT, body, own, packet.source)


def solicit_routers(layer: Ground, now_ns: int, link: Link) -> None:
    """Ask all routers of a link. From no address nobody is asked: the answer would be for all."""
    source = layer.source_towards(link, ipv6.ALL_ROUTERS)
    if source:
        body = ndp.build_router_solicitation(link.hardware)
        _send(layer, now_ns, link, ndp.ROUTER_SOLICITATION, body, source, ipv6.ALL_ROUTERS)


def _send(
    layer: Ground, now_ns: int, link: Link, kind: int, body: bytes, source: bytes,
    target: bytes,
) -> None:  # fmt: skip
    out = Outgoing(
        target, IPPROTO_ICMPV6, (), source, ttl=HOP_LIMIT, index=link.index,
        discover=IP_PMTUDISC_DONT, by_itself=True,
    )  # fmt: skip
    layer.icmp6.send(now_ns, kind, body, out)
