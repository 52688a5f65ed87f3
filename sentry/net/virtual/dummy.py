"""dummy: an interface that has addresses, and nobody behind it. drivers/net/dummy.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi import netlink as abi
from sentry.net.link import vnet
from sentry.net.link.link import EthernetLink
from sentry.net.made import Made

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.link.link import Link
    from sentry.net.stack import Stack

FLAGS = abi.IFF_BROADCAST | abi.IFF_NOARP


class Dummy(Made):
    """One of them, and the `Sink` of its link."""

    kind = "dummy"
    has_room = True
    stays_inside = True

    def __init__(self, stack: Stack, interface: Interface) -> None:
        """Raises: what `check_place` raises."""
        super().__init__(stack, interface)
        interface.sent = [0, 0]

    def new_link(self) -> Link:
        """Nobody is asked who has an address."""
        link = EthernetLink(self.interface.index, self.interface.hardware, self.layer, 0)
        link.asks = False
        link.sink = self
        return link

    def put(self, frame: bytes) -> None:
        """It is gone."""
        sent = self.interface.sent
        assert sent is not None
        sent[0] += 1
        sent[1] += len(frame) - vnet.SIZE
