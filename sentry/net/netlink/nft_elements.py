"""Elements of sets: what programs ask and change. nf_tables_newsetelem() and its like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.copied import copied
from sentry.errors import EBUSY, EINVAL, ENOENT, EOPNOTSUPP
from sentry.net.netfilter.acting import parse_stateful
from sentry.net.netfilter.machine import (
    Attributes,
    elements,
    number,
    string,
    value_of,
    verdict_of,
)
from sentry.net.netfilter.ruleset import Table
from sentry.net.netfilter.sets import Element, Set
from sentry.net.netfilter.transaction import Scope, Transaction
from sentry.net.netlink.message import Reply, parse_attributes
from sentry.net.netlink.nfnetlink import Asked, asks, changes
from sentry.net.netlink.nft_messages import element_body, elements_body
from sentry.net.netlink.nft_requests import find_table, is_destroyed, own_table, userdata
from sentry.net.netlink.nft_sets import find_set

PIECE: Final = 8192
"""Bytes of elements after which another message begins."""
MS_NS: Final = 1_000_000
MAX_MS: Final = 1 << 43
LIST: Final = nft.NFTA_SET_ELEM_LIST_ELEMENTS


def _set_of(table: Table, asked: Asked, batch: Transaction | None) -> Set:
    """By its name, or its id in this batch. Raises: ENOENT, EINVAL."""
    data = asked.attributes
    if nft.NFTA_SET_ELEM_LIST_SET in data:
        found = table.sets.get(string(data, nft.NFTA_SET_ELEM_LIST_SET))
        if found is not None:
            return found
    if batch is not None and nft.NFTA_SET_ELEM_LIST_SET_ID in data:
        mine = batch.sets.get(number(data, nft.NFTA_SET_ELEM_LIST_SET_ID))
        if mine is not None and mine.table is table:
            return mine
    return find_set(table, asked, nft.NFTA_SET_ELEM_LIST_SET)


# --- told


@asks(nft.NFT_MSG_GETSETELEM, nft.NFT_MSG_GETSETELEM_RESET)
def get_elements(asked: Asked) -> Iterable[Reply]:
    """NFT_MSG_GETSETELEM: all, or those that are named."""
    table = find_table(asked, nft.NFTA_SET_ELEM_LIST_TABLE)
    group = _set_of(table, asked, None)
    resets = is_destroyed(asked, nft.NFT_MSG_GETSETELEM_RESET)
    if asked.is_dump:
        found: Iterator[Element] = iter(list(group))
    else:
        scope = Scope(Transaction(asked.netfilter.ruleset, 0, 0), table, None)
        named = [parse_attributes(each) for each in _listed(asked)]
        if not named:
            raise EINVAL("which elements?")
        found = iter([_find(group, _key(group, scope, each)) for each in named])
    now_ns = asked.request.stack.kernel.loop.now_ns()
    listed: list[bytes] = []
    size = 0
    for element in found:
        if not element.is_over(now_ns):
            listed.append(element_body(group, element, now_ns))
            size += len(listed[-1])
        if resets:
            for each in element.expressions:
                each.reset()
        if size >= PIECE:
            yield _told(asked, group, listed)
            listed, size = [], 0
    if listed or asked.is_dump:
        yield _told(asked, group, listed)


def _told(asked: Asked, group: Set, listed: list[bytes]) -> Reply:
    body = elements_body(group, listed)
    return asked.reply(nft.NFT_MSG_NEWSETELEM, group.table.family, body)


def _find(group: Set, wanted: Element) -> Element:
    """One with its key; of intervals the one that it lies in. Raises: ENOENT."""
    if group.is_interval:
        find = group.ending if wanted.is_end else group.holding
        found = find(wanted.key)
        if found is None:
            raise ENOENT("no such element")
        return found
    return group.get(wanted)


def _listed(asked: Asked) -> list[bytes]:
    return elements(asked.attributes.get(LIST, b""))  # which nft(8) counts


# --- changed


def _key(group: Set, scope: Scope, data: Attributes) -> Element:
    """An element with its key and flags. Raises: EINVAL."""
    flags = number(data, nft.NFTA_SET_ELEM_FLAGS, 0)
    if flags & ~(nft.NFT_SET_ELEM_INTERVAL_END | nft.NFT_SET_ELEM_CATCHALL):
        raise EOPNOTSUPP("flags")
    if flags & nft.NFT_SET_ELEM_INTERVAL_END and not group.is_interval:
        raise EINVAL("an end of no interval")
    if flags & nft.NFT_SET_ELEM_CATCHALL:
        if nft.NFTA_SET_ELEM_KEY in data or flags & nft.NFT_SET_ELEM_INTERVAL_END:
            raise EINVAL("a key of what has none")
        return Element(b"", flags)
    key = value_of(data, nft.NFTA_SET_ELEM_KEY)
    if len(key) != group.key_size:
        raise EINVAL(f"a key of {len(key)} bytes")
    made = Element(key, flags)
    if nft.NFTA_SET_ELEM_KEY_END in data:
        made.key_end = value_of(data, nft.NFTA_SET_ELEM_KEY_END)
        if len(made.key_end) != group.key_size or not group.is_of_ranges:
            raise EINVAL("the end of a key")
    return made


def _element(group: Set, scope: Scope, data: Attributes, now_ns: int) -> Element:
    """nft_add_set_elem()."""
    made = _key(group, scope, data)
    raw = data.get(nft.NFTA_SET_ELEM_DATA)
    if group.flags & nft.NFT_SET_MAP:
        if raw is None and not made.is_end:
            raise EINVAL("no data")
    elif raw is not None:
        raise EINVAL("data of no map")
    if raw is not None and made.is_end:
        raise EINVAL("data of an end")
    if raw is not None and group.data_type == nft.NFT_DATA_VERDICT:
        verdict = parse_attributes(raw).get(nft.NFTA_DATA_VERDICT)
        if verdict is None:
            raise EINVAL("no verdict")
        made.data = verdict_of(scope, verdict)
        if made.data.chain is not None and made.data.chain.is_anonymous:
            raise EINVAL("a chain of a rule")
    elif raw is not None:
        value = value_of(data, nft.NFTA_SET_ELEM_DATA)
        if len(value) != group.data_size:
            raise EINVAL(f"data of {len(value)} bytes")
        made.data = value
    if nft.NFTA_SET_ELEM_OBJREF in data:
        if not group.flags & nft.NFT_SET_OBJECT:
            raise EINVAL("an object of no map of objects")
        name = string(data, nft.NFTA_SET_ELEM_OBJREF)
        made.named = scope.table.object_named(name, group.object_kind)
    elif group.flags & nft.NFT_SET_OBJECT and not made.is_end:
        raise EINVAL("no object")
    _read_time(group, made, data, now_ns)
    _read_expressions(group, made, scope, data)
    made.userdata = userdata(data, nft.NFTA_SET_ELEM_USERDATA)
    return made


def _read_time(group: Set, made: Element, data: Attributes, now_ns: int) -> None:
    """How long it is there. Raises: EINVAL."""
    if not group.flags & nft.NFT_SET_TIMEOUT:
        if data.keys() & {nft.NFTA_SET_ELEM_TIMEOUT, nft.NFTA_SET_ELEM_EXPIRATION}:
            raise EINVAL("a timeout")
        return
    if made.is_end:
        return
    made.timeout_ms = number(data, nft.NFTA_SET_ELEM_TIMEOUT, group.timeout_ms, 8)
    left_ms = number(data, nft.NFTA_SET_ELEM_EXPIRATION, made.timeout_ms, 8)
    if made.timeout_ms > MAX_MS or left_ms > MAX_MS:
        raise EINVAL("a timeout")
    if made.timeout_ms:
        made.expires_ns = now_ns + left_ms * MS_NS


def _read_expressions(group: Set, made: Element, scope: Scope, data: Attributes) -> None:
    listed = elements(data.get(nft.NFTA_SET_ELEM_EXPRESSIONS, b""), nft.NFTA_LIST_ELEM)
    if nft.NFTA_SET_ELEM_EXPR in data:
        listed = [data[nft.NFTA_SET_ELEM_EXPR]]
    if len(listed) > 2:
        raise EOPNOTSUPP("more than two expressions")
    made.expressions = [parse_stateful(scope, each) for each in listed]
    if not listed and not made.is_end:
        made.expressions = [copied(each) for each in group.expressions]


@changes(nft.NFT_MSG_NEWSETELEM)
def new_elements(asked: Asked, batch: Transaction) -> None:
    """nf_tables_newsetelem()."""
    table = own_table(asked, nft.NFTA_SET_ELEM_LIST_TABLE, batch)
    group = _set_of(table, asked, batch)
    if group.use and group.flags & nft.NFT_SET_CONSTANT:
        raise EBUSY("a constant set")
    if LIST not in asked.attributes:
        raise EINVAL("no elements")
    scope, exclusive = Scope(batch, table, None), bool(asked.flags & abi.NLM_F_EXCL)
    for index, each in enumerate(_listed(asked)):
        with asked.about(LIST, index):
            made = _element(group, scope, parse_attributes(each), batch.now_ns)
            known = group.known(made)
            if known is not None and known.is_over(batch.now_ns):
                batch.remove_element(group, known)
            if group.check_new(made, exclusive=exclusive):
                batch.add_element(group, made)


@changes(nft.NFT_MSG_DELSETELEM, nft.NFT_MSG_DESTROYSETELEM)
def delete_elements(asked: Asked, batch: Transaction) -> None:
    """nf_tables_delsetelem(): some, or all."""
    table = own_table(asked, nft.NFTA_SET_ELEM_LIST_TABLE, batch)
    group = _set_of(table, asked, batch)
    if group.use and group.flags & nft.NFT_SET_CONSTANT:
        raise EBUSY("a constant set")
    if LIST not in asked.attributes:
        for element in list(group):
            batch.remove_element(group, element)
        return
    scope = Scope(batch, table, None)
    for index, each in enumerate(_listed(asked)):
        with asked.about(LIST, index):
            wanted = _key(group, scope, parse_attributes(each))
            try:
                found = group.get(wanted)
            except ENOENT:
                if is_destroyed(asked, nft.NFT_MSG_DESTROYSETELEM):
                    continue
                raise
            batch.remove_element(group, found)
