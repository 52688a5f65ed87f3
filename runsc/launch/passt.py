"""passt(1): the network of an ordinary user's sandbox that has a stack of its own.

Who may make no packet sockets in a network namespace of the host gets an interface whose frames go
to a process of passt, over a pair of sockets: it makes of them what an ordinary user's sockets can
do. It runs in the caller's network namespace, under its own sandboxing (an empty root, a user
namespace, seccomp), joins the container's cgroups, and ends with the sandbox: when the other end
of its socket closes. The interface has the addresses that passt would give by DHCP, those of the
host's interface with the default route: so the host's own ones lead nowhere but into the sandbox.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Final

import msgspec

from runsc import host
from runsc.launch import isolation
from runsc.launch.boot import Terms
from runsc.launch.network import DUMPS, dump, open_netlink
from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.config import LinkConfig
from sentry.net.host.interfaces import messages, parse_address, parse_route
from sentry.net.interfaces import Address
from sentry.net.routes import Route

PROGRAM: Final = "passt"
MTU: Final = 65520
"""passt's own default: as much as its frames hold, in words of 32 bits."""
ROOM: Final = 8 << 20
"""Bytes on their way; the host's net.core.wmem_max may allow less. passt loses what does not fit,
and some of its versions (2025-05) fall over it."""
BAD: Final = abi.IFA_F_TENTATIVE | abi.IFA_F_DADFAILED | abi.IFA_F_DEPRECATED | abi.IFA_F_SECONDARY
"""Of an address that is not, or no longer, to be used; of IPv6 IFA_F_TEMPORARY is the last one."""
HOST_BITS6: Final = 128
"""As DHCPv6 gives an address: which others are neighbours is said by routers."""


class Ways(msgspec.Struct, frozen=True):
    """What is the host's, for each family that leads somewhere."""

    address4: tuple[bytes, int] | None = None
    gateway4: bytes = b""
    """Empty: all are neighbours, as at the end of a tunnel."""
    address6: bytes = b""

    @property
    def leads(self) -> bool:
        """Somewhere."""
        return self.address4 is not None or bool(self.address6)

    def options(self) -> list[str]:
        """passt's, that say the same."""
        made: list[str] = []
        if self.address4 is not None:
            ip, prefix = self.address4
            made += ["--address", socket.inet_ntop(AF_INET, ip), "--netmask", str(prefix)]
            if self.gateway4:
                made += ["--gateway", socket.inet_ntop(AF_INET, self.gateway4)]
        if self.address6:
            made += ["--address", socket.inet_ntop(AF_INET6, self.address6)]
        if self.address4 is not None and not self.address6:
            made.append("--ipv4-only")
        if self.address6 and self.address4 is None:
            made.append("--ipv6-only")
        return made

    def link(self, fd: int, room: int) -> LinkConfig:
        """What the Sentry hears."""
        addresses: list[tuple[bytes, int]] = []
        gateways: list[bytes] = []
        if self.address4 is not None:
            addresses.append(self.address4)
            gateways.append(self.gateway4 or bytes(4))
        if self.address6:
            addresses.append((self.address6, HOST_BITS6))
        return LinkConfig(fd, MTU, tuple(addresses), room, tuple(gateways))


def find() -> str:
    """Where the program is, by $PATH; empty: it is not installed."""
    for folder in os.get_exec_path():
        path = os.path.join(folder, PROGRAM)
        if os.path.isabs(folder) and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def ways() -> Ways:
    """Of the network namespace that this process is in. Raises: OSError."""
    with open_netlink() as netlink:
        parts = [part for kind, size in DUMPS.items() for part in dump(netlink, kind, size)]
    addresses: list[tuple[int, Address]] = []
    defaults: dict[int, Route] = {}
    for kind, body in messages(parts):
        if kind == abi.RTM_NEWADDR:
            index, address = parse_address(body)
            if address is not None:
                addresses.append((index, address))
        elif kind == abi.RTM_NEWROUTE:
            route = parse_route(body)
            if route is not None and _is_default(route):
                known = defaults.setdefault(route.family, route)
                if route.metric < known.metric:
                    defaults[route.family] = route
    found = {
        family: _first(addresses, route.index, family) for family, route in defaults.items()
    }
    own4, own6 = found.get(AF_INET), found.get(AF_INET6)
    return Ways(
        (own4.ip, own4.prefix) if own4 is not None else None,
        defaults[AF_INET].gateway if own4 is not None else b"",
        own6.ip if own6 is not None else b"",
    )


def _is_default(route: Route) -> bool:
    """Of its family's own routers, or of none."""
    is_own = len(route.gateway) in (0, len(route.destination))
    return not route.length and route.kind == abi.RTN_UNICAST and is_own


def _first(addresses: list[tuple[int, Address]], index: int, family: int) -> Address | None:
    wanted = (index, family, abi.RT_SCOPE_UNIVERSE)
    for where, own in addresses:
        if (where, own.family, own.scope) == wanted and not own.flags & BAD:
            return own
    return None


def start(path: str, terms: Terms, log_fd: int) -> tuple[LinkConfig, int]:
    """Make the process; what the Sentry is told, whose descriptor is the caller's to close, and
    the pid. Raises: OSError, RuntimeFailure."""
    known = ways()
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    with theirs:
        fd, room = theirs.fileno(), theirs.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        arguments = [
            PROGRAM, "--foreground", "--quiet", "--no-map-gw", "--no-dhcp", "--no-dhcpv6",
            "--no-dhcp-dns", "--mtu", str(MTU), *known.options(), "--fd", str(fd),
        ]  # fmt: skip
        try:
            pid = isolation.spawn_here(lambda: _become(path, arguments, fd, terms, log_fd), 0)
        except BaseException:
            ours.close()
            raise
    return known.link(ours.detach(), room), pid


def _become(path: str, arguments: list[str], fd: int, terms: Terms, log_fd: int) -> int:
    """The body of the process; it does not come back."""
    isolation.tie_to_parent(0 if terms.outlives else signal.SIGKILL)
    isolation.leave_session()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDWR)
    for number, given in enumerate((null, null, log_fd)):
        os.dup2(given, number)
    host.close_all_but({0, 1, 2, fd, *terms.joins})
    if terms.joins:
        from runsc.cgroups.cgroup import join  # noqa: PLC0415  who opened them has imported it

        join(terms.joins)
    os.set_inheritable(fd, True)
    os.chdir("/")
    os.execve(path, arguments, {})
