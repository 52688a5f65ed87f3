"""What of an answer is used: the chain from the name that was asked."""

from __future__ import annotations

import itertools

import pytest

from sentry.net.names.chain import MAPPED, MAX_CHAIN, MAX_NEGATIVE_S, MAX_TTL_S, Found, follow
from sentry.net.names.reader import read_answer, read_query
from tests.unit.net.names.wires import answer, query, soa

TEST = MAPPED + bytes([192, 0, 2, 1])


def found(*records: str, kind: str = "A", authority: tuple[str, ...] = (), rcode: int = 0) -> Found:
    asked = query("www.a.org.", kind)
    question = read_query(asked).question
    assert question is not None
    return follow(
        question.key, question.kind,
        read_answer(answer(asked, *records, authority=authority, rcode=rcode)),
    )  # fmt: skip


def test_chain_is_followed_to_its_addresses() -> None:
    made = found(
        "www.a.org. 300 IN CNAME x.cdn.net.",
        "x.cdn.net. 20 IN CNAME y.cdn.net.",
        "y.cdn.net. 60 IN A 192.0.2.1",
        "y.cdn.net. 60 IN A 192.0.2.2",
    )

    assert made.addresses == (TEST, MAPPED + bytes([192, 0, 2, 2]))
    assert (made.addresses_s, made.lifetime_s, len(made.answer)) == (20, 20, 4)


def test_what_is_not_on_the_chain_is_dropped() -> None:
    made = found(
        "www.a.org. 300 IN A 192.0.2.1",
        "bank.org. 300 IN A 192.0.2.66",
        "www.a.org. 300 IN TXT hello",
        authority=("bank.org. 300 IN NS ns.evil.org.",),
    )

    assert (made.addresses, len(made.answer), made.authority) == ((TEST,), 1, ())


def test_addresses_of_the_other_family_are_none_of_this_question() -> None:
    made = found("www.a.org. 300 IN AAAA 2001:db8::1", kind="AAAA")
    assert made.addresses == (bytes.fromhex("20010db8" + "0" * 23 + "1"),)
    assert found("www.a.org. 300 IN AAAA 2001:db8::1").addresses == ()


def test_chain_in_a_circle_ends() -> None:
    made = found("www.a.org. 300 IN CNAME b.org.", "b.org. 300 IN CNAME www.a.org.")
    assert (made.addresses, made.lifetime_s, len(made.answer)) == ((), 0, 2)


def test_chain_that_is_too_long_has_no_end() -> None:
    names = ["www.a.org.", *(f"n{n}.org." for n in range(MAX_CHAIN))]
    records = [f"{a} 9 IN CNAME {b}" for a, b in itertools.pairwise(names)]
    assert found(*records, f"{names[-1]} 9 IN A 192.0.2.1").addresses == ()


def test_alias_of_a_zone_stays_with_the_chain() -> None:
    made = found(
        "a.org. 300 IN DNAME b.org.",
        "www.a.org. 300 IN CNAME www.b.org.",
        "www.b.org. 300 IN A 192.0.2.1",
        "c.org. 300 IN DNAME d.org.",
    )
    assert (made.addresses, len(made.answer)) == ((TEST,), 3)


def test_alias_is_an_answer_to_who_asks_for_it() -> None:
    made = found("www.a.org. 300 IN CNAME x.org.", "x.org. 5 IN A 192.0.2.1", kind="CNAME")
    assert (made.lifetime_s, len(made.answer), made.addresses) == (300, 1, ())


@pytest.mark.parametrize("rcode", [0, 3])
@pytest.mark.parametrize(("authority", "lifetime_s"), [
    ((soa("a.org.", 300, 60),), 60),
    ((soa("a.org.", 30, 60),), 30),
    ((soa("www.a.org.", 30, 60),), 30),
    ((soa("org.", 10**6, 10**6),), MAX_NEGATIVE_S),
    ((soa("b.org.", 300, 60),), 0),
    ((soa("x.www.a.org.", 300, 60),), 0),
    ((), 0),
])  # fmt: skip
def test_negative_answer_lives_by_a_soa_above(
    authority: tuple[str, ...], lifetime_s: int, rcode: int
) -> None:
    assert found(authority=authority, rcode=rcode).lifetime_s == lifetime_s


def test_end_of_a_chain_without_records_lives_no_longer_than_the_chain() -> None:
    made = found("www.a.org. 7 IN CNAME b.net.", authority=(soa("net.", 300, 60),), rcode=3)
    assert (made.lifetime_s, made.rcode) == (7, 3)


def test_failure_lives_for_a_second_and_long_ttls_for_a_day() -> None:
    assert found(rcode=2).lifetime_s == 1
    made = found("www.a.org. 9999999 IN A 192.0.2.1")
    assert (made.lifetime_s, made.addresses_s) == (MAX_TTL_S, MAX_TTL_S)


def test_refused_answer_gives_no_addresses() -> None:
    assert found("www.a.org. 300 IN A 192.0.2.1", rcode=5).addresses == ()
