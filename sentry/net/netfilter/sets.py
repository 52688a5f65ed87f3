"""Sets and maps: net/netfilter/nft_set_hash.c, nft_set_rbtree.c, nft_set_pipapo.c.

Keys are looked up in a dictionary, intervals by bisection; where intervals are of several fields
together they are gone through, which counts as steps of the packet.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi import nftables as nft
from sentry.copied import copied
from sentry.errors import EBUSY, EEXIST, ENFILE, ENOENT
from sentry.net.netfilter.machine import MAX_STEPS

if TYPE_CHECKING:
    from sentry.net.netfilter.machine import Chain, Expression, Run, Verdict
    from sentry.net.netfilter.ruleset import Object, Table

PER_STEP: Final = 4
"""Intervals of several fields that count as a step."""
EXPIRED_LOOKED_AT: Final = 16
Key = tuple[bytes, bool]
"""A key, and whether something begins there, rather than ends."""


class Element:
    """struct nft_set_ext."""

    __slots__ = (
        "data", "expires_ns", "expressions", "flags", "key", "key_end", "named", "timeout_ms",
        "userdata",
    )  # fmt: skip

    def __init__(self, key: bytes, flags: int = 0) -> None:
        self.key = key
        self.key_end = b""
        """The last key of an interval of several fields."""
        self.flags = flags
        self.data: bytes | Verdict | None = None
        self.named: Object | None = None
        self.timeout_ms = 0
        self.expires_ns = 0
        """0: never."""
        self.userdata = b""
        self.expressions: list[Expression] = []

    @property
    def is_end(self) -> bool:
        """An interval ends before it."""
        return bool(self.flags & nft.NFT_SET_ELEM_INTERVAL_END)

    def is_over(self, now_ns: int) -> bool:
        """Its time is up."""
        return bool(self.expires_ns) and self.expires_ns <= now_ns


class Set:
    """struct nft_set."""

    levels: ClassVar = 0

    __slots__ = (
        "_elements", "_places", "catch_all", "data_size", "data_type", "expressions",
        "fields", "flags", "gc_ms", "handle", "key_size", "key_type", "met", "name",
        "number", "object_kind", "policy", "size", "table", "timeout_ms", "use", "userdata",
    )  # fmt: skip

    def __init__(self, table: Table, name: str) -> None:
        self.table = table
        self.name = name
        self.handle = self.number = 0
        self.flags = self.key_type = self.key_size = self.data_type = self.data_size = 0
        self.object_kind = self.policy = self.size = self.timeout_ms = self.gc_ms = 0
        self.fields: list[int] = []
        """Bytes of each field of a key of several."""
        self.userdata = b""
        self.expressions: list[Expression] = []
        """What each element gets."""
        self.use = 0
        self.catch_all: Element | None = None
        """Where no other fits."""
        self._elements: dict[Key, Element] = {}
        self._places: list[Key] = []
        """Ends of intervals, in order: where one ends and one begins, the end first."""
        self.met: Set | None = None
        """What packets look into while a long batch changes it: as it was before."""

    @property
    def is_anonymous(self) -> bool:
        """It belongs to a rule."""
        return bool(self.flags & nft.NFT_SET_ANONYMOUS)

    @property
    def is_interval(self) -> bool:
        """Of one field."""
        return bool(self.flags & nft.NFT_SET_INTERVAL) and not self.fields

    @property
    def is_of_ranges(self) -> bool:
        """Intervals of several fields."""
        return bool(self.flags & nft.NFT_SET_INTERVAL) and bool(self.fields)

    def __len__(self) -> int:
        return len(self._elements) + (self.catch_all is not None)

    def __iter__(self) -> Iterator[Element]:
        """In the order in which programs are told."""
        for each in list(self._places if self.is_interval else self._elements):
            yield self._elements[each]
        if self.catch_all is not None:
            yield self.catch_all

    def leads_to(self) -> Iterable[Chain]:
        """The chains to which its verdicts lead, each once."""
        if self.data_type != nft.NFT_DATA_VERDICT:
            return ()
        chains = (getattr(each.data, "chain", None) for each in self)
        return {id(each): each for each in chains if each is not None}.values()

    def check(self, base: Chain) -> None:
        """A map may be asked from anywhere."""

    def known(self, element: Element) -> Element | None:
        """One with its key."""
        if element.flags & nft.NFT_SET_ELEM_CATCHALL:
            return self.catch_all
        return self._elements.get((element.key, not element.is_end))

    @property
    def is_counted(self) -> bool:
        """Its elements are: it has not gone, also not by a batch that is under way."""
        return self.table.sets.get(self.name) is self

    @property
    def is_full(self) -> bool:
        """As many elements as were said when it was made."""
        return bool(self.size) and len(self._elements) >= self.size

    def add(self, element: Element) -> None:
        """Raises: ENFILE. Preconditions: none has its key."""
        if element.flags & nft.NFT_SET_ELEM_CATCHALL:
            self.catch_all = element
            return
        if self.is_full:
            raise ENFILE(f"set {self.name} is full")
        key = element.key, not element.is_end
        self._elements[key] = element
        if self.is_interval:
            insort(self._places, key)

    def remove(self, element: Element) -> None:
        """Preconditions: it is there."""
        if element is self.catch_all:
            self.catch_all = None
            return
        key = element.key, not element.is_end
        del self._elements[key]
        if self.is_interval:
            del self._places[bisect_right(self._places, key) - 1]

    def expired(self, now_ns: int) -> list[Element]:
        """The oldest of those whose time is up."""
        if not self.flags & nft.NFT_SET_TIMEOUT:
            return []
        oldest = islice(self._elements.values(), EXPIRED_LOOKED_AT)
        return [each for each in oldest if each.is_over(now_ns)]

    def check_new(self, element: Element, *, exclusive: bool) -> bool:
        """Whether it is new. Raises: EEXIST; EBUSY if it maps to something else."""
        known = self.known(element)
        if known is None:
            return True
        if exclusive:
            raise EEXIST("an element with this key")
        if known.data != element.data and isinstance(known.data, bytes):
            raise EBUSY("it maps to something else")
        return False

    def get(self, element: Element) -> Element:
        """The one with its key. Raises: ENOENT."""
        found = self.known(element)
        if found is None or (self.is_of_ranges and found.key_end != element.key_end):
            raise ENOENT("no such element")
        return found

    def holding(self, key: bytes) -> Element | None:
        """The beginning of the interval that a key lies in."""
        at = bisect_right(self._places, (key, True)) - 1
        if at < 0 or not self._places[at][1]:
            return None
        return self._elements[self._places[at]]

    def ending(self, key: bytes) -> Element | None:
        """The end of the interval that lies before a key, or that key itself."""
        at = bisect_left(self._places, (key, False))
        for place in self._places[at : at + 2]:
            if not place[1]:
                return self._elements[place]
        return None

    def stage(self) -> None:
        """Packets see no changes from now on, until `met` is None."""
        before = copied(self)
        before._elements, before._places = dict(self._elements), list(self._places)
        self.met = before

    # --- packets

    def learn(self, element: Element) -> bool:
        """A packet adds one, if there is room. Whether it counts: not if a long batch has added one
        with its key, or has taken the set away. Preconditions: packets see none with its key."""
        is_taken = False
        for each in (self.met, self):
            if each is not None:
                is_taken = each.known(element) is None and not each.is_full
                if is_taken:
                    each.add(element)
        return is_taken and self.is_counted

    def unlearn(self, element: Element) -> bool:
        """A packet takes one away. Whether it counted: not if a long batch has taken it away."""
        is_there = False
        for each in (self.met, self):
            if each is not None:
                is_there = each.known(element) is element
                if is_there:
                    each.remove(element)
        return is_there and self.is_counted

    def find(self, run: Run, key: bytes) -> Element | None:
        """Which one a key belongs to."""
        if self.met is not None:
            return self.met.find(run, key)
        if self.is_of_ranges:
            found = self._find_range(run, key)
        elif self.is_interval:
            found = self.holding(key)
        else:
            found = self._elements.get((key, True))
        if found is None or found.is_over(run.now_ns):
            found = self.catch_all
            if found is None or found.is_over(run.now_ns):
                return None
        for each in found.expressions:
            if each.run(run) is not None:
                return None
        return found

    def _find_range(self, run: Run, key: bytes) -> Element | None:
        run.packet.steps += len(self._elements) // PER_STEP
        if run.packet.steps > MAX_STEPS:
            return None
        for each in self._elements.values():
            last = each.key_end or each.key
            at = 0
            for size in self.fields:
                end = at + size
                if not each.key[at:end] <= key[at:end] <= last[at:end]:
                    break
                at = end + 3 & ~3
            else:
                return each
        return None
