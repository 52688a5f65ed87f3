"""`Brokers`: connections that a policy hands on to services of the host, completed in the sandbox.

A program's connect(2) has an answer when the broker has the connection: the dialer is asked for a
stream to it, and the program's socket gets an end of ours, with the stream behind it. No packet
leaves, so no link is needed either.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import EAGAIN, ECONNREFUSED, ENETDOWN, ETIMEDOUT, Errno
from sentry.net.host.dial import Wanted
from sentry.net.inet.broker_stream import NAME, End, Stream
from sentry.net.inet.tcp_filtered import FIRST_NS, MOST_TRIES
from sentry.wait.fiber import loosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.net.egress.flows import Flow, Flows
    from sentry.net.host.dialer import Dialer
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.tcp import TcpSocket
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

FULL: Final = "its broker takes no more"
NO_DIALER: Final = "the dialer has ended"


class Brokers:
    """Of one stack."""

    def __init__(self, stack: Stack, loop: Any, flows: Flows) -> None:
        self._loop = loop
        self._flows = flows
        self._budget = stack.kernel.vfs.budget
        self._ends = {family: End.open(stack, family) for family in (AF_INET, AF_INET6)}
        self._dialer: Dialer | None = None
        self._places: dict[str, int] = {}
        self._waiting: dict[_Wish, None] = {}
        """In the order in which they are dialed."""
        self._is_dialing = False
        self._streams: dict[Flow, Stream] = {}

    @property
    def are_there(self) -> bool:
        """The policy names some."""
        return bool(self._places)

    def follow(self, sockets: Sequence[str], dialer: Dialer | None) -> None:
        """The policy of now, and who reaches these; who did before is not asked any more."""
        before, self._dialer = self._dialer, dialer
        self._places = {path: place for place, path in enumerate(sockets)}
        if dialer is not None and not sockets:
            dialer.close()
        if before is not None:
            before.close()

    def hand_on(self, sock: TcpSocket, caller: Caller, target: Endpoint, flow: Flow) -> None:
        """A socket that connects hears what becomes of it, later than now. Preconditions: there is
        room for a descriptor."""
        self._budget.host_descriptors += 1
        wish = _Wish(sock, caller, target, flow)
        sock.asks = partial(self._give_up, wish)
        self._dial_soon(wish)

    def reset(self, flow: Flow, number: int) -> None:
        """It is not allowed any more. One that is not made yet hears of that by itself."""
        stream = self._streams.get(flow)
        if stream is not None:
            stream.reset(number)

    # --- one after the other, for the dialer answers at once

    def _dial_soon(self, wish: _Wish) -> None:
        self._waiting[wish] = None
        if not self._is_dialing:
            self._is_dialing = True
            self._loop.spawn(self._dial_all(), NAME)

    async def _dial_all(self) -> None:
        try:
            while self._waiting:
                wish = next(iter(self._waiting))
                del self._waiting[wish]
                await self._dial(wish)
        finally:
            self._is_dialing = False

    async def _dial(self, wish: _Wish) -> None:
        dialer, flow = self._dialer, wish.flow
        if not self._flows.goes_on(flow, time.monotonic_ns()):
            self._refuse(wish, flow.verdict.errno)
            return
        fd = -1
        failure: type[Errno] = ECONNREFUSED
        try:
            if dialer is None:
                raise ENETDOWN("there is no dialer")
            fd = await dialer.dial(self._wanted(flow))
        except Errno as error:
            failure = type(error)
            loosen(error)
        if wish.is_over:
            if fd >= 0:
                os.close(fd)
        elif fd >= 0:
            self._connect(wish, fd)
        elif dialer is not self._dialer:  # it has ended, for there is another one
            self._waiting[wish] = None
        elif failure is EAGAIN:
            self._dial_again(wish)
        else:
            reason = NO_DIALER if failure is ENETDOWN else f"its broker: {failure.__name__}"
            self._flows.is_not_served(flow, reason, time.monotonic_ns())
            self._refuse(wish, ECONNREFUSED.number)

    def _wanted(self, flow: Flow) -> Wanted:
        key, by = flow.key, flow.program
        names = self._flows.policy.names_for(flow.verdict.rule, reversed(flow.names))
        path, pid, uid = ("", 0, 0) if by is None else (by.path, by.pid, by.uid)
        place = self._places[flow.broker or ""]
        return Wanted(place, key.target, key.target_port, names, path, pid, uid)

    def _dial_again(self, wish: _Wish) -> None:
        """Its queue is full: as a SYN is sent again. RFC 6298."""
        if wish.tries >= MOST_TRIES:
            self._flows.is_not_served(wish.flow, FULL, time.monotonic_ns())
            self._refuse(wish, ETIMEDOUT.number)
            return
        at_ns = self._loop.now_ns() + (FIRST_NS << wish.tries)
        wish.tries += 1
        wish.timer = self._loop.call_at(at_ns, partial(self._dial_soon, wish))

    # --- what comes of it

    def _connect(self, wish: _Wish, fd: int) -> None:
        sock, flow = wish.sock, wish.flow
        maker = self._ends[AF_INET if wish.target.is_v4 else AF_INET6]
        try:
            end = maker.to(wish.caller, sock, wish.target)
        except Errno as error:  # no room for one more file
            os.close(fd)
            self._flows.is_not_served(flow, type(error).__name__, time.monotonic_ns())
            self._refuse(wish, error.number)
            return
        wish.is_over = True
        sock.asks = None
        self._streams[flow] = Stream(end, fd, self._flows, flow, partial(self._gone, flow))
        if not self._flows.goes_on(flow, time.monotonic_ns()):  # the policy has changed meanwhile
            self._streams[flow].reset(flow.verdict.errno)

    def _gone(self, flow: Flow) -> None:
        del self._streams[flow]
        self._budget.host_descriptors -= 1

    def _refuse(self, wish: _Wish, number: int) -> None:
        self._give_up(wish)
        wish.sock.asks = None
        wish.sock.refuse(number)

    def _give_up(self, wish: _Wish) -> None:
        """The socket wants it no more."""
        if not wish.is_over:
            wish.is_over = True
            self._waiting.pop(wish, None)
            if wish.timer is not None:
                wish.timer.cancel()
            self._flows.ended(wish.flow)
            self._budget.host_descriptors -= 1


class _Wish:
    """Of a socket that connects."""

    __slots__ = ("caller", "flow", "is_over", "sock", "target", "timer", "tries")

    def __init__(self, sock: TcpSocket, caller: Caller, target: Endpoint, flow: Flow) -> None:
        self.sock = sock
        self.caller = caller
        self.target = target
        self.flow = flow
        self.is_over = False
        """It has its answer, or wants none."""
        self.tries = 0
        self.timer: Any = None
