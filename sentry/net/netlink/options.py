"""Options of SOL_NETLINK: netlink(7), netlink_setsockopt()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.socket import SOL_NETLINK
from sentry.errors import EINVAL, EPERM
from sentry.net.netlink.registry import GROUPS
from sentry.net.options import INT, Counted, Option, Options, flag
from sentry.net.socket_options import SOCKET

if TYPE_CHECKING:
    from sentry.net.netlink.socket import NetlinkSocket
    from sentry.vfs.file import Caller


def _parse(value: bytes) -> int:
    """An int; less than that is 0."""
    return int.from_bytes(value[:4], "little") if len(value) >= 4 else 0


def _get_flag(row: Option, sock: NetlinkSocket, caller: Caller, size: int) -> bytes:
    if size < INT.size:
        raise EINVAL("int expected")
    return INT.pack(row.number in sock.flags_set)


def _set_flag(row: Option, sock: NetlinkSocket, caller: Caller, value: bytes) -> None:
    if row.number_in(value):
        sock.flags_set.add(row.number)
    else:
        sock.flags_set.discard(row.number)


def _change_membership(row: Option, sock: NetlinkSocket, caller: Caller, value: bytes) -> None:
    group = row.number_in(value)
    sock.prepare_to_join(caller)
    sock.has_groups = True
    if not 0 < group <= GROUPS[sock.protocol]:
        raise EINVAL(f"group {group}")
    joins = row.number == abi.NETLINK_ADD_MEMBERSHIP
    sock.set_groups(sock.groups | {group} if joins else sock.groups - {group})


def _list_memberships(row: Option, sock: NetlinkSocket, caller: Caller, size: int) -> Counted:
    """Whole words as far as there is room; the length of all is told. Who never asked has none."""
    if not sock.has_groups:
        return Counted(b"", 0)
    bits = sum(1 << (group - 1) for group in sock.groups)
    words = bits.to_bytes((GROUPS[sock.protocol] + 31) // 32 * 4, "little")
    return Counted(words[: size & ~3], len(words))


def _one_namespace(row: Option, sock: NetlinkSocket, caller: Caller, value: bytes) -> None:
    raise EPERM("there is one namespace")


NETLINK: Final = Options(SOL_NETLINK, abi, SOCKET)
for _name, _lack in (
    ("NETLINK_PKTINFO", ""),
    ("NETLINK_NO_ENOBUFS", ""),
    ("NETLINK_CAP_ACK", ""),
    ("NETLINK_BROADCAST_ERROR", "kept alone"),
    ("NETLINK_EXT_ACK", "no text; of changes to netfilter's tables the attribute that is wrong"),
    ("NETLINK_GET_STRICT_CHK", "kept: requests are not checked more strictly"),
):
    NETLINK.row(_name, _get_flag, _set_flag, parse=_parse, check=flag, partial=_lack)
NETLINK.row("NETLINK_ADD_MEMBERSHIP", None, _change_membership, parse=_parse)
NETLINK.row("NETLINK_DROP_MEMBERSHIP", None, _change_membership, parse=_parse)
NETLINK.row("NETLINK_LIST_MEMBERSHIPS", _list_memberships)
NETLINK.row("NETLINK_LISTEN_ALL_NSID", _get_flag, _one_namespace, partial="one namespace: EPERM")
