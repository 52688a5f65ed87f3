"""Questions outside: what goes out cannot be foreseen, who waits is bounded."""

from __future__ import annotations

import os

import dns.message

from sentry.net.names.asking import Transport
from sentry.net.names.cache import Key
from sentry.net.names.messages import Question
from sentry.net.names.pending import (
    MAX_WAITING,
    Client,
    Pending,
    attempt,
    mixed,
    our_edns,
)
from sentry.net.names.reader import read_query
from tests.unit.net.names.wires import SERVER, query

NAME = b"\3www\7example\3org\0"
QUESTION = Question(NAME, 1, "www.example.org")


def pending() -> Pending:
    return Pending(Key(NAME, 1, 0), QUESTION)


def test_letters_are_mixed_and_lengths_are_not() -> None:
    made = {mixed(NAME, os.urandom) for _ in range(100)}

    assert len(made) > 90
    assert {each.lower() for each in made} == {NAME}
    assert (
        mixed(b"\x3fa" + b"1" * 62 + b"\0", lambda n: b"\xff" * n) == b"\x3fA" + b"1" * 62 + b"\0"
    )


def test_id_is_another_each_time() -> None:
    made = [attempt(pending(), SERVER, Transport.UDP, our_edns(0), os.urandom) for _ in range(50)]

    assert len({each.ident for each, _ in made}) > 40
    for each, data in made:
        message = dns.message.from_wire(data)
        assert message.id == each.ident
        assert message.question[0].name.to_wire() == each.question.wire
        assert (message.payload, message.options) == (1232, ())


def test_who_asks_again_waits_once_and_not_all_may_wait() -> None:
    made, asked = pending(), read_query(query(id=1))
    for token in range(MAX_WAITING):
        assert made.join(asked, Client(token, None, Transport.UDP))

    assert made.join(asked, Client(0, None, Transport.UDP))
    assert not made.join(asked, Client(MAX_WAITING, None, Transport.UDP))
    assert len(made.waiting) == MAX_WAITING


def test_two_questions_of_one_socket_wait_both() -> None:
    made = pending()
    made.join(read_query(query(id=1)), Client(0, None, Transport.UDP))
    made.join(read_query(query(id=2)), Client(0, None, Transport.UDP))
    assert len(made.waiting) == 2
