"""What of an answer belongs to the question: the CNAME chain from its name on, and its end.

Whatever else stands in an answer is dropped: it is neither given on, nor cached, nor remembered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from dns.rcode import NOERROR, NXDOMAIN
from dns.rdatatype import AAAA, CNAME, DNAME, NSEC, NSEC3, RRSIG, SOA, A
from msgspec import Struct

from sentry.net.names.messages import Answer, Question, Record

MAX_CHAIN: Final = 16
MAX_TTL_S: Final = 86400
MAX_NEGATIVE_S: Final = 10800
"""RFC 2308, 5: three hours."""
HOST_S: Final = 60
"""The TTL of what is in no zone."""
FAILURE_S: Final = 1
"""RFC 9520: what fails is not asked again at once."""
MAPPED: Final = bytes(10) + b"\xff\xff"
_PROOFS: Final = frozenset((NSEC, NSEC3, RRSIG, SOA))


class Found(Struct, frozen=True):
    """What a question has brought."""

    rcode: int
    flags: int
    answer: tuple[Record, ...]
    authority: tuple[Record, ...]
    lifetime_s: int
    """How long it may be given again; 0 is not at all."""
    addresses: tuple[bytes, ...]
    """16 bytes each, IPv4 ones mapped."""
    addresses_s: int
    """How long the addresses are the name's."""


def follow(key: bytes, kind: int, answer: Answer) -> Found:
    """What `answer` says about the name `key`, as on the wire and in lower case."""
    kept, end = _chain(key, kind, answer.answer)
    addresses: tuple[bytes, ...] = ()
    if answer.rcode == NOERROR and kind in (A, AAAA):
        before = MAPPED if kind == A else b""
        addresses = tuple(before + record.data for record in kept if record.kind == kind)
    ttl_s = min((record.ttl_s for record in kept), default=MAX_TTL_S)
    authority = tuple(r for r in answer.authority if r.kind in _PROOFS)
    lifetime_s = min(ttl_s, MAX_TTL_S)
    if answer.rcode not in (NOERROR, NXDOMAIN):
        lifetime_s = FAILURE_S
    elif not any(record.kind == kind and record.owner == end for record in kept):
        lifetime_s = min(lifetime_s, _negative_s(end, answer.authority))
    return Found(
        answer.rcode, answer.flags, tuple(kept), authority,
        lifetime_s, addresses, min(ttl_s, MAX_TTL_S),
    )  # fmt: skip


def of_host(question: Question, addresses: Iterable[bytes]) -> Found:
    """What is known of a name for which nobody has to be asked: its addresses, as in hosts(5).

    16 bytes each, IPv4 ones mapped.
    """
    is_v4 = question.kind == A
    fit = tuple(
        ip for ip in addresses if question.kind in (A, AAAA) and (ip[:12] == MAPPED) == is_v4
    )
    records = tuple(
        Record(question.key, question.kind, HOST_S, ip[12:] if is_v4 else ip) for ip in fit
    )
    return Found(NOERROR, 0, records, (), 0, fit, HOST_S)


def _chain(key: bytes, kind: int, records: Iterable[Record]) -> tuple[list[Record], bytes]:
    """The records of the names from `key` on, and the last one."""
    by_owner: dict[bytes, list[Record]] = defaultdict(list)
    aliases: dict[bytes, list[Record]] = defaultdict(list)
    for record in records:
        (aliases if record.kind == DNAME != kind else by_owner)[record.owner].append(record)
    kept: list[Record] = []
    for _ in range(MAX_CHAIN):
        for above in _ends(key) if aliases else ():
            kept += aliases.pop(above, ())
        here = by_owner.pop(key, [])
        kept += [record for record in here if record.kind in (kind, CNAME, RRSIG)]
        targets = [record.data for record in here if record.kind == CNAME]
        if kind == CNAME or len(targets) != 1:
            break
        key = targets[0]
    return kept, key


def _ends(name: bytes) -> Iterator[bytes]:
    """The names above this one, the root last."""
    while name != b"\0":
        name = name[name[0] + 1 :]
        yield name


def _negative_s(name: bytes, authority: Iterable[Record]) -> int:
    """RFC 2308, 5: by the SOA of a zone that the name is in; not at all without one."""
    for record in authority:
        if record.kind == SOA and (record.owner == name or record.owner in _ends(name)):
            minimum_s = int.from_bytes(record.data[-4:])
            return min(record.ttl_s, minimum_s, MAX_NEGATIVE_S)
    return 0
