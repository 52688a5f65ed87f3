"""Sets of ipset(8), protocol 7: how they are made and changed. net/netfilter/ipset/ip_set_core.c.

Errors are numbers beyond those of errno(3). One of a line of a file, as `ipset restore` reads it,
is told with the number of that line.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import ipset as abi
from sentry.abi import netlink
from sentry.abi.nftables import (
    NFGENMSG,
    NFNL_SUBSYS_IPSET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFPROTO_UNSPEC,
)
from sentry.errors import EEXIST, Errno
from sentry.net.netfilter.ip_sets import KINDS, MOST_SETS, Given, refused, swap
from sentry.net.netfilter.xt_sets import MOST_S
from sentry.net.netlink.ipset_elements import (
    Fields,
    given_of,
    is_exception,
    keys_of,
)
from sentry.net.netlink.message import HEADER, error_message
from sentry.net.netlink.nfnetlink import Asked, attribute_places, does

if TYPE_CHECKING:
    from sentry.net.netfilter.ip_sets import Content, IpSet, IpSets, Kind

SUBSYSTEM: Final = NFNL_SUBSYS_IPSET << 8
LEAST_HASH: Final = 64
DEFAULT_LIST: Final = 8
LEAST_LIST: Final = 4


def sets_of(asked: Asked) -> IpSets:
    """Of its namespace."""
    return asked.netfilter.ruleset.ip_sets


def read(asked: Asked, least: int = abi.IPSET_PROTOCOL_MIN) -> Fields:
    """Its attributes. Raises: IPSET_ERR_PROTOCOL for an old one."""
    data = Fields(asked.request.body[NFGENMSG.size :])
    if data.number(abi.IPSET_ATTR_PROTOCOL, 1) < least:
        raise refused(abi.IPSET_ERR_PROTOCOL, "protocol")
    return data


def name_of(data: Fields, kind: int = abi.IPSET_ATTR_SETNAME) -> str:
    """Raises: IPSET_ERR_PROTOCOL, EINVAL."""
    return data.text(kind, abi.IPSET_MAXNAMELEN)


def set_named(asked: Asked, data: Fields) -> IpSet:
    """Raises: ENOENT, IPSET_ERR_PROTOCOL."""
    return sets_of(asked).named(name_of(data))


def now_ns_of(asked: Asked) -> int:
    """When it was sent."""
    now_ns: int = asked.request.stack.kernel.loop.now_ns()
    return now_ns


# --- sets


def kind_of(data: Fields) -> Kind:
    """Raises: IPSET_ERR_FIND_TYPE."""
    name = name_of(data, abi.IPSET_ATTR_TYPENAME)
    if name not in KINDS:
        raise refused(abi.IPSET_ERR_FIND_TYPE, name)
    return KINDS[name]


@does(SUBSYSTEM | abi.IPSET_CMD_CREATE)
def create(asked: Asked) -> None:
    """IPSET_CMD_CREATE. Raises: EEXIST, IPSET_ERR_*."""
    data = read(asked)
    name, kind = name_of(data), kind_of(data)
    revision = data.number(abi.IPSET_ATTR_REVISION, 1)
    family = data.number(abi.IPSET_ATTR_FAMILY, 1)
    if revision > kind.newest:
        raise refused(abi.IPSET_ERR_FIND_TYPE, f"revision {revision} of {kind.name}")
    if kind.has_ip and family not in (NFPROTO_IPV4, NFPROTO_IPV6):
        raise refused(abi.IPSET_ERR_INVALID_FAMILY, f"family {family}")
    if not kind.has_ip and not kind.is_list:
        family = NFPROTO_UNSPEC
    sets = sets_of(asked)
    content = sets.content(kind, family, revision)
    inner = data.inside(abi.IPSET_ATTR_DATA) if abi.IPSET_ATTR_DATA in data else Fields(b"")
    _describe(content, inner)
    known = sets.by_name.get(name)
    if known is not None and not asked.flags & netlink.NLM_F_EXCL:
        if known.content.shape == content.shape:
            return
        raise EEXIST(f"another set {name}")
    sets.create(name, content)


def _describe(content: Content, data: Fields) -> None:
    """What is said of a new one: mtype_create(), bitmap_port_create(), list_set_create()."""
    kind, width = content.kind, content.width
    if kind.is_hash:
        content.hash_size = max(LEAST_HASH, data.number(abi.IPSET_ATTR_HASHSIZE, 4, 1024))
        content.most = data.number(abi.IPSET_ATTR_MAXELEM, 4, 65536)
        if abi.IPSET_ATTR_NETMASK in data and not kind.has_prefix and not kind.has_port:
            content.netmask = data.number(abi.IPSET_ATTR_NETMASK, 1)
            if not 0 < content.netmask <= width:
                raise refused(abi.IPSET_ERR_INVALID_NETMASK, f"{content.netmask}")
    elif kind.is_list:
        content.hash_size = max(LEAST_LIST, data.number(abi.IPSET_ATTR_SIZE, 4, DEFAULT_LIST))
        content.most = MOST_SETS
    else:
        ports = (data.number(each, 2) for each in (abi.IPSET_ATTR_PORT, abi.IPSET_ATTR_PORT_TO))
        content.first, content.last = sorted(ports)
    if abi.IPSET_ATTR_TIMEOUT in data:
        content.timeout_s = min(data.number(abi.IPSET_ATTR_TIMEOUT, 4), MOST_S)
    flags = data.number(abi.IPSET_ATTR_CADT_FLAGS, 4, 0)
    content.has_counters = bool(flags & abi.IPSET_FLAG_WITH_COUNTERS)
    content.has_comments = bool(flags & abi.IPSET_FLAG_WITH_COMMENT)
    content.forces = kind.is_hash and bool(flags & abi.IPSET_FLAG_WITH_FORCEADD)


@does(SUBSYSTEM | abi.IPSET_CMD_DESTROY)
def destroy(asked: Asked) -> None:
    """IPSET_CMD_DESTROY: one, or all. Raises: ENOENT, IPSET_ERR_BUSY."""
    data, sets = read(asked), sets_of(asked)
    if abi.IPSET_ATTR_SETNAME not in data:
        every = list(sets.by_name.values())
        if any(each.use for each in every):
            raise refused(abi.IPSET_ERR_BUSY, "some are in use")
        for each in every:
            sets.destroy(each)
        return
    name = name_of(data)
    if name in sets.by_name or asked.flags & netlink.NLM_F_EXCL:
        sets.destroy(sets.named(name))


@does(SUBSYSTEM | abi.IPSET_CMD_FLUSH)
def flush(asked: Asked) -> None:
    """IPSET_CMD_FLUSH: one, or all. Raises: ENOENT."""
    data, sets = read(asked), sets_of(asked)
    if abi.IPSET_ATTR_SETNAME in data:
        set_named(asked, data).content.flush()
        return
    sets.charge(len(sets.by_name))
    for each in sets.by_name.values():
        each.content.flush()


@does(SUBSYSTEM | abi.IPSET_CMD_RENAME)
def rename(asked: Asked) -> None:
    """IPSET_CMD_RENAME. Raises: ENOENT, IPSET_ERR_REFERENCED, _EXIST_SETNAME2."""
    data = read(asked)
    name, other = name_of(data), name_of(data, abi.IPSET_ATTR_SETNAME2)
    sets = sets_of(asked)
    sets.rename(sets.named(name), other)


@does(SUBSYSTEM | abi.IPSET_CMD_SWAP)
def exchange(asked: Asked) -> None:
    """IPSET_CMD_SWAP. Raises: ENOENT, IPSET_ERR_EXIST_SETNAME2, _TYPE_MISMATCH."""
    data = read(asked)
    name, other = name_of(data), name_of(data, abi.IPSET_ATTR_SETNAME2)
    sets = sets_of(asked)
    one = sets.named(name)
    if other not in sets.by_name:
        raise refused(abi.IPSET_ERR_EXIST_SETNAME2, f"set {other}")
    swap(one, sets.by_name[other])


# --- elements


@does(SUBSYSTEM | abi.IPSET_CMD_ADD)
def add(asked: Asked) -> bool:
    """IPSET_CMD_ADD. Raises: ENOENT, ERANGE, ENOMEM, IPSET_ERR_*."""
    return _change(asked, is_add=True)


@does(SUBSYSTEM | abi.IPSET_CMD_DEL)
def remove(asked: Asked) -> bool:
    """IPSET_CMD_DEL. Raises: the same."""
    return _change(asked, is_add=False)


def _change(asked: Asked, *, is_add: bool) -> bool:
    """ip_set_ad(): one, or some. True: what was wrong has been told, with its line."""
    data = read(asked)
    name, is_list = name_of(data), abi.IPSET_ATTR_ADT in data
    has_lines = abi.IPSET_ATTR_LINENO in data
    if (abi.IPSET_ATTR_DATA in data) == is_list or (is_list and not has_lines):
        raise refused(abi.IPSET_ERR_PROTOCOL, "one element, or some with lines")
    group = sets_of(asked).named(name)
    if is_list:
        every = data.inside_each(abi.IPSET_ATTR_ADT)
    else:
        every = iter([data.inside(abi.IPSET_ATTR_DATA)])
    for each in every:
        try:
            _change_one(asked, group, each, is_add=is_add)
        except Errno as error:
            if not has_lines or not each.line:
                raise
            _tell_line(asked, error.number, each.line)
            return True
    return False


def _change_one(asked: Asked, group: IpSet, data: Fields, *, is_add: bool) -> None:
    content, sets, now_ns = group.content, sets_of(asked), now_ns_of(asked)
    may_be = not asked.flags & netlink.NLM_F_EXCL
    if content.kind.is_list:
        place = Place(sets, data)
        sets.charge(len(content.elements) + 1)
        if is_add:
            place.add(content, now_ns, given_of(content, data), replaces=may_be)
        else:
            place.remove(content, now_ns, may_be=may_be)
        return
    given = given_of(content, data)
    excepts = content.kind.has_prefix and is_exception(data)
    for key in keys_of(content, data, sets.charge):
        if is_add:
            content.add(now_ns, key, given, replaces=may_be, is_exception=excepts)
        elif not may_be or content.find(now_ns, key) is not None:
            content.remove(now_ns, key)


def _tell_line(asked: Asked, number: int, line: int) -> None:
    """call_ad(): the request is quoted with the line of what was wrong in it."""
    request = asked.request
    body = bytearray(request.body)
    for at, size, kind in attribute_places(request.body, NFGENMSG.size, len(body)):
        if kind == abi.IPSET_ATTR_LINENO and size == 8:
            body[at + 4 : at + 8] = struct.pack("<I", line)
    head = netlink.NLMSGHDR.pack(
        HEADER + len(body), request.kind, request.flags, request.sequence, 0
    )
    port = request.sock.port
    request.sock.deliver(error_message(head + bytes(body), number, port, 0), 0, 0)


@does(SUBSYSTEM | abi.IPSET_CMD_TEST)
def test(asked: Asked) -> None:
    """IPSET_CMD_TEST. Raises: ENOENT, IPSET_ERR_EXIST for what is not in it."""
    data = read(asked)
    name, inner = name_of(data), data.inside(abi.IPSET_ATTR_DATA)
    sets, now_ns = sets_of(asked), now_ns_of(asked)
    content = sets.named(name).content
    sets.charge(1 + (len(content.elements) if content.kind.is_list else len(content.prefixes)))
    try:
        if content.kind.is_list:
            is_in = Place(sets, inner).is_taken(content, now_ns)
        else:
            (key,) = keys_of(content, inner, sets.charge, is_test=True)
            found = next(content.holding(now_ns, key), None)
            is_in = found is not None and (not found.is_exception or is_exception(inner))
    except Errno:
        is_in = False
    if not is_in:
        raise refused(abi.IPSET_ERR_EXIST, "it is not there")


class Place:
    """A set in a list, and maybe before or behind which other one: struct set_adt_elem."""

    __slots__ = ("_before", "_group", "_other")

    def __init__(self, sets: IpSets, data: Fields) -> None:
        """Raises: IPSET_ERR_NAME, _LOOP, _BEFORE, _NAMEREF, _PROTOCOL."""
        flags = data.number(abi.IPSET_ATTR_CADT_FLAGS, 4, 0)
        found = sets.by_name.get(name_of(data, abi.IPSET_ATTR_NAME))
        if found is None:
            raise refused(abi.IPSET_ERR_NAME, "no such set")
        if found.content.kind.is_list:
            raise refused(abi.IPSET_ERR_LOOP, "a list in a list")
        self._group: IpSet = found
        self._before = bool(flags & abi.IPSET_FLAG_BEFORE)
        self._other: IpSet | None = None
        if abi.IPSET_ATTR_NAMEREF in data:
            self._other = sets.by_name.get(name_of(data, abi.IPSET_ATTR_NAMEREF))
            if self._other is None:
                raise refused(abi.IPSET_ERR_NAMEREF, "no such set")
        elif self._before:
            raise refused(abi.IPSET_ERR_BEFORE, "before which?")

    def is_taken(self, content: Content, now_ns: int) -> bool:
        """The set stands there."""
        every = [each for each, _ in content.living(now_ns)]
        if self._group not in every or self._other is None:
            return self._group in every
        at = every.index(self._group) + (1 if self._before else -1)
        return 0 <= at < len(every) and every[at] is self._other

    def add(self, content: Content, now_ns: int, given: Given, *, replaces: bool) -> None:
        """Raises: IPSET_ERR_EXIST, IPSET_ERR_REF_EXIST, ENOMEM. list_set_uadd()."""
        is_new = content.find(now_ns, self._group) is None
        if is_new and self._other is not None and content.find(now_ns, self._other) is None:
            raise refused(abi.IPSET_ERR_REF_EXIST, "it is not in the list")
        content.add(now_ns, self._group, given, replaces=replaces)
        if is_new and self._other in content.elements:
            elements = content.elements
            every = [each for each in elements if each is not self._group]
            every.insert(every.index(self._other) + (not self._before), self._group)
            content.elements = {each: elements[each] for each in every}

    def remove(self, content: Content, now_ns: int, *, may_be: bool) -> None:
        """Raises: IPSET_ERR_EXIST, IPSET_ERR_REF_EXIST. list_set_udel()."""
        if self.is_taken(content, now_ns):
            content.remove(now_ns, self._group)
        elif self._other is not None:
            raise refused(abi.IPSET_ERR_REF_EXIST, "it does not stand there")
        elif not may_be:
            raise refused(abi.IPSET_ERR_EXIST, "it is not there")
