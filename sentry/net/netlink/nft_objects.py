"""Named objects, and which extensions of iptables there are: nf_tables_newobj(), nft_compat.c."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.errors import EBUSY, EEXIST, EINVAL, ENOENT
from sentry.net.netfilter.acting import Counter, Limit, Quota
from sentry.net.netfilter.machine import be32, number, string, text
from sentry.net.netfilter.ruleset import Object
from sentry.net.netfilter.transaction import Scope, Transaction, check_kind
from sentry.net.netfilter.xt_matches import match_known
from sentry.net.netfilter.xtables import target_known
from sentry.net.netlink.message import Reply, parse_attributes
from sentry.net.netlink.nfnetlink import Asked, asks, changes
from sentry.net.netlink.nft_messages import object_body
from sentry.net.netlink.nft_requests import (
    find_table,
    is_destroyed,
    named_by,
    own_table,
    tables_of,
    userdata,
)

if TYPE_CHECKING:
    from sentry.net.netfilter.machine import Expression

COMPAT_MATCH: Final = 0
OBJECTS: Final[dict[int, type[Expression]]] = {
    nft.NFT_OBJECT_COUNTER: Counter, nft.NFT_OBJECT_LIMIT: Limit, nft.NFT_OBJECT_QUOTA: Quota,
}  # fmt: skip


@asks(nft.NFT_MSG_GETOBJ, nft.NFT_MSG_GETOBJ_RESET)
def get_object(asked: Asked) -> Iterable[Reply]:
    """NFT_MSG_GETOBJ."""
    data = asked.attributes
    wanted = number(data, nft.NFTA_OBJ_TYPE, 0)
    if asked.is_dump:
        found = [
            each for table in tables_of(asked, nft.NFTA_OBJ_TABLE)
            for each in table.objects.values()
            if wanted in (0, each.kind)
        ]  # fmt: skip
    else:
        table = find_table(asked, nft.NFTA_OBJ_TABLE)
        found = [table.object_named(string(data, nft.NFTA_OBJ_NAME), wanted)]
    for each in found:
        body = object_body(each)
        if is_destroyed(asked, nft.NFT_MSG_GETOBJ_RESET):
            each.state.reset()
        yield asked.reply(nft.NFT_MSG_NEWOBJ, each.table.family, body)


@changes(nft.NFT_MSG_NEWOBJ)
def new_object(asked: Asked, batch: Transaction) -> None:
    """nf_tables_newobj()."""
    data = asked.attributes
    table = own_table(asked, nft.NFTA_OBJ_TABLE, batch)
    name, kind = string(data, nft.NFTA_OBJ_NAME), number(data, nft.NFTA_OBJ_TYPE)
    check_kind(kind)
    if (name, kind) in table.objects:
        if asked.flags & abi.NLM_F_EXCL:
            with asked.about(nft.NFTA_OBJ_NAME):
                raise EEXIST(f"object {name}")
        return
    raw = data.get(nft.NFTA_OBJ_DATA)
    if raw is None:
        raise EINVAL("no data")
    state = OBJECTS[kind].parse(Scope(batch, table, None), parse_attributes(raw), raw)
    named = Object(table, name, kind, state)
    named.userdata = userdata(data, nft.NFTA_OBJ_USERDATA)
    batch.add_object(named)


@changes(nft.NFT_MSG_DELOBJ, nft.NFT_MSG_DESTROYOBJ)
def delete_object(asked: Asked, batch: Transaction) -> None:
    """nf_tables_delobj()."""
    data, named = asked.attributes, named_by(asked, nft.NFTA_OBJ_NAME, nft.NFTA_OBJ_HANDLE)
    try:
        table = own_table(asked, nft.NFTA_OBJ_TABLE, batch)
        kind = number(data, nft.NFTA_OBJ_TYPE)
        with asked.about(named):
            if named == nft.NFTA_OBJ_HANDLE:
                handle = number(data, named, size=8)
                those = (each for each in table.objects.values() if each.handle == handle)
                found = next(those, None)
                if found is None:
                    raise ENOENT("object")
            else:
                found = table.object_named(string(data, named), kind)
    except ENOENT:
        if is_destroyed(asked, nft.NFT_MSG_DESTROYOBJ):
            return
        raise
    with asked.about(named):
        if found.use:
            raise EBUSY(f"object {found.name}")
    batch.remove_object(found)


@asks(nft.NFT_MSG_GETFLOWTABLE)
def get_flow_table(asked: Asked) -> Iterable[Reply]:
    """NFT_MSG_GETFLOWTABLE: there is none."""
    if not asked.is_dump:
        raise ENOENT("flowtable")
    return ()


# --- extensions of iptables


@asks(nft.NFNL_MSG_COMPAT_GET, subsystem=nft.NFNL_SUBSYS_NFT_COMPAT)
def get_extension(asked: Asked) -> Iterable[Reply]:
    """NFNL_MSG_COMPAT_GET: is there this revision of a match or target? nfnl_compat_get_rcu()."""
    data = asked.attributes
    name = string(data, nft.NFTA_COMPAT_NAME, 32)
    revision, which = number(data, nft.NFTA_COMPAT_REV), number(data, nft.NFTA_COMPAT_TYPE)
    if which == COMPAT_MATCH:
        is_known = match_known(name, revision, asked.family) is not None
    else:
        is_known = target_known(name, revision, asked.family) is not None
    if not is_known:
        raise ENOENT(name)
    body = bytes([asked.family, 0, 0, 0]) + text(nft.NFTA_COMPAT_NAME, name)
    body += be32(nft.NFTA_COMPAT_REV, revision) + be32(nft.NFTA_COMPAT_TYPE, which)
    return [(asked.kind, body)]
