"""VLANs: what stands with a tag on another interface. net/8021q/vlan_dev.c, vlan_core.c, vlan.c.

A tag stands in the frame's bytes, also where Linux keeps it beside them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.socket import ETH_P_8021Q
from sentry.errors import (
    EEXIST,
    EINVAL,
    ENETDOWN,
    ENOBUFS,
    EOPNOTSUPP,
    EPERM,
    EPROTONOSUPPORT,
    ERANGE,
)
from sentry.net.link import ethernet, vnet
from sentry.net.link.link import EthernetLink
from sentry.net.link.tags import tagged, untagged
from sentry.net.made import Made
from sentry.net.netlink.message import attribute
from sentry.net.netlink.notices import OPER_UP, change_flags, set_mtu
from sentry.net.virtual.nesting import check_nesting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.net.interfaces import Interface
    from sentry.net.link.link import Link
    from sentry.net.stack import Stack

MAX_VLANS: Final = 128
"""On one interface, with those that stand on these: a ceiling of ours, for they go up and down with
it in one step."""
MAX_NUMBER: Final = 0xFFF
"""VLAN_VID_MASK: the last one is nobody's."""
KNOWN_FLAGS: Final = (
    abi.VLAN_FLAG_REORDER_HDR | abi.VLAN_FLAG_GVRP | abi.VLAN_FLAG_LOOSE_BINDING
    | abi.VLAN_FLAG_MVRP | abi.VLAN_FLAG_BRIDGE_BINDING
)  # fmt: skip
FLAGS: Final = abi.VLAN_FLAG_REORDER_HDR | abi.VLAN_FLAG_LOOSE_BINDING
"""Those that there are here, of which the first one is always on."""
NOT_INHERITED: Final = (
    abi.IFF_UP | abi.IFF_RUNNING | abi.IFF_LOWER_UP | abi.IFF_PROMISC | abi.IFF_ALLMULTI
)
NET_ADDR_STOLEN, NET_ADDR_SET = 2, 3
"""/sys/class/net/*/addr_assign_type: include/uapi/linux/netdevice.h."""


class Vlan(Made):
    """One of them, and the `Sink` of its link."""

    kind = "vlan"
    oper_state = OPER_UP

    def __init__(
        self, stack: Stack, interface: Interface, lower: Made, key: tuple[int, int], flags: int
    ) -> None:
        """`key`: TPID and number. Preconditions: `lower` has no such VLAN.

        Raises: what `check_place` raises.
        """
        self.lower = lower
        self.key = key
        self.vlan_flags = flags
        self.groups = 0
        """Frames for groups that have come."""
        self._tag = struct.pack(">HH", *key)
        self._hardware = interface.hardware
        """The one that was known last."""
        self._inherits = interface.hardware == lower.interface.hardware
        self.stays_inside = lower.stays_inside
        interface.sent = [0, 0]
        super().__init__(stack, interface)
        lower.vlans[key] = self
        self.set_carrier(lower.interface.has_carrier)

    def new_link(self) -> Link:
        """Its frames go below."""
        interface, link = self.interface, super().new_link()
        assert isinstance(link, EthernetLink)
        link.asks = not interface.flags & abi.IFF_NOARP
        link.sink = self
        return link

    def below(self) -> Iterator[Made]:
        """What it is a VLAN of."""
        yield self.lower

    # --- frames

    @property
    def has_room(self) -> bool:
        """More frames have not long to wait."""
        return self.lower.link.has_room

    def below_has_room(self) -> None:
        """Who waits goes on."""
        self._has_room()
        self.layer.on_deadline()

    def put(self, frame: bytes) -> None:
        """vlan_dev_hard_start_xmit()."""
        whole = tagged(frame, self._tag)
        if whole is None or not self.lower.interface.is_up:
            self.interface.dropped += 1
            return
        sent = self.interface.sent
        assert sent is not None
        sent[0] += 1
        sent[1] += len(frame) - vnet.SIZE
        self.lower.link.pass_on(whole)

    def came(self, *frames: bytes) -> None:
        """Frames with its tag, from below: vlan_do_receive()."""
        if not self.interface.is_up:
            return
        own = [made for each in frames if (made := untagged(each)) is not None]
        if not own:
            return
        counted = self.interface.received
        counted[0] += len(own)
        counted[1] += sum(map(len, own)) - (vnet.SIZE + ethernet.HEADER_SIZE) * len(own)
        self.groups += sum(each[vnet.SIZE] & 1 for each in own)
        self.received(*own)

    # --- what becomes of it, and of what is below

    @property
    def _is_loose(self) -> bool:
        return bool(self.vlan_flags & abi.VLAN_FLAG_LOOSE_BINDING)

    @property
    def is_below_down(self) -> bool:
        """What it is a VLAN of, where it is to be seen."""
        return self.lower.stack is self.stack and not self.lower.interface.has_carrier

    def opening(self) -> None:
        """vlan_dev_open(). Raises: ENETDOWN."""
        if not (self.lower.interface.is_up or self._is_loose):
            raise ENETDOWN(self.lower.interface.name)
        self._inherit()

    def below_turned(self) -> None:
        """It goes up and down with that, unless it is bound loosely: vlan_device_event()."""
        own, is_up = self.interface, self.lower.interface.is_up
        if not self._is_loose and own.is_up != is_up:
            change_flags(self.stack, own, abi.IFF_UP if is_up else 0, abi.IFF_UP)
        self.below_changed()

    def below_changed(self) -> None:
        """Its carrier, and where it is no longer possible MTU and hardware address, follow."""
        own, below = self.interface, self.lower.interface
        if own.mtu > below.mtu:
            set_mtu(self.stack, own, below.mtu)
        if own.is_up:
            self._inherit()
        self.set_carrier(below.has_carrier)

    def _inherit(self) -> None:
        """vlan_dev_inherit_address()."""
        below = self.lower.interface.hardware
        if self._inherits and self.interface.hardware != below:
            self.interface.hardware = self._hardware = below
            super().changed()
            self.tell()

    def changed(self) -> None:
        """A hardware address that a program has chosen stays."""
        if self.interface.hardware != self._hardware:
            self._hardware, self._inherits = self.interface.hardware, False
        super().changed()

    def check_mtu(self, mtu: int) -> None:
        """vlan_dev_change_mtu(). Raises: ERANGE."""
        if mtu > self.lower.interface.mtu:
            raise ERANGE(f"MTU {mtu}")

    def removed(self) -> None:
        """unregister_vlan_dev(). It may have gone with what is below."""
        if self.lower.vlans.get(self.key) is self:
            del self.lower.vlans[self.key]
            super().removed()

    # --- what is told and set

    def link_attributes(self) -> bytes:
        """What it is a VLAN of."""
        return self.stands_on(self.lower)

    def details(self) -> bytes:
        """vlan_fill_info()."""
        protocol, number = self.key
        told = attribute(abi.IFLA_VLAN_PROTOCOL, protocol.to_bytes(2))
        told += attribute(abi.IFLA_VLAN_ID, number.to_bytes(2, "little"))
        flags = abi.VLAN_FLAGS.pack(self.vlan_flags, 0xFFFFFFFF)
        return told + attribute(abi.IFLA_VLAN_FLAGS, flags)

    def attributes(self) -> dict[str, str]:
        """What it is a VLAN of, and whose hardware address it has."""
        origin = NET_ADDR_STOLEN if self._inherits else NET_ADDR_SET
        return {
            "addr_assign_type": str(origin),
            "iflink": str(self.lower.interface.index),
        }

    def configure(self, attributes: dict[int, bytes]) -> None:
        """vlan_changelink(): its flags; its number stays. Raises: what `wanted_flags` raises."""
        key_of(attributes)
        self.vlan_flags = wanted_flags(attributes, self.vlan_flags)


def check_below(lower: Made, key: tuple[int, int]) -> None:
    """There may be one more of an interface: vlan_check_real_dev(), register_vlan_dev().

    Raises: EINVAL, EEXIST, EMLINK, ENOBUFS, and EPERM where what leaves by that is judged.
    """
    if lower.stack.egress is not None and not lower.stays_inside:
        raise EPERM("there is an egress policy")
    if lower.interface.kind != abi.ARPHRD_ETHER:
        raise EINVAL("no Ethernet")
    if key in lower.vlans:
        raise EEXIST(f"VLAN {key[1]}")
    check_nesting(lower, None)
    lowest = lower
    while isinstance(lowest, Vlan):
        lowest = lowest.lower
    if sum(1 for _ in _vlans_of(lowest)) >= MAX_VLANS:
        raise ENOBUFS("too many VLANs")


def _vlans_of(made: Made) -> Iterator[Vlan]:
    for each in made.vlans.values():
        yield each
        yield from _vlans_of(each)


def key_of(attributes: dict[int, bytes]) -> tuple[int, int]:
    """TPID and number, -1 if there is none: vlan_validate(). Raises: EPROTONOSUPPORT, ERANGE."""
    protocol, number = ETH_P_8021Q, -1
    if abi.IFLA_VLAN_PROTOCOL in attributes:
        protocol = int.from_bytes(attributes[abi.IFLA_VLAN_PROTOCOL][:2])
        if protocol not in ethernet.VLAN_TAGS:
            raise EPROTONOSUPPORT(f"TPID {protocol:#x}")
    if abi.IFLA_VLAN_ID in attributes:
        value = attributes[abi.IFLA_VLAN_ID]
        number = int.from_bytes(value[:2], "little")
        if len(value) < 2 or number >= MAX_NUMBER:
            raise ERANGE(f"VLAN {number}")
    return protocol, number


def wanted_flags(attributes: dict[int, bytes], before: int) -> int:
    """IFLA_VLAN_FLAGS, and what else changes it. Raises: ERANGE, EINVAL, and EOPNOTSUPP for what
    there is not: priorities, GVRP and MVRP, a carrier that is that of some ports of a bridge, and
    packet sockets that see tags in a VLAN."""
    if attributes.keys() & {abi.IFLA_VLAN_EGRESS_QOS, abi.IFLA_VLAN_INGRESS_QOS}:
        raise EOPNOTSUPP("packets have no priorities")
    value = attributes.get(abi.IFLA_VLAN_FLAGS)
    if value is None:
        return before
    if len(value) < abi.VLAN_FLAGS.size:
        raise ERANGE("struct ifla_vlan_flags")
    wanted = abi.VLAN_FLAGS.unpack(value)
    if wanted.mask & ~KNOWN_FLAGS:
        raise EINVAL("flags of VLANs")
    made: int = before & ~wanted.mask | wanted.flags & wanted.mask
    if made & ~FLAGS or not made & abi.VLAN_FLAG_REORDER_HDR:
        raise EOPNOTSUPP(f"flags {made:#x}")
    return made
