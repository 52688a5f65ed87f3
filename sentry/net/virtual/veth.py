"""veth(4): two interfaces of which each gets what the other sends. drivers/net/veth.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.net.link import vnet
from sentry.net.made import Made
from sentry.net.netlink.notices import OPER_UP

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.link.link import Link
    from sentry.net.stack import Stack

FLAGS: Final = abi.IFF_BROADCAST | abi.IFF_MULTICAST
FRAMES: Final = 16
"""That go over in a turn: less than a millisecond's work."""
BYTES: Final = 1 << 20


class Veth(Made):
    """One end."""

    kind = "veth"
    oper_state = OPER_UP
    stays_inside = True

    def __init__(self, stack: Stack, interface: Interface) -> None:
        """Raises: what `check_place` raises."""
        self.other: Veth | None = None
        """The other end, while there is one."""
        self._is_coming = False
        """A turn is to come in which frames go over."""
        interface.has_carrier = False
        interface.sent = [0, 0]
        super().__init__(stack, interface)

    def join(self, other: Veth) -> None:
        """Both are ends of one."""
        self.other, other.other = other, self

    def new_link(self) -> Link:
        """What waits goes over in a turn of the loop."""
        link = super().new_link()
        link.on_output = self._wants_to_send
        return link

    # --- frames

    def _wants_to_send(self) -> None:
        if not self._is_coming:
            self._is_coming = True
            self.stack.kernel.loop.call_soon(self._send)

    def _send(self) -> None:
        self._is_coming = False
        link, other = self.link, self.other
        frames = link.take_outgoing(FRAMES, BYTES)
        if other is not None and other.interface.is_up and self.interface.is_up:
            size = sum(map(len, frames)) - vnet.SIZE * len(frames)
            for counted in (self.interface.sent, other.interface.received):
                assert counted is not None
                counted[0] += len(frames)
                counted[1] += size
            other.received(*frames)
        else:
            self.interface.dropped += len(frames)
        if link.has_room:
            link.on_room()
            self.layer.on_deadline()
        if link.outgoing:
            self._wants_to_send()

    # --- what becomes of it

    def turned(self) -> None:
        """There is a carrier while both are up: veth_open(), veth_close()."""
        super().turned()
        other = self.other
        if other is not None:
            both = self.interface.is_up and other.interface.is_up
            self.set_carrier(both)
            other.set_carrier(both)

    def removed(self) -> None:
        """Both go: veth_dellink()."""
        other, self.other = self.other, None
        if self.stack.interfaces.get(self.interface.index) is self.interface:
            super().removed()
        if other is not None:
            other.removed()

    @property
    def is_below_down(self) -> bool:
        """The other end, where it is to be seen."""
        other = self.other
        if other is None or other.stack is not self.stack:
            return False
        return not other.interface.has_carrier

    def link_attributes(self) -> bytes:
        """Which one is the other; a number of its namespace, if that is another."""
        return b"" if self.other is None else self.stands_on(self.other)
