"""Sets of ipset(8), which rules of iptables ask: net/netfilter/ipset/ip_set_core.c.

A set has a name and an index, which stay with it, and a content, which two sets can exchange. What
is in a content is looked up in a dictionary: of networks once for each size that there is.
"""

from __future__ import annotations

from _heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from sentry.abi import ipset as abi
from sentry.abi.nftables import NFPROTO_IPV4
from sentry.errors import EEXIST, ENOENT, ENOMEM, Errno

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

MOST_SETS: Final = 256
"""Of a namespace."""
MOST_AT_ONCE: Final = 1 << 14
"""Elements that a range may be: IPSET_MAX_RANGE."""
MOST_IN_STEP: Final = 1 << 14
"""Elements that the messages of a datagram may add or remove: a ceiling of ours."""
EXPIRED_AT_ONCE: Final = 256
SECOND_NS: Final = 1_000_000_000
U64: Final = (1 << 64) - 1
_REFUSALS: Final[dict[int, type[Errno]]] = {}


def refused(number: int, about: str) -> Errno:
    """IPSET_ERR_*: numbers beyond those of errno(3), some of which mean another thing for another
    kind of set."""
    kind = _REFUSALS.get(number)
    if kind is None:
        made = type(f"IPSET_ERR_{number:#x}", (Errno,), {"number": number})
        kind = _REFUSALS[number] = cast("type[Errno]", made)
    return kind(about)


class Kind(NamedTuple):
    """struct ip_set_type."""

    name: str
    newest: int
    """Revision."""
    dimension: int
    """How many things of a packet it asks for."""
    has_ip: bool = False
    has_prefix: bool = False
    has_port: bool = False

    @property
    def is_hash(self) -> bool:
        """Its elements have addresses, all of one family."""
        return self.has_ip

    @property
    def is_list(self) -> bool:
        """Its elements are other sets."""
        return not self.has_ip and not self.has_port


KINDS: Final = {
    each.name: each
    for each in (
        Kind("hash:ip", 3, 1, has_ip=True),
        Kind("hash:net", 5, 1, has_ip=True, has_prefix=True),
        Kind("hash:ip,port", 4, 2, has_ip=True, has_port=True),
        Kind("hash:net,port", 6, 2, has_ip=True, has_prefix=True, has_port=True),
        Kind("bitmap:port", 2, 1, has_port=True),
        Kind("list:set", 2, 1),
    )
}
"""By name; up to the revision before the one with struct skb_info."""


class Key(NamedTuple):
    """What an element is found by; what its kind does not have is 0."""

    ip: int = 0
    prefix: int = 0
    protocol: int = 0
    port: int = 0


class Given(NamedTuple):
    """What is said of a new element. None: nothing."""

    timeout_s: int | None = None
    packets: int | None = None
    octets: int | None = None
    comment: str = ""


class Element:
    """What is known of one of them: extensions, in Linux."""

    __slots__ = ("comment", "expires_ns", "is_exception", "octets", "packets")

    def __init__(self) -> None:
        self.expires_ns = 0
        """0: never."""
        self.packets = self.octets = 0
        self.comment = ""
        self.is_exception = False
        """nomatch: what is in it is not in the set."""

    def is_over(self, now_ns: int) -> bool:
        """Its time is up."""
        return bool(self.expires_ns) and self.expires_ns <= now_ns


class Content:
    """struct ip_set, without its name."""

    __slots__ = (
        "_counts", "_due", "_leaving", "_most_elements", "_number", "_prefixes", "elements",
        "family", "first", "forces", "has_comments", "has_counters", "hash_size", "kind", "last",
        "most", "netmask", "prefixes", "revision", "timeout_s",
    )  # fmt: skip

    def __init__(
        self, kind: Kind, family: int, revision: int, counts: Counter[str], most_elements: int
    ) -> None:
        self.kind = kind
        self.family = family
        self.revision = revision
        self.elements: dict[Any, Element] = {}
        """By `Key`; of a list by `IpSet`, in its order."""
        self.most = 65536
        self.hash_size = 1024
        self.netmask = self.width
        self.first, self.last = 0, 65535
        """Ports of a bitmap."""
        self.timeout_s: int | None = None
        """Of an element of which nothing else is said; 0: it stays. None: all stay."""
        self.has_counters = self.has_comments = False
        self.forces = False
        """Some element goes where there is no more room."""
        self.prefixes: list[int] = []
        """Of its networks, the smallest network first."""
        self._prefixes: dict[int, int] = {}
        """How many networks there are of each."""
        self._due: list[tuple[int, int, Any]] = []
        """A heap of what goes when; some of it is not so any more."""
        self._number = count()
        self._leaving: Iterator[Any] = iter(())
        self._counts = counts
        self._most_elements = most_elements

    @property
    def width(self) -> int:
        """Bits of an address."""
        return 32 if self.family == NFPROTO_IPV4 else 128

    @property
    def shape(self) -> tuple[object, ...]:
        """Two that were asked for alike have the same: same_set()."""
        return (
            self.kind, self.family, self.most, self.netmask, self.first, self.last, self.timeout_s,
            self.has_counters, self.has_comments,
        )  # fmt: skip

    # --- what is in it

    def find(self, now_ns: int, key: Any) -> Element | None:
        """The one with this key."""
        found = self.elements.get(key)
        return None if found is None or found.is_over(now_ns) else found

    def holding(self, now_ns: int, key: Key) -> Iterator[Element]:
        """Those that an address is in, or a network, exactly: the smallest first."""
        if not self.kind.has_prefix or key.prefix != self.width:
            found = self.find(now_ns, key)
            if found is not None:
                yield found
            return
        for prefix in self.prefixes:
            ip = masked(key.ip, prefix, self.width)
            found = self.find(now_ns, Key(ip, prefix, key.protocol, key.port))
            if found is not None:
                yield found

    def living(self, now_ns: int) -> Iterator[tuple[Any, Element]]:
        """All whose time is not up."""
        return ((key, each) for key, each in self.elements.items() if not each.is_over(now_ns))

    # --- changes

    def add(
        self, now_ns: int, key: Any, given: Given, *, replaces: bool = False,
        is_exception: bool = False,
    ) -> None:  # fmt: skip
        """Raises: IPSET_ERR_EXIST unless it may be there, IPSET_ERR_HASH_FULL, ENOMEM."""
        self.drop_expired(now_ns)
        found = self.elements.get(key)
        if found is not None and found.is_over(now_ns):
            self._remove(key)
            found = None
        if found is None:
            self._make_room()
            found = self.elements[key] = Element()
            self._counts["elements"] += 1
            if self.kind.is_list:
                key.use += 1
            elif self.kind.has_prefix:
                self._count_prefix(key.prefix, 1)
        elif not replaces:
            raise refused(abi.IPSET_ERR_EXIST, "it is there")
        found.is_exception = is_exception
        found.comment = given.comment
        if self.has_counters and given.packets is not None:
            found.packets = given.packets
        if self.has_counters and given.octets is not None:
            found.octets = given.octets
        if self.timeout_s is not None:
            timeout_s = self.timeout_s if given.timeout_s is None else given.timeout_s
            found.expires_ns = now_ns + timeout_s * SECOND_NS if timeout_s else 0
            self._is_due(key, found)

    def _is_due(self, key: Any, element: Element) -> None:
        if not element.expires_ns:
            return
        if len(self._due) > 2 * len(self.elements):
            self._due = [
                (each.expires_ns, next(self._number), own)
                for own, each in self.elements.items()
                if each.expires_ns
            ]
            heapify(self._due)
        else:
            heappush(self._due, (element.expires_ns, next(self._number), key))

    def _make_room(self) -> None:
        if len(self.elements) >= self.most:
            if not self.forces or not self.elements:
                raise refused(abi.IPSET_ERR_HASH_FULL, f"{self.most} elements")
            self._remove(self._any())
        if self._counts["elements"] >= self._most_elements:
            if self.kind.is_hash:
                raise refused(abi.IPSET_ERR_HASH_FULL, "all sets together are full")
            raise ENOMEM("all sets together are full")

    def _any(self) -> Any:
        """One that may go. Preconditions: there is one. Who asked a dictionary for its first each
        time would go through all gaps that those before have left."""
        for key in self._leaving:
            if key in self.elements:
                return key
        self._leaving = iter(list(self.elements))
        return next(self._leaving)

    def remove(self, now_ns: int, key: Any) -> None:
        """Raises: IPSET_ERR_EXIST if it is not there."""
        found = self.find(now_ns, key)
        if found is None:
            raise refused(abi.IPSET_ERR_EXIST, "it is not there")
        self._remove(key)

    def _remove(self, key: Any) -> None:
        del self.elements[key]
        self._counts["elements"] -= 1
        if self.kind.is_list:
            key.use -= 1
        elif self.kind.has_prefix:
            self._count_prefix(key.prefix, -1)

    def _count_prefix(self, prefix: int, by: int) -> None:
        number = self._prefixes.get(prefix, 0) + by
        self._prefixes[prefix] = number
        if not number:
            del self._prefixes[prefix]
        if number in (0, 1):
            self.prefixes = sorted(self._prefixes, reverse=True)

    def drop_expired(self, now_ns: int) -> None:
        """Some of those whose time is up."""
        for _ in range(EXPIRED_AT_ONCE):
            if not self._due or self._due[0][0] > now_ns:
                return
            expires_ns, _, key = heappop(self._due)
            found = self.elements.get(key)
            if found is not None and found.expires_ns == expires_ns:
                self._remove(key)

    def flush(self) -> None:
        """Nothing is in it any more."""
        for key in self.elements if self.kind.is_list else ():
            key.use -= 1
        self._counts["elements"] -= len(self.elements)
        self.elements.clear()
        self._prefixes.clear()
        self._due.clear()
        self.prefixes = []


def masked(ip: int, prefix: int, width: int) -> int:
    """The network of that size in which an address is."""
    left = width - prefix
    return ip >> left << left


class IpSet:
    """A name, and what it stands for now."""

    __slots__ = ("content", "index", "name", "use")

    def __init__(self, name: str, index: int, content: Content) -> None:
        self.name = name
        self.index = index
        self.content = content
        self.use = 0
        """Rules and lists that know it."""


class IpSets:
    """Of one namespace."""

    def __init__(self, counts: Counter[str], most_elements: int) -> None:
        self._counts = counts
        self._most_elements = most_elements
        self.by_name: dict[str, IpSet] = {}
        self.by_index: dict[int, IpSet] = {}
        self.left = MOST_IN_STEP
        """Elements that may still be added or removed in this step."""

    def content(self, kind: Kind, family: int, revision: int) -> Content:
        """A new one."""
        return Content(kind, family, revision, self._counts, self._most_elements)

    def named(self, name: str) -> IpSet:
        """Raises: ENOENT."""
        found = self.by_name.get(name)
        if found is None:
            raise ENOENT(f"set {name}")
        return found

    def at(self, index: int) -> IpSet:
        """Raises: ENOENT."""
        found = self.by_index.get(index)
        if found is None:
            raise ENOENT(f"set {index}")
        return found

    def create(self, name: str, content: Content) -> None:
        """Raises: EEXIST, IPSET_ERR_MAX_SETS."""
        if name in self.by_name:
            raise EEXIST(f"set {name}")
        if len(self.by_index) >= MOST_SETS:
            raise refused(abi.IPSET_ERR_MAX_SETS, f"{MOST_SETS} sets")
        index = next(each for each in count() if each not in self.by_index)
        self.by_name[name] = self.by_index[index] = IpSet(name, index, content)

    def destroy(self, group: IpSet) -> None:
        """Raises: IPSET_ERR_BUSY."""
        if group.use:
            raise refused(abi.IPSET_ERR_BUSY, f"set {group.name} is in use")
        group.content.flush()
        del self.by_name[group.name], self.by_index[group.index]

    def rename(self, group: IpSet, name: str) -> None:
        """Raises: IPSET_ERR_REFERENCED, IPSET_ERR_EXIST_SETNAME2."""
        if group.use:
            raise refused(abi.IPSET_ERR_REFERENCED, f"set {group.name} is in use")
        if name in self.by_name:
            raise refused(abi.IPSET_ERR_EXIST_SETNAME2, f"set {name}")
        del self.by_name[group.name]
        group.name = name
        self.by_name[name] = group

    def charge(self, number: int) -> None:
        """So many elements are added or removed. Raises: ENOMEM beyond what a step may do."""
        if number > self.left:
            raise ENOMEM(f"more than {MOST_IN_STEP} elements in a datagram")
        self.left -= number


def swap(one: IpSet, other: IpSet) -> None:
    """Each stands for what the other stood for. Raises: IPSET_ERR_TYPE_MISMATCH."""
    first, second = one.content, other.content
    if (first.kind, first.family) != (second.kind, second.family):
        raise refused(abi.IPSET_ERR_TYPE_MISMATCH, "two kinds of sets")
    one.content, other.content = second, first
