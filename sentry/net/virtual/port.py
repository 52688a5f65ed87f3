"""`Port`: an interface as a port of a bridge. net/bridge/br_if.c, br_netlink.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.errors import EINVAL, EOPNOTSUPP, ERANGE
from sentry.net.link import ethernet, vnet
from sentry.net.netlink.message import attribute, u8, u32

if TYPE_CHECKING:
    from sentry.net.made import Made
    from sentry.net.virtual.bridge import Bridge

DISABLED, FORWARDING = 0, 3
"""BR_STATE_*. Without STP a port has no other."""
MAX_COST: Final = 65535
MAX_PRIORITY: Final = 63
SWITCHES: Final = {
    abi.IFLA_BRPORT_MODE: 0, abi.IFLA_BRPORT_GUARD: 0, abi.IFLA_BRPORT_PROTECT: 0,
    abi.IFLA_BRPORT_FAST_LEAVE: 0, abi.IFLA_BRPORT_LEARNING: 1, abi.IFLA_BRPORT_UNICAST_FLOOD: 1,
    abi.IFLA_BRPORT_MCAST_FLOOD: 1, abi.IFLA_BRPORT_BCAST_FLOOD: 1, abi.IFLA_BRPORT_ISOLATED: 0,
}  # fmt: skip
"""On and off, and which it is at first. MODE is hairpin."""


class Port:
    """One of them: an `Upper`."""

    kind = "bridge"

    def __init__(self, bridge: Bridge, made: Made, number: int) -> None:
        self.bridge = bridge
        self.made = made
        self.number = number
        self.is_on = dict(SWITCHES)
        self.cost, self.priority = 2, 32

    @property
    def index(self) -> int:
        """Of the bridge."""
        return self.bridge.interface.index

    @property
    def is_open(self) -> bool:
        """Frames come and go: both interfaces are up, and somebody is at the other end."""
        own = self.made.interface
        return own.is_up and own.has_carrier and self.bridge.interface.is_up

    # --- frames

    def came(self, *frames: bytes) -> None:
        """To the bridge."""
        seen = self.made.link.seen
        for each in frames:
            seen(each, False)
        self.bridge.came(self, frames)

    def send(self, frame: bytes) -> None:
        """Out by the interface, if it is no larger than may be: is_skb_forwardable()."""
        interface = self.made.interface
        most = interface.mtu + ethernet.HEADER_SIZE + ethernet.TAG_SIZE
        if len(frame) - vnet.SIZE > most and not frame[1]:
            interface.dropped += 1
            return
        self.made.link.pass_on(frame)

    # --- what becomes of the interface

    def changed(self) -> None:
        """Up or down, another address."""
        self.bridge.port_changed(self)

    def left(self) -> None:
        """It is none any more."""
        self.bridge.release(self)

    # --- what is told and set

    def details(self) -> bytes:
        """br_port_fill_attrs()."""
        state = FORWARDING if self.is_open else DISABLED
        told = u8(abi.IFLA_BRPORT_STATE, state)
        told += attribute(abi.IFLA_BRPORT_PRIORITY, struct.pack("<H", self.priority))
        told += u32(abi.IFLA_BRPORT_COST, self.cost)
        told += attribute(abi.IFLA_BRPORT_NO, struct.pack("<H", self.number))
        return told + b"".join(u8(kind, is_on) for kind, is_on in self.is_on.items())

    def configure(self, attributes: dict[int, bytes]) -> None:
        """br_setport(). Raises: EINVAL, ERANGE, and EOPNOTSUPP for states of STP."""
        for kind in SWITCHES.keys() & attributes.keys():
            if not attributes[kind]:
                raise EINVAL("attribute is too short")
            self.is_on[kind] = int(attributes[kind][0] != 0)
        if abi.IFLA_BRPORT_COST in attributes:
            (cost,) = struct.unpack("<I", attributes[abi.IFLA_BRPORT_COST].ljust(4, b"\0")[:4])
            if not 0 < cost <= MAX_COST:
                raise ERANGE("cost")
            self.cost = cost
        if abi.IFLA_BRPORT_PRIORITY in attributes:
            (priority,) = struct.unpack(
                "<H", attributes[abi.IFLA_BRPORT_PRIORITY].ljust(2, b"\0")[:2]
            )
            if priority > MAX_PRIORITY:
                raise ERANGE("priority")
            self.priority = priority
        state = attributes.get(abi.IFLA_BRPORT_STATE)
        if state is not None and state[:1] != bytes([FORWARDING]):
            raise EOPNOTSUPP("STP is off")
