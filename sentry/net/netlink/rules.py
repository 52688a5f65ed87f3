"""RTM_*RULE: in which tables of routes a way is looked for. net/core/fib_rules.c, ip-rule(8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.abi.socket import AF_INET, AF_INET6, IFNAMSIZ
from sentry.errors import EAFNOSUPPORT, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, ERANGE
from sentry.net.netlink.addresses import SIZES
from sentry.net.netlink.message import Reply, Request, attribute, number, text, u8, u32
from sentry.net.netlink.notices import tell
from sentry.net.netlink.registry import handles
from sentry.net.netlink.route import TABLE_COMPAT
from sentry.net.rules import ANY_LENGTH, DSCP, OF_RULES, Rule

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.net.stack import Stack

GROUPS: Final = {AF_INET: abi.RTNLGRP_IPV4_RULE, AF_INET6: abi.RTNLGRP_IPV6_RULE}
ACTIONS: Final = (abi.FR_ACT_TO_TBL, abi.FR_ACT_GOTO, abi.FR_ACT_NOP, *OF_RULES)
NONE: Final = 0xFFFFFFFF
LAST_PORT: Final = 0xFFFF
NOT_HERE: Final = {abi.FRA_FLOW, abi.FRA_TUN_ID, abi.FRA_L3MDEV, abi.FRA_DSCP}
"""Realms, tunnels, VRFs, and traffic classes by another name than TOS."""


# --- what there is


def rule_message(
    stack: Stack, creds: Credentials, rule: Rule, kind: int = abi.RTM_NEWRULE
) -> Reply:
    """fib_nl_fill_rule(). `creds`: who sees it."""
    is_named = bool(rule.iif or rule.oif)
    names = {link.name for link in stack.interfaces} if is_named else set()
    flags = rule.flags
    flags |= abi.FIB_RULE_IIF_DETACHED if rule.iif and rule.iif not in names else 0
    flags |= abi.FIB_RULE_OIF_DETACHED if rule.oif and rule.oif not in names else 0
    is_lost = rule.action == abi.FR_ACT_GOTO and not stack.routes.rules.has(
        rule.family, rule.target
    )
    body = abi.FIB_RULE_HDR.pack(
        rule.family, rule.length, rule.source_length, rule.tos,
        rule.table if rule.table < 256 else TABLE_COMPAT, 0, 0, rule.action,
        flags | (abi.FIB_RULE_UNRESOLVED if is_lost else 0),
    )  # fmt: skip
    body += u32(abi.FRA_TABLE, rule.table) + u32(abi.FRA_SUPPRESS_PREFIXLEN, rule.suppress)
    body += u8(abi.FRA_PROTOCOL, rule.origin)
    body += text(abi.FRA_IIFNAME, rule.iif) if rule.iif else b""
    body += text(abi.FRA_OIFNAME, rule.oif) if rule.oif else b""
    for what, value in (
        (abi.FRA_PRIORITY, rule.priority), (abi.FRA_FWMARK, rule.mark),
        (abi.FRA_FWMASK, rule.mask), (abi.FRA_GOTO, rule.target),
    ):  # fmt: skip
        body += u32(what, value) if value else b""
    if rule.users is not None:
        shown = abi.FIB_RULE_UID_RANGE.pack(*map(creds.shown_uid, rule.users))
        body += attribute(abi.FRA_UID_RANGE, shown)
    for what, ports in (
        (abi.FRA_SPORT_RANGE, rule.source_ports), (abi.FRA_DPORT_RANGE, rule.ports),
    ):  # fmt: skip
        if ports is not None:
            body += attribute(what, abi.FIB_RULE_PORT_RANGE.pack(*ports))
    body += u8(abi.FRA_IP_PROTO, rule.protocol) if rule.protocol else b""
    body += attribute(abi.FRA_DST, rule.destination) if rule.length else b""
    return kind, body + (attribute(abi.FRA_SRC, rule.source) if rule.source_length else b"")


@handles(NETLINK_ROUTE, abi.RTM_GETRULE)
def get_rules(request: Request) -> Iterable[Reply]:
    """RTM_GETRULE: all, or those of a family."""
    if not request.flags & abi.NLM_F_DUMP:
        raise EOPNOTSUPP("no single rule")
    family = request.body[0]
    if family not in (0, *SIZES):
        raise EAFNOSUPPORT(f"family {family}")
    stack, creds = request.stack, request.caller.creds
    return [
        rule_message(stack, creds, rule)
        for each in SIZES
        if family in (0, each)
        for rule in stack.routes.rules.of(each)
    ]


# --- what a request says


def _prefix(value: bytes | None, length: int, size: int) -> bytes:
    if not length:
        return b""
    if value is None or len(value) != size or length > size * 8:
        raise EINVAL("a prefix")
    return value


def _name(value: bytes) -> str:
    name = value.split(b"\0", 1)[0]
    if not name or len(name) >= IFNAMSIZ:
        raise ERANGE("a name")
    return name.decode(errors="replace")


def _ports(value: bytes | None) -> tuple[int, int] | None:
    """nla_get_port_range()."""
    if value is None:
        return None
    if len(value) < abi.FIB_RULE_PORT_RANGE.size:
        raise ERANGE("struct fib_rule_port_range")
    first, last = abi.FIB_RULE_PORT_RANGE.unpack(value)
    if not first or last == LAST_PORT or first > last:
        raise EINVAL("ports")
    return first, last


def _users(value: bytes | None, creds: Credentials) -> tuple[int, int] | None:
    """nla_get_kuid_range()."""
    if value is None:
        return None
    if len(value) < abi.FIB_RULE_UID_RANGE.size:
        raise ERANGE("struct fib_rule_uid_range")
    first, last = map(creds.kuid, abi.FIB_RULE_UID_RANGE.unpack(value))
    if NONE in (first, last) or first > last:
        raise EINVAL("users")
    return first, last


def _parse(request: Request) -> tuple[Rule, bool]:
    """The rule, and whether its priority is said: fib_nl2rule().

    Raises: EAFNOSUPPORT, EINVAL, ERANGE, EOPNOTSUPP.
    """
    head = abi.FIB_RULE_HDR.unpack(request.fixed(abi.FIB_RULE_HDR.size))
    if head.family not in SIZES:
        raise EAFNOSUPPORT(f"family {head.family}")
    found, size = request.attributes(abi.FIB_RULE_HDR.size), SIZES[head.family]
    if found.keys() & NOT_HERE or head.flags & abi.FIB_RULE_FIND_SADDR:
        raise EOPNOTSUPP("such a rule")
    if number(found.get(abi.FRA_SUPPRESS_IFGROUP, NONE.to_bytes(4))) != NONE:
        raise EOPNOTSUPP("interfaces have no groups")
    if head.tos & ~DSCP:
        raise EINVAL("tos")
    mark = _number(found, abi.FRA_FWMARK)
    suppress = _number(found, abi.FRA_SUPPRESS_PREFIXLEN, NONE)
    rule = Rule(
        head.family, _number(found, abi.FRA_PRIORITY),
        _number(found, abi.FRA_TABLE, head.table), head.action,
        head.flags & abi.FIB_RULE_INVERT,
        _prefix(found.get(abi.FRA_SRC), head.src_len, size), head.src_len,
        _prefix(found.get(abi.FRA_DST), head.dst_len, size), head.dst_len,
        head.tos,
        _name(found[abi.FRA_IIFNAME]) if abi.FRA_IIFNAME in found else "",
        _name(found[abi.FRA_OIFNAME]) if abi.FRA_OIFNAME in found else "",
        mark, _number(found, abi.FRA_FWMASK, NONE if mark else 0),
        ANY_LENGTH if suppress > NONE >> 1 else suppress,
        _number(found, abi.FRA_GOTO),
        _users(found.get(abi.FRA_UID_RANGE), request.caller.creds),
        _byte(found, abi.FRA_IP_PROTO),
        _ports(found.get(abi.FRA_SPORT_RANGE)), _ports(found.get(abi.FRA_DPORT_RANGE)),
        _byte(found, abi.FRA_PROTOCOL),
    )  # fmt: skip
    return rule, abi.FRA_PRIORITY in found


def _number(found: dict[int, bytes], kind: int, default: int = 0) -> int:
    return number(found[kind]) if kind in found else default


def _byte(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b"")[:1])


# --- changes


def _free_table(stack: Stack, family: int) -> int:
    """fib_empty_table()."""
    taken = {route.table for route in stack.routes if route.family == family}
    return next(each for each in range(1, len(taken) + 2) if each not in taken)


def _check_goto(rule: Rule) -> None:
    """A rule leads to another one, or to a table. Raises: EINVAL."""
    if (rule.action == abi.FR_ACT_GOTO) != bool(rule.target):
        raise EINVAL("goto, and nowhere else to")


def _completed(stack: Stack, rule: Rule, *, has_priority: bool) -> Rule:
    """With what is not said. Raises: EINVAL."""
    rules = stack.routes.rules.of(rule.family)
    if not has_priority:
        second = rules[1].priority if len(rules) > 1 else 0
        rule = replace(rule, priority=max(second - 1, 0))
    if rule.action not in ACTIONS:
        raise EINVAL(f"action {rule.action}")
    _check_goto(rule)
    if rule.target and rule.target <= rule.priority:
        raise EINVAL("goto a later rule")
    if rule.action == abi.FR_ACT_TO_TBL and not rule.table:
        if rule.family == AF_INET6:
            raise EINVAL("no table")
        rule = replace(rule, table=_free_table(stack, rule.family))
    return rule


def _essence(rule: Rule) -> Rule:
    """What makes two of them the same: rule_exists()."""
    return replace(rule, flags=0, origin=0)


@handles(NETLINK_ROUTE, abi.RTM_NEWRULE)
def new_rule(request: Request) -> None:
    """RTM_NEWRULE: fib_nl_newrule()."""
    stack, (asked, has_priority) = request.stack, _parse(request)
    rule = _completed(stack, asked, has_priority=has_priority)
    if request.flags & abi.NLM_F_EXCL:
        rules = stack.routes.rules.of(rule.family)
        if _essence(rule) in map(_essence, rules):
            raise EEXIST("rule")
    stack.routes.rules.add(rule)
    stack.outdate()
    tell(stack, GROUPS[rule.family], rule_message(stack, request.caller.creds, rule), request)


@handles(NETLINK_ROUTE, abi.RTM_DELRULE)
def delete_rule(request: Request) -> None:
    """RTM_DELRULE: fib_nl_delrule(). Without that of table local nothing changes: what is ours is
    no question of rules here."""
    stack, (asked, has_priority) = request.stack, _parse(request)
    _check_goto(asked)
    for rule in stack.routes.rules.of(asked.family):
        if not _is_meant(rule, asked, has_priority=has_priority):
            continue
        gone = rule_message(stack, request.caller.creds, rule, abi.RTM_DELRULE)
        stack.routes.rules.remove(rule)
        stack.outdate()
        tell(stack, GROUPS[rule.family], gone, request)
        return
    raise ENOENT("rule")


def _is_meant(rule: Rule, asked: Rule, *, has_priority: bool) -> bool:
    """What is not said may be anything: rule_find(), fib4_rule_compare()."""
    pairs: tuple[tuple[Any, Any, Any], ...] = (
        (asked.action, rule.action, 0), (asked.table, rule.table, 0),
        (asked.iif, rule.iif, ""), (asked.oif, rule.oif, ""), (asked.mark, rule.mark, 0),
        (asked.mask, rule.mask, 0), (asked.suppress, rule.suppress, ANY_LENGTH),
        (asked.users, rule.users, None), (asked.protocol, rule.protocol, 0),
        (asked.source_ports, rule.source_ports, None), (asked.ports, rule.ports, None),
        (asked.origin, rule.origin, 0), (asked.tos, rule.tos, 0),
        (asked.source_length, rule.source_length, 0), (asked.source, rule.source, b""),
        (asked.length, rule.length, 0), (asked.destination, rule.destination, b""),
    )  # fmt: skip
    if has_priority and rule.priority != asked.priority:
        return False
    return all(wanted in (nothing, own) for wanted, own, nothing in pairs)
