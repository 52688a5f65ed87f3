"""AF_PACKET: packets of the loopback with their link header. packet(7), net/packet/af_packet.c.

What UDP, ICMP and raw sockets send is seen; TCP has no packets here. Rings are in `packet_ring.py`
and `packet_blocks.py`, what several hear as one in `packet_fanout.py`.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from msgspec.structs import replace

from sentry.abi.poll import (
    EPOLLERR,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDNORM,
    EPOLLWRBAND,
    EPOLLWRNORM,
)
from sentry.abi.socket import (
    AF_PACKET,
    ETH_ALEN,
    ETH_P_8021Q,
    ETH_P_ALL,
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_PEEK,
    MSG_TRUNC,
    PACKET_AUXDATA,
    PACKET_FANOUT_FLAG_IGNORE_OUTGOING,
    PACKET_IGNORE_OUTGOING,
    PACKET_LOSS,
    PACKET_OUTGOING,
    PACKET_RESERVE,
    PACKET_TX_HAS_OFF,
    PACKET_VERSION,
    SO_RXQ_OVFL,
    SOCK_DGRAM,
    SOCK_PACKET,
    SOL_SOCKET,
)
from sentry.errors import (
    EAGAIN,
    EBUSY,
    EFAULT,
    EINVAL,
    EMSGSIZE,
    ENETDOWN,
    ENODEV,
    ENOMEM,
    ENOTCONN,
    ENXIO,
    EOPNOTSUPP,
    Errno,
)
from sentry.net import packet_fanout, packet_options, packet_ring
from sentry.net.frame import transmit
from sentry.net.interfaces import LOOPBACK_MTU
from sentry.net.ioctls import SOCKETS
from sentry.net.link.ethernet import TAG_SIZE
from sentry.net.message import Ancillary, Received
from sentry.net.packet_blocks import BlockRing
from sentry.net.packet_ring import FrameRing, SendRing, Shape, Shown
from sentry.net.packets import ETH_HEADER, Frame
from sentry.net.socket import Socket
from sentry.net.socket_options import U32
from sentry.net.stamps import note, stamps
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.requests import Requests, put_int
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller, Dest, Result, Source
    from sentry.vfs.location import Location

OVERHEAD: Final = 767
"""What a packet costs of the receive buffer beside its bytes."""
ADDRESS: Final = struct.Struct("<HHiHBB8s")
"""struct sockaddr_ll; the protocol is in network order."""
ADDRESS_SHORT: Final = 12
OLD_ADDRESS: Final = struct.Struct("<H14sH")
"""struct sockaddr_pkt."""
SOCKADDR_SIZE: Final = 16
VLAN: Final = ETH_P_8021Q.to_bytes(2)
"""A frame with a tag may be so much longer: packet_extra_vlan_len_allowed()."""
RECEIVE_FLAGS: Final = MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_ERRQUEUE


def swapped(number: int) -> int:
    """htons()."""
    return int.from_bytes(struct.pack(">H", number & 0xFFFF), "little")


REQUESTS: Final = Requests(SOCKETS)
REQUESTS.row("FIONREAD", put_int(lambda sock: sock.next_size()))
REQUESTS.row("TIOCOUTQ", put_int(lambda sock: 0))


class PacketSocket(Socket):
    """A packet socket: raw, cooked (SOCK_DGRAM), or of the old kind (SOCK_PACKET)."""

    __slots__ = (
        "_charged", "_ethertype", "_index", "_memory", "_receives", "_sends", "_timer", "counts",
        "drops", "fanout", "frames", "values",
    )  # fmt: skip
    options_known: ClassVar = packet_options.PACKET
    requests: ClassVar = REQUESTS
    fixed_size: ClassVar = True
    """mremap(2) does not make a mapping larger."""

    def __init__(self, location: Location, kind: int, protocol: int, stack: Stack) -> None:
        super().__init__(location, AF_PACKET, kind, 0, stack)
        self._ethertype = swapped(protocol)
        self._index = 0
        self._charged = 0
        self.values = dict(packet_options.DEFAULTS)
        self.counts = [0, 0]
        """PACKET_STATISTICS: packets, and those of them that were dropped."""
        self.drops = 0
        """All that were, for want of room."""
        self.frames: deque[Frame] = deque()
        self._memory: Any = None
        """Of both rings, which one mapping shows: a `RamFile`."""
        self._receives: FrameRing | BlockRing | None = None
        self._sends: SendRing | None = None
        self._timer: Any = None
        """A block is to be handed over."""
        self.fanout: packet_fanout.Fanout | None = None

    def opened(self) -> None:
        """It sees everything from now on."""
        super().opened()
        self.stack.taps[self] = None

    def next_size(self) -> int:
        """FIONREAD."""
        return len(self._seen(self.frames[0])) if self.frames else 0

    # --- addresses

    def bind(self, caller: Caller, address: bytes) -> Result:
        """bind(2): of which interface, which protocol. Raises: EINVAL, ENODEV."""
        if self.fanout is not None:
            raise EINVAL("a member of a fan-out")
        if self.kind == SOCK_PACKET:
            if len(address) != SOCKADDR_SIZE:
                raise EINVAL("struct sockaddr")
            name = address[2:16].split(b"\0", 1)[0].decode(errors="replace")
            self._index = self.stack.interfaces.by_name(name).index
            return 0
        if len(address) < ADDRESS.size:
            raise EINVAL("struct sockaddr_ll")
        family, protocol, index, *_ = ADDRESS.unpack_from(address)
        if family != AF_PACKET:
            raise EINVAL("address family")
        if index and not self.stack.interfaces.by_index(index).is_up:
            self.so_error = ENETDOWN.number
            self.queue.notify(EPOLLERR)
        self._index = index
        self._ethertype = swapped(protocol) or self._ethertype
        return 0

    def local_address(self) -> bytes:
        """getsockname(2)."""
        link = self._link(self._index) if self._index else None
        kind, size = (link.kind, len(link.hardware)) if link is not None else (0, 0)
        mac = link.hardware.ljust(8, b"\0") if link is not None else bytes(8)
        whole = ADDRESS.pack(AF_PACKET, swapped(self._ethertype), self._index, kind, 0, size, mac)
        return whole[: ADDRESS_SHORT + size]

    def peer_address(self) -> bytes:
        """getpeername(2)."""
        raise EOPNOTSUPP("no peer")

    def _link(self, index: int) -> Interface | None:
        try:
            return self.stack.interfaces.by_index(index)
        except ENODEV:
            return None

    def shown(self) -> tuple[int, int, int]:
        """For /proc/net/packet: ethertype, interface, bytes that wait."""
        return self._ethertype, self._index, self._charged

    # --- sending

    def target(self, caller: Caller, address: bytes) -> Any:
        """Where sendto leads: (ethertype, interface, address of the link)."""
        if self.kind == SOCK_PACKET:
            if len(address) < SOCKADDR_SIZE:
                raise EINVAL("struct sockaddr_pkt")
            _, raw, protocol = OLD_ADDRESS.unpack(address[:18].ljust(18, b"\0"))
            name = raw.split(b"\0", 1)[0].decode(errors="replace")
            return swapped(protocol), self.stack.interfaces.by_name(name).index, b""
        if len(address) < ADDRESS.size:
            raise EINVAL("struct sockaddr_ll")
        _, protocol, index, _, _, size, mac = ADDRESS.unpack_from(address)
        if len(address) < ADDRESS_SHORT + size:
            raise EINVAL("sll_halen")
        return swapped(protocol), index, mac[:ETH_ALEN] if size else b""

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2): packet_snd()."""
        if target is None and self.kind == SOCK_PACKET:
            raise ENOTCONN("no address")
        ethertype, index, mac = target or (self._ethertype, self._index, b"")
        self.take_error()
        link = self._way_out(index)
        if source.count > self._most(link) + TAG_SIZE:
            raise EMSGSIZE(f"{source.count} bytes")
        return self._transmit(caller, link, (ethertype, mac), bytes(source.get(source.count)))

    def _way_out(self, index: int) -> Interface:
        """Raises: ENXIO, ENETDOWN."""
        link = self._link(index)
        if link is None:
            raise ENXIO("no such interface")
        if not link.is_up:
            raise ENETDOWN(link.name)
        return link

    def _most(self, link: Interface) -> int:
        """Bytes of what can be sent, without a VLAN tag."""
        header = ETH_HEADER if link.hardware and self.kind != SOCK_DGRAM else 0
        return min(link.mtu, LOOPBACK_MTU) + header

    def _transmit(
        self, caller: Caller, link: Interface, target: tuple[int, bytes], data: bytes
    ) -> int:
        """One goes; how many bytes. Raises: EMSGSIZE, EINVAL, and what egress says."""
        (ethertype, mac), size = target, len(data)
        cooked = self.kind == SOCK_DGRAM
        header = ETH_HEADER if link.hardware else 0
        if size > self._most(link) and (cooked or not header or data[12:14] != VLAN):
            raise EMSGSIZE(f"{size} bytes")
        if not cooked and size < header:
            raise EINVAL("no link header")
        if cooked and header:
            own = bytes(ETH_ALEN) if link.is_loopback else link.hardware
            data = mac.ljust(ETH_ALEN, b"\0") + own + struct.pack(">H", ethertype) + data
        if link.is_loopback:
            transmit(self.stack, data, ethertype, self)
        elif self.stack.ip is not None and link.index in self.stack.ip.links:
            from sentry.net.ip.output import send_frame  # noqa: PLC0415  few have links

            send_frame(self.stack.ip, time.monotonic_ns(), link.index, data, caller)
            self.count_sent(caller, size)
        return size

    def send_message(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> Any:
        """sendmsg(2), till all who are to hear of it have."""
        if self._sends is not None:
            return self._sending(caller, self._sends, target)
        result = super().send_message(caller, source, target, flags, ancillary)
        return self.stack.fan_out.awaited(self, caller, result)

    async def _sending(self, caller: Caller, ring: SendRing, target: Any) -> int:
        """All that lies in the ring to be sent, each when the one before has come and is paid for:
        tpacket_snd()."""
        ethertype, index, mac = target or (self._ethertype, self._index, b"")
        self.take_error()
        link, total, pace = self._way_out(index), 0, Pace()
        for _ in range(ring.shape.frames):
            try:
                has_offset = bool(self.values[PACKET_TX_HAS_OFF])
                data = ring.take(self._most(link) + TAG_SIZE, has_offset=has_offset)
                if data is None:
                    break
                total += self._transmit(caller, link, (ethertype, mac), data)
            except Errno:
                if self._sends is ring and not self.values[PACKET_LOSS]:
                    ring.is_wrong()
                    raise
            ring.went()
            rest = self.stack.fan_out.awaited(self, caller, None)
            if rest is not None:
                await rest
            await pace.rest()
            if self._sends is not ring:
                break
        return total

    # --- receiving

    def hear(self, frame: Frame) -> None:
        """A packet goes out, or comes in."""
        if self._ethertype != ETH_P_ALL and (
            frame.kind == PACKET_OUTGOING or self._ethertype != frame.ethertype
        ):
            return
        if self._index not in (0, frame.index):
            return
        if frame.goes_up and self._ethertype != ETH_P_ALL and not self._index:
            return
        if frame.kind == PACKET_OUTGOING and self.values[PACKET_IGNORE_OUTGOING]:
            return
        if self.fanout is not None and not self._is_chosen(self.fanout, frame):
            return
        if self.filter is not None:
            start = frame.header if self.kind == SOCK_DGRAM else 0
            keep = self.filter.run(frame.seen_from(start))
            if not keep:
                return
            frame = frame.cut(keep + start)
        self.counts[0] += 1
        if self._receives is not None:
            self._put(self._receives, frame)
            return
        size = len(frame.data) + OVERHEAD
        if self._charged and self._charged + size > self.rcvbuf:
            self.counts[1] += 1
            self.drops += 1
            return
        if self.drops and SO_RXQ_OVFL in self.options:
            frame = replace(frame, dropped=self.drops & U32)
        self._charged += size
        self.frames.append(frame)
        self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def _is_chosen(self, group: packet_fanout.Fanout, frame: Frame) -> bool:
        ignores = group.flags & PACKET_FANOUT_FLAG_IGNORE_OUTGOING
        if ignores and frame.kind == PACKET_OUTGOING:
            return False
        return group.chosen(frame) is self

    @property
    def hears(self) -> tuple[int, int]:
        """Ethertype, 0: none; and interface, 0: all."""
        return self._ethertype, self._index

    @property
    def has_room(self) -> bool:
        """A packet would not be lost, as far as that is known before."""
        return self._receives is not None or self._charged < self.rcvbuf // 2

    # --- rings

    def set_ring(self, value: bytes, *, sends: bool) -> None:
        """PACKET_RX_RING, PACKET_TX_RING: packet_set_ring(). Raises: EBUSY, EINVAL, ENOMEM."""
        version, vfs = self.values[PACKET_VERSION], self.stack.kernel.vfs
        asked = packet_ring.parse(value, version)
        if self.is_mapped:
            raise EBUSY("it is mapped")
        rings = [None if ring is None else ring.shape for ring in (self._receives, self._sends)]
        shape = None
        if asked[1]:
            if rings[sends] is not None:
                raise EBUSY("there is one")
            is_cooked = self.kind == SOCK_DGRAM
            shape = Shape(version, self.values[PACKET_RESERVE], is_cooked, *asked)
            packet_ring.check(shape, vfs.memory_pages * PAGE_SIZE, sends=sends)
        elif asked[3]:
            raise EINVAL("tp_frame_nr")
        rings[sends] = shape
        self._make_rings(*rings)

    def _make_rings(self, receives: Shape | None, sends: Shape | None) -> None:
        """One behind the other, empty."""
        if self._memory is not None:
            self._memory.close()
        self._stop_timer()
        self._memory = self._receives = self._sends = None
        if receives is None and sends is None:
            return
        start = 0 if receives is None else receives.size
        memory = self._memory = self.stack.kernel.vfs.ram_file()
        memory.truncate(start + (0 if sends is None else sends.size))
        if receives is not None:
            kind = BlockRing if receives.version == packet_ring.V3 else FrameRing
            self._receives = kind(memory, receives)
            self._charged = 0
            self.frames.clear()
        if sends is not None:
            self._sends = SendRing(memory, start, sends)

    @property
    def has_rings(self) -> bool:
        """There is memory to be mapped."""
        return self._memory is not None

    @property
    def is_mapped(self) -> bool:
        """By somebody."""
        return self._memory is not None and bool(self._memory.mappers)

    def check_mapping(self, offset: int, length: int) -> None:
        """All of it at once: packet_mmap(). Raises: EINVAL."""
        size = -(-length // PAGE_SIZE) * PAGE_SIZE
        if self._memory is None or offset or size != self._memory.size:
            raise EINVAL("not as large as the rings")

    def mmap_backing(self, writable_shared: bool) -> Any:
        """The rings."""
        return self._memory

    def take_freezes(self) -> int:
        """PACKET_STATISTICS: how often no block was free, since this was asked last."""
        if self._receives is None:
            return 0
        told, self._receives.freezes = self._receives.freezes, 0
        return told

    def _put(self, ring: FrameRing | BlockRing, frame: Frame) -> None:
        cooked = self.kind == SOCK_DGRAM
        shown = Shown(
            self._seen(frame), frame.size - (frame.header if cooked else 0),
            0 if cooked else frame.header, self._address_of(frame), frame.stamp_ns,
            frame.tag or (0, 0),
        )  # fmt: skip
        try:
            taken = ring.put(shown, is_losing=self.counts[1] > 0)
        except ENOMEM:
            taken = False
        self.counts[1] += not taken
        if ring.is_ready:
            self.queue.notify(EPOLLIN | EPOLLRDNORM)
        if ring.waits and self._timer is None:
            loop = self.stack.kernel.loop
            due_ns = loop.now_ns() + ring.timeout_ms * packet_ring.MS
            self._timer = loop.call_at(due_ns, self._hand_over)

    def _hand_over(self) -> None:
        self._timer = None
        if self._receives is not None:
            try:
                self._receives.hand_over(is_losing=self.counts[1] > 0)
            except ENOMEM:
                return
            self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _seen(self, frame: Frame) -> bytes:
        return frame.data[frame.header :] if self.kind == SOCK_DGRAM else frame.data

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if flags & ~RECEIVE_FLAGS:
            raise EINVAL("flags")
        self.take_error()
        if not self.frames:
            raise EAGAIN("nothing there")
        frame = self.frames[0]
        data = self._seen(frame)
        taken = min(len(data), dest.count)
        try:
            dest.put(data[:taken])
        except EFAULT:  # it is lost, as in Linux
            self._take(frame, flags)
            raise
        self._take(frame, flags)
        records = stamps(self, frame.stamp_ns)
        if frame.dropped:
            records.append((SOL_SOCKET, SO_RXQ_OVFL, struct.pack("<I", frame.dropped)))
        if self.values[PACKET_AUXDATA]:
            network = 0 if self.kind == SOCK_DGRAM else frame.header
            records.append(packet_options.auxiliary(frame.size, len(data), network, frame.tag))
        return Received(
            len(data) if flags & MSG_TRUNC else taken,
            self._sender(frame),
            MSG_TRUNC if taken < len(data) else 0,
            Ancillary(records=records) if records else None,
        )

    def _take(self, frame: Frame, flags: int) -> None:
        if not flags & MSG_PEEK:
            self.frames.popleft()
            self._charged -= len(frame.data) + OVERHEAD
            note(self, frame.stamp_ns)

    def _sender(self, frame: Frame) -> bytes:
        link = self._link(frame.index)
        hardware = link.kind if link is not None else 0
        if self.kind == SOCK_PACKET:
            name = link.name.encode() if link is not None else b""
            return OLD_ADDRESS.pack(hardware, name, swapped(frame.ethertype))
        return self._address_of(frame)

    def _address_of(self, frame: Frame) -> bytes:
        """struct sockaddr_ll."""
        link = self._link(frame.index)
        hardware = link.kind if link is not None else 0
        protocol = swapped(frame.ethertype)
        mac = frame.data[ETH_ALEN : 2 * ETH_ALEN] if frame.header else b""
        return ADDRESS.pack(AF_PACKET, protocol, frame.index, hardware, frame.kind, len(mac), mac)

    # --- the rest

    def shutdown(self, how: int) -> None:
        """sock_no_shutdown()."""
        raise EOPNOTSUPP("shutdown")

    def release(self) -> None:
        """The last descriptor is closed."""
        super().release()
        self.stack.taps.pop(self, None)
        packet_fanout.leave(self.stack.fanouts, self)
        self._make_rings(None, None)
        self.frames.clear()
        self.queue.notify()

    def poll(self) -> int:
        """datagram_poll()."""
        events = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND
        if self.so_error:
            events |= EPOLLERR
        has_some = bool(self.frames) or (self._receives is not None and self._receives.is_ready)
        return events | EPOLLIN | EPOLLRDNORM if has_some else events
