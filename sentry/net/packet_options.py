"""Options of SOL_PACKET: packet(7), packet_setsockopt()."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import (
    SOL_PACKET,
    TP_STATUS_USER,
    TP_STATUS_VLAN_TPID_VALID,
    TP_STATUS_VLAN_VALID,
)
from sentry.errors import EBUSY, EINVAL
from sentry.net import packet_fanout
from sentry.net.options import (
    INT,
    SWITCH,
    Check,
    Option,
    Options,
    Parse,
    Question,
    Within,
    anything,
    exact,
    flag,
    whole,
)
from sentry.net.packet_ring import HEADER_SIZES
from sentry.net.socket_options import SOCKET

if TYPE_CHECKING:
    from sentry.net.packet_socket import PacketSocket
    from sentry.vfs.file import Caller

MREQ_SIZE: Final = 16
MAX_ADDRESS: Final = 8
LAST_VERSION: Final = 2
"""TPACKET_V3."""
TAGGED: Final = TP_STATUS_USER | TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID

PACKET: Final = Options(SOL_PACKET, abi, SOCKET)
DEFAULTS: Final[dict[int, int]] = {}
"""Of the options that are numbers."""


def _get_number(row: Option, sock: PacketSocket, caller: Caller, size: int) -> bytes:
    return INT.pack(sock.values[row.number])


def _set_number(row: Option, sock: PacketSocket, caller: Caller, value: bytes) -> None:
    sock.values[row.number] = row.number_in(value)


def _refuse(row: Option, sock: PacketSocket, caller: Caller, value: bytes) -> None:
    raise EINVAL(row.name)


def _change_membership(row: Option, sock: PacketSocket, caller: Caller, value: bytes) -> None:
    """struct packet_mreq: the loopback hears everything anyway. Raises: EINVAL, ENODEV."""
    if len(value) < MREQ_SIZE:
        raise EINVAL("struct packet_mreq")
    index, _, size = struct.unpack_from("<iHH", value)
    if size > MAX_ADDRESS:
        raise EINVAL("mr_alen")
    if row.number == abi.PACKET_ADD_MEMBERSHIP:
        sock.stack.interfaces.by_index(index)


def _get_statistics(row: Option, sock: PacketSocket, caller: Caller, size: int) -> bytes:
    told, sock.counts = sock.counts, [0, 0]
    if sock.values[abi.PACKET_VERSION] == LAST_VERSION:
        told.append(sock.take_freezes())
    return struct.pack(f"<{len(told)}I", *(number & 0xFFFFFFFF for number in told))


def _set_before(row: Option, sock: PacketSocket, caller: Caller, value: bytes) -> None:
    """What rings are made by. Raises: EBUSY where there is one."""
    number = row.number_in(value)
    if not sock.has_rings:
        sock.values[row.number] = number
    elif row.number != abi.PACKET_TX_HAS_OFF:
        raise EBUSY("there are rings")


def _set_ring(row: Option, sock: PacketSocket, caller: Caller, value: bytes) -> None:
    sock.set_ring(value, sends=row.number == abi.PACKET_TX_RING)


def _get_header_size(row: Option, sock: PacketSocket, caller: Caller, size: int) -> Question:
    """Of the version that stands in the buffer."""

    def answer(version: bytes) -> bytes:
        sizes = dict(enumerate(HEADER_SIZES))
        if len(version) < INT.size or INT.unpack(version)[0] not in sizes:
            raise EINVAL("version")
        return INT.pack(sizes[INT.unpack(version)[0]])

    if size < INT.size:
        raise EINVAL("int expected")
    return Question(INT.size, answer)


def _get_fanout(row: Option, sock: PacketSocket, caller: Caller, size: int) -> bytes:
    return struct.pack("<I", 0 if sock.fanout is None else sock.fanout.number)


def _set_fanout(row: Option, sock: PacketSocket, caller: Caller, value: bytes) -> None:
    packet_fanout.join(sock.stack.fanouts, sock, value)


def _number(name: str, check: Check = flag, partial: str = "", parse: Parse = exact) -> None:
    row = PACKET.row(name, _get_number, _set_number, check=check, parse=parse, partial=partial)
    DEFAULTS[row.number] = 0


_number("PACKET_AUXDATA", parse=whole)
_number("PACKET_IGNORE_OUTGOING", SWITCH)
_number("PACKET_ORIGDEV", flag, "kept: the upper of two interfaces is told", whole)
_number("PACKET_QDISC_BYPASS", partial="kept: there is no queue to go round")
_number("PACKET_COPY_THRESH", anything, "kept: what is larger than a frame is cut")
_number("PACKET_TIMESTAMP", anything, "kept: all stamps are those of software")
for _name, _check in (
    ("PACKET_VERSION", Within(0, LAST_VERSION)), ("PACKET_RESERVE", Within(0, 0x7FFFFFFF)),
    ("PACKET_LOSS", flag), ("PACKET_TX_HAS_OFF", flag),
):  # fmt: skip
    PACKET.row(_name, _get_number, _set_before, check=_check, parse=exact)
    DEFAULTS[getattr(abi, _name)] = 0
for _name in ("PACKET_VNET_HDR", "PACKET_VNET_HDR_SZ"):
    PACKET.row(_name, _get_number, _refuse, partial="no headers of virtio: EINVAL")
    DEFAULTS[getattr(abi, _name)] = 0
PACKET.row("PACKET_RX_RING", None, _set_ring)
PACKET.row("PACKET_TX_RING", None, _set_ring)
PACKET.row("PACKET_HDRLEN", _get_header_size)
PACKET.row("PACKET_FANOUT", _get_fanout, _set_fanout, partial="no programs of BPF that choose")
PACKET.row("PACKET_ADD_MEMBERSHIP", None, _change_membership, partial="everything is heard anyway")
PACKET.row("PACKET_DROP_MEMBERSHIP", None, _change_membership, partial="everything is heard anyway")
PACKET.row("PACKET_STATISTICS", _get_statistics)


def auxiliary(
    size: int, cut: int, network: int, tag: tuple[int, int] | None
) -> tuple[int, int, bytes]:
    """PACKET_AUXDATA: struct tpacket_auxdata. `tag`: TPID and TCI."""
    status, (kind, control) = (TAGGED, tag) if tag is not None else (TP_STATUS_USER, (0, 0))
    body = struct.pack("<IIIHHHH", status, size, cut, 0, network, control, kind)
    return abi.SOL_PACKET, abi.PACKET_AUXDATA, body
