"""/proc/PID/net: the tables of sockets and interfaces.

sentry.net fills them: `NetNamespace.lines`. Here are the heads, and what always reads the same.
"""

from __future__ import annotations

from typing import Final

from sentry.fs.proc.owner import live_task
from sentry.fs.proc.registry import View, pid_file
from sentry.fs.pseudo.files import Pieces

_INET: Final = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
    "inode"
)
_INET6: Final = (
    "  sl  local_address                         remote_address                        st "
    "tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
)
HEADS: Final = {
    "arp": "IP address       HW type     Flags       HW address            Mask     Device\n",
    "dev": (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
        "drop fifo colls carrier compressed\n"
    ),
    "dev_mcast": "",
    "fib_trie": "",
    "icmp": _INET + " ref pointer drops" + " " * 13 + "\n",
    "icmp6": _INET6 + " ref pointer drops\n",
    "if_inet6": "",
    "igmp": "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n",
    "igmp6": "",
    "ip6_tables_matches": "",
    "ip6_tables_names": "",
    "ip6_tables_targets": "",
    "ip_tables_matches": "",
    "ip_tables_names": "",
    "ip_tables_targets": "",
    "ipv6_route": "",
    "mcfilter": "Idx Device        MCA        SRC    INC    EXC\n",
    "mcfilter6": (
        "Idx Device                Multicast Address                   Source Address    INC    "
        "EXC\n"
    ),
    "netlink": "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops"
    "    Inode\n",
    "netstat": "",
    "nf_conntrack": "",
    "packet": "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n",
    "protocols": "",
    "psched": "000003e8 00000040 000f4240 3b9aca00\n",
    "ptype": "Type Device      Function\n0800          ip_rcv\n86dd          ipv6_rcv\n",
    "raw": _INET + " ref pointer drops\n",
    "raw6": _INET6 + " ref pointer drops\n",
    "route": (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
        "                                                       \n"
    ),
    "snmp": "",
    "snmp6": "",
    "sockstat": "",
    "sockstat6": "",
    "tcp": _INET + " " * 53 + "\n",
    "tcp6": _INET6 + "\n",
    "udp": " " + _INET + " ref pointer drops" + " " * 12 + "\n",
    "udp6": _INET6 + " ref pointer drops\n",
    "udplite": " " + _INET + " ref pointer drops" + " " * 12 + "\n",
    "udplite6": _INET6 + " ref pointer drops\n",
    "unix": "Num       RefCount Protocol Flags    Type St Inode Path\n",
    "wireless": "",
}  # fmt: skip
_ZEROS: Final = f"{0:8} {0:7}    0    0    0     0          0         0"
LOOPBACK: Final = "    lo:" + _ZEROS + _ZEROS


def _declare(name: str, head: str) -> None:
    @pid_file(f"net/{name}")
    def table(view: View) -> Pieces:
        net = live_task(view.subject).ns.net
        lines = net.lines(name, view.creds.user_ns)  # which may have to wait, at first
        yield head
        yield from lines


for _name, _head in HEADS.items():
    _declare(_name, _head)
