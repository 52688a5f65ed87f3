"""Interfaces that programs make, and the IP layer that they are links of.

A stack has none before the first: what stays in the sandbox has no packets.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET6, IPPROTO_TCP
from sentry.errors import ENOBUFS, EOPNOTSUPP, EPERM
from sentry.net.frame import show_link_frame
from sentry.net.inet import leaving, tcp_link
from sentry.net.inet.address import plain
from sentry.net.inet.tcp_listener import TcpListener
from sentry.net.interfaces import Address
from sentry.net.ip.autoconf import interface_id
from sentry.net.ip.layer import IpLayer
from sentry.net.link import ethernet, vnet
from sentry.net.link.link import EthernetLink
from sentry.net.link.timing import Timing
from sentry.net.netlink.message import u32
from sentry.net.netlink.neighbours import learned
from sentry.net.netlink.notices import (
    OPER_UNKNOWN,
    change_flags,
    free_name,
    link_message,
    tell,
    tell_address,
)
from sentry.net.sysctls import has_ipv6_off, link_renamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.net.interfaces import Interface, Upper
    from sentry.net.link.link import Link
    from sentry.net.stack import Stack
    from sentry.net.virtual.vlan import Vlan

MAX_MADE: Final = 256
"""Of one stack: a ceiling of ours."""
FIRST_INDEX: Final = 1 << 20
"""Beside interfaces of the host, whose indexes are small."""
KERNEL_LL: Final = 3
"""IFAPROT_KERNEL_LL."""
EVERY_FLAG: Final = 0xFFFFFFFF
LINK_LOCAL: Final = b"\xfe\x80" + bytes(6)


def plug_in(stack: Stack) -> IpLayer:
    """The layer of a stack; from now on it has packets."""
    if stack.ip is not None:
        return stack.ip
    layer = stack.ip = IpLayer(stack.interfaces, stack.sysctls, os.urandom)
    leaving.plug(stack)
    tcp_link.plug(stack)
    for sock in stack.ports_of(IPPROTO_TCP).everybody():
        if isinstance(sock, TcpListener):
            sock.hear_links()
    Timing(layer, stack.kernel.loop)
    stack.outdate()
    return layer


def check_room(stack: Stack) -> None:
    """For one more interface. Raises: ENOBUFS."""
    if sum(each.driver is not None for each in stack.interfaces) >= MAX_MADE:
        raise ENOBUFS("too many interfaces")


def free_index(stack: Stack) -> int:
    """For a new interface."""
    return stack.interfaces.free_index(FIRST_INDEX if stack.view is not None else 0)


class Made:
    """What is behind such an interface, up to where its frames go: a `Driver`."""

    kind = ""
    oper_state = OPER_UNKNOWN
    stays_inside = False
    """Nobody but programs, and other namespaces of theirs, is at its other end."""

    def __init__(self, stack: Stack, interface: Interface) -> None:
        """Preconditions: its name and index are free. Raises: what `check_place` raises."""
        self.interface = interface
        self.upper: Upper | None = None
        self.vlans: dict[tuple[int, int], Vlan] = {}
        """Of it, by TPID and number."""
        interface.driver = self
        interface.ipv6_is_on = not has_ipv6_off(stack)
        self.check_place(stack)
        self._plug_into(stack)

    def check_place(self, stack: Stack) -> None:
        """It may be there. Raises: ENOBUFS, and EPERM where what leaves is judged and it is not
        certain that nothing leaves by it."""
        if stack.egress is not None and not self.stays_inside:
            raise EPERM("there is an egress policy")
        check_room(stack)

    def _plug_into(self, stack: Stack) -> None:
        self.stack = stack
        self.layer = plug_in(stack)
        link = self.link = self.new_link()
        link.stays_inside = self.stays_inside
        link.seen = partial(show_link_frame, stack, link)
        link.on_room = self._has_room
        if isinstance(link, EthernetLink):
            link.tell_changes(partial(learned, stack, link.index))
        stack.interfaces.insert(self.interface)

    def new_link(self) -> Link:
        """One for `layer`: frames of Ethernet."""
        interface, chance = self.interface, int.from_bytes(os.urandom(4))
        return EthernetLink(interface.index, interface.hardware, self.layer, chance)

    def _has_room(self) -> None:
        """Who waits for the link goes on."""
        self.layer.on_room(self.link.index)
        for each in list(self.vlans.values()):
            each.below_has_room()

    @property
    def is_below_down(self) -> bool:
        """What it stands on, in the same namespace, has no carrier either."""
        return False

    def opening(self) -> None:
        """It is to be up. Raises: ENETDOWN where what it stands on is down."""

    def turned(self) -> None:
        """Up, or down: the link is there, or not, and VLANs follow."""
        if self.upper is not None:
            self.upper.changed()
        if self.interface.is_up:
            self._plug_in_link()
        else:
            self.layer.links.pop(self.interface.index, None)
            self.layer.groups.link_went(self.interface.index)
        for each in list(self.vlans.values()):
            each.below_turned()

    def _plug_in_link(self) -> None:
        index, link = self.interface.index, self.link
        self.layer.links[index] = link
        joined = [plain(ip) for ip, where in self.stack.memberships if where == index]
        self.layer.groups.link_came(self.now_ns(), index, joined)
        if self.interface.ipv6_is_on and not self.interface.of_family(AF_INET6):
            self.interface.addresses.append(self._link_local())
        self.layer.on_deadline()

    def _link_local(self) -> Address:
        """addrconf_dev_config(), addrconf_ifid_ether(); where there is nothing to make it of it is
        by chance, and there is nobody else who could have it."""
        hardware = self.link.hardware
        if hardware:
            own, flags = interface_id(hardware), abi.IFA_F_PERMANENT
        else:
            own, flags = os.urandom(8), abi.IFA_F_PERMANENT | abi.IFA_F_STABLE_PRIVACY
        return Address(
            AF_INET6, LINK_LOCAL + own, 64, abi.RT_SCOPE_LINK, flags=flags, origin=KERNEL_LL
        )

    def changed(self) -> None:
        """Another MTU, another hardware address."""
        self.link.hardware = self.interface.hardware
        self.stack.outdate()
        self._tell_above()

    def check_mtu(self, mtu: int) -> None:
        """Raises: ERANGE where what it stands on has a smaller one."""

    def _tell_above(self) -> None:
        if self.upper is not None:
            self.upper.changed()
        self.tell_vlans()

    def tell_vlans(self) -> None:
        """Of another carrier, MTU or hardware address."""
        for each in list(self.vlans.values()):
            each.below_changed()

    def set_carrier(self, has_carrier: bool) -> None:
        """Somebody is at the other end, or nobody: netif_carrier_on(), netif_carrier_off()."""
        interface = self.interface
        if interface.has_carrier == has_carrier:
            return
        interface.has_carrier = has_carrier
        interface.set_flags(0, 0)
        self._tell_above()
        if interface.is_up:
            self.tell()

    def tell(self, kind: int = abi.RTM_NEWLINK, change: int = 0) -> None:
        """It is new, another, or gone."""
        tell(self.stack, abi.RTNLGRP_LINK, link_message(self.interface, kind, change))

    def removed(self) -> None:
        """unregister_netdevice(): what stands on it goes before it."""
        for each in list(self.vlans.values()):
            each.removed()
        self._unplug()
        self.interface.driver = None
        self.link.end()

    def _unplug(self) -> None:
        interface, stack = self.interface, self.stack
        if self.upper is not None:
            self.upper.left()
        change_flags(stack, interface, 0, abi.IFF_UP)
        addresses, interface.addresses = interface.addresses, []
        stack.routes.drop(interface.index)
        for own in addresses:
            tell_address(stack, interface, own, abi.RTM_DELADDR)
        stack.interfaces.remove(interface.index)
        link_renamed(stack, interface.name, None)
        stack.outdate()
        self.tell(abi.RTM_DELLINK, EVERY_FLAG)

    def moved(self, stack: Stack, wanted: bytes) -> None:
        """To another network namespace, with this name: dev_change_net_namespace().

        Raises: EEXIST, EINVAL, ENFILE, and what `check_place` raises.
        """
        name = free_name(wanted, {each.name for each in stack.interfaces})
        self.check_place(stack)
        self._unplug()
        self.link.end()
        interface = self.interface
        interface.name = name
        if stack.interfaces.get(interface.index) is not None:
            interface.index = free_index(stack)
        self._plug_into(stack)
        self.tell(change=EVERY_FLAG)

    def now_ns(self) -> int:
        """The clock of the stack."""
        now: int = self.stack.kernel.loop.now_ns()
        return now

    def received(self, *frames: bytes) -> None:
        """They come in, with their virtio headers. Preconditions: the interface is up."""
        if self.vlans:
            frames = self._without_vlans(frames)
            if not frames:
                return
        if self.upper is not None:
            self.upper.came(*frames)
            return
        self.link.received(self.now_ns(), *frames)
        self.layer.on_deadline()

    def _without_vlans(self, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """What is left when VLANs have theirs, which a bridge does not get: vlan_do_receive()."""
        left: list[bytes] = []
        of_vlans: dict[Vlan, list[bytes]] = {}
        for each in frames:
            tag = ethernet.tag_of(each, vnet.SIZE)
            vlan = None if tag is None else self.vlans.get((tag[0], tag[1] & ethernet.VLAN_ID))
            (left if vlan is None else of_vlans.setdefault(vlan, [])).append(each)
        for vlan, own in of_vlans.items():
            for each in own:
                show_link_frame(self.stack, self.link, each, False, goes_up=True)
            vlan.came(*own)
        return tuple(left)

    # --- what stands on what

    def below(self) -> Iterator[Made]:
        """What it stands on."""
        yield from ()

    def above(self) -> Iterator[Made]:
        """What stands on it."""
        yield from self.vlans.values()
        if self.upper is not None:
            yield self.upper.bridge

    # --- what is told and set

    def configure(self, attributes: dict[int, bytes]) -> None:
        """IFLA_INFO_DATA of one that is there. Raises: EOPNOTSUPP."""
        raise EOPNOTSUPP(f"{self.kind} stays as it is")

    def stands_on(self, other: Made) -> bytes:
        """IFLA_LINK, with a number of the other's namespace if that is another."""
        told = u32(abi.IFLA_LINK, other.interface.index)
        if other.stack is not self.stack:
            told += u32(abi.IFLA_LINK_NETNSID, self.stack.number_of(other.stack))
        return told

    def link_attributes(self) -> bytes:
        """IFLA_LINK and the like: what it stands on."""
        return b""

    def details(self) -> bytes:
        """IFLA_INFO_DATA."""
        return b""

    def attributes(self) -> dict[str, str]:
        """Its own files in /sys/class/net/NAME."""
        return {}
