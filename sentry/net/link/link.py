"""`Link`: an interface that packets leave by, and frames come in at. Sans-io.

Frames go in by `received`, and out by `outgoing`, which whoever has the descriptor empties, or to
`sink`. An `EthernetLink` has neighbours; a `PointLink` has packets without a link header.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

from sentry.abi.socket import ETH_P_ARP, ETH_P_IP, ETH_P_IPV6
from sentry.net.deadlines import earlier
from sentry.net.link import arp, ethernet, vnet
from sentry.net.link.neighbours import Neighbour, Neighbours

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.ip.checksum import Bytes
    from sentry.net.link.early import Receiver

MAX_OUTGOING: Final = 1000
"""Frames that wait for the descriptor: a txqueuelen."""
MAX_OUTGOING_BYTES: Final = 1 << 23
"""A ceiling of ours."""
FEW_OUTGOING: Final = 256
FEW_OUTGOING_BYTES: Final = 1 << 20
"""Beyond it who can wait does, rather than lose frames: as net.ipv4.tcp_limit_output_bytes."""

LEAST_FRAME: Final = vnet.SIZE + ethernet.HEADER_SIZE
VERSIONS: Final = (4, 6)
"""Of IP, as a packet begins with it."""


class LinkPacket(Struct, frozen=True):
    """A packet for a link: IP header first."""

    pieces: tuple[Bytes, ...]
    size: int
    is_v4: bool
    protocol: int
    offload: vnet.Offload = vnet.NOTHING
    header_size: int = 0
    """Bytes up to the payload of the transport, where it is to be cut into segments."""


class Upper(Protocol):
    """The layer above."""

    def is_local(self, ip: bytes) -> bool:
        """Packets for it end here."""

    def arrived(self, now_ns: int, link: Link, data: memoryview, frame: Any) -> None:
        """A packet of IP has come, with what is known of its frame."""

    def link_failed(self, now_ns: int, packet: LinkPacket) -> None:
        """Nobody was there to take it."""

    def source_towards(self, link: Link, ip: bytes) -> bytes:
        """The address of ours for who is asked about `ip`; empty: there is none."""

    def solicit6(self, now_ns: int, link: EthernetLink, ip: bytes, hardware: bytes) -> None:
        """Ask by NDP."""

    def takes_early(self) -> bool:
        """Packets for those who are known need nobody's look on their way."""

    def came_early(self, is_v4: bool, count: int, size: int) -> None:
        """So many packets of so many bytes went that way."""

    def rest(self, now_ns: int) -> None:
        """No more comes for now: what could wait for it is to be done."""


class Sink(Protocol):
    """Who takes the frames of a link, instead of leaving them in `outgoing`."""

    @property
    def has_room(self) -> bool:
        """More frames have not long to wait."""

    def put(self, frame: bytes) -> None:
        """One more; it is lost if there is no room."""


class FromLink(Struct, frozen=True):
    """What is known of a frame whose packet comes."""

    is_v4: bool
    to_us: bool
    """Its hardware address was ours, not a group's."""
    checksum_is_good: bool
    segment_size: int
    source: bytes
    left: bytes = b""
    """The virtio header, which says what is left to do for who sends the packet on."""
    link_size: int = 0
    """Bytes of the link header, from which that counts."""


class _Wishes:
    """Of the neighbours of one family."""

    def __init__(self, link: EthernetLink, ask: Callable[[int, bytes, bytes], None]) -> None:
        self._link = link
        self.solicit = ask

    def transmit(self, packet: LinkPacket, hardware: bytes) -> None:
        self._link.transmit(packet, hardware)

    def unreachable(self, now_ns: int, ip: bytes, packet: LinkPacket) -> None:
        self._link.upper.link_failed(now_ns, packet)


class Faults(Protocol):
    """sentry.inject.frames."""

    def comes(self, frame: bytes) -> bool:
        """Whether it comes now."""

    def goes(self, frame: bytes) -> bool:
        """Whether it goes now."""


class Link:
    """What links of every kind have."""

    def __init__(self, index: int, hardware: bytes, upper: Upper) -> None:
        self.index = index
        self.hardware = hardware
        self.upper = upper
        self.mtu6 = 0
        """Of IPv6, as routers say; 0: that of the interface."""
        self.stays_inside = False
        """Who is at its other end is of the sandbox: what goes by it has not left."""
        self.sink: Sink | None = None
        self.outgoing: deque[bytes] = deque()
        self.outgoing_bytes = 0
        self.on_output: Callable[[], None] = lambda: None
        """The first frame waits."""
        self.on_room: Callable[[], None] = lambda: None
        """Fewer frames wait than `has_room` wants."""
        self.lost = 0
        """Frames for which there was no room."""
        self.faults: Faults | None = None
        """Who loses and delays frames, if that is wanted."""
        self.has_moved = True
        """The time that `timer` gives may be another than it was."""
        self.early: dict[bytes, Receiver] | None = None
        """Who had segments or datagrams from somewhere, by what `early.key_of` gives; None: nobody
        looks."""
        self.seen: Callable[[bytes, bool], None] = lambda frame, is_outgoing: None
        """Who looks at every frame, with its virtio header, and whether it goes out."""

    def end(self) -> None:
        """No more of it: it lets go of who would hold it."""
        self.on_output = self.on_room = lambda: None
        self.seen = lambda frame, is_outgoing: None
        self.sink = self.early = None

    # --- in

    def received(self, now_ns: int, *frames: bytes) -> None:
        """Frames with their virtio headers, from anybody."""
        for each in frames:
            self.receive(now_ns, each)
        self.upper.rest(now_ns)

    def receive(self, now_ns: int, frame: bytes) -> None:
        """One of several, after which `upper.rest` is called."""
        self.has_moved = True
        if self.faults is None or self.faults.comes(frame):
            self._received(now_ns, frame)

    def came_late(self, now_ns: int, frame: bytes) -> None:
        """One that `faults` had kept."""
        self._received(now_ns, frame)
        self.upper.rest(now_ns)

    def _received(self, now_ns: int, data: bytes) -> None:
        """One of them."""

    # --- out

    def send(self, now_ns: int, next_hop: bytes, packet: LinkPacket) -> None:
        """To a neighbour, or to a group."""

    def send_frame(self, frame: bytes) -> None:
        """A whole one, with the link header that a program made."""
        self._put(bytes(vnet.SIZE) + frame)

    def pass_on(self, frame: bytes) -> None:
        """One with all headers: it came by another link, and was checked, or is ours."""
        self._put(frame)

    def _put(self, frame: bytes) -> None:
        if self.faults is None or self.faults.goes(frame):
            self.go(frame)

    def go(self, frame: bytes) -> None:
        """It leaves."""
        self.seen(frame, True)
        if self.sink is not None:
            self.sink.put(frame)
            return
        is_full = self.outgoing_bytes + len(frame) > MAX_OUTGOING_BYTES
        if is_full or len(self.outgoing) >= MAX_OUTGOING:
            self.lost += 1
            return
        self.outgoing.append(frame)
        self.outgoing_bytes += len(frame)
        if len(self.outgoing) == 1:
            self.on_output()

    @property
    def has_room(self) -> bool:
        """More frames have not long to wait."""
        if self.sink is not None:
            return self.sink.has_room
        return len(self.outgoing) < FEW_OUTGOING and self.outgoing_bytes < FEW_OUTGOING_BYTES

    def take_outgoing(self, most: int, most_bytes: int) -> list[bytes]:
        """Frames for the descriptor, at least one where there is one."""
        taken: list[bytes] = []
        while self.outgoing and len(taken) < most and (most_bytes > 0 or not taken):
            frame = self.outgoing.popleft()
            most_bytes -= len(frame)
            self.outgoing_bytes -= len(frame)
            taken.append(frame)
        return taken

    def give_back(self, frames: list[bytes]) -> None:
        """The descriptor did not take these."""
        self.outgoing.extendleft(reversed(frames))
        self.outgoing_bytes += sum(map(len, frames))

    def confirm(self, now_ns: int, ip: bytes) -> None:
        """A neighbour is reachable."""

    # --- time

    def timer(self) -> int | None:
        """When `timeout` is to be called."""
        return None

    def timeout(self, now_ns: int) -> None:
        """What is due."""


class EthernetLink(Link):
    """Frames, to neighbours."""

    def __init__(self, index: int, hardware: bytes, upper: Upper, chance: int) -> None:
        """`chance`: a random number of 32 bits."""
        super().__init__(index, hardware, upper)
        self.asks = True
        """For neighbours; else frames go to its own address: IFF_NOARP, arp_constructor()."""
        self.neighbours4 = Neighbours(_Wishes(self, self._ask4), chance & 0xFFFF)
        self.neighbours6 = Neighbours(_Wishes(self, self._ask6), chance >> 16)

    # --- in

    def _received(self, now_ns: int, data: bytes) -> None:
        about = vnet.parse(data)
        if about is None or len(data) < LEAST_FRAME:
            return
        self.seen(data, False)
        frame = ethernet.parse(data, vnet.SIZE)
        if frame is None:
            return
        to_us = frame.target == self.hardware
        if not to_us and not ethernet.is_group(frame.target):
            return
        inside = memoryview(data)[frame.start :]
        if frame.ethertype in (ETH_P_IP, ETH_P_IPV6):
            is_v4 = frame.ethertype == ETH_P_IP
            known = FromLink(
                is_v4, to_us, about.checksum_is_good, about.segment_size, frame.source,
                data[: vnet.SIZE], frame.start - vnet.SIZE,
            )  # fmt: skip
            self.upper.arrived(now_ns, self, inside, known)
        elif frame.ethertype == ETH_P_ARP:
            packet = arp.parse(inside)
            if packet is not None:
                arp.arrived(now_ns, self, packet, to_us=to_us)

    def end(self) -> None:
        super().end()
        self.neighbours4.end()
        self.neighbours6.end()

    # --- out

    def send(self, now_ns: int, next_hop: bytes, packet: LinkPacket) -> None:
        """To a neighbour, or to a group."""
        self.has_moved = True
        group = ethernet.group_address(next_hop)
        if group or not self.asks:
            self.transmit(packet, group or self.hardware)
            return
        hardware = self.neighbours(next_hop).resolve(now_ns, next_hop, packet)
        if hardware is not None:
            self.transmit(packet, hardware)

    def transmit(self, packet: LinkPacket, hardware: bytes) -> None:
        """With a link header, to whom it says."""
        head = vnet.build(
            packet.offload, ethernet.HEADER_SIZE, packet.protocol,
            is_v4=packet.is_v4, header_size=packet.header_size,
        )  # fmt: skip
        kind = ETH_P_IP if packet.is_v4 else ETH_P_IPV6
        link_header = ethernet.build(hardware, self.hardware, kind)
        self._put(b"".join((head, link_header, *packet.pieces)))

    def send_arp(self, packet: arp.ArpPacket, to: bytes) -> None:
        """To one, or to all."""
        head = bytes(vnet.SIZE) + ethernet.build(to, self.hardware, ETH_P_ARP)
        self._put(head + arp.build(packet))

    # --- neighbours

    def tell_changes(self, hear: Callable[[Neighbour, int], None]) -> None:
        """Who is to hear of neighbours that are new or another, or gone: with RTM_*NEIGH."""
        self.neighbours4.on_change = self.neighbours6.on_change = hear

    def neighbours(self, ip: bytes) -> Neighbours:
        """The table of an address's family."""
        return self.neighbours4 if len(ip) == 4 else self.neighbours6

    def confirm(self, now_ns: int, ip: bytes) -> None:
        """A neighbour is reachable: dst_confirm_neigh()."""
        self.neighbours(ip).confirm(now_ns, ip)

    def is_local4(self, ip: bytes) -> bool:
        """Packets for it end here."""
        return self.upper.is_local(ip)

    def _ask4(self, now_ns: int, ip: bytes, hardware: bytes) -> None:
        sender = self.upper.source_towards(self, ip)
        if sender:
            request = arp.ArpPacket(arp.REQUEST, self.hardware, sender, bytes(6), ip)
            self.send_arp(request, hardware or ethernet.BROADCAST)

    def _ask6(self, now_ns: int, ip: bytes, hardware: bytes) -> None:
        self.upper.solicit6(now_ns, self, ip, hardware)

    # --- time

    def timer(self) -> int | None:
        """When `timeout` is to be called."""
        return earlier(self.neighbours4.timer(), self.neighbours6.timer())

    def timeout(self, now_ns: int) -> None:
        """What is due."""
        self.neighbours4.timeout(now_ns)
        self.neighbours6.timeout(now_ns)


class PointLink(Link):
    """Packets without a link header, to whoever is at the other end."""

    def _received(self, now_ns: int, data: bytes) -> None:
        about = vnet.parse(data)
        if about is None or len(data) == vnet.SIZE:
            return
        self.seen(data, False)
        version = data[vnet.SIZE] >> 4
        if version in VERSIONS:
            known = FromLink(
                version == VERSIONS[0], True, about.checksum_is_good, about.segment_size, b"",
                data[: vnet.SIZE],
            )  # fmt: skip
            self.upper.arrived(now_ns, self, memoryview(data)[vnet.SIZE :], known)

    def send(self, now_ns: int, next_hop: bytes, packet: LinkPacket) -> None:
        """Off it goes."""
        head = vnet.build(
            packet.offload, 0, packet.protocol, is_v4=packet.is_v4, header_size=packet.header_size
        )
        self._put(b"".join((head, *packet.pieces)))
