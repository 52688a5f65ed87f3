"""`Entrances`: where processes of the host reach programs inside of a container's own namespace.

Who forwards a port for an engine may enter the network namespace and connect to its loopback, or to
its own addresses (containerd's port-forward, rootlessport, pasta for what comes from the host
itself), where the host's stack answers, not ours. So the network process listens at each address
where a program does, and hands over what it accepts. By its interfaces nothing gets there: what
comes by them the host's stack does not see.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import Errno
from sentry.net.host.protocol import MAX_LISTENING
from sentry.net.inet.address import pack
from sentry.net.inet.entrant import Entrant
from sentry.net.inet.tcp_listener import TcpListener
from sentry.suppress import suppress

if TYPE_CHECKING:
    from sentry.net.host.process import NetworkProcess
    from sentry.net.stack import Stack

MAX_ENTRANTS: Final = 128
"""Connections at a time."""


class Place(NamedTuple):
    """Where a program listens."""

    address: bytes
    v6only: bool


class Entrances:
    """Of one stack. Preconditions: it has an IP layer."""

    def __init__(self, stack: Stack, process: NetworkProcess, loop: Any) -> None:
        self._stack = stack
        self._process = process
        self._loop = loop
        self._listening: Counter[Place] = Counter()
        """How many sockets do (SO_REUSEPORT)."""
        self._numbers: dict[Place, int] = {}
        self._new: dict[int, Place] = {}
        self._open: dict[int, None] = {}
        """That the network process has, or is asked for."""
        self._old: dict[int, None] = {}
        """Of these, what nobody listens at any more."""
        self._next = count(1)
        self._is_busy = False
        self._entrants: dict[Entrant, None] = {}
        process.on_connection = self._came
        assert stack.tcp is not None
        stack.tcp.on_listen, stack.tcp.on_silence = self._begun, self._ended
        for sock in stack.ports_of(IPPROTO_TCP).everybody():
            if isinstance(sock, TcpListener) and sock.listening:
                self._begun(sock)

    def close(self) -> None:
        """Nobody enters any more."""
        assert self._stack.tcp is not None
        self._stack.tcp.on_listen = self._stack.tcp.on_silence = lambda sock: None
        for each in list(self._entrants):
            each.close()

    def _begun(self, sock: TcpListener) -> None:
        place = Place(pack(sock.local, sock.family), sock.v6only)
        self._listening[place] += 1
        if place not in self._numbers and len(self._numbers) < MAX_LISTENING:
            number = self._numbers[place] = next(self._next)
            self._new[number] = place
            self._work()

    def _ended(self, sock: TcpListener) -> None:
        place = Place(pack(sock.local, sock.family), sock.v6only)
        self._listening[place] -= 1
        if self._listening[place] > 0:
            return
        del self._listening[place]
        number = self._numbers.pop(place, 0)
        if self._new.pop(number, None) is None and number in self._open:
            self._old[number] = None
            self._work()

    def _work(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self._loop.spawn(self._follow(), "entrances", self._followed)

    def _followed(self, _: object, error: BaseException | None) -> None:
        self._is_busy = False
        if error is not None:
            self._stack.kernel.log.bug("entrances", error)

    async def _follow(self) -> None:
        """One after the other, until the network process has what is wanted: what has come and gone
        before its turn costs nothing."""
        while self._old or self._new:
            if self._old:
                number, _ = self._old.popitem()
                del self._open[number]
                with suppress(Errno):
                    await self._process.close_port(number)
                continue
            number, place = self._new.popitem()
            self._open[number] = None
            try:
                await self._process.listen(number, place.address, v6only=place.v6only)
            except Errno:  # somebody of the host has it, or the host has no such address
                self._open.pop(number, None)
                self._old.pop(number, None)

    def _came(self, number: int, fd: int) -> None:
        if number not in self._open or len(self._entrants) >= MAX_ENTRANTS:
            os.close(fd)
            return
        try:
            made = Entrant(self._stack, fd, self._loop, self._gone)
        except Errno:
            os.close(fd)
            return
        self._entrants[made] = None

    def _gone(self, entrant: Entrant) -> None:
        self._entrants.pop(entrant, None)
