"""From a program's question to its answer, with nameservers of all kinds."""

from __future__ import annotations

import dns.flags
import dns.message
import pytest
from dns.rcode import FORMERR, NOERROR, NXDOMAIN, REFUSED, SERVFAIL

from sentry.net.names import forwarder as module
from sentry.net.names.asking import Ask, Transport
from sentry.net.names.forwarder import Settings
from sentry.net.names.pending import MAX_WRONG, TRIES_NS
from tests.unit.net.names.harness import Outside
from tests.unit.net.names.wires import SECOND_SERVER, SERVER, answer, lines, query, soa

ADDRESS = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
RECORD = "www.a.org. 60 IN A 192.0.2.1"


def www(asked: bytes) -> bytes:
    return answer(asked, RECORD)


def rcode(reply: bytes | None) -> int:
    assert reply is not None
    return dns.message.from_wire(reply).rcode()


def test_answer_reaches_the_program_and_is_remembered() -> None:
    outside = Outside()
    assert outside.program_asks(query("WWW.a.org.", id=7)) is None
    (ask,) = outside.asks
    reply = outside.server_answers(www)

    assert reply is not None and dns.message.from_wire(reply).id == 7
    assert lines(reply) == ["WWW.a.org. 60 IN A 192.0.2.1"]
    assert (ask.server, ask.transport, outside.asks) == (SERVER, Transport.UDP, [])
    assert outside.forwarder.given.names_of(ADDRESS, outside.now_ns) == ("www.a.org",)
    assert outside.forwarder.deadline_ns is None


def test_name_whose_addresses_are_known_is_asked_nobody() -> None:
    outside = Outside()
    v6 = bytes(15) + b"\x05"
    outside.forwarder.configure(Settings((), hosts={"www.a.org": (ADDRESS, v6), "none.a.org": ()}))
    reply = outside.program_asks(query("WWW.a.org."))
    assert reply is not None and lines(reply) == ["WWW.a.org. 60 IN A 192.0.2.1"]
    reply = outside.program_asks(query("www.a.org.", "AAAA"))
    assert reply is not None and lines(reply) == ["www.a.org. 60 IN AAAA ::5"]
    for name, kind in (("www.a.org.", "MX"), ("none.a.org.", "A")):
        reply = outside.program_asks(query(name, kind))
        assert rcode(reply) == NOERROR and reply is not None and lines(reply) == []
    for ip in (ADDRESS, v6):
        assert outside.forwarder.given.names_of(ip, outside.now_ns) == ("www.a.org",)
    assert rcode(outside.program_asks(query("x.www.a.org."))) == SERVFAIL
    assert not outside.asks


def test_known_name_that_may_not_be_asked_for_stays_unknown() -> None:
    outside = Outside(lambda *_: False)
    outside.forwarder.configure(Settings((), hosts={"www.a.org": (ADDRESS,)}))
    assert rcode(outside.program_asks(query())) == NXDOMAIN
    assert not outside.forwarder.given.names_of(ADDRESS, outside.now_ns)


def test_second_question_is_answered_from_the_cache_as_its_ttl_goes_down() -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.server_answers(www)
    outside.later(20)
    reply = outside.program_asks(query())

    assert reply is not None and lines(reply) == ["www.a.org. 40 IN A 192.0.2.1"]
    names_of = outside.forwarder.given.names_of
    outside.later(40 + 59)
    assert names_of(ADDRESS, outside.now_ns) == ("www.a.org",)
    outside.later(1)
    assert names_of(ADDRESS, outside.now_ns) == ()
    assert outside.program_asks(query()) is None


def test_answer_from_the_cache_is_judged_for_who_asks() -> None:
    outside = Outside(lambda _, program: program == "good")
    outside.program_asks(query(), program="good")
    outside.server_answers(www)

    assert rcode(outside.program_asks(query(), program="bad")) == NXDOMAIN
    assert rcode(outside.program_asks(query(), program="good")) == NOERROR


@pytest.mark.parametrize("refusal", [NXDOMAIN, REFUSED])
@pytest.mark.parametrize("name", ["evil.org.", r"evil\.a.org.", r"\000.a.org."])
def test_name_that_is_not_allowed_is_not_asked_for(name: str, refusal: int) -> None:
    outside = Outside(lambda question, _: (question.name or ".a.org").endswith(".a.org"))
    outside.forwarder.configure(Settings((SERVER,), refusal))

    assert rcode(outside.program_asks(query(name))) == refusal
    assert outside.asks == []
    assert outside.forwarder.counters.refused == 1


def test_what_goes_out_is_the_question_and_nothing_else() -> None:
    outside = Outside()
    options = [dns.edns.GenericOption(65001, b"secret" * 50)]
    outside.program_asks(query(use_edns=0, options=options, payload=4096, id=5))
    sent = dns.message.from_wire(outside.asks[0].data)

    assert b"secret" not in outside.asks[0].data
    assert (sent.options, sent.payload, len(sent.sections[1]), len(sent.sections[2])) == (
        (), 1232, 0, 0,
    )  # fmt: skip
    assert sent.question[0].name == dns.name.from_text("www.a.org.")


def test_same_question_is_asked_once_for_all() -> None:
    outside = Outside()
    for token in range(3):
        assert outside.program_asks(query(id=token), token) is None
    assert len(outside.asks) == 1
    outside.server_answers(www)

    assert [(r.token, dns.message.from_wire(r.data).id) for r in outside.replies] == [
        (0, 0), (1, 1), (2, 2),
    ]  # fmt: skip


def test_client_that_has_gone_gets_nothing() -> None:
    outside = Outside()
    outside.program_asks(query(), "gone")
    outside.forwarder.left("gone")
    assert outside.server_answers(www) is None
    assert rcode(outside.program_asks(query())) == NOERROR


def forged(asked: bytes, how: str) -> bytes:
    wire = bytearray(www(asked))
    if how == "id":
        wire[0] ^= 1
    elif how == "name":
        wire[13:16] = b"xyz"
    elif how == "type":
        wire[12 + 11 + 1] = 28
    elif how == "query":
        wire[2] &= 0x7F
    return bytes(wire)


@pytest.mark.parametrize("how", ["id", "name", "type", "query"])
def test_answer_to_something_else_is_not_believed(how: str) -> None:
    outside = Outside()
    outside.program_asks(query())

    assert outside.server_answers(lambda asked: forged(asked, how)) is None
    assert outside.forwarder.counters.unexpected == 1
    assert rcode(outside.server_answers(www)) == NOERROR


def test_answer_of_another_server_or_at_another_port_is_not_believed() -> None:
    outside = Outside()
    outside.program_asks(query())
    (ask,) = outside.asks
    answered = outside.forwarder.answered

    assert answered(www(ask.data), SECOND_SERVER, ask.port, outside.now_ns) == []
    assert answered(www(ask.data), SERVER, ask.port + 1, outside.now_ns) == []
    assert outside.forwarder.counters.unexpected == 2


def test_guesses_lead_to_a_connection() -> None:
    outside = Outside()
    outside.program_asks(query())
    for _ in range(MAX_WRONG):
        assert outside.asks[0].transport is Transport.UDP
        outside.server_answers(lambda asked: forged(asked, "id"))

    (ask,) = outside.asks
    assert ask.transport is Transport.TCP
    assert rcode(outside.server_answers(www)) == NOERROR


def other_case(asked: bytes) -> bytes:
    return www(asked)[:12] + asked[12:23].swapcase() + www(asked)[23:]


@pytest.mark.parametrize("make", [
    lambda asked: answer(asked, flags=dns.flags.TC),
    lambda asked: answer(asked, RECORD, flags=dns.flags.TC)[:40],
    other_case,
])  # fmt: skip
def test_truncated_and_uncertain_answers_are_asked_for_over_tcp(make: object) -> None:
    outside = Outside()
    outside.program_asks(query())
    first = outside.asks[0]
    outside.server_answers(make)  # type: ignore[arg-type]

    (ask,) = outside.asks
    assert (ask.transport, ask.server, ask.port == first.port) == (Transport.TCP, SERVER, False)
    assert rcode(outside.server_answers(www)) == NOERROR


def test_long_answer_is_truncated_for_udp_and_whole_over_tcp() -> None:
    outside = Outside()
    outside.program_asks(query())
    many = [f"www.a.org. 60 IN A 192.0.2.{n}" for n in range(100)]
    reply = outside.server_answers(lambda asked: answer(asked, *many))

    assert reply is not None and dns.message.from_wire(reply).flags & dns.flags.TC
    whole = outside.program_asks(query(), "stream", Transport.TCP)
    assert whole is not None and len(lines(whole)) == 100


def test_server_that_knows_no_edns_is_asked_without() -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.server_answers(lambda asked: answer(asked, rcode=FORMERR))

    (ask,) = outside.asks
    assert (ask.server, dns.message.from_wire(ask.data).edns) == (SERVER, -1)
    assert rcode(outside.server_answers(www)) == NOERROR
    outside.program_asks(query("b.org."))
    assert dns.message.from_wire(outside.asks[0].data).edns == -1
    outside.later(0)
    outside.now_ns += module.PLAIN_NS
    outside.program_asks(query("c.org."))
    assert dns.message.from_wire(outside.asks[-1].data).edns == 0


def test_silent_servers_are_asked_in_turn_and_in_the_end_it_has_failed() -> None:
    outside = Outside()
    outside.program_asks(query())
    servers = []
    while outside.asks:
        servers.append(outside.asks[-1].server)
        deadline_ns = outside.forwarder.deadline_ns
        assert deadline_ns is not None
        outside.later((deadline_ns - outside.now_ns) / 1e9)

    assert servers == [SERVER, SECOND_SERVER, SERVER, SECOND_SERVER]
    assert rcode(outside.replies[0].data) == SERVFAIL
    assert rcode(outside.program_asks(query())) == SERVFAIL
    assert outside.forwarder.counters.sent == 4
    outside.later(1)
    assert outside.program_asks(query()) is None


def test_late_answer_to_the_first_try_is_believed() -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.later(TRIES_NS[0] / 1e9)
    assert len(outside.asks) == 2

    assert rcode(outside.server_answers(www, at=0)) == NOERROR
    assert outside.asks == []


def test_server_that_cannot_be_reached_is_left_at_once() -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.note(outside.forwarder.failed(outside.asks[0].port, outside.now_ns))

    assert [ask.server for ask in outside.asks] == [SECOND_SERVER]
    assert rcode(outside.server_answers(www)) == NOERROR


@pytest.mark.parametrize("failure", [SERVFAIL, REFUSED])
def test_other_server_is_asked_if_one_fails(failure: int) -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.server_answers(lambda asked: answer(asked, rcode=failure))

    assert outside.asks[-1].server == SECOND_SERVER
    assert rcode(outside.server_answers(www)) == NOERROR


def test_failure_of_all_servers_is_passed_on() -> None:
    outside = Outside()
    outside.program_asks(query())
    while outside.asks:
        outside.server_answers(lambda asked: answer(asked, rcode=REFUSED))
    assert rcode(outside.replies[0].data) == REFUSED


def test_negative_answer_is_kept_with_its_soa() -> None:
    outside = Outside()
    outside.program_asks(query("no.a.org."))
    negative = (soa("a.org.", 300, 60),)
    outside.server_answers(lambda asked: answer(asked, authority=negative, rcode=NXDOMAIN))
    outside.later(10)
    reply = outside.program_asks(query("no.a.org."))

    assert rcode(reply) == NXDOMAIN and reply is not None
    assert dns.message.from_wire(reply).authority[0].ttl == 290
    outside.later(50)
    assert outside.program_asks(query("no.a.org.")) is None


def test_answer_of_no_ttl_is_asked_for_again_and_its_address_holds_for_a_minute() -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.server_answers(lambda asked: answer(asked, "www.a.org. 0 IN A 192.0.2.1"))

    assert outside.program_asks(query()) is None
    names_of = outside.forwarder.given.names_of
    assert names_of(ADDRESS, outside.now_ns + 59 * 10**9) == ("www.a.org",)
    assert names_of(ADDRESS, outside.now_ns + 60 * 10**9) == ()


def test_other_names_in_an_answer_are_worth_nothing() -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.server_answers(lambda asked: answer(asked, RECORD, "bank.org. 60 IN A 192.0.2.66"))

    other = ADDRESS[:-1] + bytes([66])
    assert outside.forwarder.given.names_of(other, outside.now_ns) == ()
    assert outside.program_asks(query("bank.org.")) is None


def test_questions_outside_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 3)
    outside = Outside()
    replies = [outside.program_asks(query(f"n{n}.org."), n) for n in range(5)]

    assert replies[:3] == [None] * 3
    assert [rcode(reply) for reply in replies[3:]] == [SERVFAIL] * 2


def test_without_nameservers_it_fails() -> None:
    outside = Outside()
    outside.forwarder.configure(Settings(()))
    assert rcode(outside.program_asks(query())) == SERVFAIL


def test_other_nameservers_are_not_bound_by_what_those_before_have_said() -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.server_answers(www)
    outside.forwarder.configure(Settings((SECOND_SERVER,)))

    assert outside.program_asks(query()) is None
    assert outside.asks[0].server == SECOND_SERVER


def test_nameservers_may_go_while_one_is_asked() -> None:
    outside = Outside()
    outside.program_asks(query())
    outside.forwarder.configure(Settings(()))
    outside.later(1)

    assert rcode(outside.replies[0].data) == SERVFAIL
    assert outside.asks == []


def test_what_is_no_query_is_not_answered() -> None:
    outside = Outside()
    assert outside.program_asks(b"x" * 5) is None
    assert outside.forwarder.counters.malformed == 1


def test_step_of_the_clock_asks_few_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = Outside()
    for n in range(40):
        outside.program_asks(query(f"n{n}.org."), n)
    now_ns = outside.now_ns + TRIES_NS[0]
    made = outside.forwarder.tick(now_ns)

    assert len([effect for effect in made if isinstance(effect, Ask)]) == module.TICK
    deadline_ns = outside.forwarder.deadline_ns
    assert deadline_ns is not None and deadline_ns <= now_ns
