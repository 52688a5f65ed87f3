"""Tables of iptables without nftables: each is handed over and told as one piece of memory.

ipt_do_table() and what programs are told, net/ipv4/netfilter/ip_tables.c and ip6_tables.c. What is
handed over is read by `ip_tables_blob`; matches and targets are those of nftables' compatibility.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi import nftables as nft
from sentry.errors import EINVAL, ENOENT
from sentry.net.netfilter.ip_tables_blob import (
    ERROR,
    ERROR_SIZE,
    FORMATS,
    HOOKS,
    PART,
    STANDARD_SIZE,
    Format,
    Wanted,
    read,
)
from sentry.net.netfilter.ip_tables_header import named
from sentry.net.netfilter.machine import BASE_STEPS, MAX_STEPS

if TYPE_CHECKING:
    from sentry.net.netfilter.ip_tables_blob import Content
    from sentry.net.netfilter.machine import Run

PRE, IN, FORWARD, OUT, POST = range(HOOKS)
COUNTERS: Final = struct.Struct("<QQ")
"""struct xt_counters: packets, bytes."""
INFO: Final = struct.Struct("<32sI5I5III")
"""struct ipt_getinfo, struct ip6t_getinfo."""
MAX_SIZE: Final = 1 << 19
"""Bytes of a table, which is read in one step: a ceiling of ours."""
U64: Final = (1 << 64) - 1
ACCEPT: Final = -nft.NF_ACCEPT - 1


class Kind(NamedTuple):
    """A table that there is: at which hooks it stands, and where among others there."""

    hooks: tuple[int, ...]
    priority: int
    source_priority: int | None = None
    """Where sources are translated, if that is another one."""

    def priority_at(self, hook: int) -> int:
        """NF_IP_PRI_*."""
        if self.source_priority is not None and hook in (IN, POST):
            return self.source_priority
        return self.priority


KINDS: Final = {
    "raw": Kind((PRE, OUT), -300),
    "mangle": Kind((PRE, IN, FORWARD, OUT, POST), -150),
    "nat": Kind((PRE, IN, OUT, POST), -100, 100),
    "filter": Kind((IN, FORWARD, OUT), 0),
    "security": Kind((IN, FORWARD, OUT), 50),
}
"""By name."""


class IpTable:
    """struct xt_table, with struct xt_table_info."""

    __slots__ = ("content", "form", "kind", "name")

    def __init__(self, name: str, *, is_v4: bool) -> None:
        """One that lets all through. Raises: ENOENT for a name that no table has."""
        if name not in KINDS:
            raise ENOENT(f"table {name}")
        self.name = name
        self.kind = KINDS[name]
        self.form = FORMATS[is_v4]
        self.content: Content = read(self.form, *_first(self.form, name, self.kind.hooks))

    @property
    def valid_hooks(self) -> int:
        """A bit for each."""
        return sum(1 << hook for hook in self.kind.hooks)

    # --- packets

    def evaluate(self, run: Run) -> int:
        """NF_ACCEPT or NF_DROP: ipt_do_table()."""
        packet, content = run.packet, self.content
        packet.steps += BASE_STEPS
        iif, oif = named(run.place.name_of(packet.iif)), named(run.place.name_of(packet.oif))
        entries, at = content.entries, content.begins[run.hook]
        back: list[int] = []
        while True:
            entry = entries[at]
            packet.steps += 1 + len(entry.judges)
            if packet.steps > MAX_STEPS:
                return nft.NF_DROP
            at += 1
            if not entry.header.fits(packet, iif, oif):
                continue
            if not all(judge(run) for judge in entry.judges):
                continue
            entry.packets = entry.packets + 1 & U64
            entry.octets = entry.octets + len(packet.data) & U64
            if entry.goes_to >= 0:
                if entry.goes_to != at and not entry.header.is_goto:
                    if len(back) >= content.depth:
                        return nft.NF_DROP
                    back.append(at)
                at = entry.goes_to
                continue
            verdict = entry.verdict if entry.act is None else entry.act(run)
            if verdict == nft.NFT_RETURN:
                at = back.pop() if back else content.ends[run.hook]
            elif verdict is not None:
                return verdict

    # --- programs

    def info(self) -> bytes:
        """IPT_SO_GET_INFO."""
        content = self.content
        return INFO.pack(
            self.name.encode(), self.valid_hooks, *content.offsets(content.begins),
            *content.offsets(content.ends), len(content.entries), content.size,
        )  # fmt: skip

    def dump(self) -> bytes:
        """All entries."""
        return b"".join([each.dump() for each in self.content.entries])

    def counters(self) -> bytes:
        """Those of all entries."""
        return b"".join([COUNTERS.pack(each.packets, each.octets) for each in self.content.entries])

    def add_counters(self, value: bytes) -> None:
        """One for each entry. Raises: EINVAL if they are not as many."""
        entries = self.content.entries
        if len(value) != len(entries) * COUNTERS.size:
            raise EINVAL("counters")
        for entry, (packets, octets) in zip(entries, COUNTERS.iter_unpack(value), strict=True):
            entry.packets = entry.packets + packets & U64
            entry.octets = entry.octets + octets & U64


def _first(form: Format, name: str, hooks: tuple[int, ...]) -> tuple[Wanted, bytes]:
    """What a table is at first: a policy at each hook. xt_alloc_initial_table()."""
    policy = PART.pack(STANDARD_SIZE, b"", 0) + struct.pack("<i4x", ACCEPT)
    error = PART.pack(ERROR_SIZE, ERROR, 0) + ERROR.ljust(ERROR_SIZE - PART.size, b"\0")
    blob = _entry(form, policy) * len(hooks) + _entry(form, error)
    offsets = [0] * HOOKS
    for number, hook in enumerate(hooks):
        offsets[hook] = number * (form.entry_size + STANDARD_SIZE)
    places = tuple(offsets)
    valid = sum(1 << hook for hook in hooks)
    return Wanted(name, valid, len(hooks) + 1, len(blob), places, places), blob


def _entry(form: Format, target: bytes) -> bytes:
    """For every packet."""
    size = form.entry_size
    return bytes(form.tail_at) + form.tail.pack(0, size, size + len(target), 0, 0, 0) + target
