"""A table as iptables hands it over: one piece of memory, read once and checked.

net/ipv4/netfilter/ip_tables.c, net/ipv6/netfilter/ip6_tables.c, net/netfilter/x_tables.c. What is
wrong is looked for in Linux's order: sizes and places, where hooks begin and end, whether jumps
lead anywhere or in a circle, then the matches and the target of each entry.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi import ip_tables as abi
from sentry.abi import nftables as nft
from sentry.errors import EINVAL, ELOOP, ENOENT, EPROTOTYPE
from sentry.net.netfilter import xt_matches, xtables
from sentry.net.netfilter.ip_tables_header import Header
from sentry.net.netfilter.ruleset import Ruleset, Table
from sentry.net.netfilter.transaction import Scope, Transaction
from sentry.net.netfilter.xt_matches import TRACKED_MATCHES, Judge, judge_of, match_known
from sentry.net.netfilter.xtables import (
    TRACKED_TARGETS,
    Act,
    act_of,
    target_known,
    used_by,
)

if TYPE_CHECKING:
    from sentry.net.netfilter.machine import Used

HOOKS: Final = 5
"""NF_INET_NUMHOOKS."""
UNUSED: Final = 0xFFFFFFFF
"""In place of where a hook begins, of one that a table does not have."""
ALIGNMENT: Final = 8
PART: Final = struct.Struct("<H29sB")
"""struct xt_entry_match, struct xt_entry_target: size, name, revision; data follows."""
ERROR_SIZE: Final = 64
STANDARD_SIZE: Final = 40
"""struct xt_error_target, struct xt_standard_target."""
ERROR_NAME: Final = slice(PART.size, PART.size + 30)
ERROR: Final = b"ERROR"
REPLACE: Final = struct.Struct("<32sIII5I5IIQ")
"""struct ipt_replace, struct ip6t_replace."""


class Format(NamedTuple):
    """Of one family: struct ipt_entry, struct ip6t_entry."""

    is_v4: bool
    family: int
    entry_size: int
    tail_at: int
    tail: struct.Struct
    """What follows the header: nfcache, where the target is, the size, the hooks that lead there,
    packets, bytes."""


FORMATS: Final = {
    True: Format(True, nft.NFPROTO_IPV4, 112, 84, struct.Struct("<IHHIQQ")),
    False: Format(False, nft.NFPROTO_IPV6, 168, 136, struct.Struct("<IHHI4xQQ")),
}
"""By whether it is IPv4."""


class Wanted(NamedTuple):
    """What REPLACE says."""

    name: str
    valid_hooks: int
    entries: int
    """How many there are."""
    size: int
    """Of all of them, in bytes."""
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    """Offsets, by hook."""
    counters: int = 0
    """How many old counters are to be told, and where."""
    counters_at: int = 0

    @classmethod
    def read(cls, value: bytes) -> Wanted:
        """Preconditions: it is long enough."""
        name, hooks, entries, size, *rest = REPLACE.unpack_from(value)
        return cls(
            table_name(name), hooks, entries, size, tuple(rest[:HOOKS]),
            tuple(rest[HOOKS : 2 * HOOKS]), *rest[2 * HOOKS :],
        )  # fmt: skip


def table_name(raw: bytes) -> str:
    """Up to its end, which need not be there."""
    return raw[: abi.XT_TABLE_MAXNAMELEN - 1].split(b"\0", 1)[0].decode(errors="replace")


class Part(NamedTuple):
    """A match, or a target."""

    name: bytes
    revision: int
    data: bytes


class Entry:
    """A rule: struct ipt_entry with its matches and its target."""

    __slots__ = (
        "act", "form", "goes_to", "header", "hooks", "judges", "needs_tracking", "octets", "offset",
        "packets", "raw", "target_at", "verdict",
    )  # fmt: skip

    def __init__(self, form: Format, offset: int, raw: bytes) -> None:
        """Raises: EINVAL. check_entry_size_and_hooks()."""
        self.form = form
        self.offset = offset
        self.raw = raw
        self.target_at = form.tail.unpack_from(raw, form.tail_at)[1]
        self.header = Header(raw, is_v4=form.is_v4)
        self.hooks = 0
        """A bit for each that leads here."""
        self.packets = self.octets = 0
        self.judges: list[Judge] = []
        self.act: Act | None = None
        """What its target does, if that is none of the two that every table has."""
        self.verdict: int | None = None
        """NF_ACCEPT, NF_DROP, NFT_RETURN."""
        self.goes_to = -1
        """The index of the entry that it jumps to."""
        self.needs_tracking = False
        self._check()

    def _check(self) -> None:
        """xt_check_entry_offsets()."""
        raw, size = self.raw, len(self.raw)
        if not self.form.entry_size <= self.target_at <= size - PART.size:
            raise EINVAL("a target outside of its entry")
        target_size, name, _ = PART.unpack_from(raw, self.target_at)
        if not PART.size <= target_size <= size - self.target_at:
            raise EINVAL("the size of a target")
        if not name[0]:
            end = self.target_at + STANDARD_SIZE
            if end + -end % ALIGNMENT != size:
                raise EINVAL("the size of an entry")
            if self._number() <= 0 and self._number() not in VERDICTS:
                raise EINVAL("a verdict")
        elif _text(name) == ERROR:
            about = raw[self.target_at :][ERROR_NAME]
            if target_size != ERROR_SIZE or b"\0" not in about:
                raise EINVAL("the name of a chain")
        at = self.form.entry_size
        while at < self.target_at:  # xt_check_entry_match()
            if at % ALIGNMENT or self.target_at - at < PART.size:
                raise EINVAL("a match is cut")
            (match_size,) = struct.unpack_from("<H", raw, at)
            if not PART.size <= match_size <= self.target_at - at:
                raise EINVAL("the size of a match")
            at += match_size

    def _number(self) -> int:
        """The verdict of a standard target."""
        verdict: int = struct.unpack_from("<i", self.raw, self.target_at + PART.size)[0]
        return verdict

    @property
    def target(self) -> Part:
        """Its target."""
        return _part(self.raw, self.target_at)

    @property
    def matches(self) -> Iterator[Part]:
        """Its matches."""
        at = self.form.entry_size
        while at < self.target_at:
            yield _part(self.raw, at)
            at += PART.unpack_from(self.raw, at)[0]

    @property
    def is_unconditional(self) -> bool:
        """It is for every packet."""
        return self.target_at == self.form.entry_size and self.header.is_empty

    @property
    def is_end(self) -> bool:
        """Nothing gets beyond it."""
        return self.is_unconditional and self.verdict is not None

    @property
    def is_policy(self) -> bool:
        """It may end a chain of a hook: check_underflow()."""
        return self.is_end and self._number() in POLICIES

    def lead(self, places: dict[int, int]) -> None:
        """Where a standard target leads: `places` has entries by their offsets."""
        if self.raw[self.target_at + 2]:
            return
        verdict = self._number()
        if verdict >= 0:
            self.goes_to = places.get(verdict, NOWHERE)
        else:
            self.verdict = VERDICTS[verdict]

    def dump(self) -> bytes:
        """As it came, with its counters, and the hooks that lead to it."""
        form, at = self.form, self.form.tail_at
        cache, target_at, size, *_ = form.tail.unpack_from(self.raw, at)
        tail = form.tail.pack(cache, target_at, size, self.hooks, self.packets, self.octets)
        return self.raw[:at] + tail + self.raw[form.entry_size :]


POLICIES: Final = {-nft.NF_ACCEPT - 1: nft.NF_ACCEPT, -nft.NF_DROP - 1: nft.NF_DROP}
TO_A_QUEUE: Final = -4
"""NF_QUEUE: nobody listens there."""
VERDICTS: Final = {**POLICIES, TO_A_QUEUE: nft.NF_DROP, abi.XT_RETURN: nft.NFT_RETURN}
"""What numbers of a standard target mean that are no offsets."""
NOWHERE: Final = 1 << 30
"""Beyond all entries."""


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def _part(raw: bytes, at: int) -> Part:
    size, name, revision = PART.unpack_from(raw, at)
    return Part(name, revision, raw[at + PART.size : at + size])


class Content(NamedTuple):
    """A table that was read."""

    entries: list[Entry]
    begins: dict[int, int]
    ends: dict[int, int]
    """By hook: the first entry, and the one that is its policy."""
    size: int
    depth: int
    """How many chains there are: so many may be inside of each other."""

    def offsets(self, places: dict[int, int]) -> tuple[int, ...]:
        """By hook, as programs are told."""
        return tuple(
            self.entries[places[hook]].offset if hook in places else UNUSED
            for hook in range(HOOKS)
        )

    @property
    def uses(self) -> Iterator[Used]:
        """What its rules need."""
        for each in self.entries:
            for part in (*each.judges, each.act):
                yield from used_by(part)

    @property
    def needs_tracking(self) -> bool:
        """It asks for connections."""
        return any(each.needs_tracking for each in self.entries)


def read(
    form: Format, wanted: Wanted, blob: bytes, ruleset: Ruleset | None = None
) -> Content:
    """`ruleset`: that of the namespace whose sets rules may ask.

    Raises: EINVAL, ELOOP, ENOENT, EPROTOTYPE, ERANGE. translate_table().
    """
    entries = list(_entries(form, blob))
    if len(entries) != wanted.entries:
        raise EINVAL(f"{len(entries)} entries")
    places = {each.offset: index for index, each in enumerate(entries)}
    for entry in entries:
        entry.lead(places)
    hooks = [hook for hook in range(HOOKS) if wanted.valid_hooks >> hook & 1]
    begins = _places(hooks, wanted.begins, places)
    ends = _places(hooks, wanted.ends, places)
    for index in ends.values():
        if not entries[index].is_policy:
            raise EINVAL("a chain without a policy")
    depth = sum(_text(each.target.name) == ERROR for each in entries)
    content = Content(entries, begins, ends, len(blob), depth)
    for hook, begin in begins.items():
        _find_ways(entries, begin, 1 << hook)
    batch = Transaction(ruleset or Ruleset(Counter()), 0, 0)
    scope = Scope(batch, Table(form.family, wanted.name), None)
    for entry in entries:
        _read_matches(entry, scope)
        _read_target(entry, scope)
    return content


def _entries(form: Format, blob: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(blob):
        if at % ALIGNMENT or at + form.entry_size >= len(blob):
            raise EINVAL("an entry is cut")
        size = form.tail.unpack_from(blob, at + form.tail_at)[2]
        if size < form.entry_size + PART.size or at + size > len(blob):
            raise EINVAL("the size of an entry")
        yield Entry(form, at, blob[at : at + size])
        at += size


def _places(
    hooks: list[int], offsets: Sequence[int], places: dict[int, int]
) -> dict[int, int]:
    """Entries of hooks, one behind the other. Raises: EINVAL. xt_check_table_hooks()."""
    found: dict[int, int] = {}
    before = -1
    for hook in hooks:
        index = places.get(offsets[hook], -1)
        if index <= before:
            raise EINVAL("where a hook begins or ends")
        found[hook] = before = index
    return found


NEW, JUMPS, GOES_ON, LEAVES, OVER = range(5)
"""What of an entry is next on a way, or that it was seen."""


def _find_ways(entries: list[Entry], begin: int, hook: int) -> None:
    """Mark what a hook leads to. Raises: ELOOP for a circle, or a way that ends nowhere.
    mark_source_chains()."""
    states = bytearray(len(entries))
    ways = [begin]
    states[begin] = JUMPS
    while ways:
        at = ways[-1]
        entry = entries[at]
        state = states[at]
        states[at] = state + 1
        if state == JUMPS:
            entry.hooks |= hook
            following = entry.goes_to
            if following < 0:
                continue
        elif state == GOES_ON:
            if entry.is_end:
                continue
            following = at + 1
        else:
            ways.pop()
            continue
        if following >= len(entries) or states[following] not in (NEW, OVER):
            raise ELOOP("a circle of chains, or no end")
        if states[following] == NEW:
            states[following] = JUMPS
            ways.append(following)


def _read_matches(entry: Entry, scope: Scope) -> None:
    """Raises: EINVAL, ENOENT, EPROTOTYPE. find_check_match()."""
    scope.protocol = entry.header.protocol, entry.header.not_protocol
    for part in entry.matches:
        name = _name(part)
        kind = match_known(name, part.revision, scope.table.family)
        if kind is None:
            raise (EPROTOTYPE if name in xt_matches.OF_ALL_FAMILIES else ENOENT)(name)
        if kind.hooks and entry.hooks & ~sum(1 << hook for hook in kind.hooks):
            raise EINVAL(f"{name} at such a hook")
        entry.judges.append(judge_of(name, part.revision, part.data, scope))
        entry.needs_tracking |= name in TRACKED_MATCHES


def _read_target(entry: Entry, scope: Scope) -> None:
    """Raises: EINVAL, ENOENT, EPROTOTYPE. check_target()."""
    part = entry.target
    name = _name(part)
    if name in ("", "ERROR"):
        size = ERROR_SIZE if name else STANDARD_SIZE
        if part.revision:
            raise ENOENT(name)
        if len(part.data) != size - PART.size:
            raise EINVAL(f"{len(part.data)} bytes of a verdict")
        if name:
            entry.verdict = nft.NF_DROP
        return
    if target_known(name, part.revision, scope.table.family) is None:
        raise (EPROTOTYPE if name in xtables.OF_ALL_FAMILIES else ENOENT)(name)
    kind, entry.act = act_of(name, part.revision, part.data, scope)
    if kind.table not in ("", scope.table.name):
        raise EINVAL(f"{name} in such a table")
    if kind.hooks and entry.hooks & ~sum(1 << hook for hook in kind.hooks):
        raise EINVAL(f"{name} at such a hook")
    entry.needs_tracking |= name in TRACKED_TARGETS


def _name(part: Part) -> str:
    """Raises: EINVAL for one without an end."""
    if b"\0" not in part.name:
        raise EINVAL("the name of an extension")
    return _text(part.name).decode(errors="replace")
