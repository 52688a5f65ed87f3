"""Generations, tables, chains: what programs ask and change. net/netfilter/nf_tables_api.c."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.errors import EAFNOSUPPORT, EBUSY, EEXIST, EINVAL, ENOENT, EOPNOTSUPP
from sentry.net.netfilter.hooks import FAMILIES
from sentry.net.netfilter.machine import Attributes, number, string
from sentry.net.netfilter.ruleset import Chain, Table
from sentry.net.netfilter.sets import Set
from sentry.net.netfilter.transaction import Transaction
from sentry.net.netlink.message import Reply, parse_attributes
from sentry.net.netlink.nfnetlink import Asked, asks, changes
from sentry.net.netlink.nft_messages import chain_body, generation_body, table_body

T = TypeVar("T", Chain, Set)

MAX_USERDATA: Final = 256
PRIORITY_MOST: Final = 1 << 31
NAT_LEAST: Final = -200
"""A chain of type nat stands behind connection tracking: NF_IP_PRI_CONNTRACK."""
TYPES: Final = {
    "filter": range(nft.NF_INET_PRE_ROUTING, nft.NF_INET_POST_ROUTING + 1),
    "nat": (
        nft.NF_INET_PRE_ROUTING, nft.NF_INET_LOCAL_IN, nft.NF_INET_LOCAL_OUT,
        nft.NF_INET_POST_ROUTING,
    ),
    "route": (nft.NF_INET_LOCAL_OUT,),
}  # fmt: skip
"""Types of base chains, and the hooks where they may stand."""


def find_table(asked: Asked, kind: int) -> Table:
    """The table that is named. Raises: ENOENT, EINVAL."""
    with asked.about(kind):
        name = string(asked.attributes, kind)
        found = asked.netfilter.ruleset.tables.get((asked.family, name))
        if found is None:
            raise ENOENT(f"table {name}")
    return found


def tables_of(asked: Asked, kind: int) -> Iterator[Table]:
    """Those that a dump is about: of a family, of a name."""
    name = string(asked.attributes, kind) if kind in asked.attributes else ""
    for table in list(asked.netfilter.ruleset.tables.values()):
        if asked.family in (nft.NFPROTO_UNSPEC, table.family) and name in ("", table.name):
            yield table


def own_table(asked: Asked, kind: int, batch: Transaction) -> Table:
    """One that may be changed. Raises: ENOENT, EPERM."""
    with asked.about(kind):
        table = find_table(asked, kind)
        batch.check_owner(table)
    return table


def userdata(data: Attributes, kind: int) -> bytes:
    """What a program has to say to itself. Raises: EINVAL."""
    found = data.get(kind, b"")
    if len(found) > MAX_USERDATA:
        raise EINVAL("userdata")
    return found


def is_destroyed(asked: Asked, *kinds: int) -> bool:
    """It is of a type for which it does not matter whether there was something."""
    return asked.kind & 0xFF in kinds


# --- generations


@asks(nft.NFT_MSG_GETGEN)
def get_generation(asked: Asked) -> Iterable[Reply]:
    """NFT_MSG_GETGEN."""
    body = generation_body(asked.netfilter.ruleset.generation, asked.request.caller)
    return [asked.reply(nft.NFT_MSG_NEWGEN, nft.NFPROTO_UNSPEC, body)]


# --- tables


@asks(nft.NFT_MSG_GETTABLE)
def get_table(asked: Asked) -> Iterable[Reply]:
    """NFT_MSG_GETTABLE."""
    kind = nft.NFTA_TABLE_NAME
    found = tables_of(asked, kind) if asked.is_dump else [find_table(asked, kind)]
    for table in found:
        yield asked.reply(nft.NFT_MSG_NEWTABLE, table.family, table_body(table))


@changes(nft.NFT_MSG_NEWTABLE)
def new_table(asked: Asked, batch: Transaction) -> None:
    """nf_tables_newtable()."""
    data, ruleset = asked.attributes, asked.netfilter.ruleset
    name = string(data, nft.NFTA_TABLE_NAME)
    flags = number(data, nft.NFTA_TABLE_FLAGS, 0)
    found = ruleset.tables.get((asked.family, name))
    if found is not None:
        batch.check_owner(found)
        if asked.flags & abi.NLM_F_EXCL:
            with asked.about(nft.NFTA_TABLE_NAME):
                raise EEXIST(f"table {name}")
        if asked.flags & abi.NLM_F_REPLACE:
            raise EOPNOTSUPP("replace")
        if nft.NFTA_TABLE_FLAGS in data:
            _change_table(found, flags, batch)
        return
    if asked.family not in FAMILIES:
        raise EAFNOSUPPORT(f"family {asked.family}")
    known = nft.NFT_TABLE_F_DORMANT | nft.NFT_TABLE_F_OWNER | nft.NFT_TABLE_F_PERSIST
    if flags & ~known:
        raise EOPNOTSUPP("flags")
    if flags & nft.NFT_TABLE_F_PERSIST and not flags & nft.NFT_TABLE_F_OWNER:
        raise EINVAL("of nobody")
    table = Table(asked.family, name)
    table.flags = flags
    table.owner = batch.port if flags & nft.NFT_TABLE_F_OWNER else 0
    table.userdata = userdata(data, nft.NFTA_TABLE_USERDATA)
    batch.add_table(table)


def _change_table(table: Table, flags: int, batch: Transaction) -> None:
    """nf_tables_updtable(): asleep, or not any more."""
    if flags & ~(nft.NFT_TABLE_F_DORMANT | nft.NFT_TABLE_F_OWNER | nft.NFT_TABLE_F_PERSIST):
        raise EOPNOTSUPP("flags")
    if (flags ^ table.flags) & ~nft.NFT_TABLE_F_DORMANT:
        raise EOPNOTSUPP("an owner")
    if flags == table.flags:
        return
    batch.change(table, "flags", flags)
    batch.must_check = True
    batch.note(nft.NFT_MSG_NEWTABLE, table)


@changes(nft.NFT_MSG_DELTABLE, nft.NFT_MSG_DESTROYTABLE)
def delete_table(asked: Asked, batch: Transaction) -> None:
    """nf_tables_deltable(): one, or all of a family, or all."""
    data, tables = asked.attributes, asked.netfilter.ruleset.tables
    if nft.NFTA_TABLE_NAME not in data and nft.NFTA_TABLE_HANDLE not in data:
        for table in list(tables.values()):
            is_meant = asked.family in (nft.NFPROTO_UNSPEC, table.family)
            if is_meant and table.owner in (0, batch.port):
                batch.remove_table(table)
        return
    try:
        found = _named_table(asked)
    except ENOENT:
        if is_destroyed(asked, nft.NFT_MSG_DESTROYTABLE):
            return
        raise
    batch.check_owner(found)
    if asked.flags & abi.NLM_F_NONREC and found.use:
        raise EBUSY("the table has parts")
    batch.remove_table(found)


def _named_table(asked: Asked) -> Table:
    """By its handle, or its name."""
    data = asked.attributes
    if nft.NFTA_TABLE_HANDLE not in data:
        return find_table(asked, nft.NFTA_TABLE_NAME)
    with asked.about(nft.NFTA_TABLE_HANDLE):
        handle = number(data, nft.NFTA_TABLE_HANDLE, size=8)
        for table in asked.netfilter.ruleset.tables.values():
            if table.handle == handle and table.family == asked.family:
                return table
        raise ENOENT(f"table {handle}")


# --- chains


def find_in(things: dict[str, T], asked: Asked, name: int, handle: int = 0) -> T:
    """By its handle, if `handle` is in the attributes, or its name. Raises: ENOENT, EINVAL."""
    data, kind = asked.attributes, named_by(asked, name, handle)
    with asked.about(kind):
        if kind == name:
            found = things.get(string(data, name))
            if found is None:
                raise ENOENT("name")
            return found
        wanted = number(data, handle, size=8)
        for thing in things.values():
            if thing.handle == wanted:
                return thing
        raise ENOENT(f"handle {wanted}")


def named_by(asked: Asked, name: int, handle: int) -> int:
    """Which attribute says what is meant; `handle` is 0 where there is but a name."""
    return handle if handle and handle in asked.attributes else name


def find_chain(table: Table, asked: Asked, name: int, handle: int = 0) -> Chain:
    """See `find_in`."""
    return find_in(table.chains, asked, name, handle)


@asks(nft.NFT_MSG_GETCHAIN)
def get_chain(asked: Asked) -> Iterable[Reply]:
    """NFT_MSG_GETCHAIN."""
    if not asked.is_dump:
        table = find_table(asked, nft.NFTA_CHAIN_TABLE)
        chain = find_chain(table, asked, nft.NFTA_CHAIN_NAME)
        yield asked.reply(nft.NFT_MSG_NEWCHAIN, table.family, chain_body(chain))
        return
    for table in tables_of(asked, nft.NFTA_CHAIN_TABLE):
        for chain in list(table.chains.values()):
            yield asked.reply(nft.NFT_MSG_NEWCHAIN, table.family, chain_body(chain))


@changes(nft.NFT_MSG_NEWCHAIN)
def new_chain(asked: Asked, batch: Transaction) -> None:
    """nf_tables_newchain()."""
    data = asked.attributes
    table = own_table(asked, nft.NFTA_CHAIN_TABLE, batch)
    found = None
    if nft.NFTA_CHAIN_HANDLE in data:
        found = find_chain(table, asked, nft.NFTA_CHAIN_NAME, nft.NFTA_CHAIN_HANDLE)
    elif nft.NFTA_CHAIN_NAME in data:
        found = table.chains.get(string(data, nft.NFTA_CHAIN_NAME))
    elif nft.NFTA_CHAIN_ID not in data:
        raise EINVAL("which chain?")
    if found is not None:
        with asked.about(named_by(asked, nft.NFTA_CHAIN_NAME, nft.NFTA_CHAIN_HANDLE)):
            if asked.flags & abi.NLM_F_EXCL:
                raise EEXIST(f"chain {found.name}")
        if asked.flags & abi.NLM_F_REPLACE:
            raise EOPNOTSUPP("replace")
        _change_chain(found, asked, batch)
        return
    _make_chain(table, asked, batch)


def _make_chain(table: Table, asked: Asked, batch: Transaction) -> None:
    """nf_tables_addchain()."""
    data = asked.attributes
    flags = number(data, nft.NFTA_CHAIN_FLAGS, 0)
    name = string(data, nft.NFTA_CHAIN_NAME) if nft.NFTA_CHAIN_NAME in data else ""
    if flags & ~(nft.NFT_CHAIN_BASE | nft.NFT_CHAIN_BINDING):
        raise EOPNOTSUPP("flags")
    if not name and not flags & nft.NFT_CHAIN_BINDING:
        raise EINVAL("no name")
    chain = Chain(table, name)
    chain.userdata = userdata(data, nft.NFTA_CHAIN_USERDATA)
    chain.flags = flags & nft.NFT_CHAIN_BINDING
    chain.number = number(data, nft.NFTA_CHAIN_ID, 0)
    if nft.NFTA_CHAIN_HOOK in data:
        _make_base(chain, asked)
    elif flags & nft.NFT_CHAIN_BASE or nft.NFTA_CHAIN_POLICY in data:
        with asked.about(nft.NFTA_CHAIN_POLICY):
            raise EOPNOTSUPP("a policy of no base chain")
    if chain.number:
        batch.chains[chain.number] = chain
    batch.add_chain(chain)


def _hook_of(asked: Asked) -> tuple[int, int, str]:
    """Hook, priority and type. Raises: EINVAL, ENOENT, EOPNOTSUPP."""
    data = asked.attributes
    place = parse_attributes(data[nft.NFTA_CHAIN_HOOK])
    hook = number(place, nft.NFTA_HOOK_HOOKNUM)
    priority = number(place, nft.NFTA_HOOK_PRIORITY)
    priority -= (priority & PRIORITY_MOST) << 1
    kind = string(data, nft.NFTA_CHAIN_TYPE) if nft.NFTA_CHAIN_TYPE in data else "filter"
    if kind not in TYPES:
        with asked.about(nft.NFTA_CHAIN_TYPE):
            raise ENOENT(f"type {kind}")
    if hook not in TYPES[kind] or (kind == "nat" and priority <= NAT_LEAST):
        raise EOPNOTSUPP("such a chain at such a hook")
    if nft.NFTA_HOOK_DEV in place or nft.NFTA_HOOK_DEVS in place:
        raise EOPNOTSUPP("of a device")
    return hook, priority, kind


def _make_base(chain: Chain, asked: Asked) -> None:
    """nf_tables_addchain() of a base chain."""
    data = asked.attributes
    chain.hook, chain.priority, chain.kind = _hook_of(asked)
    chain.is_base = True
    chain.flags |= nft.NFT_CHAIN_BASE
    chain.policy = _policy(data)
    if nft.NFTA_CHAIN_COUNTERS in data:
        counted = parse_attributes(data[nft.NFTA_CHAIN_COUNTERS])
        chain.has_counters = True
        chain.packets = number(counted, nft.NFTA_COUNTER_PACKETS, 0, 8)
        chain.octets = number(counted, nft.NFTA_COUNTER_BYTES, 0, 8)


def _policy(data: Attributes) -> int:
    policy = number(data, nft.NFTA_CHAIN_POLICY, nft.NF_ACCEPT)
    if policy not in (nft.NF_ACCEPT, nft.NF_DROP):
        raise EINVAL("policy")
    return policy


def _change_chain(chain: Chain, asked: Asked, batch: Transaction) -> None:
    """nf_tables_updchain(): another policy, other counters, another name."""
    data = asked.attributes
    if nft.NFTA_CHAIN_HOOK in data:
        with asked.about(named_by(asked, nft.NFTA_CHAIN_NAME, nft.NFTA_CHAIN_HANDLE)):
            if not chain.is_base:
                raise EEXIST("no base chain")
            if _hook_of(asked) != (chain.hook, chain.priority, chain.kind):
                raise EEXIST("another hook")
    if nft.NFTA_CHAIN_POLICY in data:
        with asked.about(nft.NFTA_CHAIN_POLICY):
            if not chain.is_base:
                raise EOPNOTSUPP("no base chain")
        batch.change(chain, "policy", _policy(data))
    if nft.NFTA_CHAIN_COUNTERS in data:
        if not chain.is_base:
            raise EOPNOTSUPP("no base chain")
        counted = parse_attributes(data[nft.NFTA_CHAIN_COUNTERS])
        batch.change(chain, "has_counters", True)
        batch.change(chain, "packets", number(counted, nft.NFTA_COUNTER_PACKETS, 0, 8))
        batch.change(chain, "octets", number(counted, nft.NFTA_COUNTER_BYTES, 0, 8))
    if nft.NFTA_CHAIN_HANDLE in data and nft.NFTA_CHAIN_NAME in data:
        name = string(data, nft.NFTA_CHAIN_NAME)
        if name in chain.table.chains:
            raise EEXIST(name)
        batch.rename_chain(chain, name)
    batch.note(nft.NFT_MSG_NEWCHAIN, chain)


@changes(nft.NFT_MSG_DELCHAIN, nft.NFT_MSG_DESTROYCHAIN)
def delete_chain(asked: Asked, batch: Transaction) -> None:
    """nf_tables_delchain()."""
    try:
        table = own_table(asked, nft.NFTA_CHAIN_TABLE, batch)
        chain = find_chain(table, asked, nft.NFTA_CHAIN_NAME, nft.NFTA_CHAIN_HANDLE)
    except ENOENT:
        if is_destroyed(asked, nft.NFT_MSG_DESTROYCHAIN):
            return
        raise
    with asked.about(named_by(asked, nft.NFTA_CHAIN_NAME, nft.NFTA_CHAIN_HANDLE)):
        if asked.flags & abi.NLM_F_NONREC and (chain.use or chain.rules):
            raise EBUSY(f"chain {chain.name}")
        batch.remove_chain(chain)
