"""A TCP socket whose connection leaves by a link: which way it takes, and what the engine hears."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sentry.abi.socket import BPF_TCP_SYN_SENT as TCP_SYN_SENT
from sentry.abi.socket import SO_BINDTOIFINDEX
from sentry.ahead import mypyc_attr
from sentry.errors import EADDRNOTAVAIL, EHOSTUNREACH, EINVAL, ENETUNREACH
from sentry.net.inet import address, paths
from sentry.net.inet.address import Endpoint
from sentry.net.inet.tcp_ending import TcpEnding

if TYPE_CHECKING:
    from sentry.vfs.file import Caller


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpLeaving(TcpEnding):
    """The side of a socket that has an engine."""

    __slots__ = ()
    goes_out: ClassVar = True

    def choose_link(self, target: Endpoint, raw: bytes) -> None:
        """By which interface it goes, and from which address: tcp_v4_connect(), tcp_v6_connect().

        Raises: EINVAL, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL.
        """
        from sentry.net.ip.output import may_send_from  # noqa: PLC0415

        if self._needs_no_way:
            paths.path_of(self, target)
        if address.needs_scope(target.ip):
            index = self.device_of(raw)
            if not index or self.device not in (0, index):
                raise EINVAL("an address of which link?")
            self.numbers[SO_BINDTOIFINDEX] = index
        source = self.source_for(target)
        ip = source.ip[12:] if source.is_v4 else source.ip
        assert self.stack.ip is not None
        if source == self.local and not may_send_from(self.stack.ip, ip):
            raise EINVAL("an address that no link has")
        self.local = source

    def broker_of(self, caller: Caller, target: Endpoint) -> str | None:
        """Who gets a connection to there, rather than a link; its local address is chosen then. To
        nameservers there is the resolver."""
        egress, resolver = self.stack.egress, self.stack.resolver
        if resolver is not None and resolver.door(target, self.local) is not None:
            return None
        if egress is None:
            return None
        broker = egress.broker_of(caller, target)
        if broker is not None:
            try:
                self.local = self.source_for(target)
            except (ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL):
                ip = address.LOOPBACK4 if target.is_v4 else address.LOOPBACK6
                self.local = Endpoint(ip, self.local.port)
        return broker

    def begin_by_broker(self, caller: Caller, target: Endpoint, broker: str) -> None:
        """It hears later whether the broker takes it.

        Raises: ECONNREFUSED or EPERM if it may not, ENFILE.
        """
        assert self.stack.egress is not None
        self.stack.egress.hand_on(self, caller, target, broker)
        self.remote = target
        self.state = TCP_SYN_SENT
        self.stack.counters["Tcp.ActiveOpens"] += 1
        self.started = True

    @property
    def _needs_no_way(self) -> bool:
        """By a broker one gets to where no link leads."""
        return self.stack.egress is not None and self.stack.egress.has_brokers

    def begin_by_link(self, caller: Caller, target: Endpoint) -> None:
        """Send the SYN. Raises: EADDRNOTAVAIL; ECONNREFUSED or EPERM if it may not go there."""
        assert self.stack.tcp is not None
        egress, sender = self.stack.egress, self._owner(caller)
        if egress is not None:
            sender = egress.check_connect(caller, self.local, target, self.device)
        self.stack.tcp.connect(self, target, sender)
        self.remote = target
        self.started = True

    def _owner(self, caller: Caller) -> object:
        """Who it is, for rules of netfilter."""
        if self.stack.netfilter is None:
            return None
        from sentry.net.ip.seam import Owner  # noqa: PLC0415

        return Owner(caller.creds.euid, caller.creds.egid)

    def check_way(self, target: Endpoint, index: int) -> None:
        """There is one by a link, to one host, or perhaps no need of one: connect(2) looks again.

        Raises: ENETUNREACH, EHOSTUNREACH.
        """
        try:
            path = paths.path_of(self, target, index)
        except (ENETUNREACH, EHOSTUNREACH):
            if self._needs_no_way:
                return
            raise
        if path.is_broadcast:
            raise ENETUNREACH("broadcast")

    def set_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """setsockopt(2): the engine hears of it."""
        super().set_option(caller, level, name, value)
        if self.engine is not None and self.engine.is_open:
            self.engine.tuned(level, name)
        elif self.heard is not None:
            self.heard.tuned()
