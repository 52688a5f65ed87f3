"""`Egress`: the policy of a stack, at its gate: changed while programs run, told to who asks.

What is decided, and by what: sentry.net.egress.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import ECONNABORTED, from_number
from sentry.net.egress.flows import Flows, Key
from sentry.net.egress.gate import Gate, program_of
from sentry.net.egress.policy import Policy, Target
from sentry.net.egress.rules import PolicyError, brokers, parse
from sentry.net.inet.address import Endpoint, plain
from sentry.net.inet.brokers import Brokers
from sentry.net.tcp.keyed import Flow
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.net.egress.policy import Program
    from sentry.net.host.dialer import Dialer
    from sentry.net.inet.resolver import Resolver
    from sentry.net.inet.tcp import TcpSocket
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

FILE: Final = "egress"
"""How errors name the policy, of whose file nothing is known here."""
SWEPT: Final = 64
"""Flows that are judged again in a step."""


class Egress:
    """Of one stack. Preconditions: it has `ip` and `tcp`."""

    def __init__(
        self, stack: Stack, resolver: Resolver, loop: Any, text: str, own: Iterable[str],
        dialer: Dialer | None = None,
    ) -> None:  # fmt: skip
        """`own`: addresses of the host, as text; `dialer`: who reaches the brokers, if there are
        some. Raises: PolicyError."""
        tcp = stack.tcp
        assert stack.ip is not None and tcp is not None
        self.resolver = resolver
        self._loop = loop
        self._tcp, self._layer = tcp, stack.ip
        self.text = text
        """The policy, as it was given."""
        self.flows = Flows(_made(text, own, dialer), resolver.forwarder.given)
        self.gate = Gate(self.flows, self._reset, stack.ip.is_outside)
        self.brokers = Brokers(stack, loop, self.flows)
        self.brokers.follow(brokers(self.flows.policy.document), dialer)
        self.denied = WaitQueue()
        """Who waits for denials."""
        self.flows.denials.on_add = self.denied.notify
        stack.ip.gate, stack.ip.answers = self.gate, resolver.answers
        tcp.on_over = self._over
        stack.egress = self
        resolver.follow(self.flows.policy.document.dns)

    def check_connect(
        self, caller: Caller, local: Endpoint, target: Endpoint, index: int
    ) -> Program | None:
        """connect(2) of TCP, by an interface if `index` is not 0; who calls it.

        Raises: ECONNREFUSED or EPERM, as the policy says.
        """
        now_ns, ends = time.monotonic_ns(), (plain(local.ip), plain(target.ip))
        path = self._layer.path_or_none(now_ns, ends[1], index)
        if path is not None and self._layer.gate_at(path.interface) is None:
            return program_of(caller)
        return self.gate.check(now_ns, IPPROTO_TCP, ends, target.port, caller)

    @property
    def has_brokers(self) -> bool:
        """A connection may need no way."""
        return self.brokers.are_there

    def broker_of(self, caller: Caller, target: Endpoint) -> str | None:
        """Who gets a connection of TCP to there; None: it has to go by a link."""
        if not self.brokers.are_there:
            return None
        wanted = Target(IPPROTO_TCP, target.ip, target.port)
        return self.flows.broker_of(wanted, program_of(caller), time.monotonic_ns())

    def hand_on(self, sock: TcpSocket, caller: Caller, target: Endpoint, broker: str) -> None:
        """It gets this one. Preconditions: the socket has its local address.

        Raises: ECONNREFUSED or EPERM, as the policy says; ENFILE.
        """
        sock.stack.kernel.vfs.budget.check_host_descriptor()
        local = sock.local
        key = Key(IPPROTO_TCP, local.ip, local.port, target.ip, target.port)
        flow = self.flows.hand_on(key, program_of(caller), broker, time.monotonic_ns())
        if not flow.verdict.allowed:
            raise from_number(flow.verdict.errno, flow.verdict.reason)
        self.brokers.hand_on(sock, caller, target, flow)

    def change(self, text: str, own: Iterable[str], dialer: Dialer | None = None) -> None:
        """Another policy, for all from now on; what it no longer allows is reset, in steps.

        Raises: PolicyError.
        """
        self.flows.change(_made(text, own, dialer))
        self.text = text
        document = self.flows.policy.document
        self.brokers.follow(brokers(document), dialer)
        self.resolver.follow(document.dns)
        self._loop.call_soon(self._sweep)

    def _sweep(self) -> None:
        over = self.flows.sweep(SWEPT, time.monotonic_ns())
        if over is not None:
            for flow in over:
                if flow.broker is None:
                    self._reset(flow.key)
                else:
                    self.brokers.reset(flow, ECONNABORTED.number)
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


def _made(text: str, own: Iterable[str], dialer: Dialer | None) -> Policy:
    document = parse(text, FILE)
    if brokers(document) and dialer is None:
        raise PolicyError(f"{FILE}: brokers, and nobody who reaches them")
    return Policy(document, own)


def _flow_of(key: Key) -> Flow:
    return Flow(Endpoint(key.source, key.source_port), Endpoint(key.target, key.target_port))
