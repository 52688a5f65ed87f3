"""`IpLayer`: IPv4 and IPv6 of a network namespace over its links. Sans-io.

Frames come in by its links and leave by them; the time is what it is told. Protocols stand in
`handlers`; what they send goes by `send`, which raises what a program is to see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from sentry.abi.netlink import IFF_UP, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST
from sentry.abi.socket import (
    AF_INET6,
    ICMP_EXC_FRAGTIME,
    ICMP_TIME_EXCEEDED,
    ICMPV6_EXC_FRAGTIME,
    ICMPV6_TIME_EXCEED,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_IGMP,
)
from sentry.errors import EHOSTUNREACH, ENETUNREACH, Errno
from sentry.net.deadlines import earlier
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.ip import discovery, input4, input6, ipv4, ipv6, output, source, unanswered
from sentry.net.ip.fragments import Reassembly
from sentry.net.ip.groups import Groups
from sentry.net.ip.icmp import Icmp
from sentry.net.ip.icmp6 import Icmp6
from sentry.net.ip.inward import Inward
from sentry.net.ip.limits import ErrorLimit, RedirectLimit
from sentry.net.ip.multipath import next_hop_of
from sentry.net.ip.path_mtu import Detour, Exceptions
from sentry.net.ip.routing import Fib
from sentry.net.ip.seam import Arrived, Failure, Filter, Gate, Handler, Outgoing, Path, Timed
from sentry.net.ip.way import Ways
from sentry.net.routes import Route
from sentry.net.rules import PLAIN, RouteKey, Rules

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface, Interfaces
    from sentry.net.ip.autoconf import Autoconf
    from sentry.net.ip.checksum import Bytes
    from sentry.net.link.early import Receiver
    from sentry.net.link.link import EthernetLink, Faults, FromLink, Link, LinkPacket
    from sentry.wait.steps import Steps

SOLICITED: Final = b"\xff\x02" + bytes(9) + b"\x01\xff"
ALL_SYSTEMS4: Final = b"\xe0\0\0\x01"
MAX_MTU: Final = 65535
OF_ROUTERS: Final = 2
"""accept_ra: also of who is a router."""
QUOTED_LEAST: Final = 8
"""Bytes of a packet that its protocol needs to know whose it is."""
MAX_SOURCES: Final = 1024
SEED_SIZE: Final = 8


class IpLayer:
    """Of one namespace."""

    def __init__(
        self, interfaces: Interfaces, sysctls: dict[str, str], chance: Callable[[int], bytes]
    ) -> None:
        """`sysctls`: as /proc/sys names them, read only; `chance`: so many random bytes."""
        self.interfaces = interfaces
        self.sysctls = sysctls
        self.chance = chance
        self.counters: Counter[str] = Counter()
        self.fib = Fib(Rules(interfaces))
        self.seed = chance(SEED_SIZE)
        """Of what picks one of several next hops."""
        self.links: dict[int, Link] = {}
        self.faults_of: Callable[[Link], Faults | None] = lambda link: None
        """Of a link to the outside, when it comes."""
        self.exceptions = Exceptions()
        self.ways = Ways()
        self._leaving: dict[bytes, bool] = {}
        self._changes = 0
        self._early: set[Link] = set()
        self._sources: dict[tuple[int, bool, bytes], bytes] = {}
        """By interface and where a packet goes: what was selected since routes have changed."""
        self._paths: dict[tuple[bytes, int, RouteKey | None], Path] = {}
        """The ways that were found since, but for those with several next hops. None: one way for
        all."""
        self.fragments4, self.fragments6 = Reassembly(4), Reassembly(6)
        self.limit4 = ErrorLimit(sysctls, "net/ipv4/icmp_ratelimit")
        self.limit6 = ErrorLimit(sysctls, "net/ipv6/icmp/ratelimit")
        self.redirects = RedirectLimit()
        self.icmp, self.icmp6 = Icmp(self), Icmp6(self)
        self.groups = Groups(self)
        self.inward = Inward(self)
        """What of ours is for us."""
        self.handlers: dict[tuple[bool, int], Handler] = {
            (True, IPPROTO_IGMP): self.groups,
            (True, IPPROTO_ICMP): self.icmp,
            (False, IPPROTO_ICMPV6): self.icmp6,
        }
        """(is IPv4, IPPROTO_*)."""
        self.seen: Callable[[int, Arrived], bool] = lambda now_ns, packet: False
        """Raw sockets look at every packet first, and say whether one of them has it."""
        self.has_viewers: Callable[[], bool] = lambda: False
        """Raw or packet sockets look at what comes."""
        self.failures: Callable[[int, Failure], bool] = lambda now_ns, failure: False
        """And at every failure."""
        self.is_joined: Callable[[bytes, int], bool] = lambda ip, index: False
        """Somebody is a member of a group, on an interface."""
        self.gate: Gate | None = None
        """Who judges what leaves and comes; None: all may."""
        self.answers: Callable[[Arrived, Bytes], bool] | None = None
        """Who has an answer to datagrams of UDP that would leave and are of others inside: says
        whether it does."""
        self.filter: Filter | None = None
        """Rules that packets meet; None: there are none."""
        self.on_rest: Callable[[int], None] = lambda now_ns: None
        """No more packets come for now."""
        self.on_room: Callable[[int], None] = lambda index: None
        """More can go by an interface than could: for who waits for it."""
        self.autoconf: dict[int, Autoconf] = {}
        """By interface, where addresses and routes are made of what routers say: else somebody else
        makes them."""
        self.timed: list[Timed] = [self.groups]
        """Protocols that have deadlines of their own."""
        self.on_deadline: Callable[[], None] = lambda: None
        """One of those is due sooner than `timer` has said."""
        self.wall_ms: Callable[[], int] = lambda: 0
        """Milliseconds since 1970, for ICMP time stamps."""

    # --- what is ours

    def refresh(self, routes: Iterable[Route]) -> Steps[None]:
        """Routes or addresses have changed."""
        yield from self.fib.rebuild(routes)
        self._forget_ways()

    def outdate(self, routes: Iterable[Route]) -> None:
        """The same, when a packet next asks for them."""
        self.fib.outdate(routes)
        self._forget_ways()

    def _forget_ways(self) -> None:
        self.exceptions.clear()
        self._sources.clear()
        self._paths.clear()
        self._leaving.clear()
        for link in self._early:
            if link.early is not None:
                link.early.clear()
        self._early.clear()
        self.ways.clear()

    def is_local(self, ip: bytes) -> bool:
        """Packets for it end here."""
        found = self.fib.local(ip)
        return found is not None and found.kind == RTN_LOCAL

    def known_to_leave(self) -> dict[bytes, bool]:
        """Of addresses as sockets have them, whether what is sent there goes by a link: what they
        have found since interfaces or addresses have changed."""
        changes = self.interfaces.changes + self.interfaces.address_changes
        if changes != self._changes or len(self._leaving) >= MAX_SOURCES:
            self._changes = changes
            self._leaving.clear()
        return self._leaving

    def kind_of_target(self, ip: bytes, index: int) -> int:
        """RTN_LOCAL, RTN_BROADCAST or RTN_MULTICAST, of a packet that has come; 0: not for us."""
        if len(ip) == 4:
            if ipv4.is_multicast(ip):
                is_ours = ip == ALL_SYSTEMS4 or self.is_joined(ip, index)
                return RTN_MULTICAST if is_ours else 0
            if ip == ipv4.BROADCAST:
                return RTN_BROADCAST
        elif ipv6.is_multicast(ip):
            return RTN_MULTICAST if self._is_member6(ip, index) else 0
        found = self.fib.local(ip)
        if found is None or (found.kind == RTN_BROADCAST and found.index != index):
            return 0
        return found.kind

    def _is_member6(self, ip: bytes, index: int) -> bool:
        if ip == ipv6.ALL_NODES or self.is_joined(ip, index):
            return True
        if ip == ipv6.ALL_ROUTERS:
            return self.forwards(is_v4=False)
        interface = self.interface(index)
        if ip[:13] != SOLICITED or interface is None:
            return False
        own = interface.of_family(AF_INET6)
        return any(address.ip[13:] == ip[13:] for address in own)

    def interface(self, index: int) -> Interface | None:
        """Of a link. It may have gone, and the link goes in a moment."""
        if index not in self.links:
            return None
        return self.interfaces.get(index)

    def forwards(self, *, is_v4: bool) -> bool:
        """Packets for others go on: net.ipv4.ip_forward, net.ipv6.conf.all.forwarding."""
        name = "net/ipv4/conf/all/forwarding" if is_v4 else "net/ipv6/conf/all/forwarding"
        return bool(int(self.sysctls.get(name, "0")))

    def gate_at(self, index: int) -> Gate | None:
        """Who judges what goes and comes by an interface; None: it need not be judged. What is not
        certain to stay inside leaves."""
        link = self.links.get(index)
        return None if link is not None and link.stays_inside else self.gate

    def is_outside(self, ip: bytes) -> bool:
        """An address of ours by which those outside know us."""
        found = self.fib.local(ip)
        if found is None or found.kind != RTN_LOCAL:
            return False
        link = self.links.get(found.index)
        return link is not None and not link.stays_inside

    def accepts_routers(self, link: Link) -> bool:
        """What routers say is heeded: net.ipv6.conf.*.accept_ra; who is a router itself heeds
        others if it is 2."""
        accepts = self.ipv6_setting(link, "accept_ra")
        return accepts == OF_ROUTERS if self.forwards(is_v4=False) else bool(accepts)

    def routes_loopback(self, link: Link) -> bool:
        """net.ipv4.conf.*.route_localnet, of this interface or of all."""
        interface = self.interface(link.index)
        names = ("all", "default" if interface is None else interface.name, "default")
        found = (self.sysctls.get(f"net/ipv4/conf/{name}/route_localnet") for name in names)
        of_all, own, default = found
        return bool(int(of_all or 0) or int(own or default or 0))

    def ipv6_setting(self, link: Link, setting: str) -> int:
        """net.ipv6.conf.*.SETTING, of this interface or as it is for new ones: one that is 1 where
        nobody has set it."""
        interface = self.interface(link.index)
        name = interface.name if interface is not None else "default"
        default = self.sysctls.get(f"net/ipv6/conf/default/{setting}", "1")
        return int(self.sysctls.get(f"net/ipv6/conf/{name}/{setting}", default))

    def ignores_echo(self, packet: Arrived) -> bool:
        """net.ipv4.icmp_echo_ignore_*, net.ipv6.icmp.echo_ignore_*."""
        if packet.is_v4:
            names = "net/ipv4/icmp_echo_ignore_all", "net/ipv4/icmp_echo_ignore_broadcasts"
            default = "1"
        else:
            names = "net/ipv6/icmp/echo_ignore_all", "net/ipv6/icmp/echo_ignore_multicast"
            default = "0"
        if int(self.sysctls.get(names[0], "0")):
            return True
        return packet.is_group and bool(int(self.sysctls.get(names[1], default)))

    # --- in

    def arrived(self, now_ns: int, link: Link, data: memoryview, frame: FromLink) -> None:
        """A packet from a link."""
        if frame.is_v4:
            input4.arrived(self, now_ns, link, data, frame)
        else:
            input6.arrived(self, now_ns, link, data, frame)

    def takes_early(self) -> bool:
        """Packets for those who are known need nobody's look on their way."""
        return self.filter is None and self.gate is None and not self.has_viewers()

    def early_of(self, packet: Arrived) -> dict[bytes, Receiver] | None:
        """Who has packets by the link that this one came by; None: nobody may have such early. Of
        those to the loopback's network a sysctl decides, each time."""
        link = self.links.get(packet.index)
        if link is None or link.early is None or not self.takes_early():
            return None
        if not packet.to_us or packet.is_group or ipv4.is_loopback(packet.target):
            return None
        self._early.add(link)
        return link.early

    def came_early(self, is_v4: bool, count: int, size: int) -> None:
        """So many packets of so many bytes went that way."""
        counters = self.counters
        counters["Ip.InReceives" if is_v4 else "Ip6InReceives"] += count
        counters["IpExt.InOctets" if is_v4 else "Ip6InOctets"] += size
        counters["Ip.InDelivers" if is_v4 else "Ip6InDelivers"] += count

    def rest(self, now_ns: int) -> None:
        """No more packets come for now."""
        self.on_rest(now_ns)

    def deliver(self, now_ns: int, packet: Arrived) -> None:
        """To who looks at everything, and to its protocol. Preconditions: it is whole."""
        if packet.passing is not None:  # what the gate says of it the filter has asked
            if self.filter is not None and not self.filter.enters(now_ns, packet):
                return
        elif packet.index != LOOPBACK_INDEX:
            gate = self.gate_at(packet.index)
            if gate is not None and not gate.arriving(now_ns, packet):
                return
        is_v4 = packet.is_v4
        self.counters["Ip.InDelivers" if is_v4 else "Ip6InDelivers"] += 1
        is_seen = self.seen(now_ns, packet)
        handler = self.handlers.get((is_v4, packet.protocol))
        if handler is None:
            if not is_seen:
                (input4 if is_v4 else input6).protocol_unknown(self, now_ns, packet)
        elif not handler.arrived(now_ns, packet):
            (input4 if is_v4 else input6).port_unreachable(self, now_ns, packet)

    def fail(self, now_ns: int, failure: Failure, mtu: int = -1) -> None:
        """Somebody says that a packet did not arrive. Whoever sent it is told; `mtu` counts only
        if somebody did send it: else anybody could make ways narrow."""
        if len(failure.quoted) < QUOTED_LEAST:
            return
        handler = self.handlers.get((len(failure.target) == 4, failure.protocol))
        is_known = self.failures(now_ns, failure)
        is_known |= handler is not None and handler.failed(now_ns, failure)
        if is_known and mtu >= 0:
            self.learn_mtu(now_ns, failure.target, mtu, failure.index)

    def learn_mtu(self, now_ns: int, ip: bytes, mtu: int, index: int = 0) -> None:
        """The way to an address is that narrow, as somebody said who is believed."""
        path = self.path_or_none(now_ns, ip, index if _needs_index(ip) else 0)
        if path is not None:
            self.exceptions.learn_mtu(now_ns, ip, mtu, path.mtu)

    def redirect(self, now_ns: int, packet: Arrived, target: bytes, gateway: bytes) -> bool:
        """The router says that there is a better one, or that the target is a neighbour. True: it
        is believed, as who says so is the router in use, and the other is on the same link."""
        version = "ipv4" if packet.is_v4 else "ipv6"
        if not int(self.sysctls.get(f"net/{version}/conf/all/accept_redirects", "1")):
            return False
        if not packet.is_v4 and self.forwards(is_v4=False):
            return False
        path = self.path_or_none(now_ns, target, 0)
        if path is None or (path.interface, path.next_hop) != (packet.index, packet.source):
            return False
        if self.is_local(gateway):
            return False
        towards = self.fib.lookup(gateway, packet.index)
        is_near = towards is not None and not towards.gateway
        if not is_near and not ipv6.is_link_local(gateway) and gateway != target:
            return False
        self.exceptions.learn_gateway(target, gateway)
        return True

    # --- out

    def send(self, now_ns: int, out: Outgoing) -> Path:
        """Off it goes; the way that it took. What is for us comes in by `inward`.

        Raises: ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EMSGSIZE, and EINVAL for a source that is
        not ours.
        """
        return output.send(self, now_ns, out)

    def send_or_drop(self, now_ns: int, out: Outgoing) -> None:
        """The same of what nobody waits for."""
        try:
            output.send(self, now_ns, out)
        except Errno:
            self.counters["Ip.OutDiscards" if len(out.target) == 4 else "Ip6OutDiscards"] += 1

    def path(
        self, now_ns: int, target: bytes, index: int = 0, key: RouteKey = PLAIN
    ) -> Path:
        """The way to an address, by an interface if `index` is not 0, of a packet with such a key.

        Raises: ENETUNREACH, EHOSTUNREACH, and what rules and routes say: EACCES, EINVAL.
        """
        detour = self.exceptions.get(now_ns, target)
        kept = target, index, key if self.fib.asks else None
        known = self._paths.get(kept) if detour is None else None
        if known is not None:
            interface = self._out(known.interface)
            if known.mtu == self.mtu_of(interface, is_v4=len(target) == 4):
                return known
        found, is_only = self._way(target, index, kept[2] or PLAIN, detour)
        if is_only and detour is None:
            if len(self._paths) >= MAX_SOURCES:
                self._paths.clear()
            self._paths[kept] = found
        return found

    def _way(
        self, target: bytes, index: int, key: RouteKey, detour: Detour | None
    ) -> tuple[Path, bool]:
        """The same, and whether it is the only one for such a key."""
        is_group, is_only = _is_group(target), True
        local = self.fib.local(target)
        is_broadcast = local is not None and local.kind == RTN_BROADCAST
        if local is not None and is_broadcast:
            is_group, out_index, gateway, preferred = True, local.index, b"", local.source
            next_hop = ipv4.BROADCAST
        elif is_group and index:
            out_index, gateway, preferred, next_hop = index, b"", b"", target
        else:
            route = self.fib.find(target, index, key)
            if not isinstance(route, Route):
                raise route("no route")
            out_index, gateway, preferred = route.index, route.gateway, route.source
            if route.hops:
                out_index, gateway = next_hop_of(self, route, target, index, key)
                is_only = False
            next_hop = target
        interface = self._out(out_index)
        mtu = self.mtu_of(interface, is_v4=len(target) == 4)
        may_fragment = False
        if detour is not None:
            gateway = detour.gateway or gateway
            mtu = min(detour.mtu or mtu, mtu)
            may_fragment = detour.may_fragment
        if gateway and not is_group:
            next_hop = gateway
        own = preferred or self._select(interface, target, next_hop)
        return Path(mtu, own, out_index, next_hop, is_broadcast, may_fragment), is_only

    def mtu_of(self, interface: Interface, *, is_v4: bool) -> int:
        """Of what leaves by an interface, whatever is known of the way behind it."""
        if is_v4:
            return min(interface.mtu, MAX_MTU)
        said = self.links[interface.index].mtu6 or MAX_MTU
        return min(interface.mtu_of_ipv6, said, MAX_MTU)

    def confirm(
        self, now_ns: int, target: bytes, index: int = 0, key: RouteKey = PLAIN
    ) -> None:
        """Something has come from there: the neighbour on the way is reachable, dst_confirm()."""
        path = self.path_or_none(now_ns, target, index, key)
        if path is not None:
            self.links[path.interface].confirm(now_ns, path.next_hop)

    def path_or_none(
        self, now_ns: int, target: bytes, index: int, key: RouteKey = PLAIN
    ) -> Path | None:
        """The same, or None where there is no way."""
        try:
            return self.path(now_ns, target, index, key)
        except Errno:
            return None

    def leads_to(self, now_ns: int, path: Path, target: bytes) -> bool:
        """What goes that way gets to an address, and to nobody else on the link."""
        own = self.path_or_none(now_ns, target, path.interface)
        return own is not None and own.next_hop == path.next_hop

    def _out(self, index: int) -> Interface:
        interface = self.interface(index)
        if interface is None:
            raise ENETUNREACH("no link there")
        if not interface.flags & IFF_UP:
            raise EHOSTUNREACH(f"{interface.name} is down")
        return interface

    def _select(self, interface: Interface, target: bytes, next_hop: bytes) -> bytes:
        is_v4 = len(target) == 4
        key = interface.index, is_v4, next_hop if is_v4 else target
        known = self._sources.get(key)
        if known is None:
            if len(self._sources) >= MAX_SOURCES:
                self._sources.clear()
            if is_v4:
                known = source.select4(interface, next_hop)
            else:
                known = source.select6(interface, self.interfaces, target)
            self._sources[key] = known
        return known

    # --- for links

    def source_towards(self, link: Link, ip: bytes) -> bytes:
        """From which address a neighbour is asked for; empty: there is none."""
        interface = self.interface(link.index)
        return self._select(interface, ip, ip) if interface is not None else b""

    def solicit6(self, now_ns: int, link: EthernetLink, ip: bytes, hardware: bytes) -> None:
        """Ask for a neighbour by NDP."""
        discovery.solicit(self, now_ns, link, ip, hardware)

    def link_failed(self, now_ns: int, packet: LinkPacket) -> None:
        """Nobody took it: its sender is told."""
        unanswered.tell(self, now_ns, packet)

    # --- time

    def timer(self) -> int | None:
        """When `timeout` is to be called, in ns."""
        first = earlier(self.fragments4.timer(), self.fragments6.timer())
        for link in self.links.values():
            first = earlier(first, link.timer())
        for each in self.timed:
            first = earlier(first, each.timer())
        return first

    def timeout(self, now_ns: int) -> None:
        """What is due, a bounded number of things."""
        for link in list(self.links.values()):
            link.timeout(now_ns)
        for each in self.timed:
            each.timeout(now_ns)
        for fragments, is_v4 in ((self.fragments4, True), (self.fragments6, False)):
            row = "Ip." if is_v4 else "Ip6"
            for key, head, first in fragments.timeout(now_ns):
                self.counters[f"{row}ReasmTimeout"] += 1
                self.counters[f"{row}ReasmFails"] += 1
                packet = Arrived(
                    key.protocol, key.source, key.target, memoryview(first), 0, 0, key.interface,
                    head, is_group=self.kind_of_target(key.target, key.interface) != RTN_LOCAL,
                )  # fmt: skip
                if is_v4:
                    self.icmp.complain(now_ns, packet, ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME)
                else:
                    self.icmp6.complain(now_ns, packet, ICMPV6_TIME_EXCEED, ICMPV6_EXC_FRAGTIME)


def _is_group(ip: bytes) -> bool:
    if len(ip) == 16:
        return ipv6.is_multicast(ip)
    return ipv4.is_multicast(ip) or ip == ipv4.BROADCAST


def _needs_index(ip: bytes) -> bool:
    return len(ip) == 16 and ipv6.is_link_local(ip)
