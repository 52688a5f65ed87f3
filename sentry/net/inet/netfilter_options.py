"""Options of netfilter on any socket of IP: iptables without nftables, and SO_ORIGINAL_DST.

net/ipv4/netfilter/ip_tables.c, net/ipv6/netfilter/ip6_tables.c,
net/netfilter/nf_conntrack_proto.c. Some say in the buffer of getsockopt(2) what is asked for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from sentry.abi import ip_tables as abi
from sentry.abi import ipset
from sentry.abi.capability import CAP_NET_ADMIN
from sentry.abi.limits import INT_MAX
from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP
from sentry.errors import (
    EAGAIN,
    EBADMSG,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOPROTOOPT,
    EPERM,
    EPROTO,
    EPROTONOSUPPORT,
)
from sentry.net.inet import address
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.options import Counted, Option, Options, Question

if TYPE_CHECKING:
    from sentry.net.netfilter.hooks import Netfilter
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

REVISION: Final = struct.Struct(f"<{abi.XT_EXTENSION_MAXNAMELEN}sB")
"""struct xt_get_revision."""
ENTRIES: Final = struct.Struct(f"<{abi.XT_TABLE_MAXNAMELEN}sI4x")
"""struct ipt_get_entries, struct xt_counters_info, without what follows."""
COUNTERS_SIZE: Final = 16
ASKED: Final = struct.Struct("<II")
"""struct ip_set_req_version, and how others begin."""
NAMED: Final = struct.Struct(f"<{ipset.IPSET_MAXNAMELEN}s")
"""union ip_set_name_index."""
ASKED_MOST: Final = ASKED.size + 4 + NAMED.size
SIZES: Final = {IPPROTO_IP: 16, IPPROTO_IPV6: 28}
"""struct sockaddr_in, struct sockaddr_in6."""
LACKS: Final = "the matches and targets that nft has for iptables, in a table of 512 KiB"


class Sock(Protocol):
    """A socket of IP, as these options see it."""

    stack: Stack
    protocol: int
    local: Endpoint
    remote: Endpoint | None


def _check(sock: Sock, caller: Caller) -> None:
    """Raises: EPERM."""
    if not caller.creds.has_in(sock.stack.owner, CAP_NET_ADMIN):
        raise EPERM("CAP_NET_ADMIN")


def _netfilter(sock: Sock) -> Netfilter:
    """Raises: ENOPROTOOPT where packets leave by sockets of the host."""
    if sock.stack.has_host_sockets:
        raise ENOPROTOOPT("netfilter, with sockets of the host")
    from sentry.net.netlink.nfnetlink import netfilter_of  # noqa: PLC0415  few programs ask

    return netfilter_of(sock.stack)


# --- what is asked


def _get_info(row: Option, sock: Sock, caller: Caller, size: int) -> Question:
    """get_info()."""
    from sentry.net.netfilter.ip_tables import INFO  # noqa: PLC0415
    from sentry.net.netfilter.ip_tables_blob import table_name  # noqa: PLC0415

    _check(sock, caller)
    netfilter = _netfilter(sock)
    if size != INFO.size:
        raise EINVAL("struct ipt_getinfo")

    def answer(question: bytes) -> bytes:
        return netfilter.ip_table(table_name(question), is_v4=row.level == IPPROTO_IP).info()

    return Question(abi.XT_TABLE_MAXNAMELEN, answer)


def _get_entries(row: Option, sock: Sock, caller: Caller, size: int) -> Question:
    """get_entries()."""
    from sentry.net.netfilter.ip_tables_blob import table_name  # noqa: PLC0415

    _check(sock, caller)
    netfilter = _netfilter(sock)
    if size < ENTRIES.size:
        raise EINVAL("struct ipt_get_entries")

    def answer(question: bytes) -> bytes:
        name, wanted = ENTRIES.unpack(question)
        if size != ENTRIES.size + wanted:
            raise EINVAL("size of the entries")
        table = netfilter.ip_table(table_name(name), is_v4=row.level == IPPROTO_IP)
        if wanted != table.content.size:
            raise EAGAIN("the table has changed")
        return question + table.dump()

    return Question(ENTRIES.size, answer)


def _get_revision(row: Option, sock: Sock, caller: Caller, size: int) -> Question:
    """xt_find_revision(). Raises: ENOENT for an extension that is not there, EPROTONOSUPPORT for a
    revision that is not."""
    from sentry.net.netfilter.xt_matches import has_match, match_known  # noqa: PLC0415
    from sentry.net.netfilter.xtables import has_target, target_known  # noqa: PLC0415

    _check(sock, caller)
    _netfilter(sock)
    if size != REVISION.size:
        raise EINVAL("struct xt_get_revision")
    is_target = row.name.endswith("TARGET")
    has = has_target if is_target else has_match
    find: Any = target_known if is_target else match_known
    family = AF_INET if row.level == IPPROTO_IP else AF_INET6

    def answer(question: bytes) -> Counted:
        raw, revision = REVISION.unpack(question)
        name = raw[:-1].split(b"\0", 1)[0].decode(errors="replace")
        if find(name, revision, family) is None:
            raise (EPROTONOSUPPORT if has(name, family) else ENOENT)(name)
        return Counted(b"", size)

    return Question(REVISION.size, answer)


def _get_set(row: Option, sock: Sock, caller: Caller, size: int) -> Question:
    """ip_set_sockfn_get(): the index of a set by its name, or its name by its index."""
    from sentry.net.netfilter.ip_sets import MOST_SETS  # noqa: PLC0415

    _check(sock, caller)
    sets = _netfilter(sock).ruleset.ip_sets
    if size < 4:
        raise EINVAL("which question?")

    def answer(question: bytes) -> bytes:
        (operation,) = struct.unpack_from("<I", question)
        if operation < ipset.IP_SET_OP_VERSION:
            if size < ASKED.size:
                raise EINVAL("struct ip_set_req_version")
            if ASKED.unpack_from(question)[1] < ipset.IPSET_PROTOCOL_MIN:
                raise EPROTO("version")
        if operation not in LENGTHS:
            raise EBADMSG("which question?")
        if size != LENGTHS[operation]:
            raise EINVAL("the size of a question")
        if operation == ipset.IP_SET_OP_VERSION:
            return ASKED.pack(operation, ipset.IPSET_PROTOCOL_MIN)
        head, raw = question[: size - NAMED.size], question[size - NAMED.size :]
        if operation == ipset.IP_SET_OP_GET_BYINDEX:
            index = int.from_bytes(raw[:2], "little")
            if index >= MOST_SETS:
                raise EINVAL(f"set {index}")
            found = sets.by_index.get(index)
            name = "" if found is None else found.name
            return head + NAMED.pack(name.encode(errors="surrogateescape"))
        name = raw[:-1].split(b"\0", 1)[0].decode(errors="surrogateescape")
        found = sets.by_name.get(name)
        index = ipset.IPSET_INVALID_ID if found is None else found.index
        if found is not None and operation == ipset.IP_SET_OP_GET_FNAME:
            head = head[: ASKED.size] + struct.pack("<I", found.content.family)
        return head + index.to_bytes(2, "little") + raw[2:]

    return Question(min(size, ASKED_MOST), answer)


LENGTHS: Final = {
    ipset.IP_SET_OP_VERSION: ASKED.size,
    ipset.IP_SET_OP_GET_BYNAME: ASKED.size + NAMED.size,
    ipset.IP_SET_OP_GET_BYINDEX: ASKED.size + NAMED.size,
    ipset.IP_SET_OP_GET_FNAME: ASKED_MOST,
}
"""Of questions about sets."""


# --- what is changed


def _whole(row: Option, sock: Sock, caller: Caller, size: int) -> int:
    """A table, or what is longer."""
    from sentry.net.netfilter.ip_tables import MAX_SIZE  # noqa: PLC0415
    from sentry.net.netfilter.ip_tables_blob import REPLACE  # noqa: PLC0415

    _check(sock, caller)
    return min(size, REPLACE.size + MAX_SIZE)


def _replace(row: Option, sock: Sock, caller: Caller, value: bytes) -> None:
    """do_replace(): the old counters are told, if that can be."""
    from sentry.net.netfilter.ip_tables import MAX_SIZE  # noqa: PLC0415
    from sentry.net.netfilter.ip_tables_blob import FORMATS, REPLACE, Wanted, read  # noqa: PLC0415

    netfilter, is_v4 = _netfilter(sock), row.level == IPPROTO_IP
    if len(value) < REPLACE.size:
        raise EINVAL("struct ipt_replace")
    wanted = Wanted.read(value)
    if wanted.counters >= INT_MAX // COUNTERS_SIZE:
        raise ENOMEM("counters")
    if not wanted.counters:
        raise EINVAL("no counters")
    if wanted.size > MAX_SIZE:
        raise ENOMEM(f"a table of {wanted.size} bytes")
    if len(value) < REPLACE.size + wanted.size:
        raise EINVAL("a table that is cut")
    blob = value[REPLACE.size : REPLACE.size + wanted.size]
    content = read(FORMATS[is_v4], wanted, blob, netfilter.ruleset)
    table = netfilter.ip_table(wanted.name, is_v4=is_v4)
    if wanted.valid_hooks != table.valid_hooks:
        raise EINVAL("hooks")
    if wanted.counters != len(table.content.entries):
        raise EAGAIN("the table has changed")
    old = table.counters()
    tells = True
    try:
        caller.mm.check_out(wanted.counters_at, len(old))
    except EFAULT:  # the table is replaced all the same
        tells = False
    netfilter.replace(table, content)
    if tells:
        caller.mm.write(wanted.counters_at, old)


def _add_counters(row: Option, sock: Sock, caller: Caller, value: bytes) -> None:
    """do_add_counters()."""
    from sentry.net.netfilter.ip_tables_blob import table_name  # noqa: PLC0415

    netfilter = _netfilter(sock)
    if len(value) <= ENTRIES.size:
        raise EINVAL("struct xt_counters_info")
    name, count = ENTRIES.unpack_from(value)
    if len(value) - ENTRIES.size != count * COUNTERS_SIZE:
        raise EINVAL("counters")
    table = netfilter.ip_table(table_name(name), is_v4=row.level == IPPROTO_IP)
    table.add_counters(value[ENTRIES.size :])


# --- connections


def _get_original(row: Option, sock: Sock, caller: Caller, size: int) -> Counted:
    """getorigdst(), ipv6_getorigdst(): whom a connection was for before it was translated.

    Raises: ENOPROTOOPT unless it is of TCP, EINVAL, ENOENT if it is not followed.
    """
    if sock.protocol != IPPROTO_TCP or sock.stack.has_host_sockets:
        raise ENOPROTOOPT("no connection of TCP")
    if size < SIZES[row.level]:
        raise EINVAL("struct sockaddr")
    is_v4, stack, local, remote = row.level == IPPROTO_IP, sock.stack, sock.local, sock.remote
    if stack.netfilter is None or remote is None or (local.is_v4, remote.is_v4) != (is_v4, is_v4):
        raise ENOENT("nothing is followed")
    from sentry.net.netfilter.tuples import Tuple  # noqa: PLC0415

    source, target = (each.ip[12:] if is_v4 else each.ip for each in (local, remote))
    own = Tuple(IPPROTO_TCP, source, local.port, target, remote.port)
    found = stack.netfilter.conntrack.find(stack.kernel.loop.now_ns(), own)
    if found is None:
        raise ENOENT("nothing is followed")
    original = found[0].original
    ip = MAPPED + original.target if is_v4 else original.target
    told = address.pack(Endpoint(ip, original.target_id), AF_INET if is_v4 else AF_INET6)
    return Counted(told, size)


# --- the rows

IP_TABLES: Final = Options(IPPROTO_IP, abi)
IP_TABLES.row("IPT_SO_GET_INFO", _get_info, _replace, reads=_whole, partial=LACKS)
IP_TABLES.row("IPT_SO_GET_ENTRIES", _get_entries, _add_counters, reads=_whole)
IP_TABLES.row("IPT_SO_GET_REVISION_MATCH", _get_revision)
IP_TABLES.row("IPT_SO_GET_REVISION_TARGET", _get_revision)
IP_TABLES.row("SO_ORIGINAL_DST", _get_original)

IP_SETS: Final = Options(IPPROTO_IP, ipset)
IP_SETS.row("SO_IP_SET", _get_set)

IP6_TABLES: Final = Options(IPPROTO_IPV6, abi)
IP6_TABLES.row("IP6T_SO_GET_INFO", _get_info, _replace, reads=_whole, partial=LACKS)
IP6_TABLES.row("IP6T_SO_GET_ENTRIES", _get_entries, _add_counters, reads=_whole)
IP6_TABLES.row("IP6T_SO_GET_REVISION_MATCH", _get_revision)
IP6_TABLES.row("IP6T_SO_GET_REVISION_TARGET", _get_revision)
IP6_TABLES.row("IP6T_SO_ORIGINAL_DST", _get_original)
