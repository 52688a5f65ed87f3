"""/proc/net/igmp, igmp6, dev_mcast: which groups each interface is a member of.

net/ipv4/igmp.c, net/ipv6/mcast.c, net/core/net-procfs.c. Timers and queriers of other versions are
not told, nor sources: nobody can choose any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi.netlink import ARPHRD_ETHER, IFF_NOARP
from sentry.abi.socket import AF_INET6
from sentry.net.inet.address import MAPPED
from sentry.net.ip.groups import ALL_SYSTEMS4
from sentry.net.ip.ipv6 import ALL_NODES, solicited_node

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.stack import Stack

    Groups = dict[int, list[tuple[bytes, int]]]
    """By interface: groups in the order in which they came, and how many are members."""

ALL_NODES_OF_HOST: Final = b"\xff\x01" + bytes(13) + b"\x01"
LINK_SCOPE: Final = 2
LOADED, NOREPORT = 4, 8
"""MAF_*: the link hears it; nobody is told of it."""


def igmp(stack: Stack) -> Iterator[str]:
    """igmp_mc_seq_show(): the newest first."""
    members = yield from _members(stack)
    for link in stack.interfaces.those_still_there():
        groups = _of4(link, members)
        if groups:
            yield f"{link.index}\t{link.name:<10}: {len(groups):5} {'V3':>7}\n"
        for ip, users in reversed(groups.items()):
            yield f"\t\t\t\t{int.from_bytes(ip, 'little'):08X} {users:5} 0:00000000\t\t0\n"


def igmp6(stack: Stack) -> Iterator[str]:
    """igmp6_mc_seq_show(): the newest first."""
    members = yield from _members(stack)
    for link in stack.interfaces.those_still_there():
        for ip, users in reversed(_of6(link, members).items()):
            flags = LOADED if _is_heard(ip) else 0
            flags |= NOREPORT if ip == ALL_NODES or not flags else 0
            yield f"{link.index:<4} {link.name:<15} {ip.hex()} {users:5} {flags:08X} 0\n"


def dev_mcast(stack: Stack) -> Iterator[str]:
    """dev_mc_seq_show(): addresses of Ethernet that a card takes in for its groups."""
    members = yield from _members(stack)
    for link in stack.interfaces.those_still_there():
        if link.kind != ARPHRD_ETHER:
            continue
        taken = Counter(b"\x33\x33" + ip[12:] for ip in _of6(link, members) if _is_heard(ip))
        if link.is_up:
            taken.update(
                b"\x01\0\x5e" + bytes([ip[1] & 0x7F]) + ip[2:] for ip in _of4(link, members)
            )
        for hardware, count in taken.items():
            yield f"{link.index:<4} {link.name:<15} {count:<5} {0:<5} {hardware.hex()}\n"


def _members(stack: Stack) -> Generator[str, None, Groups]:
    found: Groups = {}
    for (group, index), users in list(stack.memberships.items()):
        found.setdefault(index, []).append((group, users))
        yield ""
    return found


def _of4(link: Interface, members: Groups) -> Counter[bytes]:
    groups: Counter[bytes] = Counter([ALL_SYSTEMS4] if link.is_up else ())
    for group, users in members.get(link.index, ()):
        if group[:12] == MAPPED:
            groups[group[12:]] += users
    return groups


def _of6(link: Interface, members: Groups) -> Counter[bytes]:
    """addrconf_join_solict(): one for each address, where neighbours are asked for."""
    groups: Counter[bytes] = Counter([ALL_NODES_OF_HOST, ALL_NODES])
    if link.is_up and not (link.is_loopback or link.flags & IFF_NOARP):
        groups.update(solicited_node(each.ip) for each in link.of_family(AF_INET6))
    for group, users in members.get(link.index, ()):
        if group[:12] != MAPPED:
            groups[group] += users
    return groups


def _is_heard(ip: bytes) -> bool:
    return ip[1] & 15 >= LINK_SCOPE
