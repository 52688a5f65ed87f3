"""`Egress`: the policy of a stack, at its gate: changed while programs run, told to who asks.

What is decided, and by what: sentry.net.egress.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import ECONNABORTED
from sentry.net.egress.flows import Flows, Key
from sentry.net.egress.gate import Gate
from sentry.net.egress.policy import Policy
from sentry.net.egress.rules import parse, served
from sentry.net.inet.address import Endpoint
from sentry.net.inet.leaving import plain
from sentry.net.tcp.keyed import Flow
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.net.egress.policy import Program
    from sentry.net.inet.resolver import Resolver
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

FILE: Final = "egress"
"""How errors name the policy, of whose file nothing is known here."""
SWEPT: Final = 64
"""Flows that are judged again in a step."""


class Egress:
    """Of one stack. Preconditions: it has `ip` and `tcp`."""

    def __init__(
        self, stack: Stack, resolver: Resolver, loop: Any, text: str, own: Iterable[str]
    ) -> None:
        """`own`: addresses of the host, as text. Raises: PolicyError."""
        tcp = stack.tcp
        assert stack.ip is not None and tcp is not None
        self.resolver = resolver
        self._loop = loop
        self._tcp = tcp
        self.text = text
        """The policy, as it was given."""
        self.flows = Flows(_made(text, own), resolver.forwarder.given)
        self.gate = Gate(self.flows, self._reset)
        self.denied = WaitQueue()
        """Who waits for denials."""
        self.flows.denials.on_add = self.denied.notify
        stack.ip.gate = self.gate
        tcp.on_over = self._over
        stack.egress = self
        resolver.follow(self.flows.policy.document.dns)

    def check_connect(self, caller: Caller, local: Endpoint, target: Endpoint) -> Program | None:
        """connect(2) of TCP; who calls it. Raises: ECONNREFUSED or EPERM, as the policy says."""
        ends = plain(local.ip), plain(target.ip)
        return self.gate.check(time.monotonic_ns(), IPPROTO_TCP, ends, target.port, caller)

    def change(self, text: str, own: Iterable[str]) -> None:
        """Another policy, for all from now on; what it no longer allows is reset, in steps.

        Raises: PolicyError.
        """
        self.flows.change(_made(text, own))
        self.text = text
        self.resolver.follow(self.flows.policy.document.dns)
        self._loop.call_soon(self._sweep)

    def _sweep(self) -> None:
        over = self.flows.sweep(SWEPT, time.monotonic_ns())
        if over is not None:
            for flow in over:
                self._reset(flow.key)
            self._loop.call_soon(self._sweep)

    def _reset(self, key: Key) -> None:
        """A connection is to end: not now, as it may be just what sends."""
        if key.protocol == IPPROTO_TCP:
            flow = _flow_of(key)
            if flow in self._tcp.engines:
                self._loop.call_soon(partial(self._destroy, flow))

    def _destroy(self, flow: Flow) -> None:
        engine = self._tcp.engines.get(flow)
        if engine is not None:
            engine.destroy(ECONNABORTED.number)

    def _over(self, flow: Flow) -> None:
        local, remote = flow
        key = Key(IPPROTO_TCP, local.ip, local.port, remote.ip, remote.port)
        self.gate.ended(time.monotonic_ns(), key)


def _made(text: str, own: Iterable[str]) -> Policy:
    document = parse(text, FILE)
    served(document, FILE)
    return Policy(document, own)


def _flow_of(key: Key) -> Flow:
    return Flow(Endpoint(key.source, key.source_port), Endpoint(key.target, key.target_port))
