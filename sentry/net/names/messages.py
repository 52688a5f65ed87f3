"""What DNS messages say, as values. RFC 1035, 6891."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

EDNS_DO: Final = 0x8000
"""DNSSEC OK (RFC 3225), of `Edns.flags`."""


class Question(Struct, frozen=True):
    """What is asked, in class IN."""

    wire: bytes
    """The name as on the wire, uncompressed, its letters as they came."""
    kind: int
    """Its type."""
    name: str | None
    """The name as policy knows it: `www.example.org`, lower case; None where that has no form."""

    @property
    def key(self) -> bytes:
        """The name as on the wire, in lower case: lengths of labels are below 'A'."""
        return self.wire.lower()

    @property
    def shown(self) -> str:
        """The name for people, whatever is in its labels: RFC 4343, 2.1."""
        labels, at = [], 0
        while self.wire[at]:
            label = self.wire[at + 1 : at + 1 + self.wire[at]]
            labels.append("".join(
                chr(each) if 0x20 < each < 0x7F and each not in b".\\" else f"\\{each:03}"
                for each in label
            ))  # fmt: skip
            at += 1 + len(label)
        return ".".join(labels) or "."


class Edns(Struct, frozen=True):
    """What matters of an OPT record."""

    size: int
    """The largest answer over UDP, in bytes."""
    version: int
    flags: int
    rcode: int = 0
    """The upper eight bits of an answer's RCODE."""


class Query(Struct, frozen=True):
    """What a program asks."""

    ident: int
    flags: int
    question: Question | None
    """None if the query has none that can be read."""
    edns: Edns | None
    rcode: int
    """NOERROR, or what is wrong with it: that is the answer."""


class Record(Struct, frozen=True):
    """A resource record of class IN; names are in lower case, and uncompressed."""

    owner: bytes
    kind: int
    ttl_s: int
    data: bytes


class Answer(Struct, frozen=True):
    """What a nameserver says."""

    ident: int
    flags: int
    rcode: int
    """With the upper bits of the OPT record."""
    question: Question | None
    answer: tuple[Record, ...]
    authority: tuple[Record, ...]
