"""`Netfilter`: the hooks of a network namespace, and what expressions ask it for.

At each hook chains, connection tracking and translation stand in the order of their priorities, as
`apply` has put them there. While no base chain is there the IP layer knows nothing of all this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sentry.abi import nftables as nft
from sentry.abi.netlink import RTN_BROADCAST, RTN_MULTICAST
from sentry.abi.socket import IPPROTO_TCP
from sentry.abi.virtio import VIRTIO_NET_HDR_F_NEEDS_CSUM
from sentry.errors import EINVAL, ENOMEM
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.ip import output
from sentry.net.netfilter import (
    acting,
    following,
    ip_tables,
    looking_up,
    matching,
    metas,
    related,
    xtables,
)
from sentry.net.netfilter.machine import MAX_STEPS, Run, evaluate
from sentry.net.netfilter.nat import Range
from sentry.net.netfilter.outgoing import lost, packet_of
from sentry.net.netfilter.packet import Packet
from sentry.net.netfilter.place import Namespace
from sentry.net.netfilter.ruleset import MOST, Ruleset
from sentry.net.netfilter.transaction import Transaction
from sentry.wait.lock import Lock

if TYPE_CHECKING:
    from sentry.net.ip.layer import IpLayer
    from sentry.net.ip.seam import Arrived, Outgoing, Path
    from sentry.net.link.link import FromLink
    from sentry.net.netfilter.ip_tables_blob import Content
    from sentry.net.netfilter.ruleset import Chain
    from sentry.net.stack import Stack

EXPRESSIONS: Final = (acting, matching, metas, following, looking_up, xtables)
"""Modules that register them."""
PRE, IN, FORWARD, OUT, POST = (
    nft.NF_INET_PRE_ROUTING, nft.NF_INET_LOCAL_IN, nft.NF_INET_FORWARD, nft.NF_INET_LOCAL_OUT,
    nft.NF_INET_POST_ROUTING,
)  # fmt: skip
TRACK_PRIORITY, TARGET_PRIORITY, SOURCE_PRIORITY, LAST_PRIORITY = -200, -100, 100, 1 << 31
"""NF_IP_PRI_CONNTRACK, _NAT_DST, _NAT_SRC, _CONNTRACK_CONFIRM."""
FAMILIES: Final = {
    nft.NFPROTO_IPV4: (True,), nft.NFPROTO_IPV6: (False,), nft.NFPROTO_INET: (True, False),
}  # fmt: skip
"""Whose packets a table sees: is it IPv4."""
Step = Callable[[int, Packet, int], int]
Placed = tuple[int, int, int, Step]
"""By priority, then by the handles of table and chain."""
MOST_AT_ONCE: Final = 4 * MAX_STEPS
"""Steps of all packets of a moment, which come in one turn of the loop: further ones are lost."""
LAST_HANDLE: Final = 1 << 64
"""Tables of iptables stand behind those of nftables."""


class Netfilter(Namespace):
    """`Stack.netfilter`: also a `Place` for expressions, and the `Filter` of an IP layer."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.ruleset = Ruleset(self.counts)
        self.ip_tables: dict[tuple[bool, str], ip_tables.IpTable] = {}
        """Of iptables without nftables, by whether it is of IPv4, and by name."""
        self.lock = Lock()
        """Of a batch under way that others run beside: who asks or changes waits."""
        self.gone: list[int] = []
        """Ports of sockets that were closed meanwhile, with which their tables go."""
        self._bases: list[Chain] = []
        """Base chains that count."""
        self._steps: dict[tuple[bool, int], list[Step]] = {}
        self._translating: dict[tuple[bool, int], list[Step]] = {}
        self._moment_ns = self._done = 0
        """When the last packet was judged, and steps since then."""

    # --- the hooks

    def apply(self) -> None:
        """The tables have changed."""
        self._bases = list(self.ruleset.base_chains())
        self._stand()

    def drop_tables_of(self, port: int) -> None:
        """Those that belong to a socket which is closed go, but for those that are to stay."""
        mine = [each for each in self.ruleset.tables.values() if each.owner == port]
        batch = Transaction(self.ruleset, 0, port)
        for table in mine:
            if not table.flags & nft.NFT_TABLE_F_PERSIST:
                batch.remove_table(table)
            table.owner = 0
        if mine:
            batch.commit()
            self.apply()

    def _stand(self) -> None:
        """Who stands at each hook."""
        translating: dict[tuple[bool, int], list[Placed]] = {}
        steps: dict[tuple[bool, int], list[Placed]] = {}
        for base in self._bases:
            for is_v4 in FAMILIES[base.table.family]:
                where = translating if base.kind == "nat" else steps
                where.setdefault((is_v4, base.hook), []).append(
                    (base.priority, base.table.handle, base.handle, _step(self, base))
                )
        for (is_v4, name), table in self.ip_tables.items():
            where = translating if name == "nat" else steps
            for hook in table.kind.hooks:
                where.setdefault((is_v4, hook), []).append(
                    (table.kind.priority_at(hook), LAST_HANDLE, 0, _step_of_table(self, table))
                )
        if translating or (self.counts["tracking"] and steps):
            for is_v4 in (True, False):
                self._add_tracking(is_v4, steps)
        self._translating, self._steps = _sorted(translating), _sorted(steps)
        self.plug()

    def ip_table(self, name: str, *, is_v4: bool) -> ip_tables.IpTable:
        """A table of iptables, which is there when somebody first asks. Raises: ENOENT, ENOMEM, and
        NotNow as long as a batch is under way, of which what stands at the hooks depends."""
        found = self.ip_tables.get((is_v4, name))
        if found is None:
            self.lock.check()
            found = ip_tables.IpTable(name, is_v4=is_v4)
            self._take_rules(len(found.content.entries))
            self.ip_tables[is_v4, name] = found
            self._stand()
        return found

    def replace(self, table: ip_tables.IpTable, content: Content) -> None:
        """All that is in a table of iptables, by something else. Preconditions: it has the same
        hooks. Raises: ENOMEM, and NotNow as above."""
        self.lock.check()
        before = table.content
        self._take_rules(len(content.entries) - len(before.entries))
        self.counts["tracking"] += content.needs_tracking - before.needs_tracking
        for used in content.uses:
            used.use += 1
        for used in before.uses:
            used.use -= 1
        table.content = content
        self._stand()

    def _take_rules(self, number: int) -> None:
        if self.counts["rules"] + number > MOST["rules"]:
            raise ENOMEM("too many rules")
        self.counts["rules"] += number

    def _add_tracking(self, is_v4: bool, steps: dict[tuple[bool, int], list[Placed]]) -> None:
        for hook in (PRE, OUT):
            found = steps.setdefault((is_v4, hook), [])
            found.append((TRACK_PRIORITY, 0, 0, self._track))
            found.append((TARGET_PRIORITY, 0, 0, self._translate_target))
        for hook in (IN, POST):
            found = steps.setdefault((is_v4, hook), [])
            found.append((SOURCE_PRIORITY, 0, 0, self._translate_source))
            found.append((LAST_PRIORITY, 0, 0, self._confirm))

    @property
    def is_active(self) -> bool:
        """Some packet has to be looked at."""
        return bool(self._steps)

    @property
    def has_links(self) -> bool:
        """Packets can leave the sandbox."""
        return self.stack.ip is not None

    def plug(self) -> None:
        """Its IP layer asks, while there is something to ask."""
        if self.stack.ip is not None:
            self.stack.ip.filter = self if self._steps else None

    def end(self) -> None:
        """The namespace is over: nothing refers to itself any more."""
        batch = Transaction(self.ruleset, 0, 0)
        for table in list(self.ruleset.tables.values()):
            batch.remove_table(table)
        batch.commit()
        self.ip_tables.clear()
        self.apply()
        self.conntrack.connections.clear()
        self.conntrack.hears = None

    def run(self, now_ns: int, packet: Packet, hook: int) -> bool:
        """Whether a packet gets through."""
        if now_ns != self._moment_ns:
            self._moment_ns, self._done = now_ns, 0
        before, passes = packet.steps, self._done <= MOST_AT_ONCE
        for step in self._steps.get((packet.is_v4, hook), ()) if passes else ():
            if step(now_ns, packet, hook) != nft.NF_ACCEPT:
                passes = False
                break
        self._done += packet.steps - before
        return passes

    def _track(self, now_ns: int, packet: Packet, hook: int) -> int:
        if packet.tracked and packet.connection is None and related.is_error(packet):
            quoted = related.quoted_tuple(packet)
            if quoted is not None:
                self.conntrack.relate(packet, quoted, now_ns)
        else:
            self.conntrack.track(now_ns, packet)
        return nft.NF_ACCEPT

    def _confirm(self, now_ns: int, packet: Packet, hook: int) -> int:
        return nft.NF_ACCEPT if self.conntrack.confirm(now_ns, packet) else nft.NF_DROP

    def _translate_target(self, now_ns: int, packet: Packet, hook: int) -> int:
        return self._translate(now_ns, packet, hook, is_source=False)

    def _translate_source(self, now_ns: int, packet: Packet, hook: int) -> int:
        return self._translate(now_ns, packet, hook, is_source=True)

    def _translate(self, now_ns: int, packet: Packet, hook: int, *, is_source: bool) -> int:
        """nf_nat_inet_fn()."""
        connection = packet.connection
        if connection is None:
            return nft.NF_ACCEPT
        translation = self.translation
        if packet.info == nft.IP_CT_NEW and not translation.is_set_up(
            connection, is_source=is_source
        ):
            for step in self._translating.get((packet.is_v4, hook), ()):
                verdict = step(now_ns, packet, hook)
                if verdict != nft.NF_ACCEPT:
                    return verdict
                if translation.is_set_up(connection, is_source=is_source):
                    break
            if not translation.set_up(connection, Range(), is_source=is_source):
                return nft.NF_DROP
        translation.apply(packet, is_source=is_source)
        return nft.NF_ACCEPT

    # --- where the IP layer asks

    def came(self, now_ns: int, index: int, data: memoryview, frame: FromLink) -> Packet | None:
        """PREROUTING: a packet with a right header. None: nobody sees it any more."""
        layer = self._layer
        packet = Packet(data, is_v4=frame.is_v4, iif=index)
        kind = layer.kind_of_target(packet.target, index)
        packet.to_us, packet.is_group = frame.to_us, kind in (RTN_BROADCAST, RTN_MULTICAST)
        packet.is_partial = bool(frame.left) and bool(frame.left[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        gate = layer.gate_at(index)  # which judges what has come, not what becomes of it here
        if gate is not None:
            is_taken = kind or layer.forwards(is_v4=frame.is_v4)
            if not (is_taken and gate.arriving(now_ns, packet.arrived())):
                return None
        return packet if self.run(now_ns, packet, PRE) else None

    def enters(self, now_ns: int, arrived: Arrived) -> bool:
        """INPUT: one for us. False: nobody sees it."""
        packet: Packet = arrived.passing
        packet.is_changed = False
        if not self.run(now_ns, packet, IN):
            return False
        if packet.is_changed:
            arrived.source, arrived.target = packet.source, packet.target
            arrived.head = bytes(packet.data[: packet.at])
            arrived.payload = memoryview(packet.data)[packet.at :]
        return True

    def goes_on(self, now_ns: int, packet: Packet, path: Path) -> bool:
        """FORWARD and POSTROUTING. Preconditions: its header is that with which it would go."""
        packet.oif, packet.preferred = path.interface, path.source
        return self.run(now_ns, packet, FORWARD) and self.run(now_ns, packet, POST)

    def leaves(
        self, now_ns: int, out: Outgoing, source: bytes, path: Path
    ) -> tuple[Outgoing, bytes, Path] | None:
        """OUTPUT and POSTROUTING: what goes in its place, from where and by which way. None: it is
        lost, which its sender does not hear, or is for us and comes in.

        Raises: EPERM, EMSGSIZE, ENETUNREACH, EHOSTUNREACH.
        """
        layer = self._layer
        packet = packet_of(out, source)
        packet.oif, packet.preferred = path.interface, path.source
        if not self.run(now_ns, packet, OUT):
            return lost(out)
        if layer.is_local(packet.target):
            self._inward(now_ns, packet, out)
            return None
        if packet.target != out.target or packet.mark != out.mark:  # ip_route_me_harder()
            key = output.key_of(layer, out)._replace(mark=packet.mark, source=packet.source)
            path = layer.path(now_ns, packet.target, out.index, key)
            packet.oif, packet.preferred = path.interface, path.source
        routed = packet.target
        if not self.run(now_ns, packet, POST):
            return lost(out)
        if not packet.is_changed:
            return out, source, path
        if layer.gate_at(path.interface) is not None:
            if not output.may_send_from(layer, packet.source):
                raise EINVAL("an address that is none of the links'")
            if packet.target != routed and not layer.leads_to(now_ns, path, packet.target):
                return lost(out)
        made = replace(
            out, target=packet.target, source=packet.source, tos=packet.tos, ttl=packet.ttl,
            pieces=(bytes(packet.data[packet.at :]),),
            by_itself=out.by_itself and out.protocol == IPPROTO_TCP,
        )  # fmt: skip
        return made, packet.source, path

    def _inward(self, now_ns: int, packet: Packet, out: Outgoing) -> None:
        """POSTROUTING and PREROUTING of what is for us. Raises: EPERM."""
        packet.oif, packet.preferred = LOOPBACK_INDEX, packet.source
        if not self.run(now_ns, packet, POST):
            lost(out)
            return
        packet.oif, packet.iif = 0, LOOPBACK_INDEX
        if self.run(now_ns, packet, PRE) and self._layer.is_local(packet.target):
            arrived = packet.arrived()
            arrived.checksum_is_good, arrived.passing = packet.is_partial, packet
            self._layer.inward.take(arrived)

    @property
    def _layer(self) -> IpLayer:
        assert self.stack.ip is not None
        return self.stack.ip


def _step(place: Netfilter, base: Chain) -> Step:
    def step(now_ns: int, packet: Packet, hook: int) -> int:
        return evaluate(base, Run(place, packet, hook, now_ns))

    return step


def _step_of_table(place: Netfilter, table: ip_tables.IpTable) -> Step:
    def step(now_ns: int, packet: Packet, hook: int) -> int:
        return table.evaluate(Run(place, packet, hook, now_ns))

    return step


def _sorted(placed: dict[tuple[bool, int], list[Placed]]) -> dict[tuple[bool, int], list[Step]]:
    """Who stands at each hook, in order."""
    return {
        where: [each[3] for each in sorted(found, key=lambda each: each[:3])]
        for where, found in placed.items()
    }
