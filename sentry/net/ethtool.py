"""SIOCETHTOOL: what the driver of the loopback tells. linux/ethtool.h, net/ethtool/ioctl.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.ethtool import ETHTOOL_GET_TS_INFO, ETHTOOL_GLINK
from sentry.errors import EOPNOTSUPP

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.vfs.file import Caller

OFFLOADS: Final = frozenset({0x14, 0x16, 0x18, 0x1E, 0x23, 0x2B})
"""Checksums, scatter-gather, segmentation: ETHTOOL_GRXCSUM, GTXCSUM, GSG, GTSO, GGSO, GGRO."""
SOFTWARE_STAMPS: Final = 0x1A
"""SOF_TIMESTAMPING_TX_SOFTWARE, RX_SOFTWARE, SOFTWARE."""


def ethtool(caller: Caller, link: Interface, pointer: int) -> int:
    """One request, of which the first word says what it is. Raises: EFAULT, EOPNOTSUPP."""
    (command,) = struct.unpack("<I", caller.mm.read(pointer, 4))
    if command == ETHTOOL_GLINK:
        answer = struct.pack("<II", command, link.is_up and link.has_carrier)
    elif command in OFFLOADS and link.is_loopback:
        answer = struct.pack("<II", command, 1)
    elif command == ETHTOOL_GET_TS_INFO:
        answer = struct.pack("<IIi32x", command, SOFTWARE_STAMPS, -1)
    else:
        raise EOPNOTSUPP(f"ethtool command {command:#x}")
    caller.mm.write(pointer, answer)
    return 0
