"""The loopback interface of a network namespace of the host, which begins down."""

from __future__ import annotations

import fcntl
import socket
import struct

from sentry.abi.netlink import IFF_UP
from sentry.abi.socket import SIOCSIFFLAGS


def bring_up() -> None:
    """Of the namespace that this process is in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))
