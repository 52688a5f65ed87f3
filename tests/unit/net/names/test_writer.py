"""What is written, dnspython's `dns.message` reads."""

from __future__ import annotations

import dns.flags
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.names.messages import EDNS_DO, Edns, Question, Record
from sentry.net.names.reader import read_answer, read_query
from sentry.net.names.writer import (
    MAX_TCP,
    MAX_UDP,
    NOTHING,
    udp_limit,
    write_body,
    write_query,
    write_reply,
)
from tests.unit.net.names.wires import query

WWW = Question(b"\3wWw\1a\3org\0", 1, "www.a.org")
LABELS = st.binary(min_size=1, max_size=20).map(lambda label: label.lower())
WIRES = st.lists(LABELS, max_size=5).map(
    lambda labels: b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
)


def test_query_asks_for_recursion_and_authentication_and_no_more() -> None:
    message = dns.message.from_wire(write_query(7, 0xFFFF & ~0x8000, WWW, Edns(1232, 0, EDNS_DO)))

    assert message.id == 7
    assert message.flags == dns.flags.RD | dns.flags.AD | dns.flags.CD
    assert message.question[0].to_text() == "wWw.a.org. IN A"
    assert (message.edns, message.payload, message.ednsflags) == (0, 1232, EDNS_DO)


def test_reply_repeats_the_question_as_it_was_asked() -> None:
    asked = read_query(query("wWw.a.org.", id=9))
    records = [Record(WWW.key, 1, 60, bytes([192, 0, 2, n])) for n in (1, 2)]
    wire = write_reply(asked, 0, write_body(WWW, records, (), 20), 0, 512)

    assert dns.message.from_wire(wire).answer[0].to_text().splitlines() == [
        "wWw.a.org. 40 IN A 192.0.2.1",
        "wWw.a.org. 40 IN A 192.0.2.2",
    ]
    assert len(wire) == 12 + len(WWW.wire) + 4 + 2 * 16
    assert dns.message.make_query("www.a.org.", "A", id=9).is_response(dns.message.from_wire(wire))


@pytest.mark.parametrize(
    ("edns", "limit"), [(None, 512), (100, 512), (1400, 1400), (65535, MAX_UDP)]
)
def test_size_over_udp_is_the_clients_within_bounds(edns: int | None, limit: int) -> None:
    other = {} if edns is None else {"use_edns": 0, "payload": edns}
    assert udp_limit(read_query(query(**other))) == limit


def test_reply_that_is_too_long_is_truncated_to_nothing() -> None:
    asked = read_query(query("www.a.org."))
    records = [Record(WWW.key, 1, 60, bytes([192, 0, 2, n])) for n in range(100)]
    body = write_body(WWW, records, (), 0)

    short = dns.message.from_wire(write_reply(asked, 0, body, 0, 512))
    assert short.flags & dns.flags.TC and not short.answer
    assert len(dns.message.from_wire(write_reply(asked, 0, body, 0, MAX_TCP)).answer[0]) == 100


@pytest.mark.parametrize(("other", "shown"), [
    ({}, False),
    ({"flags": dns.flags.RD | dns.flags.AD}, True),
    ({"use_edns": 0}, False),
    ({"want_dnssec": True}, True),
])  # fmt: skip
def test_authenticated_data_is_shown_to_who_asks(other: dict[str, object], shown: bool) -> None:
    reply = write_reply(read_query(query(**other)), 0, NOTHING, dns.flags.AD, 512)
    assert bool(dns.message.from_wire(reply).flags & dns.flags.AD) == shown


def test_error_of_a_query_without_question_is_an_answer() -> None:
    wire = write_reply(read_query(bytes([0, 5, 0x28]) + bytes(9)), 4, NOTHING, 0, 512)
    assert wire == bytes([0, 5, 0xA8, 0x84]) + bytes(8)


@given(
    WIRES,
    st.lists(st.builds(Record, WIRES, st.sampled_from([1000, 16]), st.integers(0, 1 << 31 - 1),
                       st.binary(max_size=40)), max_size=30),
    st.integers(0, 5),
)  # fmt: skip
def test_records_are_read_as_they_were_written(
    name: bytes, records: list[Record], cut: int
) -> None:
    question = Question(name, 1, None)
    asked = read_query(write_query(3, 0, question, None))
    body = write_body(question, records[cut:], records[:cut], 0)
    read = read_answer(write_reply(asked, 3, body, 0, MAX_TCP))

    assert (read.ident, read.rcode) == (3, 3)
    assert read.question is not None and read.question.wire == name
    assert (read.answer, read.authority) == (tuple(records[cut:]), tuple(records[:cut]))
