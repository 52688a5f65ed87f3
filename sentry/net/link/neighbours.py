"""Neighbours of a link: whose address is which hardware address. RFC 4861, 7.3; RFC 826.

The states, times and bounds are those of Linux (net/core/neighbour.c, arp(7)). Who owns the table
sends what it asks for by `Wishes`; ARP and NDP say what they have heard by `heard`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Protocol

from msgspec import Struct, field

from sentry.abi.netlink import (
    NUD_DELAY,
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_NOARP,
    NUD_PERMANENT,
    NUD_PROBE,
    NUD_REACHABLE,
    NUD_STALE,
    RTM_DELNEIGH,
    RTM_NEWNEIGH,
)
from sentry.net.deadlines import Deadlines

SECOND_NS: Final = 1_000_000_000
DELAY_NS: Final = 5 * SECOND_NS
"""delay_first_probe_time."""
RETRANSMIT_NS: Final = SECOND_NS
"""retrans_time_ms."""
BASE_REACHABLE_NS: Final = 30 * SECOND_NS
"""base_reachable_time_ms: a table's own time is between half of it and one and a half."""
LOCK_NS: Final = SECOND_NS
"""locktime: so long the first one who answers is believed."""
UNICAST_PROBES: Final = 3
MULTICAST_PROBES: Final = 3
MAX_NEIGHBOURS: Final = 1024
"""gc_thresh3."""
LOOKED_AT: Final = 32
"""So many of those that were used least are looked at for one that may go."""
MAX_WAITING_BYTES: Final = 212_992
"""unres_qlen_bytes: of one neighbour."""
MAX_WAITING_OF_ALL: Final = 1 << 22
"""A ceiling of ours, in bytes."""
OVERHEAD: Final = 512
"""What a waiting packet costs beside its bytes."""
STEP: Final = 16
"""Timers that are looked at in one call."""
MAX_TOLD: Final = 8
"""Of the packets that waited for who does not answer so many are told of: a ceiling of ours."""

NEVER_ASKED: Final = NUD_PERMANENT | NUD_NOARP
CONNECTED: Final = NEVER_ASKED | NUD_REACHABLE
VALID: Final = CONNECTED | NUD_PROBE | NUD_STALE | NUD_DELAY
IN_TIMER: Final = NUD_INCOMPLETE | NUD_REACHABLE | NUD_DELAY | NUD_PROBE


class Waiting(Protocol):
    """A packet that waits for an address."""

    @property
    def size(self) -> int:
        """In bytes."""


class Wishes(Protocol):
    """What a table wants done. The packets are those that `resolve` was given."""

    def solicit(self, now_ns: int, ip: bytes, hardware: bytes) -> None:
        """Ask who has `ip`: everybody, or the one with this hardware address."""

    def transmit(self, packet: Any, hardware: bytes) -> None:
        """A packet that waited."""

    def unreachable(self, now_ns: int, ip: bytes, packet: Any) -> None:
        """Nobody has answered."""


class Neighbour(Struct, eq=False):
    """struct neighbour."""

    ip: bytes
    state: int = NUD_FAILED
    hardware: bytes = b""
    probes: int = 0
    updated_ns: int = 0
    confirmed_ns: int = 0
    used_ns: int = 0
    waiting: deque[Any] = field(default_factory=deque)
    waiting_bytes: int = 0


class Claim(Struct, frozen=True):
    """What a message says."""

    ip: bytes
    hardware: bytes
    state: int
    """NUD_REACHABLE where it was asked for, else NUD_STALE."""
    override: bool = False
    """Believed although another address is known."""
    creates: bool = False
    """Who is not known yet becomes so."""
    unsettles: bool = False
    """Where it is not believed, what is known has to be asked for again: RFC 4861, 7.2.5."""


class _Nobody:
    """Wishes where there is no link any more."""

    def solicit(self, now_ns: int, ip: bytes, hardware: bytes) -> None:
        """It is lost."""

    def transmit(self, packet: Any, hardware: bytes) -> None:
        """The same."""

    def unreachable(self, now_ns: int, ip: bytes, packet: Any) -> None:
        """Nobody hears of it."""


class Neighbours:
    """Those of one link and one family."""

    def __init__(self, wishes: Wishes, chance: int) -> None:
        """`chance`: a random number of 16 bits, for the time that one is taken as reachable."""
        self._wishes = wishes
        self._by_ip: dict[bytes, Neighbour] = {}
        """Who was used last is last."""
        self._deadlines: Deadlines[bytes] = Deadlines()
        self._waiting_bytes = 0
        self.on_change: Callable[[Neighbour, int], None] = lambda who, kind: None
        """One is new or another (RTM_NEWNEIGH), as far as that is told, or gone (RTM_DELNEIGH)."""
        self.reachable_ns = BASE_REACHABLE_NS // 2 + BASE_REACHABLE_NS * (chance & 0xFFFF) // 0xFFFF

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self._by_ip.values())

    def __len__(self) -> int:
        return len(self._by_ip)

    def get(self, ip: bytes) -> Neighbour | None:
        """Who is known."""
        return self._by_ip.get(ip)

    # --- sending

    def resolve(self, now_ns: int, ip: bytes, packet: Waiting) -> bytes | None:
        """The hardware address to send a packet to, or None: it waits, or there is no room for one
        more neighbour and it is lost. neigh_event_send()."""
        found = self._by_ip.get(ip)
        if found is None:
            found = self._create(ip)
            if found is None:
                return None
        self._touch(found, now_ns)
        if found.state & VALID:
            if found.state == NUD_STALE:
                self._enter(found, NUD_DELAY, now_ns + DELAY_NS)
                found.updated_ns = now_ns
            return found.hardware
        self._keep(found, packet)
        if found.state != NUD_INCOMPLETE:
            found.probes, found.updated_ns = 0, now_ns
            self._enter(found, NUD_INCOMPLETE, now_ns + RETRANSMIT_NS)
            self._probe(found, now_ns)
        return None

    def known(self, now_ns: int, ip: bytes) -> bytes | None:
        """The same where nothing has to be asked or waited for; None: else."""
        found = self._by_ip.get(ip)
        if found is None or not found.state & VALID or found.state == NUD_STALE:
            return None
        self._touch(found, now_ns)
        return found.hardware

    def confirm(self, now_ns: int, ip: bytes) -> None:
        """The layer above has heard from it: dst_confirm_neigh()."""
        found = self._by_ip.get(ip)
        if found is not None and found.state & VALID:
            found.confirmed_ns = now_ns

    def _keep(self, to: Neighbour, packet: Waiting) -> None:
        size = packet.size + OVERHEAD
        while to.waiting and to.waiting_bytes + size > MAX_WAITING_BYTES:
            self._forget(to, to.waiting.popleft())
        if self._waiting_bytes + size <= MAX_WAITING_OF_ALL:
            to.waiting.append(packet)
            to.waiting_bytes += size
            self._waiting_bytes += size

    def _forget(self, to: Neighbour, packet: Waiting) -> None:
        to.waiting_bytes -= packet.size + OVERHEAD
        self._waiting_bytes -= packet.size + OVERHEAD

    # --- what is heard

    def heard(self, now_ns: int, claim: Claim) -> Neighbour | None:
        """Somebody says who has an address: neigh_update(). None: it is nobody who is known."""
        found = self._by_ip.get(claim.ip)
        if found is None:
            found = self._create(claim.ip) if claim.creates else None
            if found is None:
                return None
        if found.state & NEVER_ASKED:
            return found
        hardware, state = claim.hardware, claim.state
        if state == NUD_REACHABLE:
            found.confirmed_ns = now_ns
        if found.state & VALID:
            if hardware != found.hardware and not claim.override:
                if not (claim.unsettles and found.state == NUD_REACHABLE):
                    return found
                hardware, state = found.hardware, NUD_STALE
            elif hardware == found.hardware and state == NUD_STALE:
                return found
        is_another = (state, hardware) != (found.state, found.hardware)
        if is_another:
            found.updated_ns = now_ns
        found.hardware = hardware
        if state != found.state:
            is_sure = state == NUD_REACHABLE
            self._enter(found, state, now_ns + self.reachable_ns if is_sure else None)
        self._send_waiting(found)
        if is_another:
            self.on_change(found, RTM_NEWNEIGH)
        return found

    def set_static(self, ip: bytes, hardware: bytes, state: int = NUD_PERMANENT) -> None:
        """As an administrator says, for as long as he says nothing else."""
        self.configure(0, ip, hardware, state)

    def configure(self, now_ns: int, ip: bytes, hardware: bytes, state: int) -> bool:
        """`ip neighbour replace`: NEIGH_UPDATE_F_ADMIN. False: there is no room for one more."""
        found = self._by_ip.get(ip) or self._create(ip)
        if found is None:
            return False
        found.updated_ns, found.probes = now_ns, 0
        if not state & VALID:
            self._fail(found, now_ns)
            return True
        found.hardware = hardware
        if state == NUD_REACHABLE:
            found.confirmed_ns = now_ns
        times = {NUD_REACHABLE: self.reachable_ns, NUD_DELAY: DELAY_NS, NUD_PROBE: RETRANSMIT_NS}
        self._enter(found, state, now_ns + times[state] if state in times else None)
        self._send_waiting(found)
        self.on_change(found, RTM_NEWNEIGH)
        return True

    def drop(self, ip: bytes) -> None:
        """It is forgotten, and what waits for it."""
        found = self._by_ip.pop(ip, None)
        if found is not None:
            self._deadlines.drop(ip)
            self._waiting_bytes -= found.waiting_bytes
            self.on_change(found, RTM_DELNEIGH)

    def end(self) -> None:
        """Nobody is known, or asked for, any more, which the end of the link tells."""
        self.on_change = lambda who, kind: None
        for ip in list(self._by_ip):
            self.drop(ip)
        self._wishes = _Nobody()

    def _send_waiting(self, to: Neighbour) -> None:
        while to.waiting:
            packet = to.waiting.popleft()
            self._forget(to, packet)
            self._wishes.transmit(packet, to.hardware)

    # --- time

    def timer(self) -> int | None:
        """When `timeout` is to be called, in ns."""
        return self._deadlines.first_ns()

    def timeout(self, now_ns: int) -> None:
        """What is due, a bounded number: neigh_timer_handler()."""
        for _ in range(STEP):
            ip = self._deadlines.take_due(now_ns)
            if ip is None:
                return
            self._due(self._by_ip[ip], now_ns)

    def _due(self, found: Neighbour, now_ns: int) -> None:
        if found.state == NUD_REACHABLE:
            self._no_longer_sure(found, now_ns)
        elif found.state == NUD_DELAY:
            if now_ns <= found.confirmed_ns + DELAY_NS:
                self._enter(found, NUD_REACHABLE, found.confirmed_ns + self.reachable_ns)
                self.on_change(found, RTM_NEWNEIGH)
                return
            found.probes = 0
            self._enter(found, NUD_PROBE, now_ns + RETRANSMIT_NS)
            self.on_change(found, RTM_NEWNEIGH)
            self._probe(found, now_ns)
        else:
            most = UNICAST_PROBES if found.state == NUD_PROBE else MULTICAST_PROBES
            if found.probes >= most:
                self._fail(found, now_ns)
                return
            self._enter(found, found.state, now_ns + RETRANSMIT_NS)
            self._probe(found, now_ns)

    def _no_longer_sure(self, found: Neighbour, now_ns: int) -> None:
        until_ns = found.confirmed_ns + self.reachable_ns
        if now_ns < until_ns:
            self._enter(found, NUD_REACHABLE, until_ns)
        elif now_ns <= found.used_ns + DELAY_NS:
            found.updated_ns = now_ns
            self._enter(found, NUD_DELAY, now_ns + DELAY_NS)
        else:
            found.updated_ns = now_ns
            self._enter(found, NUD_STALE, None)
            self.on_change(found, RTM_NEWNEIGH)

    def _probe(self, found: Neighbour, now_ns: int) -> None:
        found.probes += 1
        hardware = found.hardware if found.state == NUD_PROBE else b""
        self._wishes.solicit(now_ns, found.ip, hardware)

    def _fail(self, found: Neighbour, now_ns: int) -> None:
        self._enter(found, NUD_FAILED, None)
        found.updated_ns = now_ns
        waiting, found.waiting = found.waiting, deque()
        self._waiting_bytes -= found.waiting_bytes
        found.waiting_bytes = 0
        self.on_change(found, RTM_NEWNEIGH)
        for packet in islice(waiting, MAX_TOLD):
            self._wishes.unreachable(now_ns, found.ip, packet)

    def _enter(self, found: Neighbour, state: int, deadline_ns: int | None) -> None:
        found.state = state
        if deadline_ns is None:
            self._deadlines.drop(found.ip)
        else:
            self._deadlines.set(found.ip, deadline_ns)

    # --- the table

    def _touch(self, found: Neighbour, now_ns: int) -> None:
        found.used_ns = now_ns
        del self._by_ip[found.ip]
        self._by_ip[found.ip] = found

    def _create(self, ip: bytes) -> Neighbour | None:
        """One more, in the place of one that is not needed where the table is full."""
        if len(self._by_ip) >= MAX_NEIGHBOURS:
            oldest = islice(self._by_ip.values(), LOOKED_AT)
            old = next((each for each in oldest if not each.state & (IN_TIMER | NEVER_ASKED)), None)
            if old is None:
                return None
            self.drop(old.ip)
        made = self._by_ip[ip] = Neighbour(ip)
        return made
