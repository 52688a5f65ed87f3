"""DNS messages are read in a bounded number of steps. RFC 1035, 3597, 6891.

dnspython reads names, and the records whose data hold compressed names. Its `dns.message` is not
used: it takes seconds for 64 KiB that someone has thought about (names of 127 labels, reached over
pointers), and keeps something for each class and type that it has ever seen. `_Reader` counts what
dnspython's parser does, and makes it give up; all other records stay bytes.
"""

from __future__ import annotations

import struct
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.wire
from dns.flags import QR, TC
from dns.opcode import QUERY
from dns.rcode import BADVERS, FORMERR, NOERROR, NOTIMP, REFUSED
from dns.rdataclass import IN
from dns.rdatatype import (
    AAAA,
    AFSDB,
    CNAME,
    DNAME,
    KX,
    MB,
    MD,
    MF,
    MG,
    MINFO,
    MR,
    MX,
    NAPTR,
    NONE,
    NS,
    NXT,
    OPT,
    PTR,
    PX,
    RP,
    RT,
    SIG,
    SOA,
    SRV,
    A,
    RdataType,
)

from sentry.net.names.messages import Answer, Edns, Query, Question, Record

MAX_QUERY: Final = 4096
"""Bytes of what a program asks: a name, a type, an OPT record, whose options are not heeded."""
STEPS: Final = 2000
"""For one message, about half a microsecond each: a read of dnspython's parser is one, so a label
is two; a record with what is done for it about eight.
"""
RECORD_STEPS: Final = 4
INSIDE_STEPS: Final = 40
"""What dnspython does for a record of more than a name."""
NAME_STEPS: Final = 32
"""A name of n labels costs n² / 32 steps more: dnspython makes a name for each of its ends."""
META: Final = range(128, 256)
"""Types that only questions have (RFC 6895, 3.1): transfers, TSIG, ANY."""

_HEADER: Final = struct.Struct("!HHHHHH")
_ONE_NAME: Final = frozenset((CNAME, DNAME, NS, PTR))
_NAMES_INSIDE: Final = frozenset((SOA, MX, RP, AFSDB, RT, PX, NAPTR, KX, SRV))
"""RFC 3597, 4: names in their data may come compressed."""
_PAST: Final = frozenset((MD, MF, MB, MG, MR, MINFO, SIG, NXT))
"""These, too, but nobody has them any more: they are left out."""
_SIZES: Final[dict[int, int]] = {A: 4, AAAA: 16}

for _kind in _NAMES_INSIDE:  # now, and not when a message has one
    dns.rdata.get_rdata_class(IN, _kind)  # type: ignore[no-untyped-call]


class Malformed(Exception):
    """No message that can be answered or used."""


class _TooMuch(dns.exception.DNSException):
    """More steps than a message may take."""


class _Reader(dns.wire.Parser):
    """dnspython's parser, counted. Names where a pointer leads a second time are known."""

    def __init__(self, wire: bytes) -> None:
        super().__init__(wire)
        self._left = STEPS
        self._names: dict[int, dns.name.Name] = {}

    def get_bytes(self, size: int) -> bytes:
        """So many bytes. DNSException if there are fewer, or this is a step too much."""
        self.spend(1)
        return super().get_bytes(size)

    def get_name(
        self, origin: dns.name.Name | None = None, decompress: bool = False
    ) -> dns.name.Name:
        """The name here: compressed ones are understood wherever they stand."""
        start = self.current
        if self.remaining() >= 2 and self.wire[start] >= 0xC0:
            target = (self.wire[start] & 0x3F) << 8 | self.wire[start + 1]
        else:
            target = start
        name = self._names.get(target)
        if name is None:
            name = self._names[target] = dns.name.from_wire_parser(self)
        else:
            self.get_bytes(2)
        self.spend(len(name.labels) ** 2 // NAME_STEPS)
        return name

    def spend(self, steps: int) -> None:
        """Count what is done for the message. DNSException if it is too much."""
        self._left -= steps
        if self._left < 0:
            raise _TooMuch


def read_query(data: bytes) -> Query:
    """What a program asks, with the RCODE of what is wrong with it.

    One question of class IN and opcode QUERY; of other records an OPT at most, whose options are
    dropped. Raises Malformed if there is nothing to answer: no header, or an answer.
    """
    if len(data) < _HEADER.size:
        raise Malformed("no header")
    ident, flags, questions, *others = _HEADER.unpack_from(data)
    if flags & QR:
        raise Malformed("an answer")
    if flags & 0x7800 != QUERY << 11:
        return Query(ident, flags, None, None, NOTIMP)
    if questions != 1 or others[0] or others[1] or others[2] > 1 or len(data) > MAX_QUERY:
        return Query(ident, flags, None, None, FORMERR)
    reader = _Reader(data)
    try:
        reader.seek(_HEADER.size)
        question, rclass = _question(reader)
        _, edns = _records(reader, others[2])
    except dns.exception.DNSException:
        return Query(ident, flags, None, None, FORMERR)
    return Query(ident, flags, question, edns, _wrong(question, rclass, edns))


def read_answer(data: bytes) -> Answer:
    """What a nameserver says, without records of other classes. Raises Malformed."""
    if len(data) < _HEADER.size:
        raise Malformed("no header")
    ident, flags, questions, *counts = _HEADER.unpack_from(data)
    if not flags & QR or flags & 0x7800 or questions > 1:
        raise Malformed("no answer")
    question, sections, edns_rcode = None, [], 0
    reader = _Reader(data)
    try:
        reader.seek(_HEADER.size)
        if questions:
            question, rclass = _question(reader)
            if rclass != IN:
                raise Malformed("class")
        if not flags & TC:  # who sent less may have sent half a record, and is asked again
            sections = [_records(reader, count) for count in counts]
            edns_rcode = sections[2][1].rcode if sections[2][1] else 0
    except dns.exception.DNSException as error:
        raise Malformed(str(error)) from None
    answer, authority = (tuple(records) for records, _ in sections[:2]) if sections else ((), ())
    return Answer(ident, flags, flags & 15 | edns_rcode << 4, question, answer, authority)


def _question(reader: _Reader) -> tuple[Question, int]:
    name = reader.get_name()
    kind, rclass = reader.get_struct("!HH")
    return Question(name.to_wire() or b"", kind, text_of(name.labels)), rclass


def text_of(labels: tuple[bytes, ...]) -> str | None:
    """A name as policy knows it; None if its text could be taken for that of other labels."""
    for label in labels:
        if not all(0x20 < byte < 0x7F and byte not in b".\\" for byte in label):
            return None
    return b".".join(labels[:-1]).decode("ascii").lower()


def _wrong(question: Question, rclass: int, edns: Edns | None) -> int:
    if edns is not None and edns.version:
        return BADVERS
    if rclass != IN:
        return REFUSED
    return NOTIMP if question.kind in META or question.kind in (NONE, OPT) else NOERROR


def _records(reader: _Reader, count: int) -> tuple[list[Record], Edns | None]:
    """A section."""
    found: list[Record] = []
    edns = None
    for _ in range(count):
        owner = reader.get_name()
        kind, rclass, ttl_s, length = reader.get_struct("!HHIH")
        if kind == OPT:
            reader.get_bytes(length)
            edns = Edns(rclass, ttl_s >> 16 & 0xFF, ttl_s & 0xFFFF, ttl_s >> 24)
            continue
        reader.spend(RECORD_STEPS)
        data = _data(reader, kind, length)
        if rclass == IN and kind not in _PAST:
            ttl_s = 0 if ttl_s >> 31 else ttl_s  # RFC 2181, 8
            found.append(Record((owner.to_wire() or b"").lower(), kind, ttl_s, data))
    return found, edns


def _data(reader: _Reader, kind: int, length: int) -> bytes:
    """What a record says, its names uncompressed."""
    if kind in _ONE_NAME:
        with reader.restrict_to(length):
            name = reader.get_name().to_wire() or b""
        return name if kind in (PTR, NS) else name.lower()
    if kind in _NAMES_INSIDE:
        reader.spend(INSIDE_STEPS)
        with reader.restrict_to(length):
            return dns.rdata.from_wire_parser(IN, RdataType(kind), reader).to_wire() or b""
    if _SIZES.get(kind, length) != length:
        raise dns.exception.FormError
    return reader.get_bytes(length)
