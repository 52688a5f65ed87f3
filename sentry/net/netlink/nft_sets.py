"""Sets and maps: what programs ask and change. nf_tables_newset() and its like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.errors import EBUSY, EEXIST, EINVAL, ENOENT, EOPNOTSUPP
from sentry.net.netfilter.acting import parse_stateful
from sentry.net.netfilter.machine import (
    REGISTERS_SIZE,
    Attributes,
    elements,
    number,
    string,
)
from sentry.net.netfilter.ruleset import Table
from sentry.net.netfilter.sets import Set
from sentry.net.netfilter.transaction import Scope, Transaction, check_kind
from sentry.net.netlink.message import Reply, parse_attributes
from sentry.net.netlink.nfnetlink import Asked, asks, changes
from sentry.net.netlink.nft_messages import set_body
from sentry.net.netlink.nft_requests import (
    find_in,
    find_table,
    is_destroyed,
    named_by,
    own_table,
    tables_of,
    userdata,
)

FLAGS: Final = (
    nft.NFT_SET_ANONYMOUS | nft.NFT_SET_CONSTANT | nft.NFT_SET_INTERVAL | nft.NFT_SET_TIMEOUT
    | nft.NFT_SET_MAP | nft.NFT_SET_EVAL | nft.NFT_SET_OBJECT | nft.NFT_SET_CONCAT
    | nft.NFT_SET_EXPR
)  # fmt: skip
MAX_FIELDS: Final = 16


def find_set(table: Table, asked: Asked, name: int, handle: int = 0) -> Set:
    """See `find_in`."""
    return find_in(table.sets, asked, name, handle)


@asks(nft.NFT_MSG_GETSET)
def get_set(asked: Asked) -> Iterable[Reply]:
    """NFT_MSG_GETSET."""
    if not asked.is_dump:
        table = find_table(asked, nft.NFTA_SET_TABLE)
        group = find_set(table, asked, nft.NFTA_SET_NAME)
        yield asked.reply(nft.NFT_MSG_NEWSET, table.family, set_body(group))
        return
    for table in tables_of(asked, nft.NFTA_SET_TABLE):
        for group in list(table.sets.values()):
            yield asked.reply(nft.NFT_MSG_NEWSET, table.family, set_body(group))


@changes(nft.NFT_MSG_NEWSET)
def new_set(asked: Asked, batch: Transaction) -> None:
    """nf_tables_newset()."""
    data = asked.attributes
    table = own_table(asked, nft.NFTA_SET_TABLE, batch)
    name = string(data, nft.NFTA_SET_NAME)
    found = table.sets.get(name)
    if found is not None:
        if asked.flags & abi.NLM_F_EXCL:
            with asked.about(nft.NFTA_SET_NAME):
                raise EEXIST(f"set {name}")
        if asked.flags & abi.NLM_F_REPLACE:
            raise EOPNOTSUPP("replace")
        return
    if not asked.flags & abi.NLM_F_CREATE:
        raise ENOENT(f"set {name}")
    group = Set(table, name)
    group.number = number(data, nft.NFTA_SET_ID)
    group.flags = number(data, nft.NFTA_SET_FLAGS, 0)
    group.key_type = number(data, nft.NFTA_SET_KEY_TYPE, 0)
    group.key_size = number(data, nft.NFTA_SET_KEY_LEN)
    if group.flags & ~FLAGS:
        raise EOPNOTSUPP("flags")
    if not 0 < group.key_size <= REGISTERS_SIZE:
        raise EINVAL("size of a key")
    _read_kind(group, data)
    _read_description(group, data)
    group.userdata = userdata(data, nft.NFTA_SET_USERDATA)
    scope = Scope(batch, table, None)
    listed = elements(data.get(nft.NFTA_SET_EXPRESSIONS, b""), nft.NFTA_LIST_ELEM)
    if nft.NFTA_SET_EXPR in data:
        listed = [data[nft.NFTA_SET_EXPR]]
    if len(listed) > 2:
        raise EOPNOTSUPP("more than two expressions")
    group.expressions = [parse_stateful(scope, each) for each in listed]
    batch.add_set(group)
    if group.number:
        batch.sets[group.number] = group


def _read_kind(group: Set, data: Attributes) -> None:
    """What it maps to, and for how long. Raises: EINVAL, EOPNOTSUPP."""
    flags = group.flags
    if flags & nft.NFT_SET_MAP and flags & nft.NFT_SET_OBJECT:
        raise EINVAL("a map of both")
    if flags & nft.NFT_SET_OBJECT:
        group.object_kind = number(data, nft.NFTA_SET_OBJ_TYPE)
        check_kind(group.object_kind)
    if flags & nft.NFT_SET_MAP:
        group.data_type = number(data, nft.NFTA_SET_DATA_TYPE)
        if group.data_type != nft.NFT_DATA_VERDICT:
            group.data_size = number(data, nft.NFTA_SET_DATA_LEN)
            if not 0 < group.data_size <= REGISTERS_SIZE:
                raise EINVAL("size of data")
    elif nft.NFTA_SET_DATA_TYPE in data:
        raise EINVAL("data of no map")
    if nft.NFTA_SET_TIMEOUT in data:
        if not flags & nft.NFT_SET_TIMEOUT:
            raise EINVAL("a timeout")
        group.timeout_ms = number(data, nft.NFTA_SET_TIMEOUT, size=8)
    group.gc_ms = number(data, nft.NFTA_SET_GC_INTERVAL, 0)
    group.policy = number(data, nft.NFTA_SET_POLICY, nft.NFT_SET_POL_PERFORMANCE)


def _read_description(group: Set, data: Attributes) -> None:
    """NFTA_SET_DESC: its size, and the fields of its keys. Raises: EINVAL, E2BIG."""
    about = parse_attributes(data.get(nft.NFTA_SET_DESC, b""))
    group.size = number(about, nft.NFTA_SET_DESC_SIZE, 0)
    listed = elements(about.get(nft.NFTA_SET_DESC_CONCAT, b""), nft.NFTA_LIST_ELEM)
    if len(listed) > MAX_FIELDS:
        raise EINVAL("fields")
    group.fields = [number(parse_attributes(each), nft.NFTA_SET_FIELD_LEN) for each in listed]
    room = sum(size + 3 & ~3 for size in group.fields)
    if any(not 0 < size <= REGISTERS_SIZE for size in group.fields):
        raise EINVAL("size of a field")
    if group.fields and room != group.key_size + 3 & ~3:
        raise EINVAL("fields that are not the key")
    if group.fields and not group.flags & nft.NFT_SET_CONCAT:
        raise EINVAL("no key of fields")


@changes(nft.NFT_MSG_DELSET, nft.NFT_MSG_DESTROYSET)
def delete_set(asked: Asked, batch: Transaction) -> None:
    """nf_tables_delset()."""
    try:
        table = own_table(asked, nft.NFTA_SET_TABLE, batch)
        group = find_set(table, asked, nft.NFTA_SET_NAME, nft.NFTA_SET_HANDLE)
    except ENOENT:
        if is_destroyed(asked, nft.NFT_MSG_DESTROYSET):
            return
        raise
    with asked.about(named_by(asked, nft.NFTA_SET_NAME, nft.NFTA_SET_HANDLE)):
        if group.use:
            raise EBUSY(f"set {group.name}")
    batch.remove_set(group)
