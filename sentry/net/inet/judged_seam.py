"""Between sockets and what judges and answers them where there are links: protocols for types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sentry.net.egress.flows import Flows
    from sentry.net.egress.policy import Program
    from sentry.net.inet.address import Endpoint
    from sentry.net.packets import Packet
    from sentry.vfs.file import Caller


class EgressSide(Protocol):
    """sentry.net.inet.egress.Egress."""

    flows: Flows

    @property
    def has_brokers(self) -> bool: ...
    def check_connect(
        self, caller: Caller, local: Endpoint, target: Endpoint, index: int
    ) -> Program | None: ...
    def broker_of(self, caller: Caller, target: Endpoint) -> str | None: ...
    def hand_on(self, sock: Any, caller: Caller, target: Endpoint, broker: str) -> None: ...


class ResolverSide(Protocol):
    """sentry.net.inet.answering.Answering."""

    def close(self) -> None: ...
    def is_for(self, packet: Packet) -> bool: ...
    def take(self, packet: Packet, sender: Caller | None) -> None: ...
    def door(self, target: Endpoint, source: Endpoint) -> Any: ...
