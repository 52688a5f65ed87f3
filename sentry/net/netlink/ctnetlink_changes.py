"""Connections that conntrack(8) makes and changes: ctnetlink_new_conntrack()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP
from sentry.net.netfilter.machine import Attributes, number
from sentry.net.netfilter.tcp_states import NAMES
from sentry.net.netlink.ctnetlink import SECOND_NS, SUBSYSTEM, changing, read_tuple
from sentry.net.netlink.message import parse_attributes
from sentry.net.netlink.nfnetlink import Asked, does

if TYPE_CHECKING:
    from sentry.net.netfilter.conntrack import Connection

TUPLES: Final = (nft.CTA_TUPLE_ORIG, nft.CTA_TUPLE_REPLY)
NEVER: Final = frozenset({
    nft.CTA_HELP, nft.CTA_NAT_SRC, nft.CTA_NAT_DST, nft.CTA_TUPLE_MASTER,
})  # fmt: skip
"""Helpers and expectations, which are not there, and translation, which rules choose."""
KEPT: Final = nft.IPS_SEEN_REPLY | nft.IPS_ASSURED
"""What is not taken back."""
ALWAYS: Final = nft.IPS_EXPECTED | nft.IPS_CONFIRMED | nft.IPS_DYING
"""What stays as it is."""
U32: Final = (1 << 32) - 1


@does(SUBSYSTEM | nft.IPCTNL_MSG_CT_NEW)
def new_connection(asked: Asked) -> None:
    """IPCTNL_MSG_CT_NEW: one that is there gets other values; with NLM_F_CREATE a new one is made.

    Raises: ENOENT, EEXIST, EINVAL, EBUSY, ENOMEM, EOPNOTSUPP.
    """
    data, table = asked.attributes, asked.netfilter.conntrack
    now_ns = asked.request.stack.kernel.loop.now_ns()
    named = next((each for each in TUPLES if each in data), 0)
    found = table.find(now_ns, read_tuple(asked.family, data[named])) if named else None
    if found is None:
        if not asked.flags & abi.NLM_F_CREATE:
            raise ENOENT("connection")
        _make(asked, now_ns)
        return
    if asked.flags & abi.NLM_F_EXCL:
        raise EEXIST("connection")
    _change(found[0], data, now_ns)
    with changing(asked):
        table.note(now_ns, found[0])


def _make(asked: Asked, now_ns: int) -> None:
    """ctnetlink_create_conntrack()."""
    data, table = asked.attributes, asked.netfilter.conntrack
    if any(each not in data for each in TUPLES):
        raise EINVAL("a tuple is missing")
    original, reply = (read_tuple(asked.family, data[each]) for each in TUPLES)
    if original.protocol != reply.protocol:
        raise EINVAL("two protocols")
    if nft.CTA_TIMEOUT not in data:
        raise EINVAL("for how long?")
    made = table.made(original)
    made.reply = reply
    made.status = nft.IPS_CONFIRMED
    _change(made, data, now_ns)
    made.status &= ~nft.IPS_CONFIRMED
    if table.is_used(reply) or table.is_used(original):
        raise EEXIST("connection")
    with changing(asked):
        is_added = table.add(now_ns, made)
    if not is_added:
        raise ENOMEM("connections")


def _change(connection: Connection, data: Attributes, now_ns: int) -> None:
    """ctnetlink_change_conntrack(): all of it, or nothing."""
    if not NEVER.isdisjoint(data):
        raise EOPNOTSUPP("a helper, a master, or translation")
    status, state, mark = connection.status, connection.state, connection.mark
    if nft.CTA_STATUS in data:
        wanted = number(data, nft.CTA_STATUS)
        changed = status ^ wanted
        if changed & ALWAYS or changed & KEPT & status:
            raise EBUSY("status")
        status |= wanted & ~nft.IPS_UNCHANGEABLE_MASK
    if nft.CTA_PROTOINFO in data and connection.original.protocol == IPPROTO_TCP:
        state = _state(data[nft.CTA_PROTOINFO], state)
    if nft.CTA_MARK in data:
        mask = ~number(data, nft.CTA_MARK_MASK, U32) & U32
        mark = mark & mask ^ number(data, nft.CTA_MARK)
    if nft.CTA_TIMEOUT in data:
        connection.expires_ns = now_ns + number(data, nft.CTA_TIMEOUT) * SECOND_NS
    connection.status, connection.state, connection.mark = status, state, mark


def _state(raw: bytes, before: int) -> int:
    """nlattr_to_tcp(). Raises: EINVAL."""
    inner = parse_attributes(parse_attributes(raw).get(nft.CTA_PROTOINFO_TCP, b""))
    found = number(inner, nft.CTA_PROTOINFO_TCP_STATE, before, 1)
    if found >= len(NAMES):
        raise EINVAL("state")
    return found
