"""`Stack`: what the sockets of a network namespace share (struct net)."""

from __future__ import annotations

import os
from _weakref import ref
from collections import Counter
from typing import TYPE_CHECKING, Any

from sentry.abi.capability import CAP_NET_ADMIN
from sentry.ahead import Referable
from sentry.errors import EPERM
from sentry.net.fan_out import FanOut
from sentry.net.inet.ports import Ports
from sentry.net.interfaces import Interfaces
from sentry.net.routes import Routes

if TYPE_CHECKING:
    from sentry.auth.userns import Charge, UserNamespace
    from sentry.net.host.process import NetworkProcess
    from sentry.net.inet.judged_seam import EgressSide, ResolverSide
    from sentry.net.inet.tcp_seam import ByLink
    from sentry.net.ip.layer import IpLayer
    from sentry.net.netfilter.seam import NetfilterSide
    from sentry.net.packets import Member, NetlinkPort, RawReceiver, Tap, View
    from sentry.vfs.file import Caller


class Life(Referable):
    """Who holds this holds a network namespace: tasks, sockets, open /dev/net/tun."""

    __slots__ = ("_stack",)

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __del__(self) -> None:
        self._stack.end()


class Stack:
    """Interfaces, routes, ports, names."""

    def __init__(
        self,
        kernel: Any,
        sysctls: dict[str, str],
        owner: UserNamespace | None = None,
        charge: Charge | None = None,
    ) -> None:
        self.owner = owner
        """The user namespace whose capabilities count here."""
        self.charge = charge
        self.kernel = kernel
        """Whose processes get SIGURG."""
        self.interfaces = Interfaces(up=charge is None)
        self.routes = Routes(self.interfaces)
        self.ports: dict[int, Ports] = {}
        """By IPPROTO_*."""
        self.abstract: dict[tuple[int, bytes], Member] = {}
        """Abstract names of AF_UNIX, by type."""
        self.netlink: dict[tuple[int, int], NetlinkPort] = {}
        """(protocol, port id) → socket."""
        self.netlink_groups: Counter[tuple[int, int]] = Counter()
        """How many of them are in a multicast group, by protocol and group."""
        self.sockets: dict[Member, None] = {}
        """All that a descriptor or a message refers to, for /proc/net and socket diagnostics."""
        self.raw: dict[RawReceiver, None] = {}
        """Raw and ping sockets among them, which see what others send."""
        self.taps: dict[Tap, None] = {}
        self.fanouts: dict[int, Any] = {}
        """PACKET_FANOUT: groups of them."""
        """Packet sockets among them, which see everything but TCP."""
        self.fan_out = FanOut(kernel)
        """What is on its way to many of them."""
        self.memberships: Counter[tuple[bytes, int]] = Counter()
        """How many sockets have joined a group on an interface."""
        self.sysctls = sysctls
        """What was written to /proc/sys/net."""
        self.counters: Counter[str] = Counter()
        """/proc/net/snmp, as "Protocol.Name"."""
        self.host: NetworkProcess | None = None
        """Who makes sockets of the host, with --network=host."""
        self.view: View | None = None
        """What keeps interfaces and routes like the host's then, or where packets for them are
        ours."""
        self.ip: IpLayer | None = None
        """What is behind the interfaces, where the stack is ours and has more than the loopback:
        those of a namespace of the host, a card, or what programs have made."""
        self.tcp: ByLink | None = None
        """Connections and listeners of TCP there."""
        self.egress: EgressSide | None = None
        """What may leave by its links, where that is not all."""
        self.netfilter: NetfilterSide | None = None
        """Tables of rules, once somebody has asked for them."""
        self.resolver: ResolverSide | None = None
        """Who answers for nameservers, where packets may leave."""
        self._numbers: dict[Stack, int] = {}
        """Of other namespaces that an interface here has to do with: their nsid."""
        self._life: ref[Life] | None = None
        self.is_over = False
        self.host_sockets = 0
        self._cookie = 0

    def look(self) -> None:
        """Be up to date with the host's interfaces, where they are shown. Raises: NotNow."""
        if self.view is not None:
            self.view.check()

    def check_admin(self, caller: Caller) -> None:
        """Who may change interfaces and routes: nobody with sockets of the host. Raises: EPERM."""
        if self.has_host_sockets or not caller.creds.has_in(self.owner, CAP_NET_ADMIN):
            raise EPERM("CAP_NET_ADMIN")

    def check_own(self, index: int) -> None:
        """Beside interfaces of the host a program changes those that programs have made, and routes
        by them, and nothing else. Raises: EPERM."""
        found = self.interfaces.get(index)
        if self.view is not None and (found is None or found.driver is None):
            raise EPERM("the host's")

    @property
    def has_host_sockets(self) -> bool:
        """What is sent leaves by the host's own stack."""
        return self.host is not None

    def outdate(self) -> None:
        """Addresses or routes have changed that programs make."""
        if self.ip is not None:
            self.ip.outdate(self.routes)

    def numbers(self) -> dict[Stack, int]:
        """Those of namespaces that there are."""
        left = {each: number for each, number in self._numbers.items() if not each.is_over}
        self._numbers = left
        return left

    def number_of(self, other: Stack) -> int:
        """Its nsid here: peernet2id_alloc()."""
        numbers = self.numbers()
        if other not in numbers:
            taken = set(numbers.values())
            numbers[other] = next(n for n in range(len(taken) + 1) if n not in taken)
        return numbers[other]

    # --- its life

    def begin(self) -> Life:
        """For its namespace, which holds it: with the last holder it ends."""
        made = Life(self)
        self._life = ref(made)
        return made

    @property
    def life(self) -> Life | None:
        """For a socket, and the like: the namespace does not end before it."""
        return None if self._life is None else self._life()

    def end(self) -> None:
        """Nobody is there any more: interfaces that programs have made go. cleanup_net()."""
        self.is_over = True
        if self.netfilter is not None:
            self.netfilter.end()
            self.netfilter = None
        made = [each.driver for each in self.interfaces if each.driver is not None]
        if made:
            loop = self.kernel.loop
            loop.call_soon(lambda: loop.call_for_each(made, lambda each: each.removed()))

    def ports_of(self, protocol: int) -> Ports:
        """The table of a protocol's ports."""
        found = self.ports.get(protocol)
        if found is None:
            found = self.ports[protocol] = Ports()
        return found

    def next_ip_id(self) -> int:
        """The identification of a packet that may be fragmented: never 0, and nobody's to guess."""
        return int.from_bytes(os.urandom(4)) % 0xFFFF + 1

    def next_cookie(self) -> int:
        """SO_COOKIE of a socket that asks for the first time."""
        self._cookie += 1
        return self._cookie
