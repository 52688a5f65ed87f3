"""ARP: RFC 826, 5227, 5494; net/ipv4/arp.c. Packets, and what is done with one that comes."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Protocol

from sentry.abi.netlink import ARPHRD_ETHER, NUD_REACHABLE, NUD_STALE
from sentry.abi.socket import ETH_P_IP
from sentry.net.link import ethernet
from sentry.net.link.neighbours import LOCK_NS, Claim, Neighbours

REQUEST: Final = 1
REPLY: Final = 2
ARPHRD_IEEE802: Final = 6
_PACKET: Final = struct.Struct(">HHBBH6s4s6s4s")


class ArpPacket(NamedTuple):
    """Addresses of 6 and 4 bytes."""

    operation: int
    sender_hardware: bytes
    sender: bytes
    target_hardware: bytes
    target: bytes


class Answers(Protocol):
    """What ARP needs of its link."""

    hardware: bytes
    neighbours4: Neighbours

    def is_local4(self, ip: bytes) -> bool:
        """Packets for it end here."""

    def send_arp(self, packet: ArpPacket, to: bytes) -> None:
        """Off it goes."""


def parse(data: bytes | memoryview) -> ArpPacket | None:
    """None: not about IPv4 over Ethernet, or neither a question nor an answer."""
    if len(data) < _PACKET.size:
        return None
    hardware, protocol, hardware_size, size, operation, *addresses = _PACKET.unpack_from(data)
    if hardware not in (ARPHRD_ETHER, ARPHRD_IEEE802) or protocol != ETH_P_IP:
        return None
    if (hardware_size, size) != (6, 4) or operation not in (REQUEST, REPLY):
        return None
    return ArpPacket(operation, *addresses)


def build(packet: ArpPacket) -> bytes:
    """Without a link header."""
    operation, *addresses = packet
    return _PACKET.pack(ARPHRD_ETHER, ETH_P_IP, 6, 4, operation, *addresses)


def arrived(now_ns: int, link: Answers, packet: ArpPacket, *, to_us: bool) -> None:
    """One has come; `to_us`: to this hardware address, not to all. arp_process().

    Who asks for an address of ours is answered and remembered; of others only what concerns those
    who are known already is taken (net.ipv4.conf.*.arp_accept is 0).
    """
    own = packet.target
    if _is_nobodys(own) or not ethernet.is_usable(packet.sender_hardware):
        return
    neighbours = link.neighbours4
    if packet.operation == REQUEST and link.is_local4(own):
        reply = ArpPacket(REPLY, link.hardware, own, packet.sender_hardware, packet.sender)
        link.send_arp(reply, packet.sender_hardware)
        if not (_is_nobodys(packet.sender) or link.is_local4(packet.sender)):
            claim = Claim(packet.sender, packet.sender_hardware, NUD_STALE, True, True)
            neighbours.heard(now_ns, claim)
        return
    known = neighbours.get(packet.sender)
    if known is None or _is_nobodys(packet.sender):
        return
    is_gratuitous = packet.sender == packet.target
    is_answer = packet.operation == REPLY and to_us and not is_gratuitous
    state = NUD_REACHABLE if is_answer else NUD_STALE
    override = is_gratuitous or now_ns > known.updated_ns + LOCK_NS
    neighbours.heard(now_ns, Claim(packet.sender, packet.sender_hardware, state, override))


def _is_nobodys(ip: bytes) -> bool:
    """0.0.0.0/8, the loopback's, a group's."""
    return ip[0] in (0, 127) or ip[0] >= 224
