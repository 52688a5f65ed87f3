"""What expressions ask a network namespace for: interfaces, addresses, routes, chance."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from sentry.abi import nftables as nft
from sentry.abi.netlink import RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.net.ip import ipv4, ipv6
from sentry.net.netfilter.conntrack import Conntrack
from sentry.net.netfilter.nat import Translation
from sentry.net.netfilter.rejecting import reject
from sentry.net.netfilter.ruleset import MOST

if TYPE_CHECKING:
    from sentry.net.netfilter.machine import Run
    from sentry.net.netfilter.nat import Range
    from sentry.net.netfilter.packet import Packet
    from sentry.net.netfilter.sets import Set
    from sentry.net.stack import Stack

LINES: Final = 10
"""Of the log in a second: a program could write it full."""
SECOND_NS: Final = 1_000_000_000


class Namespace:
    """A `machine.Place`."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.counts: Counter[str] = Counter()
        self.conntrack = Conntrack(stack.sysctls)
        self.translation = Translation(self.conntrack, os.urandom)
        self.rejected: tuple[int, int] | None = None
        """How a packet was rejected that never was at a link."""
        self._second = self._lines = 0

    def translate(self, run: Run, wanted: Range, *, is_source: bool) -> int:
        """A connection gets another source or target: the verdict."""
        connection = run.packet.connection
        if connection is None:
            return nft.NF_ACCEPT
        done = self.translation.set_up(connection, wanted, is_source=is_source)
        return nft.NF_ACCEPT if done else nft.NF_DROP

    def redirect_to(self, packet: Packet) -> bytes:
        """The address of ours that `redirect` means; empty: there is none."""
        if not packet.iif:
            return b"\x7f\0\0\1" if packet.is_v4 else ipv6.LOOPBACK
        interface = self.stack.interfaces.get(packet.iif)
        own = interface.of_family(AF_INET if packet.is_v4 else AF_INET6) if interface else []
        return own[0].ip if own else b""

    def kind_of(self, ip: bytes, index: int) -> int:
        """RTN_*: by the interface if `index` is not 0. inet_dev_addr_type()."""
        if ip[0] >> 4 == 14 if len(ip) == 4 else ip[0] == 0xFF:
            return RTN_MULTICAST
        if ip == ipv4.BROADCAST:
            return RTN_BROADCAST
        stack = self.stack
        if stack.ip is None:
            return RTN_LOCAL if stack.interfaces.is_local(ip) else RTN_UNICAST
        found = stack.ip.fib.local(ip)
        return found.kind if found is not None and index in (0, found.index) else RTN_UNICAST

    def out_index(self, ip: bytes) -> int:
        """By which interface there is a way to an address; 0: there is none."""
        layer = self.stack.ip
        route = None if layer is None else layer.fib.lookup(ip)
        return 0 if route is None else route.index

    def name_of(self, index: int) -> str:
        """Of an interface; empty: there is none."""
        interface = self.stack.interfaces.get(index) if index else None
        return "" if interface is None else interface.name

    def type_of(self, index: int) -> int:
        """ARPHRD_* of it."""
        interface = self.stack.interfaces.get(index)
        return 0 if interface is None else interface.kind

    def reject(self, run: Run, kind: int, code: int) -> None:
        """Tell who sent it: NFT_REJECT_*."""
        packet = run.packet
        layer = self.stack.ip
        if layer is None or packet.stands_in:
            self.rejected = kind, code
        else:
            reject(layer, self.translation, run, kind, code)

    def log(self, packet: Packet, prefix: str) -> None:
        """To the log of the sandbox, not too much of it."""
        second = time.monotonic_ns() // SECOND_NS
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= LINES:
            names = f"IN={self.name_of(packet.iif)} OUT={self.name_of(packet.oif)}"
            ends = f"SRC={packet.source.hex(':')} DST={packet.target.hex(':')}"
            about = f"LEN={len(packet.data)} PROTO={packet.protocol}"
            self.stack.kernel.log.write(f"netfilter: {prefix!r} {names} {ends} {about}\n")

    def may_remember(self, group: Set, now_ns: int) -> bool:
        """There is room for one more element of a set, which is counted."""
        if group.is_full:
            gone = group.expired(now_ns)
            for each in gone:
                group.remove(each)
            self.forgot(len(gone) if group.is_counted else 0)
        if group.is_full or self.counts["elements"] >= MOST["elements"]:
            return False
        self.counts["elements"] += 1
        return True

    def forgot(self, number: int) -> None:
        """So many elements are no more."""
        self.counts["elements"] -= number

    def chance(self, size: int) -> bytes:
        """So many random bytes."""
        return os.urandom(size)

    def wall_ns(self) -> int:
        """Since 1970."""
        return time.time_ns()
