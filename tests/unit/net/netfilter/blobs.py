"""Tables of iptables without nftables, as a program hands them over."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate

from sentry.abi import nftables as nft
from sentry.errors import EINVAL
from sentry.net.netfilter.ip_tables import KINDS, IpTable
from sentry.net.netfilter.ip_tables_blob import FORMATS, PART, REPLACE, Wanted, read
from tests.unit.net.netfilter.router import Router

ACCEPT, DROP, RETURN = -nft.NF_ACCEPT - 1, -nft.NF_DROP - 1, -5


def header(
    source: bytes = b"", target: bytes = b"", protocol: int = 0, flags: int = 0, inverted: int = 0,
    iif: bytes = b"", oif: bytes = b"",
) -> bytes:  # fmt: skip
    """struct ipt_ip; addresses are whole ones, names of interfaces too."""
    parts = [each.ljust(4, b"\0") for each in (source, target)]
    parts += [bytes([255 if each else 0]) * 4 for each in (source, target)]
    parts += [each.ljust(16, b"\0") for each in (iif, oif)]
    parts += [(b"\xff" * (len(each) + 1 if each else 0)).ljust(16, b"\0") for each in (iif, oif)]
    return b"".join(parts) + struct.pack("<HBB", protocol, flags, inverted)


def header6(source: bytes = b"", protocol: int = 0) -> bytes:
    """struct ip6t_ip6."""
    mask = bytes([255 if source else 0]) * 16
    parts = source.ljust(16, b"\0") + bytes(16) + mask + bytes(16) + bytes(64)
    return parts + struct.pack("<HBBB3x", protocol, 0, bool(protocol), 0)


def part(name: str, revision: int, data: bytes) -> bytes:
    """A match or a target."""
    padded = data.ljust(len(data) + -len(data) % 8, b"\0")
    return PART.pack(PART.size + len(padded), name.encode(), revision) + padded


def standard(verdict: int) -> bytes:
    """ACCEPT, DROP, RETURN, or the offset of an entry."""
    return part("", 0, struct.pack("<i", verdict))


def error(name: str = "ERROR") -> bytes:
    """Where a chain begins, or the table ends."""
    return part("ERROR", 0, name.encode().ljust(30, b"\0"))


def entry(target: bytes, *matches: bytes, head: bytes = b"", is_v4: bool = True) -> bytes:
    """A rule."""
    form = FORMATS[is_v4]
    target_at = form.entry_size + sum(map(len, matches))
    tail = form.tail.pack(0, target_at, target_at + len(target), 0, 0, 0)
    return head.ljust(form.tail_at, b"\0") + tail + b"".join(matches) + target


def offsets(entries: Sequence[bytes]) -> list[int]:
    """Where each begins, and where they end."""
    return [0, *accumulate(map(len, entries))]


def table(
    name: str, entries: Sequence[bytes], begins: dict[int, int], ends: dict[int, int],
    counters: tuple[int, int] = (1, 0),
) -> bytes:  # fmt: skip
    """struct ipt_replace with its entries; by hook: the first one, and its policy."""
    places = offsets(entries)
    hooks = sum(1 << hook for hook in begins)
    ways = [places[where.get(hook, 0)] for where in (begins, ends) for hook in range(5)]
    head = REPLACE.pack(name.encode(), hooks, len(entries), places[-1], *ways, *counters)
    return head + b"".join(entries)


def with_rules(
    name: str, hook: int, rules: Sequence[bytes], policy: int = ACCEPT,
    chains: Sequence[bytes] = (), counters: tuple[int, int] = (1, 0), *, is_v4: bool = True,
) -> bytes:  # fmt: skip
    """A table with rules at one hook, then chains of a program's own."""
    entries: list[bytes] = []
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    for each in KINDS[name].hooks:
        begins[each] = len(entries)
        entries += rules if each == hook else ()
        ends[each] = len(entries)
        entries.append(entry(standard(policy if each == hook else ACCEPT), is_v4=is_v4))
    entries += chains
    entries.append(entry(error(), is_v4=is_v4))
    return table(name, entries, begins, ends, counters)


def put(router: Router, value: bytes, *, is_v4: bool = True) -> IpTable:
    """Into the router's. Raises: what is wrong with it."""
    wanted = Wanted.read(value)
    content = read(FORMATS[is_v4], wanted, value[REPLACE.size :], router.netfilter.ruleset)
    made = router.netfilter.ip_table(wanted.name, is_v4=is_v4)
    if wanted.valid_hooks != made.valid_hooks:
        raise EINVAL("hooks")
    router.netfilter.replace(made, content)
    return made
