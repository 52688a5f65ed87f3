"""What a batch has changed, as members of NFNLGRP_NFTABLES hear it, and who has asked with
NLM_F_ECHO. nf_tables_api.c: nf_tables_rule_notify() and its like, nft_commit_notify().

Messages are made while somebody has room for them, so that they cost no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.net.netfilter.machine import be32, be64, text
from sentry.net.netfilter.ruleset import Rule, Table
from sentry.net.netlink.message import message
from sentry.net.netlink.nft_messages import (
    chain_body,
    element_body,
    elements_body,
    object_body,
    rule_body,
    set_body,
    table_body,
)

if TYPE_CHECKING:
    from sentry.net.netfilter.transaction import Change, Transaction
    from sentry.net.packets import NetlinkPort
    from sentry.net.stack import Stack

PIECE: Final = 3776
"""Bytes of messages in a datagram: NLMSG_GOODSIZE."""
SUBSYSTEM: Final = nft.NFNL_SUBSYS_NFTABLES << 8
TOLD: Final = abi.NLM_F_CREATE | abi.NLM_F_EXCL | abi.NLM_F_APPEND | abi.NLM_F_REPLACE
"""Flags of a request: nft(8) says by them whether a rule was added or inserted."""
NEW: Final[dict[int, Callable[[Any], bytes]]] = {
    nft.NFT_MSG_NEWTABLE: table_body, nft.NFT_MSG_NEWCHAIN: chain_body,
    nft.NFT_MSG_NEWSET: set_body, nft.NFT_MSG_NEWOBJ: object_body,
}  # fmt: skip
"""What is told of things that are new or others, beside rules and elements."""
GONE: Final[dict[int, Callable[[Any], bytes]]] = {
    nft.NFT_MSG_DELTABLE: lambda table: text(nft.NFTA_TABLE_NAME, table.name)
    + be64(nft.NFTA_TABLE_HANDLE, table.handle),
    nft.NFT_MSG_DELCHAIN: lambda chain: text(nft.NFTA_CHAIN_TABLE, chain.table.name)
    + text(nft.NFTA_CHAIN_NAME, chain.name) + be64(nft.NFTA_CHAIN_HANDLE, chain.handle),
    nft.NFT_MSG_DELRULE: lambda rule: text(nft.NFTA_RULE_TABLE, rule.chain.table.name)
    + text(nft.NFTA_RULE_CHAIN, rule.chain.name) + be64(nft.NFTA_RULE_HANDLE, rule.handle),
    nft.NFT_MSG_DELSET: lambda group: text(nft.NFTA_SET_TABLE, group.table.name)
    + text(nft.NFTA_SET_NAME, group.name) + be64(nft.NFTA_SET_HANDLE, group.handle),
    nft.NFT_MSG_DELOBJ: lambda named: text(nft.NFTA_OBJ_TABLE, named.table.name)
    + text(nft.NFTA_OBJ_NAME, named.name) + be32(nft.NFTA_OBJ_TYPE, named.kind)
    + be64(nft.NFTA_OBJ_HANDLE, named.handle),
}  # fmt: skip
"""What is told of things that are no more: how they are named."""


class Notices:
    """Of a batch that counts from now on."""

    def __init__(self, batch: Transaction) -> None:
        self._batch = batch
        self._places: dict[int, dict[int, int]] = {}
        """Where rules stand in their chains, by identity."""

    def pieces(self, *, is_echo: bool) -> Iterator[bytes]:
        """Datagrams: of all changes, or of those that their maker wants to hear of."""
        piece = b""
        for each in self._batch.changes:
            if is_echo and not each.flags & abi.NLM_F_ECHO:
                continue
            made = self._message(each)
            if piece and len(piece) + len(made) > PIECE:
                yield piece
                piece = b""
            piece += made
        if piece:
            yield piece

    def _message(self, change: Change) -> bytes:
        kind, what = change.kind, change.what
        table = what if isinstance(what, Table) else _table_of(what)
        generation = self._batch.ruleset.generation & 0xFFFF
        body = bytes([table.family, 0]) + generation.to_bytes(2) + self._body(change)
        is_gone = kind in GONE or kind == nft.NFT_MSG_DELSETELEM
        flags = 0 if is_gone else change.flags & TOLD
        return message(SUBSYSTEM | kind, flags, change.sequence, self._batch.port, body)

    def _body(self, change: Change) -> bytes:
        kind, what = change.kind, change.what
        if change.element is not None:
            return elements_body(what, [element_body(what, change.element, self._batch.now_ns)])
        if kind == nft.NFT_MSG_NEWRULE:
            return rule_body(what, self._before(what))
        return (NEW.get(kind) or GONE[kind])(what)

    def _before(self, rule: Rule) -> int:
        """The handle of the rule before it; 0: it is the first or the last."""
        rules = rule.chain.rules
        places = self._places.get(id(rule.chain))
        if places is None:
            places = {id(each): index for index, each in enumerate(rules)}
            self._places[id(rule.chain)] = places
        at = places.get(id(rule), 0)
        return rules[at - 1].handle if 0 < at < len(rules) - 1 else 0


def _table_of(what: Any) -> Table:
    found: Table = what.chain.table if isinstance(what, Rule) else what.table
    return found


def listeners(stack: Stack, *groups: int) -> list[NetlinkPort]:
    """Sockets of NETLINK_NETFILTER that are in one of these groups."""
    return [
        sock for (protocol, _), sock in list(stack.netlink.items())
        if protocol == abi.NETLINK_NETFILTER and not sock.groups.isdisjoint(groups)
    ]  # fmt: skip


def tell(heard: list[NetlinkPort], group: int, pieces: Iterable[bytes]) -> None:
    """Each, until nobody has room."""
    for piece in pieces:
        heard = [sock for sock in heard if sock.deliver(piece, 0, group)]
        if not heard:
            return
