"""Device files of the network, made known to a sandbox's Vfs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.stat import S_IFCHR
from sentry.net.namespace import stack_of

if TYPE_CHECKING:
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import Vfs

TUN: Final = 10 << 8 | 200
"""/dev/net/tun."""


def register_devices(vfs: Vfs) -> None:
    """Make them known by their numbers."""
    vfs.devices[S_IFCHR, TUN] = open_tun


def open_tun(location: Location, flags: int, caller: Caller) -> FileDescription:
    """open(2): it is of the network namespace of who opens it."""
    from sentry.net.tun.device import TunDevice  # noqa: PLC0415  few programs ask

    return TunDevice(location, flags, stack_of(caller))
