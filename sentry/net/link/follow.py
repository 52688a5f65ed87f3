"""`Uplinks`: the links of a stack of its own, as the interfaces of a namespace of the host are.

The host's interfaces, addresses and routes are shown in the stack (sentry.net.host); here each
Ethernet interface that is up among them gets a link and a packet socket, and loses them again.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.netlink import ARPHRD_ETHER, RTM_NEWNEIGH
from sentry.errors import EINVAL, ENETDOWN, ENODEV, Errno
from sentry.net.frame import show_link_frame
from sentry.net.host.interfaces import messages, parse_neighbour
from sentry.net.inet.address import MAPPED
from sentry.net.link.link import EthernetLink
from sentry.net.link.timing import Timing
from sentry.net.link.uplink import Uplink
from sentry.net.netlink.neighbours import learned
from sentry.suppress import suppress
from sentry.wait.fiber import Mode
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.net.host.process import NetworkProcess
    from sentry.net.interfaces import Interface
    from sentry.net.ip.layer import IpLayer
    from sentry.net.link.sender import Sender
    from sentry.net.stack import Stack
    from sentry.wait.steps import Steps

MAX_STATIC: Final = 256
"""Neighbours of the host that are taken over: less than half of a table."""
MAX_LINKS: Final = 8
"""As many packet sockets as the network process has."""


class Uplinks:
    """Of one stack."""

    def __init__(
        self,
        stack: Stack,
        layer: IpLayer,
        process: NetworkProcess,
        loop: Any,
        sender: Sender | None = None,
    ) -> None:
        """`sender`: a thread for frames, where there is one."""
        self._sender = sender
        self._stack = stack
        self._layer = layer
        self._process = process
        self._loop = loop
        self._uplinks: dict[int, Uplink] = {}
        self._static: dict[tuple[int, bytes], bytes] = {}
        self._timing = Timing(layer, loop)
        self._is_closed = False

    async def follow(self, parts: list[bytes]) -> None:
        """A list has been shown: open and close what it says."""
        wanted = {
            each.index: each
            for each in self._stack.interfaces
            if each.kind == ARPHRD_ETHER and each.is_up and len(each.hardware) == 6
            and each.driver is None
        }  # fmt: skip
        for index, known in list(self._uplinks.items()):
            if index not in wanted or not known.is_bound:
                self._drop(index)  # another may have its number by now
        for index, interface in wanted.items():
            opened = self._uplinks.get(index)
            if opened is not None:
                opened.link.hardware = interface.hardware
            elif len(self._uplinks) < MAX_LINKS:
                await self._try(interface)
        await driven(self._layer.refresh(self._stack.routes), Mode.UNINTERRUPTIBLE)
        await driven(self._set_neighbours(parts), Mode.UNINTERRUPTIBLE)
        self._timing.after()

    def _set_neighbours(self, parts: list[bytes]) -> Steps[None]:
        """Those that an administrator of the host has set, and no longer those that were."""
        told: dict[tuple[int, bytes], bytes] = {}
        for kind, body in messages(parts):
            yield
            if kind == RTM_NEWNEIGH and len(told) < MAX_STATIC:
                with suppress(EINVAL):  # an attribute that is cut
                    found = parse_neighbour(body)
                    if found is not None and found[0] in self._uplinks:
                        told[found[:2]] = found[2]
        for index, ip in self._static.keys() - told.keys():
            if index in self._uplinks:
                self._uplinks[index].link.neighbours(ip).drop(ip)
        for (index, ip), hardware in told.items():
            self._uplinks[index].link.neighbours(ip).set_static(ip, hardware)
        self._static = told

    async def _try(self, interface: Interface) -> None:
        try:
            await self._open(interface)
        except (ENETDOWN, ENODEV):  # it has gone again, or the network process has
            return
        except Errno as error:
            self._stack.kernel.log.write(f"{interface.name}: reaches nobody: {error}\n")

    async def _open(self, interface: Interface) -> None:
        fd = await self._process.uplink(interface.index)
        if self._is_closed:
            os.close(fd)
            return
        chance = int.from_bytes(os.urandom(4))
        link = EthernetLink(interface.index, interface.hardware, self._layer, chance)
        link.faults = self._layer.faults_of(link)
        link.seen = partial(show_link_frame, self._stack, link)
        link.on_room = partial(self._layer.on_room, interface.index)
        link.tell_changes(partial(learned, self._stack, interface.index))
        self._layer.links[interface.index] = link
        self._uplinks[interface.index] = Uplink(
            fd, link, self._loop, self._timing.after, self._sender
        )
        joined = [
            ip[12:] if ip[:12] == MAPPED else ip
            for ip, index in self._stack.memberships if index == link.index
        ]  # fmt: skip
        self._layer.groups.link_came(self._loop.now_ns(), link.index, joined)

    def _drop(self, index: int) -> None:
        del self._layer.links[index]
        self._layer.groups.link_went(index)
        os.close(self._uplinks.pop(index).close())
        with suppress(Errno):  # nobody is there to have it back
            self._process.give_back(index)

    def close(self) -> None:
        """The namespace ends."""
        self._is_closed = True
        for index in list(self._uplinks):
            self._drop(index)
        self._timing.stop()
        self._timing.after()
