"""PACKET_FANOUT: several packet sockets hear as if they were one.

fanout_add(), packet_rcv_fanout() of net/packet/af_packet.c. Programs of BPF that choose
(PACKET_FANOUT_DATA) are not there: without one the first socket is it.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.socket import ETH_P_IP, ETH_P_IPV6, IPPROTO_TCP, IPPROTO_UDP
from sentry.errors import EALREADY, EINVAL, ENOMEM, ENOSPC

if TYPE_CHECKING:
    from sentry.net.packets import Frame

KINDS: Final = range(abi.PACKET_FANOUT_HASH, abi.PACKET_FANOUT_EBPF + 1)
MAX_MEMBERS: Final = 256
"""Where a program says nothing else."""
MOST_MEMBERS: Final = 1 << 16
MAX_GROUPS: Final = 1 << 16
_IDS: Final = struct.Struct("<HHI")
_LENGTHS: Final = (4, 8)


class Fanout:
    """A group; `members` are packet sockets."""

    __slots__ = ("_chosen", "_frame", "_turn", "flags", "hears", "identifier", "kind", "members",
                 "most")  # fmt: skip

    def __init__(self, identifier: int, kind: int, flags: int, most: int) -> None:
        self.identifier = identifier
        self.kind = kind
        self.flags = flags
        self.most = most
        self.hears: Any = None
        """What its members hear: of which type, from which interface."""
        self.members: list[Any] = []
        self._turn = 0
        self._frame: Frame | None = None
        self._chosen: Any = None

    @property
    def number(self) -> int:
        """getsockopt(2)."""
        return self.identifier | self.kind << 16 | self.flags << 16

    def chosen(self, frame: Frame) -> Any:
        """Which member has a frame; each is asked."""
        if frame is not self._frame:
            self._frame, self._chosen = frame, self._choose(frame)
        return self._chosen

    def _choose(self, frame: Frame) -> Any:
        count, first = len(self.members), 0
        if self.kind == abi.PACKET_FANOUT_LB:
            self._turn += 1
            first = self._turn % count
        elif self.kind == abi.PACKET_FANOUT_RND:
            first = int.from_bytes(os.urandom(2)) % count
        elif self.kind == abi.PACKET_FANOUT_HASH:
            first = flow_hash(frame) % count
        rolls = self.kind == abi.PACKET_FANOUT_ROLLOVER
        if rolls or self.flags & abi.PACKET_FANOUT_FLAG_ROLLOVER:
            for each in self.members[first:] + self.members[:first]:
                if each.has_room:
                    return each
        return self.members[first]


def flow_hash(frame: Frame) -> int:
    """The same for all packets of a flow, both ways."""
    data, at = frame.data, frame.header
    if frame.ethertype == ETH_P_IP and len(data) >= at + 20:
        protocol, ends, size = data[at + 9], at + 12, 4
        behind = at + (data[at] & 15) * 4
        if int.from_bytes(data[at + 6 : at + 8]) & 0x3FFF:
            protocol = 0  # a fragment: its ports are in the first one alone
    elif frame.ethertype == ETH_P_IPV6 and len(data) >= at + 40:
        protocol, ends, size, behind = data[at + 6], at + 8, 16, at + 40
    else:
        return hash(data[:at])
    source, target = data[ends : ends + size], data[ends + size : ends + 2 * size]
    if protocol in (IPPROTO_TCP, IPPROTO_UDP):
        source += data[behind : behind + 2]
        target += data[behind + 2 : behind + 4]
    return hash((frozenset((source, target)), protocol))


def join(groups: dict[int, Fanout], sock: Any, value: bytes) -> None:
    """PACKET_FANOUT. Raises: EINVAL, EALREADY, ENOSPC, ENOMEM."""
    if len(value) not in _LENGTHS:
        raise EINVAL("struct fanout_args")
    identifier, wanted, most = _IDS.unpack(value.ljust(_IDS.size, b"\0"))
    kind, flags = wanted & 0xFF, wanted & 0xFF00
    if kind not in KINDS:
        raise EINVAL("type")
    if kind == abi.PACKET_FANOUT_ROLLOVER and flags & abi.PACKET_FANOUT_FLAG_ROLLOVER:
        raise EINVAL("it rolls over anyway")
    if sock.fanout is not None:
        raise EALREADY("a member")
    if flags & abi.PACKET_FANOUT_FLAG_UNIQUEID:
        if identifier:
            raise EINVAL("an id, and a new one")
        identifier = next((each for each in range(1, MAX_GROUPS) if each not in groups), 0)
        if not identifier:
            raise ENOMEM("no id is left")
        flags &= ~abi.PACKET_FANOUT_FLAG_UNIQUEID
    group = groups.get(identifier)
    if group is None:
        if most > MOST_MEMBERS:
            raise EINVAL("max_num_members")
        group = Fanout(identifier, kind, flags, most or MAX_MEMBERS)
        group.hears = sock.hears
    elif group.flags != flags or most not in (0, group.most):
        raise EINVAL("another group")
    if not sock.hears[0] or group.kind != kind or group.hears != sock.hears:
        raise EINVAL("another group, or it hears nothing")
    if len(group.members) >= group.most:
        raise ENOSPC("too many members")
    groups[identifier] = group
    group.members.append(sock)
    sock.fanout = group


def leave(groups: dict[int, Fanout], sock: Any) -> None:
    """It ends."""
    group, sock.fanout = sock.fanout, None
    if group is not None:
        group.members.remove(sock)
        if not group.members:
            del groups[group.identifier]
