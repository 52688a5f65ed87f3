"""Which socket listens for a segment: those of TCP that are reached by links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.net.inet.tcp_listener import listening_at
from sentry.net.tcp.endpoints import Endpoints

if TYPE_CHECKING:
    from sentry.net.inet.tcp_engine import Listening
    from sentry.net.stack import Stack
    from sentry.net.tcp.keyed import Flow
    from sentry.net.tcp.listener import Listener
    from sentry.net.tcp.settings import Shared

LEAST_KEPT: Final = 1024
"""Handshakes that are remembered before those that are over are looked for."""


class Reached(Endpoints):
    """Whose listeners are sockets, found in the table of ports."""

    __slots__ = ("_asked", "_most", "heard", "index", "stack")

    def __init__(self, shared: Shared, stack: Stack) -> None:
        super().__init__(shared)
        self.stack = stack
        self.index = 0
        """The interface by which a segment has come."""
        self.heard: Listening | None = None
        """Whose listener a segment was for, until somebody takes it."""
        self._asked: dict[Flow, Listening] = {}
        """Handshakes with who shares its port; some are over."""
        self._most = LEAST_KEPT

    def listener_for(self, flow: Flow) -> Listener | None:
        """The listener of the socket."""
        self.heard = heard = self._heard_for(flow)
        return None if heard is None else heard.listener

    def _heard_for(self, flow: Flow) -> Listening | None:
        """Who has begun a handshake goes on with it, else one of those that listen there."""
        asked = self._asked.get(flow)
        if asked is not None and flow in asked.listener.requests:
            return asked
        sock = listening_at(self.stack, flow.local, flow.remote, self.index)
        found: Listening | None = None if sock is None else sock.heard
        return found

    def note(self, flow: Flow, heard: Listening) -> None:
        """A segment came to a listener: whoever comes to its port, or goes, it stays with this."""
        if not heard.shares or flow not in heard.listener.requests:
            self._asked.pop(flow, None)
            return
        self._asked[flow] = heard
        if len(self._asked) > self._most:
            self._asked = {
                each: one for each, one in self._asked.items() if each in one.listener.requests
            }
            self._most = max(2 * len(self._asked), LEAST_KEPT)
