"""What ICMP, neighbour discovery, router and next hops stand on: what they see of the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sentry.net.rules import PLAIN, RouteKey

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

    from sentry.net.interfaces import Interface
    from sentry.net.ip.checksum import Bytes
    from sentry.net.ip.limits import ErrorLimit, RedirectLimit
    from sentry.net.ip.routing import Fib
    from sentry.net.ip.seam import Arrived, Failure, Filter, Gate, Outgoing, Path
    from sentry.net.link.link import Link
    from sentry.net.link.ndp import Router


class Complaints(Protocol):
    """ICMP, which tells senders what is wrong."""

    def complain(
        self, now_ns: int, packet: Arrived, kind: int, code: int, info: int = 0
    ) -> None: ...


class Messages(Complaints, Protocol):
    """ICMPv6, by which neighbours are asked."""

    def send(
        self, now_ns: int, kind: int, rest: bytes, out: Outgoing, code: int = 0
    ) -> None: ...


class Listeners(Protocol):
    """sentry.net.ip.groups.Groups."""

    def asked6(self, now_ns: int, packet: Arrived) -> None: ...


class Hearer(Protocol):
    """Who makes addresses and routes of what routers say: `sentry.net.ip.autoconf`."""

    def heard(self, now_ns: int, router: bytes, told: Router) -> None: ...


class Ground(Protocol):
    """sentry.net.ip.layer.IpLayer."""

    answers: Callable[[Arrived, Bytes], bool] | None
    chance: Callable[[int], bytes]
    on_deadline: Callable[[], None]
    counters: Counter[str]
    fib: Fib
    filter: Filter | None
    limit4: ErrorLimit
    limit6: ErrorLimit
    links: dict[int, Link]
    redirects: RedirectLimit
    seed: bytes
    sysctls: dict[str, str]
    wall_ms: Callable[[], int]

    @property
    def autoconf(self) -> Mapping[int, Hearer]: ...
    @property
    def icmp(self) -> Complaints: ...
    @property
    def icmp6(self) -> Messages: ...
    @property
    def groups(self) -> Listeners: ...
    def accepts_routers(self, link: Link) -> bool: ...
    def gate_at(self, index: int) -> Gate | None: ...
    def forwards(self, *, is_v4: bool) -> bool: ...
    def fail(self, now_ns: int, failure: Failure, mtu: int = -1) -> None: ...
    def interface(self, index: int) -> Interface | None: ...
    def ignores_echo(self, packet: Arrived) -> bool: ...
    def ipv6_setting(self, link: Link, name: str) -> int: ...
    def is_local(self, ip: bytes) -> bool: ...
    def mtu_of(self, interface: Interface, *, is_v4: bool) -> int: ...
    def path(
        self, now_ns: int, target: bytes, index: int = 0, key: RouteKey = PLAIN
    ) -> Path: ...
    def path_or_none(
        self, now_ns: int, target: bytes, index: int, key: RouteKey = PLAIN
    ) -> Path | None: ...
    def leads_to(self, now_ns: int, path: Path, target: bytes) -> bool: ...
    def redirect(self, now_ns: int, packet: Arrived, target: bytes, gateway: bytes) -> bool: ...
    def send_or_drop(self, now_ns: int, out: Outgoing) -> None: ...
    def source_towards(self, link: Link, ip: bytes) -> bytes: ...
