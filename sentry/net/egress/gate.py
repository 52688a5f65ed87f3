"""`Gate`: where packets of a stack leave by a link, and come. Sans-io.

Each belongs to a flow that is allowed, or goes nowhere. What the stack says of its links by itself
(neighbours, groups) is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from sentry.abi.socket import (
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_DSTOPTS,
    IPPROTO_FRAGMENT,
    IPPROTO_HOPOPTS,
    IPPROTO_ICMPV6,
    IPPROTO_IGMP,
    IPPROTO_ROUTING,
    IPPROTO_TCP,
)
from sentry.errors import from_number
from sentry.net.egress import keys
from sentry.net.egress.flows import OVER, Flow, Flows, Key
from sentry.net.egress.fragments import HEADER, OTHER_HEADER, Datagram, Fragments
from sentry.net.egress.limits import Way
from sentry.net.egress.policy import Program
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import Bytes
from sentry.net.ip.seam import Arrived, Outgoing
from sentry.net.link.ethernet import HEADER_SIZE as LINK_HEADER
from sentry.net.link.link import LinkPacket
from sentry.net.tcp.segment import ACK, RST, SYN
from sentry.vfs.paths import short_path

if TYPE_CHECKING:
    from sentry.vfs.file import Caller

FLAGS_AT: Final = 13
OPTIONS: Final = (IPPROTO_HOPOPTS, IPPROTO_DSTOPTS)
"""Extension headers that say nothing of where a packet goes."""
MAX_HEADERS: Final = 8
UNJUDGED: Final = "no packet whose flow could be told"
CUT: Final = "a fragment of nothing that has left"
ALIEN: Final = "a source that is not ours"
VERSION4: Final = 4


class Gate:
    """Of one stack."""

    def __init__(
        self, flows: Flows, reset: Callable[[Key], object],
        is_ours: Callable[[bytes], bool] = lambda ip: True,
    ) -> None:  # fmt: skip
        """`reset`: a flow is to end, later than now. `is_ours`: an address by which those outside
        know us."""
        self.flows = flows
        self._reset = reset
        self._is_ours = is_ours
        self._fragments = Fragments()

    # --- out

    def check(
        self, now_ns: int, protocol: int, ends: tuple[bytes, bytes], port: int, sender: object
    ) -> Program | None:
        """The early answer of connect(2), from and to these addresses; who it is that asks.

        Raises: as `leaving`.
        """
        program = program_of(sender)
        if not self._is_ours(ends[0]):
            raise self._refused(now_ns, (protocol, *ends), sender, ALIEN)
        source, target = map(keys.mapped, ends)
        verdict = self.flows.check(Key(protocol, source, 0, target, port), program, now_ns)
        if not verdict.allowed:
            raise from_number(verdict.errno, verdict.reason)
        return program

    def leaving(self, now_ns: int, out: Outgoing, source: bytes) -> bool:
        """A packet of the stack. False: it is lost, as too many go.

        Raises: ECONNREFUSED or EPERM, as the policy says.
        """
        head = out.pieces[0]
        if out.by_itself:
            key = keys.key_of(out.protocol, source, out.target, head)
            is_reset = out.protocol == IPPROTO_TCP
            return not is_reset or (key is not None and self.flows.may_end(key, now_ns))
        size = sum(map(len, out.pieces))
        flow = self._flow(now_ns, (out.protocol, source, out.target), head, out.sender)
        return self._goes(flow, size, now_ns)

    def _flow(
        self, now_ns: int, way: tuple[int, bytes, bytes], head: Bytes, sender: object
    ) -> Flow:
        """Of a packet with a whole header. Raises: as `leaving`."""
        protocol, flows = way[0], self.flows
        if keys.is_error(protocol, head):
            about = keys.quoted(len(way[1]) == 4, head)
            flow = flows.of_error(about, now_ns) if about is not None else None
            if flow is not None and flow.key.target == keys.mapped(way[2]):
                return flow  # told to the other end, and to nobody else
        key = keys.key_of(*way, head)
        is_cut = protocol == IPPROTO_TCP and len(head) <= FLAGS_AT
        if key is None or is_cut or protocol in ipv6.EXTENSIONS:
            raise self._refused(now_ns, way, sender, UNJUDGED)
        flow = flows.known(key, now_ns)
        begins = protocol == IPPROTO_TCP and head[FLAGS_AT] & (SYN | ACK) == SYN
        if flow is not None and flow.inbound and begins:
            flows.ended(flow)  # whoever spoke first, this is a connection of our own
            flow = None
        if flow is None:
            if not self._is_ours(way[1]):
                raise self._refused(now_ns, way, sender, ALIEN)
            flow = flows.leaving(key, program_of(sender), now_ns)
            flow.is_opening = begins
        if not flow.verdict.allowed:
            self._reset(key)
            raise from_number(flow.verdict.errno, flow.verdict.reason)
        flow.is_opening &= protocol == IPPROTO_TCP and bool(head[FLAGS_AT] & SYN)
        return flow

    def _refused(
        self, now_ns: int, way: tuple[int, bytes, bytes], sender: object, reason: str
    ) -> Exception:
        key = Key(way[0], keys.mapped(way[1]), 0, keys.mapped(way[2]), 0)
        verdict = self.flows.refuse(key, program_of(sender), reason, now_ns)
        return from_number(verdict.errno, reason)

    def _goes(self, flow: Flow, size: int, now_ns: int) -> bool:
        """So many bytes of it may go now. Raises: as `leaving`, when a quota is used up."""
        wait_ns = self._wait_ns(flow, Way.OUT, size, now_ns)
        if wait_ns is None:
            raise from_number(self.flows.policy.errno, OVER)
        return wait_ns == 0

    def _wait_ns(self, flow: Flow, way: Way, size: int, now_ns: int) -> int | None:
        """How long they would have to wait. None: a quota is used up, and the flow is over."""
        wait_ns = self.flows.move(flow, way, size, now_ns)
        if wait_ns is None:
            self.flows.break_off(flow, now_ns)
            self._reset(flow.key)
        return wait_ns

    def passing(self, now_ns: int, packet: Bytes, size: int) -> bool:
        """A packet of somebody else goes on by a link: its beginning, and its size. Nobody knows
        whose it is. False: it is lost. Raises: as `leaving`."""
        is_v4 = packet[0] >> 4 == VERSION4
        whole = _passing4(packet) if is_v4 else _whole6(packet, size)
        if whole is None or whole.offset or whole.has_more:
            raise self._refused(now_ns, (0, b"", b""), None, UNJUDGED)
        flow = self._flow(now_ns, whole.way, packet[whole.at :], None)
        return self._goes(flow, whole.size - whole.at, now_ns)

    def frame(self, now_ns: int, frame: bytes, sender: object) -> LinkPacket | None:
        """What a program has made whole, with a link header: its packet, which is to go where it
        is routed, for a link header could lead it elsewhere. None: it is lost.

        Raises: as `leaving`; also of what is no packet of IP.
        """
        ethertype, packet = int.from_bytes(frame[12:LINK_HEADER]), frame[LINK_HEADER:]
        if ethertype == ETH_P_IP:
            whole = _whole4(packet)
        else:
            whole = _whole6(packet, len(packet)) if ethertype == ETH_P_IPV6 else None
        if whole is None:
            raise self._refused(now_ns, (0, b"", b""), sender, UNJUDGED)
        head = packet[whole.at : whole.size]
        if whole.offset or whole.has_more:
            flow = self._fragment(now_ns, whole, head, sender)
        else:
            flow = self._flow(now_ns, whole.way, head, sender)
        if not self._goes(flow, len(head), now_ns):
            return None
        is_v4 = ethertype == ETH_P_IP
        return LinkPacket((packet[: whole.size],), whole.size, is_v4, whole.way[0])

    def _fragment(self, now_ns: int, whole: _Whole, head: bytes, sender: object) -> Flow:
        datagram = Datagram(*whole.way, whole.ident)
        if whole.offset:
            later = self._fragments.later(datagram, whole.offset, now_ns)
            if later is None:
                raise self._refused(now_ns, whole.way, sender, CUT)
            return later
        if len(head) < HEADER.get(datagram.protocol, OTHER_HEADER):
            raise self._refused(now_ns, whole.way, sender, UNJUDGED)
        flow = self._flow(now_ns, whole.way, head, sender)
        self._fragments.first(datagram, flow, now_ns)
        return flow

    # --- in

    def arriving(self, now_ns: int, packet: Arrived) -> bool:
        """A packet from a link, whole: whether anybody may see it."""
        protocol, head = packet.protocol, packet.payload
        if protocol == IPPROTO_IGMP:
            return True
        if protocol == IPPROTO_ICMPV6 and len(head) and head[0] in keys.OF_LINKS:
            return True
        if keys.is_error(protocol, head):
            about = keys.quoted(packet.is_v4, bytes(head))
            flow = self.flows.of_error(about, now_ns) if about is not None else None
        else:
            flow = self._comes(now_ns, packet)
        return flow is not None and self._wait_ns(flow, Way.IN, len(head), now_ns) == 0

    def _comes(self, now_ns: int, packet: Arrived) -> Flow | None:
        """Of TCP only a SYN begins a flow: what comes behind the end of one does not."""
        protocol, head = packet.protocol, packet.payload
        key = keys.from_inside(protocol, packet.target, packet.source, head)
        if key is None:
            return None
        if protocol != IPPROTO_TCP:
            return self.flows.arriving(key, None, now_ns)
        if len(head) <= FLAGS_AT:
            return None
        flags, flow = head[FLAGS_AT], self.flows.known(key, now_ns)
        if flow is not None:
            flow.is_opening &= bool(flags & SYN)
        elif flags & (SYN | ACK | RST) == SYN:
            flow = self.flows.arriving(key, None, now_ns)
            if flow is not None:
                flow.is_opening = True
        return flow

    # --- what sockets are done with

    def ended(self, now_ns: int, key: Key) -> None:
        """A connection of TCP is over."""
        flow = self.flows.known(key, now_ns)
        if flow is not None:
            self.flows.ended(flow)


class _Whole:
    """What is known of a packet that a program has made."""

    __slots__ = ("at", "has_more", "ident", "offset", "size", "way")

    def __init__(self, way: tuple[int, bytes, bytes], at: int, size: int) -> None:
        self.way = way
        """Protocol, source, target."""
        self.at = at
        """Where the transport begins."""
        self.size = size
        self.offset = self.ident = 0
        self.has_more = False


def program_of(sender: object) -> Program | None:
    """Who a task is that sends. The path is as it sees it."""
    if sender is None or isinstance(sender, Program):
        return sender
    task = cast("Caller", sender)
    exe = task.group.exe
    path = short_path(exe, task.fs.root) if exe is not None else b""
    pid: int = task.pids.of(task.group.tgid)
    return Program(pid, task.creds.fsuid, path.decode(errors="replace"))


def _whole4(packet: bytes) -> _Whole | None:
    """None: there is no such packet, or it has options, which can lead it elsewhere."""
    header = ipv4.parse(packet)
    if header is None or header.size != ipv4.HEADER_SIZE:
        return None
    whole = _Whole((header.protocol, header.source, header.target), header.size, header.total)
    whole.ident, whole.offset = header.identification, (header.fragment & ipv4.OFFSET) * 8
    whole.has_more = bool(header.fragment & ipv4.MORE_FRAGMENTS)
    return whole


def _passing4(packet: Bytes) -> _Whole | None:
    """The same of one that goes on, whole, of which the beginning is here."""
    header = ipv4.parse_quoted(packet)
    if header is None or header.size != ipv4.HEADER_SIZE or header.is_fragment:
        return None
    return _Whole((header.protocol, header.source, header.target), header.size, header.total)


def _whole6(packet: Bytes, total: int) -> _Whole | None:
    """None: there is no such packet, or it has a routing header, or many others. `total`: bytes
    that there are; not all of them may be here."""
    header = ipv6.parse_quoted(packet)
    if header is None or ipv6.HEADER_SIZE + header.payload > total:
        return None
    size, at, following = ipv6.HEADER_SIZE + header.payload, ipv6.HEADER_SIZE, header.following
    fragment = ipv6.Fragment(0, 0, False, 0)
    is_cut = False
    for _ in range(MAX_HEADERS):
        if following not in ipv6.EXTENSIONS or fragment.offset:
            break
        is_there = min(size, len(packet)) >= at + 8
        if not is_there or following == IPPROTO_ROUTING or (is_cut and following not in OPTIONS):
            return None
        step = 8 + packet[at + 1] * 8
        if following == IPPROTO_FRAGMENT:
            fragment, step, is_cut = ipv6.parse_fragment(packet, at), ipv6.FRAGMENT_SIZE, True
        following, at = packet[at], at + step
    else:
        return None
    if at > size:
        return None
    whole = _Whole((following, header.source, header.target), at, size)
    whole.ident, whole.offset = fragment.identification, fragment.offset
    whole.has_more = fragment.has_more
    return whole
