"""/sys/class/net: the interfaces that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

COUNTERS: Final = (
    "collisions", "multicast", "rx_bytes", "rx_compressed", "rx_crc_errors", "rx_dropped",
    "rx_errors", "rx_fifo_errors", "rx_frame_errors", "rx_length_errors", "rx_missed_errors",
    "rx_nohandler", "rx_over_errors", "rx_packets", "tx_aborted_errors", "tx_bytes",
    "tx_carrier_errors", "tx_compressed", "tx_dropped", "tx_errors", "tx_fifo_errors",
    "tx_heartbeat_errors", "tx_packets", "tx_window_errors",
)  # fmt: skip
LOOPBACK: Final = {
    "address": "00:00:00:00:00:00", "addr_len": "6", "broadcast": "00:00:00:00:00:00",
    "carrier": "1", "dev_id": "0x0", "dormant": "0", "flags": "0x9", "ifalias": "",
    "ifindex": "1", "iflink": "1", "link_mode": "0", "mtu": "65536", "operstate": "unknown",
    "tx_queue_len": "1000", "type": "772", "uevent": "INTERFACE=lo\nIFINDEX=1",
}  # fmt: skip


def interfaces(caller: Any) -> Mapping[str, Mapping[str, str]]:
    """Attributes by interface."""
    found: Mapping[str, Mapping[str, str]] = caller.ns.net.links()
    return found


def network_files(caller: Any) -> dict[str, str]:
    """Path below /sys to text."""
    files: dict[str, str] = {}
    for name, attributes in interfaces(caller).items():
        base = f"devices/virtual/net/{name}"
        files |= {f"{base}/{key}": text for key, text in attributes.items()}
        files |= {f"{base}/statistics/{counter}": "0" for counter in COUNTERS}
    return files
