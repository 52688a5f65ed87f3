"""What /proc/sys/net says that sockets heed. sentry.fs.proc.sysctl keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentry.net.stack import Stack

FIRST_EPHEMERAL: Final = 32768
LAST_EPHEMERAL: Final = 60999
FIRST_UNPRIVILEGED: Final = 1024


def written(stack: Stack, path: str) -> str | None:
    """A value that a program or the bundle has set."""
    return stack.sysctls.get(path)


def takes_martians(stack: Stack, name: str) -> bool:
    """net.ipv4.conf.*.accept_local, route_localnet: of all interfaces, or of the loopback."""
    return any(int(written(stack, f"net/ipv4/conf/{which}/{name}") or 0) for which in ("all", "lo"))


def ephemeral_ports(stack: Stack) -> tuple[int, int]:
    """net.ipv4.ip_local_port_range: the first and the last port that may be found."""
    chosen = written(stack, "net/ipv4/ip_local_port_range")
    if chosen is None:
        return FIRST_EPHEMERAL, LAST_EPHEMERAL
    low, high = map(int, chosen.split())
    return low, high


def first_unprivileged_port(stack: Stack) -> int:
    """net.ipv4.ip_unprivileged_port_start: ports below need CAP_NET_BIND_SERVICE."""
    chosen = written(stack, "net/ipv4/ip_unprivileged_port_start")
    return FIRST_UNPRIVILEGED if chosen is None else int(chosen)
