"""SIOCETHTOOL: what drivers tell of their interfaces. linux/ethtool.h, net/ethtool/ioctl.c.

What is told of a link is so: checksums and cutting into segments are left to whoever is at its
other end (`link/vnet.py`), and none of it can be turned off.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.ethtool import (
    ETH_GSTRING_LEN,
    ETHTOOL_GET_TS_INFO,
    ETHTOOL_GFEATURES,
    ETHTOOL_GGRO,
    ETHTOOL_GGSO,
    ETHTOOL_GLINK,
    ETHTOOL_GRXCSUM,
    ETHTOOL_GSG,
    ETHTOOL_GSSET_INFO,
    ETHTOOL_GSTRINGS,
    ETHTOOL_GTSO,
    ETHTOOL_GTXCSUM,
)
from sentry.errors import EOPNOTSUPP

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.vfs.file import Caller

OFFLOADS: Final = frozenset(
    (ETHTOOL_GRXCSUM, ETHTOOL_GTXCSUM, ETHTOOL_GSG, ETHTOOL_GTSO, ETHTOOL_GGSO, ETHTOOL_GGRO)
)
SOFTWARE_STAMPS: Final = 0x1A
"""SOF_TIMESTAMPING_TX_SOFTWARE, RX_SOFTWARE, SOFTWARE."""
ETH_SS_FEATURES: Final = 4
"""Of enum ethtool_stringset."""
FEATURES: Final = {
    "tx-scatter-gather": True, "tx-checksum-ip-generic": True, "tx-generic-segmentation": True,
    "tx-tcp-segmentation": True, "tx-tcp-ecn-segmentation": True, "tx-tcp6-segmentation": True,
    "rx-checksum": True, "rx-gro": True, "rx-lro": False, "rx-vlan-hw-parse": False,
    "tx-vlan-hw-insert": False, "rx-ntuple-filter": False, "rx-hashing": False, "highdma": True,
}  # fmt: skip
"""By the names of net/ethtool/common.c, in an order of ours; whether it is so."""
ALL: Final = (1 << len(FEATURES)) - 1
ACTIVE: Final = sum(1 << at for at, is_on in enumerate(FEATURES.values()) if is_on)


def ethtool(caller: Caller, link: Interface, pointer: int) -> int:
    """One request, of which the first word says what it is. Raises: EFAULT, EOPNOTSUPP."""
    (command,) = struct.unpack("<I", caller.mm.read(pointer, 4))
    if command == ETHTOOL_GLINK:
        answer = struct.pack("<II", command, link.is_up and link.has_carrier)
    elif command in OFFLOADS:
        answer = struct.pack("<II", command, 1)
    elif command == ETHTOOL_GET_TS_INFO:
        answer = struct.pack("<IIi32x", command, SOFTWARE_STAMPS, -1)
    elif command == ETHTOOL_GSSET_INFO:
        _, _, wanted = struct.unpack("<IIQ", caller.mm.read(pointer, 16))
        known = wanted & 1 << ETH_SS_FEATURES
        answer = struct.pack("<IIQ", command, 0, known)
        answer += struct.pack("<I", len(FEATURES)) if known else b""
    elif command == ETHTOOL_GSTRINGS:
        _, which = struct.unpack("<II", caller.mm.read(pointer, 8))
        if which != ETH_SS_FEATURES:
            raise EOPNOTSUPP(f"strings {which}")
        names = (name.encode().ljust(ETH_GSTRING_LEN, b"\0") for name in FEATURES)
        answer = struct.pack("<III", command, which, len(FEATURES)) + b"".join(names)
    elif command == ETHTOOL_GFEATURES:
        _, blocks = struct.unpack("<II", caller.mm.read(pointer, 8))
        answer = struct.pack("<II", command, 1)
        answer += struct.pack("<IIII", ALL, ACTIVE, ACTIVE, ALL) if blocks else b""
    else:
        raise EOPNOTSUPP(f"ethtool command {command:#x}")
    caller.mm.write(pointer, answer)
    return 0
