"""`Tun`: an interface whose frames programs read and write. drivers/net/tun.c, tun_struct."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.tun import (
    IFF_MULTI_QUEUE,
    IFF_NAPI,
    IFF_NAPI_FRAGS,
    IFF_NO_PI,
    IFF_ONE_QUEUE,
    IFF_PERSIST,
    IFF_TAP,
    IFF_TUN,
    IFF_VNET_HDR,
    TUN_F_CSUM,
    TUN_F_TSO4,
    TUN_F_TSO6,
    TUN_READQ_SIZE,
)
from sentry.abi.virtio import VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_TCPV4
from sentry.bpf.filter import Packet as FilteredPacket
from sentry.net.interfaces import Interface
from sentry.net.link import ethernet, vnet
from sentry.net.link.link import PointLink
from sentry.net.link.segments import finished
from sentry.net.made import Made
from sentry.net.netlink.message import u8, u32
from sentry.net.tun.flows import queue_of

if TYPE_CHECKING:
    from sentry.bpf.filter import PacketFilter
    from sentry.net.link.link import Link
    from sentry.net.stack import Stack
    from sentry.net.tun.address_filter import AddressFilter
    from sentry.net.tun.device import TunDevice

FEATURES: Final = (
    IFF_NO_PI | IFF_ONE_QUEUE | IFF_VNET_HDR | IFF_MULTI_QUEUE | IFF_NAPI | IFF_NAPI_FRAGS
)
SHOWN: Final = FEATURES | IFF_PERSIST | IFF_TUN | IFF_TAP
MAX_QUEUES: Final = 256
NOBODY: Final = -1
MAX_MTU: Final = 65535
MTU: Final = 1500
ETHERNET_QUEUE: Final = 1000
NO_LIMIT: Final = 0x7FFFFFFF
POINT_FLAGS: Final = abi.IFF_POINTOPOINT | abi.IFF_NOARP | abi.IFF_MULTICAST
ETHERNET_FLAGS: Final = abi.IFF_BROADCAST | abi.IFF_MULTICAST


def new_interface(index: int, name: str, flags: int) -> Interface:
    """As tun_net_initialize() makes it: down, without addresses."""
    if flags & IFF_TUN:
        made = Interface(index, name, abi.ARPHRD_NONE, POINT_FLAGS, MTU, b"", b"", TUN_READQ_SIZE)
        made.mtu_max = MAX_MTU
    else:
        chance = os.urandom(ethernet.ADDRESS_SIZE)
        hardware = bytes([chance[0] & 0xFC | 2]) + chance[1:]
        made = Interface(
            index, name, abi.ARPHRD_ETHER, ETHERNET_FLAGS, MTU, hardware, ethernet.BROADCAST,
            ETHERNET_QUEUE,
        )  # fmt: skip
        made.mtu_max = MAX_MTU - ethernet.HEADER_SIZE
    made.sent = [0, 0]
    return made


class Tun(Made):
    """One of them, and the `Sink` of its link."""

    kind = "tun"
    stays_inside = True

    def __init__(self, stack: Stack, interface: Interface, flags: int) -> None:
        """Raises: what `check_place` raises."""
        self.is_tap = bool(flags & IFF_TAP)
        self.flags = flags
        self.owner = self.group = NOBODY
        """Who may attach to it without CAP_NET_ADMIN."""
        self.queues: list[TunDevice] = []
        self.disabled: dict[TunDevice, None] = {}
        """IFF_DETACH_QUEUE: they do not read for now."""
        self.header_size = vnet.SIZE
        """Of a virtio header, with what stands behind it."""
        self.is_little_endian = False
        self.offloads = 0
        """TUN_F_*."""
        self.sndbuf = NO_LIMIT
        self.addresses: AddressFilter | None = None
        self.filter: PacketFilter | None = None
        self.is_gone = False
        super().__init__(stack, interface)

    def new_link(self) -> Link:
        """Frames, or packets without a link header; who serves them takes them."""
        index, hardware = self.interface.index, self.interface.hardware
        link = super().new_link() if self.is_tap else PointLink(index, hardware, self.layer)
        link.sink = self
        return link

    def _link_size(self, frame: bytes) -> int:
        """Bytes before the header of IP."""
        return ethernet.link_size(frame, vnet.SIZE) if self.is_tap else 0

    @property
    def shown_flags(self) -> int:
        """TUNGETIFF, and tun_flags in /sys."""
        return self.flags & SHOWN

    # --- what others send

    @property
    def has_room(self) -> bool:
        """More frames have not long to wait."""
        return all(queue.has_room for queue in self.queues)

    def put(self, frame: bytes) -> None:
        """A frame for a queue: tun_net_xmit()."""
        if not self.queues or not self._is_wanted(frame):
            self.interface.dropped += 1
            return
        link_size = self._link_size(frame)
        at = queue_of(frame, link_size, len(self.queues)) if len(self.queues) > 1 else 0
        queue = self.queues[at]
        if self._is_left(frame):
            self._queued(queue, frame)
            return
        for each in finished(frame, link_size, cuts=not self._cuts(frame)):
            self._queued(queue, each)

    def _queued(self, queue: TunDevice, frame: bytes) -> None:
        interface = self.interface
        if not queue.queued(frame, interface.queue_length):
            interface.dropped += 1
            return
        assert interface.sent is not None
        interface.sent[0] += 1
        interface.sent[1] += len(frame) - vnet.SIZE

    def _is_left(self, frame: bytes) -> bool:
        """Whoever reads it does what is left to do."""
        if not self.offloads & TUN_F_CSUM:
            return False
        return not frame[1] or self._cuts(frame)

    def _cuts(self, frame: bytes) -> bool:
        """Whoever reads it makes segments of it."""
        is_v4 = frame[1] & ~VIRTIO_NET_HDR_GSO_ECN == VIRTIO_NET_HDR_GSO_TCPV4
        return bool(self.offloads & (TUN_F_TSO4 if is_v4 else TUN_F_TSO6))

    def _is_wanted(self, frame: bytes) -> bool:
        """check_filter(), and that of TUNATTACHFILTER."""
        if not self.is_tap:
            return True
        target = frame[vnet.SIZE : vnet.SIZE + ethernet.ADDRESS_SIZE]
        if self.addresses is not None and not self.addresses.passes(target):
            return False
        if self.filter is None:
            return True
        seen = FilteredPacket(frame[vnet.SIZE :], 0, network=ethernet.HEADER_SIZE, link=0)
        kind = int.from_bytes(frame[vnet.SIZE + 12 : vnet.SIZE + 14])
        index = self.interface.index
        return bool(self.filter.run(seen.of(kind, 0, index, abi.ARPHRD_ETHER)))

    # --- what is written

    def written(self, frame: bytes) -> None:
        """It comes in. Preconditions: the interface is up."""
        counted = self.interface.received
        counted[0] += 1
        counted[1] += len(frame) - vnet.SIZE
        self.received(frame)

    # --- its end

    def detached(self) -> None:
        """Nobody has it any more, as a device is closed."""
        if self.queues or self.disabled or self.is_gone:
            return
        self.set_carrier(False)
        if not self.flags & IFF_PERSIST:
            self.removed()

    def turned(self) -> None:
        """Who waits for room hears of it."""
        super().turned()
        for queue in self.queues:
            queue.queue.notify()

    def removed(self) -> None:
        """Its devices are as new: tun_net_uninit()."""
        super().removed()
        self.is_gone = True
        for device in (*self.queues, *self.disabled):
            device.let_go_of()
        self.queues.clear()
        self.disabled.clear()

    # --- what is told of it

    def details(self) -> bytes:
        """tun_fill_info()."""
        made = u8(abi.IFLA_TUN_TYPE, IFF_TAP if self.is_tap else IFF_TUN)
        for kind, number in ((abi.IFLA_TUN_OWNER, self.owner), (abi.IFLA_TUN_GROUP, self.group)):
            made += u32(kind, number) if number != NOBODY else b""
        made += u8(abi.IFLA_TUN_PI, not self.flags & IFF_NO_PI)
        made += u8(abi.IFLA_TUN_VNET_HDR, bool(self.flags & IFF_VNET_HDR))
        made += u8(abi.IFLA_TUN_PERSIST, bool(self.flags & IFF_PERSIST))
        made += u8(abi.IFLA_TUN_MULTI_QUEUE, bool(self.flags & IFF_MULTI_QUEUE))
        if self.flags & IFF_MULTI_QUEUE:
            made += u32(abi.IFLA_TUN_NUM_QUEUES, len(self.queues))
            made += u32(abi.IFLA_TUN_NUM_DISABLED_QUEUES, len(self.disabled))
        return made

    def attributes(self) -> dict[str, str]:
        """tun_attrs of sysfs."""
        return {
            "tun_flags": f"{self.shown_flags:#x}",
            "owner": str(self.owner),
            "group": str(self.group),
        }
