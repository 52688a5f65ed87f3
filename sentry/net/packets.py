"""What travels on the loopback, and what a `Stack` asks of the sockets that it knows.

Their classes are above the stack; it holds them as what those need who look them up in it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from sentry.abi.netlink import ARPHRD_ETHER, ARPHRD_LOOPBACK, ARPHRD_NONE
from sentry.bpf import filter as filters
from sentry.net.interfaces import LOOPBACK_INDEX

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.wait.queue import WaitQueue


ETH_HEADER: Final = 14
TAG_AT: Final = 12
"""Where a VLAN tag stands, behind both addresses."""


class Packet(Struct):
    """One datagram."""

    data: bytes
    source: Endpoint
    target: Endpoint
    ttl: int = 64
    tos: int = 0
    head: bytes = b""
    """The IPv4 header, where a program made it."""
    coverage: int = 0
    """UDP-Lite: bytes that the checksum covers, 0 for all."""
    index: int = LOOPBACK_INDEX
    """The interface that it came by."""
    stamp_ns: int = field(default_factory=time.time_ns)
    dropped: int = 0
    """SO_RXQ_OVFL: how many its socket had lost before."""


class Frame(Struct):
    """A packet with its link header: what packet sockets see."""

    data: bytes
    ethertype: int
    kind: int
    """PACKET_HOST and others: sll_pkttype."""
    size: int
    """Bytes that there were before a filter cut it."""
    index: int = LOOPBACK_INDEX
    header: int = ETH_HEADER
    """Bytes of its link header; 0: the interface has none."""
    stamp_ns: int = field(default_factory=time.time_ns)
    seen: dict[int, filters.Packet] = field(default_factory=dict)
    """For filters, by where they see it begin; made once for all sockets."""
    tag: tuple[int, int] | None = None
    """TPID and TCI of a VLAN tag that stood in the header, and does no more."""
    goes_up: bool = False
    """It is that of a VLAN, where it is shown again: who wants its type alone, and is bound to no
    interface, hears it there."""
    dropped: int = 0
    """SO_RXQ_OVFL: how many its socket had lost before."""

    @property
    def whole(self) -> bytes:
        """With that tag."""
        if self.tag is None:
            return self.data
        tag = b"".join(number.to_bytes(2) for number in self.tag)
        return self.data[:TAG_AT] + tag + self.data[TAG_AT:]

    def seen_from(self, start: int) -> filters.Packet:
        """The same for filters."""
        found = self.seen.get(start)
        if found is None:
            found = filters.Packet(self.data, start, network=self.header, link=0)
            hardware = ARPHRD_LOOPBACK if self.index == LOOPBACK_INDEX else ARPHRD_ETHER
            hardware = hardware if self.header else ARPHRD_NONE
            found.of(self.ethertype, self.kind, self.index, hardware)
            if self.tag is not None:
                found.tagged(*self.tag)
            self.seen[start] = found
        return found

    def cut(self, keep: int) -> Frame:
        """At most so many bytes of it."""
        return replace(self, data=self.data[:keep]) if keep < len(self.data) else self


class Member(Protocol):
    """A socket of any family."""

    family: int


class NetlinkPort(Protocol):
    """A netlink socket."""

    flags_set: set[int]
    """NETLINK_* options."""
    groups: set[int]
    port: int
    queue: WaitQueue

    def deliver(
        self, data: bytes, port: int, group: int, creds: tuple[int, int, int] = (0, 0, 0)
    ) -> bool:
        """A datagram for it. False: its queue is full."""

    def has_room(self, size: int) -> bool:
        """A datagram of so many bytes would not be lost."""

    def lose(self) -> None:
        """Something was lost for want of room."""


class RawReceiver(Protocol):
    """A raw socket, or a ping socket."""

    family: int
    is_ping: bool

    def accepts(self, packet: Packet, protocol: int) -> bool:
        """It wants this one."""

    def deliver(self, packet: Packet) -> bool:
        """Into its queue. False: it did not take it."""


class Tap(Protocol):
    """A packet socket."""

    def hear(self, frame: Frame) -> None:
        """A packet goes out, or comes in."""


class View(Protocol):
    """What keeps the interfaces of a stack like the host's: sentry.net.host.view."""

    def check(self) -> None:
        """See those of now. Raises: NotNow."""

    async def look(self) -> None:
        """The same, for who can wait. Raises: ENETDOWN and the like."""

    def listened(self) -> None:
        """Somebody is told of changes from now on."""
