"""Options of SOL_PACKET: packet(7), packet_setsockopt()."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import TP_STATUS_USER
from sentry.errors import EINVAL, ENOPROTOOPT

if TYPE_CHECKING:
    from sentry.net.stack import Stack

MEMBERSHIP: Final = frozenset({abi.PACKET_ADD_MEMBERSHIP, abi.PACKET_DROP_MEMBERSHIP})
MREQ_SIZE: Final = 16
MAX_ADDRESS: Final = 8
FLAGS: Final = frozenset(
    {
        abi.PACKET_AUXDATA, abi.PACKET_ORIGDEV, abi.PACKET_LOSS, abi.PACKET_TX_HAS_OFF,
        abi.PACKET_QDISC_BYPASS, abi.PACKET_IGNORE_OUTGOING,
    }
)  # fmt: skip
DEFAULTS: Final = {
    **dict.fromkeys(FLAGS, 0), abi.PACKET_COPY_THRESH: 0, abi.PACKET_VERSION: 0,
    abi.PACKET_RESERVE: 0, abi.PACKET_TIMESTAMP: 0, abi.PACKET_VNET_HDR: 0,
    abi.PACKET_VNET_HDR_SZ: 0,
}  # fmt: skip
NOT_HERE: Final = frozenset(
    {abi.PACKET_RX_RING, abi.PACKET_TX_RING, abi.PACKET_VNET_HDR, abi.PACKET_VNET_HDR_SZ}
)
"""Rings, and headers of virtio."""
LAST_VERSION: Final = 2
"""TPACKET_V3."""


def parse(name: int, value: bytes) -> int:
    """What a value becomes. Raises: EINVAL, ENOPROTOOPT."""
    if name in NOT_HERE:
        raise EINVAL(f"packet option {name}")
    if name not in DEFAULTS:
        raise ENOPROTOOPT(f"packet option {name}")
    if len(value) < 4:
        raise EINVAL("int expected")
    (number,) = struct.unpack_from("<i", value)
    if name == abi.PACKET_VERSION and not 0 <= number <= LAST_VERSION:
        raise EINVAL("version")
    if name == abi.PACKET_RESERVE and number < 0:
        raise EINVAL("reserve")
    if name == abi.PACKET_IGNORE_OUTGOING and not 0 <= number <= 1:
        raise EINVAL("not 0 or 1")
    return int(bool(number)) if name in FLAGS else int(number)


def check_membership(stack: Stack, name: int, value: bytes) -> None:
    """struct packet_mreq: the loopback hears everything anyway. Raises: EINVAL, ENODEV."""
    if len(value) < MREQ_SIZE:
        raise EINVAL("struct packet_mreq")
    index, _, size = struct.unpack_from("<iHH", value)
    if size > MAX_ADDRESS:
        raise EINVAL("mr_alen")
    if name == abi.PACKET_ADD_MEMBERSHIP:
        stack.interfaces.by_index(index)


def auxiliary(size: int, cut: int, network: int) -> tuple[int, int, bytes]:
    """PACKET_AUXDATA: struct tpacket_auxdata."""
    body = struct.pack("<IIIHHHH", TP_STATUS_USER, size, cut, 0, network, 0, 0)
    return abi.SOL_PACKET, abi.PACKET_AUXDATA, body
