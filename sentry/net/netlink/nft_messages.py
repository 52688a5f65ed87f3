"""What nftables tells of its tables: nf_tables_fill_*_info()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi import nftables as nft
from sentry.net.netfilter.machine import Verdict, be32, be64, dump_expression, nested, text
from sentry.net.netlink.message import attribute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.net.netfilter.machine import Expression
    from sentry.net.netfilter.ruleset import Chain, Object, Rule, Table
    from sentry.net.netfilter.sets import Element, Set

MS_NS: Final = 1_000_000


def generation_body(generation: int, task: Any) -> bytes:
    """NFT_MSG_NEWGEN, and who asks for it, or has made it."""
    return (
        be32(nft.NFTA_GEN_ID, generation)
        + be32(nft.NFTA_GEN_PROC_PID, task.tid)
        + attribute(nft.NFTA_GEN_PROC_NAME, task.comm + b"\0")
    )


def table_body(table: Table) -> bytes:
    """NFT_MSG_NEWTABLE."""
    made = text(nft.NFTA_TABLE_NAME, table.name)
    made += be64(nft.NFTA_TABLE_HANDLE, table.handle)
    made += be32(nft.NFTA_TABLE_FLAGS, table.flags) + be32(nft.NFTA_TABLE_USE, table.use)
    if table.owner:
        made += be32(nft.NFTA_TABLE_OWNER, table.owner)
    return made + _userdata(nft.NFTA_TABLE_USERDATA, table.userdata)


def _userdata(kind: int, data: bytes) -> bytes:
    return attribute(kind, data) if data else b""


def chain_body(chain: Chain) -> bytes:
    """NFT_MSG_NEWCHAIN."""
    made = text(nft.NFTA_CHAIN_TABLE, chain.table.name)
    made += text(nft.NFTA_CHAIN_NAME, chain.name) + be64(nft.NFTA_CHAIN_HANDLE, chain.handle)
    if chain.is_base:
        place = be32(nft.NFTA_HOOK_HOOKNUM, chain.hook)
        place += be32(nft.NFTA_HOOK_PRIORITY, chain.priority)
        made += nested(nft.NFTA_CHAIN_HOOK, place) + be32(nft.NFTA_CHAIN_POLICY, chain.policy)
        made += text(nft.NFTA_CHAIN_TYPE, chain.kind)
        if chain.has_counters:
            counted = be64(nft.NFTA_COUNTER_PACKETS, chain.packets)
            counted += be64(nft.NFTA_COUNTER_BYTES, chain.octets)
            made += nested(nft.NFTA_CHAIN_COUNTERS, counted)
    if chain.flags:
        made += be32(nft.NFTA_CHAIN_FLAGS, chain.flags)
    made += be32(nft.NFTA_CHAIN_USE, chain.use + len(chain.rules))
    return made + _userdata(nft.NFTA_CHAIN_USERDATA, chain.userdata)


def rule_body(rule: Rule, position: int) -> bytes:
    """NFT_MSG_NEWRULE, with the handle of the rule before it, or 0."""
    chain = rule.chain
    made = text(nft.NFTA_RULE_TABLE, chain.table.name) + text(nft.NFTA_RULE_CHAIN, chain.name)
    made += be64(nft.NFTA_RULE_HANDLE, rule.handle)
    if position:
        made += be64(nft.NFTA_RULE_POSITION, position)
    listed = b"".join(
        nested(nft.NFTA_LIST_ELEM, dump_expression(each)) for each in rule.expressions
    )
    made += nested(nft.NFTA_RULE_EXPRESSIONS, listed)
    return made + _userdata(nft.NFTA_RULE_USERDATA, rule.userdata)


def set_body(group: Set) -> bytes:
    """NFT_MSG_NEWSET."""
    made = text(nft.NFTA_SET_TABLE, group.table.name) + text(nft.NFTA_SET_NAME, group.name)
    made += be64(nft.NFTA_SET_HANDLE, group.handle)
    if group.flags:
        made += be32(nft.NFTA_SET_FLAGS, group.flags)
    made += be32(nft.NFTA_SET_KEY_TYPE, group.key_type)
    made += be32(nft.NFTA_SET_KEY_LEN, group.key_size)
    if group.flags & nft.NFT_SET_MAP:
        made += be32(nft.NFTA_SET_DATA_TYPE, group.data_type)
        made += be32(nft.NFTA_SET_DATA_LEN, group.data_size)
    if group.flags & nft.NFT_SET_OBJECT:
        made += be32(nft.NFTA_SET_OBJ_TYPE, group.object_kind)
    if group.timeout_ms:
        made += be64(nft.NFTA_SET_TIMEOUT, group.timeout_ms)
    if group.gc_ms:
        made += be32(nft.NFTA_SET_GC_INTERVAL, group.gc_ms)
    if group.policy != nft.NFT_SET_POL_PERFORMANCE:
        made += be32(nft.NFTA_SET_POLICY, group.policy)
    made += _userdata(nft.NFTA_SET_USERDATA, group.userdata)
    about = be32(nft.NFTA_SET_DESC_SIZE, group.size) if group.size else b""
    if group.fields:
        fields = b"".join(
            nested(nft.NFTA_LIST_ELEM, be32(nft.NFTA_SET_FIELD_LEN, size)) for size in group.fields
        )
        about += nested(nft.NFTA_SET_DESC_CONCAT, fields)
    made += nested(nft.NFTA_SET_DESC, about)
    return made + _expressions(nft.NFTA_SET_EXPR, nft.NFTA_SET_EXPRESSIONS, group.expressions)


def _expressions(one: int, several: int, found: list[Expression]) -> bytes:
    if len(found) == 1:
        return nested(one, dump_expression(found[0]))
    if not found:
        return b""
    listed = b"".join(nested(nft.NFTA_LIST_ELEM, dump_expression(each)) for each in found)
    return nested(several, listed)


def element_body(group: Set, element: Element, now_ns: int) -> bytes:
    """One of a list."""
    made = b""
    if not element.flags & nft.NFT_SET_ELEM_CATCHALL:
        key = attribute(nft.NFTA_DATA_VALUE, element.key)
        made += nested(nft.NFTA_SET_ELEM_KEY, key)
    if element.key_end:
        last = attribute(nft.NFTA_DATA_VALUE, element.key_end)
        made += nested(nft.NFTA_SET_ELEM_KEY_END, last)
    if isinstance(element.data, Verdict):
        made += nested(nft.NFTA_SET_ELEM_DATA, element.data.dump())
    elif element.data is not None:
        made += nested(nft.NFTA_SET_ELEM_DATA, attribute(nft.NFTA_DATA_VALUE, element.data))
    made += _expressions(
        nft.NFTA_SET_ELEM_EXPR, nft.NFTA_SET_ELEM_EXPRESSIONS, element.expressions
    )
    if element.named is not None:
        made += text(nft.NFTA_SET_ELEM_OBJREF, element.named.name)
    if element.flags:
        made += be32(nft.NFTA_SET_ELEM_FLAGS, element.flags)
    if element.timeout_ms and element.timeout_ms != group.timeout_ms:
        made += be64(nft.NFTA_SET_ELEM_TIMEOUT, element.timeout_ms)
    if element.expires_ns:
        left_ms = max(0, element.expires_ns - now_ns) // MS_NS
        made += be64(nft.NFTA_SET_ELEM_EXPIRATION, left_ms)
    return made + _userdata(nft.NFTA_SET_ELEM_USERDATA, element.userdata)


def elements_body(group: Set, listed: Iterable[bytes]) -> bytes:
    """NFT_MSG_NEWSETELEM: some of a set."""
    made = text(nft.NFTA_SET_ELEM_LIST_TABLE, group.table.name)
    made += text(nft.NFTA_SET_ELEM_LIST_SET, group.name)
    inner = b"".join(nested(nft.NFTA_LIST_ELEM, each) for each in listed)
    return made + nested(nft.NFTA_SET_ELEM_LIST_ELEMENTS, inner)


def object_body(named: Object) -> bytes:
    """NFT_MSG_NEWOBJ."""
    made = text(nft.NFTA_OBJ_TABLE, named.table.name) + text(nft.NFTA_OBJ_NAME, named.name)
    made += be32(nft.NFTA_OBJ_TYPE, named.kind) + be32(nft.NFTA_OBJ_USE, named.use)
    made += nested(nft.NFTA_OBJ_DATA, named.state.dump())
    made += be64(nft.NFTA_OBJ_HANDLE, named.handle)
    return made + _userdata(nft.NFTA_OBJ_USERDATA, named.userdata)
