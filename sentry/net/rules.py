"""`Rules`: in which tables the way of a packet is looked for. ip-rule(8), net/core/fib_rules.c.

Rules are in the order of their priorities. The one of table local, which is the first, is asked by
whoever asks whether an address is ours; here it says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from sentry.abi.netlink import (
    FIB_RULE_INVERT,
    FR_ACT_BLACKHOLE,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    RT_TABLE_DEFAULT,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BLACKHOLE,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    RTPROT_KERNEL,
)
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_DCCP,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)
from sentry.errors import EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH, ENOBUFS, Errno
from sentry.net.interfaces import LOOPBACK_INDEX, masked

if TYPE_CHECKING:
    from sentry.net.interfaces import Interfaces
    from sentry.net.routes import Route

MAX_RULES: Final = 256
"""Of one family: a ceiling of ours."""
ANY_LENGTH: Final = -1
DSCP: Final = 0xFC
"""Of a TOS what they ask of."""
HAVE_PORTS: Final = (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_DCCP)
MAIN: Final = 32766
DEFAULT: Final = 32767
FAMILIES: Final = {4: AF_INET, 16: AF_INET6}
"""By the size of an address."""
OF_ROUTES: Final[dict[int, type[Errno]]] = {
    RTN_BLACKHOLE: EINVAL, RTN_UNREACHABLE: EHOSTUNREACH, RTN_PROHIBIT: EACCES,
}  # fmt: skip
"""What kinds of routes say: fib_props, fib6_prop."""
OF_RULES: Final[dict[int, type[Errno]]] = {
    FR_ACT_BLACKHOLE: EINVAL, FR_ACT_UNREACHABLE: ENETUNREACH, FR_ACT_PROHIBIT: EACCES,
}  # fmt: skip
"""What rules say by themselves: fib4_rule_action(), fib6_rule_action()."""


class RouteKey(NamedTuple):
    """What is asked of a packet beside its target: struct flowi4, struct flowi6."""

    source: bytes = b""
    """Empty: none was chosen yet."""
    interface: int = 0
    """By which interface it has to go; 0: by any."""
    interface_in: int = 0
    """By which interface it came; 0: it is ours, and has come by the loopback as far as rules see
    it."""
    mark: int = 0
    tos: int = 0
    user: int = 0
    protocol: int = 0
    source_port: int = 0
    port: int = 0


PLAIN: Final = RouteKey()


def ports_of(protocol: int, transport: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Of the source and of the target; 0 of what has none."""
    if protocol not in HAVE_PORTS or len(transport) < 4:
        return 0, 0
    return int.from_bytes(transport[:2]), int.from_bytes(transport[2:4])


class Rule(Struct, frozen=True):
    """struct fib_rule."""

    family: int
    priority: int
    table: int = 0
    action: int = FR_ACT_TO_TBL
    flags: int = 0
    source: bytes = b""
    source_length: int = 0
    destination: bytes = b""
    length: int = 0
    tos: int = 0
    iif: str = ""
    oif: str = ""
    mark: int = 0
    mask: int = 0
    suppress: int = ANY_LENGTH
    """What the table says does not count if its prefix is no longer."""
    target: int = 0
    """FR_ACT_GOTO: the priority where it goes on."""
    users: tuple[int, int] | None = None
    """Kernel ids."""
    protocol: int = 0
    source_ports: tuple[int, int] | None = None
    ports: tuple[int, int] | None = None
    origin: int = 0
    """RTPROT_*."""

    def matches(self, target: bytes, key: RouteKey, interfaces: Interfaces) -> bool:
        """fib_rule_match()."""
        return self._is_about(target, key, interfaces) != bool(self.flags & FIB_RULE_INVERT)

    def _is_about(self, target: bytes, key: RouteKey, interfaces: Interfaces) -> bool:
        if (key.mark ^ self.mark) & self.mask or (self.tos and self.tos != key.tos):
            return False
        if self.length and not _is_below(target, self.destination, self.length):
            return False
        if self.source_length and not _is_below(key.source, self.source, self.source_length):
            return False
        if self.protocol and self.protocol != key.protocol:
            return False
        for wanted, number in (
            (self.users, key.user), (self.source_ports, key.source_port), (self.ports, key.port),
        ):  # fmt: skip
            if wanted is not None and not wanted[0] <= number <= wanted[1]:
                return False
        if self.iif and not _is_named(interfaces, key.interface_in or LOOPBACK_INDEX, self.iif):
            return False
        return not self.oif or _is_named(interfaces, key.interface, self.oif)


def _is_below(ip: bytes, prefix: bytes, length: int) -> bool:
    return len(ip) == len(prefix) and masked(ip, length) == masked(prefix, length)


def _is_named(interfaces: Interfaces, index: int, name: str) -> bool:
    found = interfaces.get(index)
    return found is not None and found.name == name


def first_rules(family: int) -> list[Rule]:
    """Those that every network namespace begins with: fib_default_rules_init()."""
    tables = [(0, RT_TABLE_LOCAL), (MAIN, RT_TABLE_MAIN)]
    if family == AF_INET:
        tables.append((DEFAULT, RT_TABLE_DEFAULT))
    return [Rule(family, priority, table, origin=RTPROT_KERNEL) for priority, table in tables]


Find = Callable[[int], "Route | None"]
"""The best route of a table."""


class Rules:
    """Of both families."""

    def __init__(self, interfaces: Interfaces) -> None:
        self._interfaces = interfaces
        self._of = {family: first_rules(family) for family in FAMILIES.values()}
        self._first: dict[int, dict[int, int]] = {}
        self._look_at()

    def of(self, family: int) -> list[Rule]:
        """Those of a family, in their order."""
        return self._of[family]

    def has(self, family: int, priority: int) -> bool:
        """There is one of this priority."""
        return priority in self._first[family]

    def add(self, rule: Rule) -> None:
        """Behind those of the same priority. Raises: ENOBUFS."""
        rules = self._of[rule.family]
        if len(rules) >= MAX_RULES:
            raise ENOBUFS("too many rules")
        at = sum(each.priority <= rule.priority for each in rules)
        rules.insert(at, rule)
        self._look_at()

    def remove(self, rule: Rule) -> None:
        """Preconditions: it is there."""
        self._of[rule.family].remove(rule)
        self._look_at()

    def _look_at(self) -> None:
        self.are_first = all(each == first_rules(family) for family, each in self._of.items())
        """They only say that main comes before default."""
        every = [rule for rules in self._of.values() for rule in rules]
        self._asks_ports = any(
            each.protocol or each.ports is not None or each.source_ports is not None
            for each in every
        )
        for family, rules in self._of.items():
            first: dict[int, int] = {}
            for at, rule in enumerate(rules):
                first.setdefault(rule.priority, at)
            self._first[family] = first

    def narrowed(self, key: RouteKey) -> RouteKey:
        """With what none of them asks left out, so that more packets have the same one."""
        return key if self._asks_ports else key._replace(protocol=0, source_port=0, port=0)

    def resolve(self, target: bytes, key: RouteKey, find: Find) -> Route | type[Errno]:
        """The route, or why there is none: fib_rules_lookup(). A rule is looked at once."""
        family = FAMILIES[len(target)]
        rules, at = self._of[family], 0
        while at < len(rules):
            rule = rules[at]
            at += 1
            if not rule.matches(target, key, self._interfaces):
                continue
            if rule.action == FR_ACT_GOTO:
                at = max(at, self._first[family].get(rule.target, at))
            elif rule.action != FR_ACT_NOP:
                found = _outcome(rule, find)
                if found is not None:
                    return found
        return ENETUNREACH


def _outcome(rule: Rule, find: Find) -> Route | type[Errno] | None:
    """None: the next rule is asked."""
    if rule.action != FR_ACT_TO_TBL:
        return OF_RULES.get(rule.action, EINVAL)
    found = find(rule.table)
    if found is None or found.kind == RTN_THROW:
        return None
    error = OF_ROUTES.get(found.kind)
    if error is not None:
        return error
    return found if found.length > rule.suppress else None
