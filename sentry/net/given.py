"""An interface whose other end was handed to the sandbox as it started: a network card.

Its addresses and routes were said then, and by routers; programs with CAP_NET_ADMIN change them, as
on a machine of their own. It can be moved nowhere, and not be deleted: what leaves by it is judged
in the network namespace where it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import EINVAL
from sentry.net.interfaces import Address, Interface
from sentry.net.ip.autoconf import KERNEL_RA, Autoconf
from sentry.net.link import ethernet, vnet
from sentry.net.link.link import EthernetLink
from sentry.net.link.stream import StreamUplink
from sentry.net.made import Made
from sentry.net.netlink.notices import OPER_UP, change_flags, free_name, tell, tell_address
from sentry.net.netlink.route import GROUPS, route_message
from sentry.net.routes import Route

if TYPE_CHECKING:
    from sentry.config import LinkConfig
    from sentry.net.stack import Stack

NAME: Final = b"eth%d"
"""eth0, unless a program has an interface of that name: in a copy."""
FLAGS: Final = abi.IFF_BROADCAST | abi.IFF_MULTICAST
QUEUE_LENGTH: Final = 1000
LEAST_BUFFER: Final = 1 << 16
FIRST_BUFFER: Final = 1 << 17
CONNECTIONS: Final = 8
"""So many fill the room that there is. The other end of the stream ends connections itself, so no
way is long, and no buffer has to be large for it."""
RECEIVED_SEGMENT: Final = 16344
"""Bytes that a segment has that comes: several fit into the window of such a buffer."""


def new_interface(stack: Stack, config: LinkConfig) -> Interface:
    """Down, without addresses."""
    name = free_name(NAME, {each.name for each in stack.interfaces})
    chance = os.urandom(ethernet.ADDRESS_SIZE)
    hardware = bytes([chance[0] & 0xFC | 2]) + chance[1:]
    made = Interface(
        stack.interfaces.free_index(), name, abi.ARPHRD_ETHER, FLAGS, config.mtu, hardware,
        ethernet.BROADCAST, QUEUE_LENGTH,
    )  # fmt: skip
    made.mtu_max = config.mtu
    made.sent = [0, 0]
    return made


class Given(Made):
    """One of them."""

    oper_state = OPER_UP

    def __init__(self, stack: Stack, interface: Interface, fd: int) -> None:
        """`fd`: a stream socket, ours now. Raises: what `check_place` raises."""
        self._routes: dict[Route, None] = {}
        """What routers have said, as it is shown."""
        super().__init__(stack, interface)
        assert isinstance(self.link, EthernetLink)
        self._autoconf = Autoconf(self.layer, self.link, self._show)
        self.layer.autoconf[interface.index] = self._autoconf
        self.layer.timed.append(self._autoconf)
        self.link.faults = self.layer.faults_of(self.link)
        self._uplink = StreamUplink(fd, self.link, stack.kernel.loop, self._taken)
        self._uplink.on_end = self._ended
        assert interface.sent is not None
        self._uplink.sent = interface.sent

    def bring_up(self, config: LinkConfig) -> None:
        """With what was said of it."""
        interface, stack = self.interface, self.stack
        scope = abi.RT_SCOPE_UNIVERSE
        change_flags(stack, interface, abi.IFF_UP, abi.IFF_UP)
        for ip, prefix in config.addresses:
            family = AF_INET if len(ip) == 4 else AF_INET6
            if family == AF_INET6 and not interface.ipv6_is_on:
                continue
            own = Address(family, ip, prefix, scope)
            if family == AF_INET:
                rest = (1 << (32 - prefix)) - 1
                own.broadcast = (int.from_bytes(ip) | rest).to_bytes(4) if prefix < 31 else b""
            interface.add(own)
        for gateway in config.gateways:
            family = AF_INET if len(gateway) == 4 else AF_INET6
            route = Route(
                family, bytes(len(gateway)), 0, interface.index, origin=abi.RTPROT_BOOT,
                gateway=gateway if any(gateway) else b"",
            )  # fmt: skip
            stack.routes.added.append(route)
        stack.outdate()

    # --- frames

    def _taken(self, frames: list[bytes]) -> None:
        interface = self.interface
        if not interface.is_up:
            return
        interface.received[0] += len(frames)
        interface.received[1] += sum(map(len, frames)) - vnet.SIZE * len(frames)
        self.received(*frames)

    def _ended(self, why: str) -> None:
        """The cable is pulled."""
        self.stack.kernel.log.write(f"{self.interface.name}: the other end: {why}\n")
        self.set_carrier(False)

    # --- what routers say

    def turned(self) -> None:
        """Routers are asked as it comes up."""
        super().turned()
        if self.interface.is_up and self.interface.ipv6_is_on:
            self.stack.outdate()
            self._autoconf.begin(self.now_ns())
            self.layer.on_deadline()
        else:
            self._autoconf.end()

    def _show(self) -> None:
        """Addresses and routes are as routers say now, and listeners hear of it."""
        interface, stack = self.interface, self.stack
        before = {own.ip: own for own in interface.addresses if own.origin == KERNEL_RA}
        made = self._autoconf.addresses() if interface.ipv6_is_on else []
        now = {own.ip: own for own in made}
        interface.addresses = [
            now[own.ip] if own.origin == KERNEL_RA else own
            for own in interface.addresses
            if own.origin != KERNEL_RA or own.ip in now
        ]
        for ip, own in now.items():
            if ip not in before:
                interface.put(own)
        for ip in before.keys() - now.keys():
            tell_address(stack, interface, before[ip], abi.RTM_DELADDR)
        for ip, own in now.items():
            if before.get(ip) != own:
                tell_address(stack, interface, own, abi.RTM_NEWADDR)
        old, new = self._routes, dict.fromkeys(self._autoconf.routes())
        self._routes = new
        kept = [route for route in stack.routes.added if route not in old]
        stack.routes.added = [*kept, *new]
        stack.outdate()
        for kind, some, rest in ((abi.RTM_DELROUTE, old, new), (abi.RTM_NEWROUTE, new, old)):
            for route in some:
                if route not in rest:
                    tell(stack, GROUPS[route.family], route_message(route, kind))

    # --- what cannot be

    def moved(self, stack: Stack, wanted: bytes) -> None:
        """To another network namespace it does not go. Raises: EINVAL."""
        raise EINVAL("it stays where it is")

    def removed(self) -> None:
        """The namespace has ended."""
        self.layer.autoconf.pop(self.interface.index, None)
        self.layer.timed.remove(self._autoconf)
        super().removed()
        self.hang_up()

    def hang_up(self) -> None:
        """Who is at the other end hears the end of the stream, unless that has ended before."""
        self._uplink.close()


def hang_up(stack: Stack) -> None:
    """All of them."""
    for card in _cards(stack):
        card.hang_up()


def _cards(stack: Stack) -> list[Given]:
    return [each.driver for each in stack.interfaces if isinstance(each.driver, Given)]


def unplug(stack: Stack) -> None:
    """In a copy, whose cards are another's: nothing of them is there any more, nor of who asks
    nameservers for it. Connections by them are reset, of which nobody outside hears."""
    cards = _cards(stack)
    indexes = {each.interface.index for each in cards}
    if stack.tcp is not None:
        stack.tcp.reset_by(indexes)
    if stack.resolver is not None:
        stack.resolver.close()
    for card in cards:
        card.removed()


def plug(stack: Stack, config: LinkConfig) -> Given:
    """It is there, and up."""
    largest = max(config.room // CONNECTIONS, LEAST_BUFFER)
    stack.sysctls.setdefault("net/ipv4/tcp_rmem", f"4096\t{min(FIRST_BUFFER, largest)}\t{largest}")
    made = Given(stack, new_interface(stack, config), config.fd)
    made.bring_up(config)
    assert stack.tcp is not None
    stack.tcp.settings.advmss = RECEIVED_SEGMENT
    return made
