"""User namespaces: whose ids mean what, and where a capability counts. user_namespaces(7).

All ids inside the Sentry are those of the sandbox's first user namespace ("kernel ids"); they are
translated where a program gives or sees them. The first namespace itself is None: there every id
maps to itself. kernel/user_namespace.c.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final

from sentry.abi.layout import Record
from sentry.errors import EINVAL, ENOSPC

NO_ID: Final = 0xFFFFFFFF
"""(uid_t) -1, also an id that maps to nothing."""
OVERFLOW_ID: Final = 65534
MAX_LEVEL: Final = 32
MAX_EXTENTS: Final = 340
"""UID_GID_MAP_MAX_EXTENTS."""
UNLIMITED: Final = 0x7FFFFFFF
DEFAULT_LIMIT: Final = 2048
"""Of a kind and a user: a ceiling of ours, Linux's is half of its threads-max."""
MAX_OF_A_KIND: Final = 4096
"""Of all users."""


class Extent(Record):
    """A range of ids inside, and the kernel ids that they are."""

    first: int
    kernel_first: int
    size: int


class IdMap:
    """A map of ids, written once."""

    __slots__ = ("extents",)

    def __init__(self, extents: Iterable[Extent] = ()) -> None:
        self.extents = tuple(extents)

    def __bool__(self) -> bool:
        return bool(self.extents)

    def to_kernel(self, number: int, count: int = 1) -> int:
        """make_kuid(), map_id_range_down(): NO_ID if the whole range is not mapped."""
        for e in self.extents:
            if e.first <= number and number + count <= e.first + e.size:
                return e.kernel_first + number - e.first
        return NO_ID

    def from_kernel(self, number: int) -> int:
        """from_kuid()."""
        for e in self.extents:
            if e.kernel_first <= number < e.kernel_first + e.size:
                return e.first + number - e.kernel_first
        return NO_ID


class UserNamespace:
    """One that a program made."""

    __slots__ = (
        "charge", "gid_map", "group", "level", "limits", "maker_had_setfcap",
        "owner", "parent", "projid_map", "setgroups_allowed", "uid_map",
    )  # fmt: skip

    def __init__(self, parent: UserNamespace | None, owner: int, group: int) -> None:
        self.parent = parent
        self.level: int = parent.level + 1 if parent is not None else 1
        self.owner = owner
        """The effective user of who made it: all capabilities in it are hers, from outside."""
        self.group = group
        self.uid_map = self.gid_map = self.projid_map = IdMap()
        self.setgroups_allowed: bool = parent is None or parent.setgroups_allowed
        self.maker_had_setfcap = False
        self.limits: dict[str, int] = {}
        """/proc/sys/user/max_*_namespaces in it."""
        self.charge: Charge | None = None

    def table(self, kind: str) -> IdMap:
        """Its map of users ("uid"), groups ("gid") or projects ("projid")."""
        return {"uid": self.uid_map, "gid": self.gid_map, "projid": self.projid_map}[kind]


def kernel_id(ns: UserNamespace | None, number: int, kind: str = "uid") -> int:
    """make_kuid(), make_kgid(): NO_ID if it is not mapped."""
    if ns is None:
        return number
    table: IdMap = ns.uid_map if kind == "uid" else ns.gid_map
    return table.to_kernel(number)


def shown_uid(ns: UserNamespace | None, number: int) -> int:
    """from_kuid_munged(): the user as the namespace sees it."""
    if ns is None or number == NO_ID:
        return number
    found = ns.uid_map.from_kernel(number)
    return OVERFLOW_ID if found == NO_ID else found


def shown_gid(ns: UserNamespace | None, number: int) -> int:
    """from_kgid_munged()."""
    if ns is None or number == NO_ID:
        return number
    found = ns.gid_map.from_kernel(number)
    return OVERFLOW_ID if found == NO_ID else found


def is_inside(ns: UserNamespace | None, ancestor: UserNamespace | None) -> bool:
    """in_userns(): the namespace is `ancestor` or below it."""
    while ns is not ancestor:
        if ns is None:
            return False
        ns = ns.parent
    return True


class Charge:
    """What one namespace counts in the users it is charged to; given back when it goes."""

    __slots__ = ("_counts", "_keys", "number")

    def __init__(self, counts: dict[object, int], keys: list[object], number: int) -> None:
        self.number = number
        """Which namespace it is, from 1000 on: those before are the first ones."""
        self._counts = counts
        self._keys = keys
        for key in keys:
            counts[key] = counts.get(key, 0) + 1

    def __del__(self) -> None:
        for key in self._keys:
            left = self._counts[key] - 1
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]


class NamespaceCounts:
    """inc_ucount(): namespaces of a kind by user, in every user namespace up to the first."""

    __slots__ = ("_counts", "_numbers", "limits")

    def __init__(self) -> None:
        self._numbers = itertools.count(1000)
        self._counts: dict[object, int] = {}
        self.limits: dict[str, int] = {}
        """Of the first user namespace."""

    def limit(self, ns: UserNamespace | None, kind: str) -> int:
        """/proc/sys/user/max_KIND_namespaces as the namespace has it."""
        if ns is None:
            return self.limits.get(kind, DEFAULT_LIMIT)
        return ns.limits.get(kind, UNLIMITED)

    def take(self, ns: UserNamespace | None, uid: int, kind: str) -> Charge:
        """One more, made by a user in a user namespace. Raises: ENOSPC."""
        keys: list[object] = []
        while True:
            key = (id(ns) if ns is not None else 0, uid, kind)
            if self._counts.get(key, 0) >= self.limit(ns, kind):
                raise ENOSPC(f"max_{kind}_namespaces")
            keys.append(key)
            if ns is None:
                break
            uid, ns = ns.owner, ns.parent
        if self._counts.get(kind, 0) >= MAX_OF_A_KIND:
            raise ENOSPC(f"the ceiling of {kind} namespaces")
        return Charge(self._counts, [*keys, kind], next(self._numbers))


def parse_map(data: bytes, kernel_of: UserNamespace | None, kind: str) -> list[Extent]:
    """map_write(): lines of three numbers; ids outside are those of `kernel_of`. Raises: EINVAL.

    An id outside that is not mapped gives NO_ID as the first kernel id.
    """
    text = data.rstrip(b"\0").removesuffix(b"\n")
    lines = text.split(b"\n")
    if not text or len(lines) > MAX_EXTENTS:
        raise EINVAL("no extents, or too many")
    found: list[Extent] = []
    for line in lines:
        words = line.split()
        if len(words) != 3 or not all(word.isdigit() for word in words):
            raise EINVAL(f"{line[:60]!r}")
        first, lower, count = map(int, words)
        if max(first, lower) >= NO_ID or not count or max(first, lower) + count > NO_ID:
            raise EINVAL(f"{line[:60]!r}")
        for old in found:
            inside = first < old.first + old.size and old.first < first + count
            outside = lower < old.kernel_first + old.size and old.kernel_first < lower + count
            if inside or outside:
                raise EINVAL("extents overlap")
        found.append(Extent(first, lower, count))
    return [Extent(e.first, _lower(kernel_of, e, kind), e.size) for e in found]


def _lower(ns: UserNamespace | None, extent: Extent, kind: str) -> int:
    if ns is None:
        return extent.kernel_first
    return ns.table(kind).to_kernel(extent.kernel_first, extent.size)
