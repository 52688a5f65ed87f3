"""`Uplinks`: the links of a stack of its own, as the interfaces of a namespace of the host are.

The host's interfaces, addresses and routes are shown in the stack (sentry.net.host); here each
Ethernet interface that is up among them gets a link and a packet socket, and loses them again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.netlink import ARPHRD_ETHER
from sentry.errors import Errno
from sentry.net.link.link import EthernetLink
from sentry.net.link.uplink import Uplink
from sentry.wait.fiber import Mode
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.net.host.process import NetworkProcess
    from sentry.net.interfaces import Interface
    from sentry.net.ip.layer import IpLayer
    from sentry.net.stack import Stack

MAX_LINKS: Final = 16
"""As many packet sockets as the network process has."""


class Uplinks:
    """Of one stack."""

    def __init__(self, stack: Stack, layer: IpLayer, process: NetworkProcess, loop: Any) -> None:
        self._stack = stack
        self._layer = layer
        self._process = process
        self._loop = loop
        self._uplinks: dict[int, Uplink] = {}
        self._timer: Any = None
        self._timer_ns: int | None = None

    async def follow(self) -> None:
        """The list has been shown: open and close what it says. Raises: nothing of the host."""
        wanted = {
            each.index: each
            for each in self._stack.interfaces
            if each.kind == ARPHRD_ETHER and each.is_up and len(each.hardware) == 6
        }
        for index in self._uplinks.keys() - wanted.keys():
            self._drop(index)
        for index, interface in wanted.items():
            known = self._uplinks.get(index)
            if known is not None:
                known.link.hardware = interface.hardware
            elif len(self._uplinks) < MAX_LINKS:
                with suppress(Errno):  # it has gone again
                    await self._open(interface)
        await driven(self._layer.refresh(self._stack.routes), Mode.UNINTERRUPTIBLE)
        self._after()

    async def _open(self, interface: Interface) -> None:
        fd = await self._process.uplink(interface.index)
        chance = int.from_bytes(os.urandom(4))
        link = EthernetLink(interface.index, interface.hardware, self._layer, chance)
        self._layer.links[interface.index] = link
        self._uplinks[interface.index] = Uplink(fd, link, self._loop, self._after)

    def _drop(self, index: int) -> None:
        del self._layer.links[index]
        os.close(self._uplinks.pop(index).close())

    def close(self) -> None:
        """The namespace ends."""
        for index in list(self._uplinks):
            self._drop(index)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- time

    def _after(self) -> None:
        """Something has happened: be woken when the next thing is due."""
        due_ns = self._layer.timer()
        if due_ns is None or (self._timer_ns is not None and self._timer_ns <= due_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = due_ns
        self._timer = self._loop.call_at(due_ns, self._due)

    def _due(self) -> None:
        self._timer = self._timer_ns = None
        self._layer.timeout(self._loop.now_ns())
        self._after()
