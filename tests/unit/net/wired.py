"""Hosts of the Sentry's IP layer on a wire, without a clock and without descriptors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentry.abi.netlink import ARPHRD_ETHER, IFF_LOWER_UP, IFF_RUNNING, IFF_UP, RT_SCOPE_UNIVERSE
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.net.interfaces import Address, Interface, Interfaces
from sentry.net.ip.layer import IpLayer
from sentry.net.ip.seam import Arrived, Failure
from sentry.net.link.link import EthernetLink
from sentry.net.routes import Route, Routes
from sentry.wait.steps import at_once

SECOND_NS = 1_000_000_000
INDEX = 2
MTU = 1500


def ip4(number: int) -> bytes:
    """10.0.0.number."""
    return bytes((10, 0, 0, number))


def ip6(number: int) -> bytes:
    """fd00::number."""
    return b"\xfd" + bytes(14) + bytes([number])


def local6(number: int) -> bytes:
    """fe80::number."""
    return b"\xfe\x80" + bytes(13) + bytes([number])


def hardware(number: int) -> bytes:
    """02:00:00:00:00:number."""
    return b"\x02" + bytes(4) + bytes([number])


class Keeper:
    """A protocol that keeps what comes."""

    def __init__(self, *, takes: bool = True) -> None:
        self.packets: list[Arrived] = []
        self.failures: list[Failure] = []
        self.takes = takes

    def arrived(self, now_ns: int, packet: Arrived) -> bool:
        self.packets.append(packet)
        return self.takes

    def failed(self, now_ns: int, failure: Failure) -> bool:
        self.failures.append(failure)
        return True


class Host:
    """One of them; `number` is in all of its addresses."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.interfaces = Interfaces()
        flags = IFF_UP | IFF_RUNNING | IFF_LOWER_UP
        self.interface = Interface(INDEX, "eth0", ARPHRD_ETHER, flags, MTU, hardware(number))
        scope = RT_SCOPE_UNIVERSE
        self.interface.addresses = [
            Address(AF_INET, ip4(number), 24, scope, "eth0", ip4(255)),
            Address(AF_INET6, ip6(number), 64, scope),
            Address(AF_INET6, local6(number), 64, 253),
        ]
        self.interfaces.insert(self.interface)
        self.routes = Routes(self.interfaces)
        self.sysctls: dict[str, str] = {}
        self.layer = IpLayer(self.interfaces, self.sysctls, lambda size: bytes([7] * size))
        self.link = EthernetLink(INDEX, hardware(number), self.layer, 0x80008000)
        self.layer.links[INDEX] = self.link
        self.refresh()

    def refresh(self) -> None:
        """Routes or addresses have changed."""
        at_once(self.layer.refresh(self.routes))

    def route_all(self, gateway: bytes) -> None:
        """A default route."""
        family = AF_INET if len(gateway) == 4 else AF_INET6
        self.routes.added.append(Route(family, bytes(len(gateway)), 0, INDEX, gateway=gateway))
        self.refresh()

    def keep(self, protocol: int, *, takes: bool = True) -> Keeper:
        """What comes of a protocol is kept."""
        made = Keeper(takes=takes)
        self.layer.handlers[True, protocol] = self.layer.handlers[False, protocol] = made
        return made

    def frames(self) -> list[bytes]:
        """What it has sent since the last time, with the link header first."""
        return [frame[10:] for frame in self.link.take_outgoing(10_000, 1 << 30)]

    def hear(self, frame: bytes, now_ns: int = 0, *, checked: bool = False) -> None:
        """A frame comes."""
        self.link.received(now_ns, bytes([2 if checked else 0]) + bytes(9) + frame)


class Wire:
    """It brings every frame to all others."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts = hosts
        self.now_ns = SECOND_NS
        self.seen: list[bytes] = []
        self.drops: Callable[[bytes], Any] = lambda frame: False

    def settle(self) -> None:
        """Until nobody has more to send."""
        while True:
            moved = [
                (host, frame) for host in self.hosts
                for frame in host.link.take_outgoing(10_000, 1 << 30)
            ]  # fmt: skip
            for host in self.hosts:
                host.link.on_room()
            if not moved:
                return
            for sender, frame in moved:
                self.seen.append(frame[10:])
                if self.drops(frame[10:]):
                    continue
                for host in self.hosts:
                    if host is not sender:
                        self.bring(host, frame)

    def bring(self, host: Any, frame: bytes) -> None:
        """A frame comes to one of them."""
        host.link.received(self.now_ns, frame)

    def wait(self, ns: int) -> None:
        """Time passes, timer by timer."""
        until_ns = self.now_ns + ns
        while True:
            timers = [host.layer.timer() for host in self.hosts]
            first_ns = min((each for each in timers if each is not None), default=until_ns)
            if first_ns >= until_ns:
                break
            self.now_ns = max(self.now_ns, first_ns)
            for host in self.hosts:
                host.layer.timeout(self.now_ns)
            self.settle()
        self.now_ns = until_ns
