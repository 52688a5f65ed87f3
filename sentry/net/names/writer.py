"""DNS messages are written here: linear in their size, which dnspython's renderer is not.

Names are compressed where they are the owner of a record that has been written already, or the
question's; that is nearly all that there is to save in what one name has.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from dns.flags import AD, CD, QR, RA, RD, TC
from dns.rcode import NOERROR
from dns.rdataclass import IN
from dns.rdatatype import OPT
from msgspec import Struct

from sentry.net.names.messages import EDNS_DO, Edns, Query, Question, Record

OUR_SIZE: Final = 1232
"""What nameservers may send over UDP: no path has to make fragments of it (DNS flag day 2020)."""
PLAIN_SIZE: Final = 512
MAX_UDP: Final = 4096
"""Of an answer to a program, whatever it says it could take."""
MAX_TCP: Final = 65535
QUESTION_AT: Final = 12
POINTER_END: Final = 0x4000

_HEADER: Final = struct.Struct("!HHHHHH")
_FIXED: Final = struct.Struct("!HHIH")


class Body(Struct, frozen=True):
    """What follows the question, for all who have asked it."""

    data: bytes
    answers: int
    authorities: int


NOTHING: Final = Body(b"", 0, 0)


def write_query(ident: int, flags: int, question: Question, edns: Edns | None) -> bytes:
    """A question for a nameserver: with recursion, and AD if it knows (RFC 6840, 5.7)."""
    head = _HEADER.pack(ident, flags & CD | RD | AD, 1, 0, 0, 1 if edns else 0)
    return head + _question(question) + _opt(edns, NOERROR)


def write_body(
    question: Question, answer: Sequence[Record], authority: Sequence[Record], elapsed_s: int
) -> Body:
    """Records, as they are `elapsed_s` after they were received. Nothing if they are too many."""
    at = {question.key: QUESTION_AT}
    out = bytearray()
    start = QUESTION_AT + len(question.wire) + 4
    for record in (*answer, *authority):
        here, known = start + len(out), at.get(record.owner)
        out += record.owner if known is None else struct.pack("!H", 0xC000 | known)
        if known is None and here < POINTER_END:
            at[record.owner] = here
        ttl_s = max(record.ttl_s - elapsed_s, 0)
        out += _FIXED.pack(record.kind, IN, ttl_s, len(record.data)) + record.data
    return Body(bytes(out), len(answer), len(authority))


def write_reply(query: Query, rcode: int, body: Body, flags: int, limit: int) -> bytes:
    """An answer for a program of at most `limit` bytes; TC and no records if there are more.

    It has an OPT record if the query had one (RFC 6891, 6.1.1). Of `flags` AD counts, and if it
    was asked for (RFC 6840, 5.7).
    """
    edns = Edns(MAX_UDP, 0, query.edns.flags & EDNS_DO) if query.edns else None
    wants_ad = query.flags & AD or (edns and edns.flags)
    flags = QR | RA | query.flags & (RD | CD | 0x7800) | (flags & AD if wants_ad else 0)
    question = b"" if query.question is None else _question(query.question)
    opt = _opt(edns, rcode)
    if QUESTION_AT + len(question) + len(body.data) + len(opt) > limit:
        flags, body = flags | TC, NOTHING
    head = _HEADER.pack(
        query.ident, flags | rcode & 15, 1 if question else 0,
        body.answers, body.authorities, 1 if opt else 0,
    )  # fmt: skip
    return head + question + body.data + opt


def udp_limit(query: Query) -> int:
    """How large an answer over UDP may be."""
    return min(max(query.edns.size, PLAIN_SIZE), MAX_UDP) if query.edns else PLAIN_SIZE


def _question(question: Question) -> bytes:
    return question.wire + struct.pack("!HH", question.kind, IN)


def _opt(edns: Edns | None, rcode: int) -> bytes:
    if edns is None:
        return b""
    return struct.pack("!xHHBBHH", OPT, edns.size, rcode >> 4, edns.version, edns.flags, 0)
