"""What the compatibility table says of socket options and ioctl(2) requests: from their rows.

A `Group` is a level of options, or a kind of file. What the kernel's headers name beside its rows
is absent; names of them that are no options (values, flags) are left out by its pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final, NamedTuple

import sentry.syscalls.sockets.socket  # noqa: F401  declares SO_PEERPIDFD
from sentry.abi import fuse, ioctl, netlink, nsfs, pidfd, random, seccomp, socket, time, tun
from sentry.fs.dev.memory import RANDOM
from sentry.fs.devpts.ioctls import EITHER, MASTERS, SLAVES
from sentry.fs.fanotify import FANOTIFY
from sentry.fs.fuse.device import DEVICES
from sentry.fs.host.terminal import TERMINALS
from sentry.fs.inotify import INOTIFY
from sentry.fs.pidfd import PIDFDS
from sentry.fs.pipe.file import PIPES
from sentry.fs.proc.namespaces import NAMESPACES
from sentry.fs.timerfd import TIMERS
from sentry.kernel.seccomp_listener import LISTENERS
from sentry.net import packet_socket, unix_options
from sentry.net.inet.inetsocket import DATAGRAMS, STREAMS
from sentry.net.inet.ip_options import IP, IP_STREAM
from sentry.net.inet.ipv6_options import IPV6, IPV6_STREAM
from sentry.net.inet.netfilter_options import IP6_TABLES, IP_SETS, IP_TABLES
from sentry.net.inet.raw_options import FILTER6, HEADER4, HEADER6, RAW4, RAW6
from sentry.net.inet.tcp_options import TCP
from sentry.net.inet.udp_options import BOTH, UDPLITE
from sentry.net.ioctls import SOCKETS
from sentry.net.netlink.options import NETLINK
from sentry.net.packet_options import PACKET
from sentry.net.socket_options import SOCKET
from sentry.net.tun.requests import REQUESTS as TUNS
from sentry.net.unix_options import UNIX
from sentry.syscalls.files.ioctl import EVERY
from sentry.vfs.rows import Rows


class Support(Enum):
    """How much of a call, an option or a request there is."""

    FULL = "full"
    PARTIAL = "partial"
    ABSENT = "absent"
    NOWHERE = "gone"
    """Linux itself answers ENOSYS: sys_ni_syscall in syscall_64.tbl."""


class GroupRow(NamedTuple):
    """One line of a table."""

    group: str
    number: int
    name: str
    support: Support
    note: str
    """What is missing."""


class Group(NamedTuple):
    """Rows that belong together, and which names of the headers are of their kind."""

    title: str
    names: object
    pattern: str
    tables: tuple[Rows[Any, Any], ...]
    """Of two rows of a number the first counts."""


NOTHING: Final = r"(?!)"
SOCKOPTS: Final = (
    Group("SOL_SOCKET", socket, r"SO_(?!EE_|SECURITY_|DEVMEM_[LD]MA|DEVMEM_LIN)", (UNIX, SOCKET)),
    Group("IPPROTO_IP", socket, r"IP_(?!PMTUDISC|DEFAULT)|MCAST_(?!EX|IN)",
          (HEADER4, IP, IP_STREAM, IP_TABLES, IP_SETS)),
    Group("IPPROTO_IPV6", socket,
          r"IPV6_(?!PMTUDISC|PREFER|PRIORITY|TLV|FL_|FLOWINFO_[FP]|(AUTHHDR|HOPLIMIT|NEXTHOP)$)"
          r"|MCAST_(?!EX|IN)", (HEADER6, IPV6, IPV6_STREAM, IP6_TABLES)),
    Group("IPPROTO_TCP", socket,
          r"TCP_(?!MSS_|MD5SIG_[FM]|AO_(KEYF|MAX)|REPAIR_O[NF]|ENCAP|RECEIVE|CM_)", (TCP,)),
    Group("IPPROTO_UDP", socket, r"UDP_(?!ENCAP_)", (BOTH,)),
    Group("IPPROTO_UDPLITE", socket, NOTHING, (UDPLITE,)),
    Group("IPPROTO_ICMPV6", socket, r"ICMPV6_FILTER$", (FILTER6,)),
    Group("SOL_RAW", socket, r"ICMP_FILTER$", (RAW4, RAW6)),
    Group("SOL_PACKET", socket,
          r"PACKET_(ADD|DROP|RX|TX|VNET|AUX|COPY|FANOUT(_DATA)?$|HDRLEN|IGNORE|LOSS|ORIG|QDISC|"
          r"RECV_OUT|RESERVE|ROLLOVER|STAT|TIMESTAMP|VERSION)", (PACKET,)),
    Group("SOL_NETLINK", netlink,
          r"NETLINK_(ADD|DROP|PKTINFO|BROADCAST|NO_ENO|[RT]X_|LIST|CAP|EXT|GET)", (NETLINK,)),
)  # fmt: skip
IOCTLS: Final = (
    Group("every descriptor", ioctl, r"FIO(?![SG]ETOWN)|FIGETBSZ|FIBMAP|FICLONE|FIDEDUPE|"
          r"FIFREEZE|FITHAW|FS_IOC_", (EVERY,)),
    Group("terminals", ioctl, r"TC([GSFX]ET|FLSH|XONC|SBRK)|TIOC(?!M_|PKT_|SER_)",
          (MASTERS, SLAVES, EITHER)),
    Group("terminals of the host", ioctl, NOTHING, (TERMINALS,)),
    Group("pipes", ioctl, NOTHING, (PIPES,)),
    Group("inotify", ioctl, NOTHING, (INOTIFY,)),
    Group("fanotify", ioctl, NOTHING, (FANOTIFY,)),
    Group("timerfd", time, r"TFD_IOC", (TIMERS,)),
    Group("pidfd", pidfd, r"PIDFD_GET_", (PIDFDS,)),
    Group("namespaces", nsfs, r"NS_", (NAMESPACES,)),
    Group("/dev/fuse", fuse, r"FUSE_DEV_IOC", (DEVICES,)),
    Group("/dev/net/tun", tun, r"TUN(SET|GET|ATTACH|DETACH)", (TUNS,)),
    Group("random devices", random, r"RND", (RANDOM,)),
    Group("seccomp listeners", seccomp, r"SECCOMP_IOCTL", (LISTENERS,)),
    Group("sockets", socket, r"SIOC(?!(DEV|PROTO)PRIVATE)|FIO[SG]ETOWN",
          (SOCKETS, STREAMS, DATAGRAMS, unix_options.REQUESTS, packet_socket.REQUESTS)),
)  # fmt: skip


def rows(groups: Iterable[Group]) -> list[GroupRow]:
    """The lines of some groups; in each by number."""
    return [row for group in groups for row in _rows(group)]


def _rows(group: Group) -> list[GroupRow]:
    names = {
        value: name
        for name, value in sorted(vars(group.names).items(), reverse=True)
        if isinstance(value, int) and re.match(group.pattern, name)
    }
    found = {
        number: GroupRow(group.title, number, name, Support.ABSENT, "")
        for number, name in names.items()
    }
    for table in reversed(group.tables):
        for row in table.declared:
            support = Support.PARTIAL if row.partial else Support.FULL
            found[row.number] = GroupRow(group.title, row.number, row.name, support, row.partial)
    return [row for _, row in sorted(found.items())]
