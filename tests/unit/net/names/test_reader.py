"""Messages are read as dnspython reads them, in a bounded number of steps."""

from __future__ import annotations

import contextlib
import struct
import sys

import dns.message
import dns.name
import dns.rdata
import pytest
from dns.rcode import BADVERS, FORMERR, NOERROR, NOTIMP, REFUSED
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.names.messages import EDNS_DO, Question
from sentry.net.names.reader import MAX_QUERY, Malformed, read_answer, read_query, text_of
from tests.unit.net.names.wires import answer, query

DEEP = b"\1a" * 126 + b"\0"
ADDRESS = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes(4)


def head(questions: int, answers: int, flags: int = 0x8180) -> bytes:
    return struct.pack("!HHHHHH", 1, flags, questions, answers, 0, 0)


def test_query_is_read() -> None:
    read = read_query(
        query("WwW.a.org.", "AAAA", use_edns=0, payload=1400, want_dnssec=True, id=77)
    )

    assert (read.ident, read.rcode) == (77, NOERROR)
    assert read.question is not None and read.edns is not None
    assert (read.question.name, read.question.kind) == ("www.a.org", 28)
    assert read.question.wire == b"\3WwW\1a\3org\0"
    assert read.question.key == b"\3www\1a\3org\0"
    assert (read.edns.size, read.edns.version, read.edns.flags) == (1400, 0, EDNS_DO)


@pytest.mark.parametrize(("wire", "shown"), [
    (b"\3WwW\1a\0", "WwW.a"), (b"\3a.b\4\n \xff\\\0", r"a\046b.\010\032\255\092"), (b"\0", "."),
])  # fmt: skip
def test_name_is_shown_on_one_line_whatever_it_is(wire: bytes, shown: str) -> None:
    assert Question(wire, 1, None).shown == shown


@pytest.mark.parametrize(("data", "rcode"), [
    (query(use_edns=1), BADVERS),
    (query(rdclass="CH", kind="TXT"), REFUSED),
    (query(kind="AXFR"), NOTIMP),
    (query(kind="ANY"), NOTIMP),
    (head(1, 0, 0x2000) + b"\0\0\1\0\1", NOTIMP),  # NOTIFY
    (head(0, 0, 0), FORMERR),
    (head(2, 0, 0) + b"\0\0\1\0\1" * 2, FORMERR),
    (head(1, 1, 0) + b"\0\0\1\0\1" + ADDRESS, FORMERR),
    (head(1, 0, 0), FORMERR),
    (head(1, 0, 0) + b"\xc0\x0c\0\1\0\1", FORMERR),  # a name that begins with itself
    (head(1, 0, 0) + b"\0\0\1\0\1" + bytes(MAX_QUERY), FORMERR),
])  # fmt: skip
def test_query_that_cannot_be_answered_says_why(data: bytes, rcode: int) -> None:
    assert read_query(data).rcode == rcode


@pytest.mark.parametrize("data", [b"", bytes(11), head(1, 0) + b"\0\0\1\0\1"])
def test_what_is_no_query_gets_no_answer(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_query(data)


@pytest.mark.parametrize(("labels", "text"), [
    ((b"WWW", b"a", b""), "www.a"),
    ((b"",), ""),
    ((b"a.b", b"org", b""), None),
    ((b"a\\", b"org", b""), None),
    ((b"\0", b"org", b""), None),
    ((b"a b", b"org", b""), None),
    ((b"\xc3\xa4", b"org", b""), None),
    ((b"_sip", b"x-1", b""), "_sip.x-1"),
])  # fmt: skip
def test_text_of_a_name_is_that_of_no_other(labels: tuple[bytes, ...], text: str | None) -> None:
    assert text_of(labels) == text


def test_answer_is_read_with_its_names_uncompressed() -> None:
    read = read_answer(answer(
        query("WWW.a.org."),
        "WWW.a.org. 60 IN CNAME Web.A.org.",
        "web.a.org. 30 IN A 192.0.2.1",
        "web.a.org. 30 IN MX 10 mail.a.org.",
        "web.a.org. 30 IN TXT one two",
        authority=("a.org. 10 IN SOA ns.a.org. root.a.org. 1 2 3 4 5",),
    ))  # fmt: skip

    assert [(r.owner, r.kind, r.ttl_s, r.data) for r in read.answer] == [
        (b"\3www\1a\3org\0", 5, 60, b"\3web\1a\3org\0"),
        (b"\3web\1a\3org\0", 1, 30, bytes([192, 0, 2, 1])),
        (b"\3web\1a\3org\0", 15, 30, b"\0\x0a\4mail\1a\3org\0"),
        (b"\3web\1a\3org\0", 16, 30, b"\3one\3two"),
    ]
    assert read.authority[0].data[-4:] == bytes([0, 0, 0, 5])


def test_upper_bits_of_the_rcode_and_large_ttls_are_heeded() -> None:
    asked = query(use_edns=0)
    assert read_answer(answer(asked, rcode=16)).rcode == BADVERS
    wire = answer(asked, "www.a.org. 5 IN A 192.0.2.1").replace(b"\0\0\0\5", b"\x80\0\0\5")
    assert read_answer(wire).answer[0].ttl_s == 0


def test_records_of_other_classes_are_left_out() -> None:
    wire = answer(query(), "www.a.org. 5 IN A 192.0.2.1").replace(
        b"\1\0\1\0\0\0\5", b"\1\0\3\0\0\0\5"
    )
    assert read_answer(wire).answer == ()


@pytest.mark.parametrize("wire", [
    head(1, 400) + DEEP + b"\0\1\0\1" + ADDRESS * 400,
    head(1, 60000) + DEEP + b"\0\1\0\1" + (b"\xc0\x0c\0\5\0\1\0\0\0\0\0\2\xc0\x0c") * 4600,
    head(1, 60000) + b"\0\0\1\0\1" + (b"\0" + struct.pack("!HHIH", 4000, 1, 0, 0)) * 5900,
    head(1, 60000) + b"\1a\0\0\1\0\1"
    + (b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, 0, 24) + b"\xc0\x0c" * 2 + bytes(20)) * 1800,
], ids=["deep owners", "deep targets", "empty records", "zones"])  # fmt: skip
def test_message_of_too_many_steps_is_given_up_soon(wire: bytes) -> None:
    assert len(wire) < 65536
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        with pytest.raises(Malformed, match="steps"):
            read_answer(wire)
    finally:
        sys.setprofile(None)
    assert calls < 60_000


def test_nothing_is_kept_for_types_that_were_seen() -> None:
    before = len(dns.rdata._rdata_classes)
    for kind in range(1000, 1100):
        read_answer(head(0, 1) + b"\0" + struct.pack("!HHIH", kind, kind, 0, 0))
    assert len(dns.rdata._rdata_classes) == before


def test_record_whose_types_data_has_another_size_is_refused() -> None:
    with pytest.raises(Malformed):
        read_answer(head(0, 1) + b"\0" + struct.pack("!HHIH", 1, 1, 0, 5) + bytes(5))


@given(st.binary(max_size=100), st.sampled_from([head(1, 1), head(1, 1, 0), head(0, 3), b""]))
def test_any_bytes_are_read_or_refused(data: bytes, start: bytes) -> None:
    for read in (read_query, read_answer):
        with contextlib.suppress(Malformed):
            read(start + data)
