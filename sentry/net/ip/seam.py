"""Between IP and what stands on it: packets up and down, ways, failures. Values only.

Addresses are bytes, 4 or 16 of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec import Struct

from sentry.abi.socket import IP_PMTUDISC_WANT
from sentry.net.ip.checksum import Bytes
from sentry.net.link.vnet import NOTHING, Offload

if TYPE_CHECKING:
    from sentry.net.link.link import FromLink, LinkPacket


class Arrived(Struct):
    """A packet for us, whole."""

    protocol: int
    source: bytes
    target: bytes
    payload: memoryview
    """From the header of the transport on. It stays what it is."""
    tos: int
    ttl: int
    index: int
    """The interface."""
    head: bytes
    """The IP header with its options, or with extension headers."""
    checksum_is_good: bool = False
    """Nobody has to look."""
    segment_size: int = 0
    """Of segments that the host has joined to this one."""
    to_us: bool = True
    """The link's address was ours, not a group's."""
    is_group: bool = False
    """The target is a multicast or broadcast address."""
    passing: Any = None
    """What the filter knows of it, where there is one."""

    @property
    def is_v4(self) -> bool:
        """The family."""
        return len(self.target) == 4


class Owner(NamedTuple):
    """Whose socket sends, for rules."""

    user: int
    group: int


class Outgoing(Struct):
    """A packet that is to go."""

    target: bytes
    protocol: int
    pieces: tuple[Bytes, ...]
    """From the header of the transport on."""
    source: bytes = b""
    """Empty: the best one."""
    tos: int = 0
    ttl: int = 64
    index: int = 0
    """The interface; 0: as the route says."""
    discover: int = IP_PMTUDISC_WANT
    """IP_PMTUDISC_*, which are those of IPv6 too."""
    offload: Offload = NOTHING
    """Offsets are from the header of the transport on."""
    transport_size: int = 0
    """Of the transport's header, where it is to be cut into segments."""
    sender: object = None
    """Who sends, as far as the gate and rules can tell who that is."""
    by_itself: bool = False
    """The stack says it, of its links or of the end of a connection: it is of no flow."""
    mark: int = 0
    """SO_MARK."""
    user: int = 0
    """Whose socket it is, for rules of routing."""


class Path(NamedTuple):
    """The way to an address."""

    mtu: int
    """Bytes of a packet with its IP header."""
    source: bytes
    """The address to send from; empty: there is none."""
    interface: int
    """Its index."""
    next_hop: bytes
    is_broadcast: bool = False
    may_fragment: bool = False
    """So small an MTU was told that packets go without DF."""


class Failure(Struct, frozen=True):
    """A packet of ours did not arrive; somebody says why."""

    protocol: int
    source: bytes
    target: bytes
    """Of the packet that was sent."""
    quoted: bytes
    """The beginning of what it carried: at least 8 bytes."""
    kind: int
    code: int
    """Of the ICMP message."""
    number: int
    """An errno."""
    is_fatal: bool
    """Told to a socket that did not ask for such errors."""
    offender: bytes
    """Who says so."""
    info: int = 0
    """ee_info: an MTU, a pointer."""
    index: int = 0


class Handler(Protocol):
    """A protocol above IP."""

    def arrived(self, now_ns: int, packet: Arrived) -> bool:
        """One has come. False: nobody has this port, which its sender is told."""

    def failed(self, now_ns: int, failure: Failure) -> bool:
        """One that may be ours did not arrive. False: nobody here sent it."""


class Gate(Protocol):
    """Who judges what leaves by a link and what comes: `sentry.net.egress.gate`."""

    def leaving(self, now_ns: int, out: Outgoing, source: bytes) -> bool:
        """A packet of the stack goes. False: it is lost. Raises: the errno of the call."""

    def frame(self, now_ns: int, frame: bytes, sender: object) -> LinkPacket | None:
        """One that a program has made, with a link header: what goes of it. Raises: the same."""

    def passing(self, now_ns: int, packet: Bytes, size: int) -> bool:
        """One of somebody else goes on, whole; `packet` is its beginning, with the headers. False:
        it is lost. Raises: the errno of its denial."""

    def arriving(self, now_ns: int, packet: Arrived) -> bool:
        """One has come, whole: whether anybody may see it."""


class Filter(Protocol):
    """The hooks of netfilter, where there are rules: `sentry.net.netfilter.hooks`."""

    def came(self, now_ns: int, index: int, data: memoryview, frame: FromLink) -> Any:
        """A packet with a right header, by an interface: what is known of it, with its `data` as it
        has become. None: it is lost."""

    def enters(self, now_ns: int, arrived: Arrived) -> bool:
        """It is for us. False: it is lost."""

    def goes_on(self, now_ns: int, passing: Any, path: Path) -> bool:
        """It goes on, this way. False: it is lost."""

    def leaves(
        self, now_ns: int, out: Outgoing, source: bytes, path: Path
    ) -> tuple[Outgoing, bytes, Path] | None:
        """A packet of ours goes, and what goes in its place. None: it is lost, or is for us and
        comes in. Raises: EPERM, EMSGSIZE, and where there is no way to where it goes now."""


class Timed(Protocol):
    """A protocol that does something when nothing comes."""

    def timer(self) -> int | None:
        """When `timeout` is to be called, in ns."""

    def timeout(self, now_ns: int) -> None:
        """What is due, a bounded number of things."""
