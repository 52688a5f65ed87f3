"""What /proc/sys/net says that sockets heed. sentry.fs.proc.sysctl keeps it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sentry.abi.socket import SOMAXCONN
from sentry.errors import EINVAL
from sentry.written import ranges, runs

if TYPE_CHECKING:
    from sentry.net.stack import Stack

FIRST_EPHEMERAL: Final = 32768
LAST_EPHEMERAL: Final = 60999
FIRST_UNPRIVILEGED: Final = 1024
DEFAULT_HOPS: Final = 64
DATAGRAMS: Final = 10
MOST_PORTS: Final = 1 << 16
OF_ALL: Final = ("all", "default")
"""No interface's, though one may be called so: sysctl_dev_name_is_allowed()."""


def written(stack: Stack, path: str) -> str | None:
    """A value that a program or the bundle has set."""
    return stack.sysctls.get(path)


def link_renamed(stack: Stack, old: str, new: str | None) -> None:
    """What was written of an interface goes with it; None: it is no more."""
    if old in OF_ALL:
        return
    if new in OF_ALL:
        new = None
    for version in ("ipv4", "ipv6"):
        begin = f"net/{version}/conf/{old}/"
        for path in [path for path in stack.sysctls if path.startswith(begin)]:
            value = stack.sysctls.pop(path)
            if new is not None:
                stack.sysctls[f"net/{version}/conf/{new}/{path.removeprefix(begin)}"] = value


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


def reserved_ports(stack: Stack) -> bytes:
    """net.ipv4.ip_local_reserved_ports: which are not found, a byte each; nothing: all are."""
    chosen = written(stack, "net/ipv4/ip_local_reserved_ports")
    return ports_in(chosen) if chosen else b""


@lru_cache(8)
def ports_in(text: str) -> bytes:
    """Ports and ranges of them with commas between: a byte for each port. Raises: EINVAL."""
    found = bytearray(MOST_PORTS)
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not part.isascii() or not all(end.isdecimal() for end in ends):
            raise EINVAL(f"{text!r}")
        low, high = map(int, ends)
        if not low <= high < MOST_PORTS:
            raise EINVAL(f"{text!r}")
        found[low : high + 1] = b"\1" * (high + 1 - low)
    return bytes(found)


def shown_ports(ports: bytes) -> str:
    """The same as text."""
    return ranges(runs(ports))


def longest_backlog(stack: Stack) -> int:
    """net.core.somaxconn: of connections that wait for accept(2). What it is at first is also the
    most, a ceiling of ours."""
    return min(max(_number(stack, "net/core/somaxconn", SOMAXCONN), 0), SOMAXCONN)


def longest_queue(stack: Stack) -> int:
    """net.unix.max_dgram_qlen, within reason."""
    return min(max(_number(stack, "net/unix/max_dgram_qlen", DATAGRAMS), 0), SOMAXCONN)


def first_unprivileged_port(stack: Stack) -> int:
    """net.ipv4.ip_unprivileged_port_start: ports below need CAP_NET_BIND_SERVICE."""
    chosen = written(stack, "net/ipv4/ip_unprivileged_port_start")
    return FIRST_UNPRIVILEGED if chosen is None else int(chosen)


def _number(stack: Stack, path: str, default: int) -> int:
    chosen = written(stack, path)
    return default if chosen is None else int(chosen)


def tcp_number(stack: Stack, name: str, default: int) -> int:
    """One of net.ipv4.tcp_*."""
    return _number(stack, f"net/ipv4/{name}", default)


def default_ttl(stack: Stack) -> int:
    """net.ipv4.ip_default_ttl."""
    return _number(stack, "net/ipv4/ip_default_ttl", DEFAULT_HOPS)


def default_hops(stack: Stack, which: str = "lo") -> int:
    """net.ipv6.conf.*.hop_limit: of the link that a packet leaves by, or of all."""
    return _number(stack, f"net/ipv6/conf/{which}/hop_limit", DEFAULT_HOPS)


def binds_nonlocal(stack: Stack, version: int) -> bool:
    """net.ipv4.ip_nonlocal_bind, net.ipv6.ip_nonlocal_bind: any address will do."""
    return bool(_number(stack, f"net/ipv{version}/ip_nonlocal_bind", 0))


def forwards(stack: Stack) -> bool:
    """net.ipv4.ip_forward: it is a router."""
    return bool(_number(stack, "net/ipv4/ip_forward", 0))


def is_v6only(stack: Stack) -> bool:
    """net.ipv6.bindv6only: IPV6_V6ONLY of a new socket."""
    return bool(_number(stack, "net/ipv6/bindv6only", 0) & 1)


def ignores_echo(stack: Stack, *, is_v4: bool, is_group: bool) -> bool:
    """Whether an echo request has no answer: icmp_echo(), icmpv6_rcv()."""
    if is_v4:
        name, default = "net/ipv4/icmp_echo_ignore_broadcasts", 1
        everything = _number(stack, "net/ipv4/icmp_echo_ignore_all", 0)
    else:
        name, default = "net/ipv6/icmp/echo_ignore_multicast", 0
        everything = _number(stack, "net/ipv6/icmp/echo_ignore_all", 0)
    return bool(everything or (is_group and _number(stack, name, default)))


def has_ipv6_off(stack: Stack) -> bool:
    """net.ipv6.conf.*.disable_ipv6, of interfaces that are new."""
    names = (f"net/ipv6/conf/{which}/disable_ipv6" for which in ("all", "default"))
    return any(_number(stack, name, 0) for name in names)
