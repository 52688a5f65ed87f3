"""Listening: SYN queue, backlog, cookies. listen(2), tcp(7); RFC 4987."""

from __future__ import annotations

import pytest

from sentry.abi.socket import (
    BPF_TCP_ESTABLISHED as TCP_ESTABLISHED,
)
from sentry.net.inet.address import Endpoint
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.listener import Listener
from sentry.net.tcp.segment import ACK, ECE, FIN, RST, SYN, Arrived, parse
from sentry.net.tcp.settings import TUNED, Tuning
from tests.unit.net.tcp.pair import LEFT, MTU, RIGHT, SECOND, shared

IRS = 5000


class Hosts:
    """A listener, and those who come to it: each by its port."""

    def __init__(self, backlog: int = 4, tuning: Tuning | None = None, **settings: object) -> None:
        self.now = 1000 * SECOND
        self.shared = shared(b"s" * 16, **settings)
        self.told = 0
        self.listener = Listener(self.shared, backlog, tuning, self._told)
        self.made: Connection | None = None

    def _told(self) -> None:
        self.told += 1

    def comes(
        self, flags: int, port: int = 1, seq: int = IRS, ack: int = 0, **more: object
    ) -> list[Arrived]:
        seg = Arrived(port, RIGHT.port, seq, ack, flags, 8000, 0, memoryview(b""))
        for name, what in more.items():
            setattr(seg, name, what)
        flow = Flow(RIGHT, Endpoint(LEFT.ip, port))
        self.made = self.listener.segment(self.now, flow, seg, MTU)
        return self.sent()

    def sent(self) -> list[Arrived]:
        found = [parse(made.header) for _, made in self.listener.take()]
        return [one for one in found if one is not None]

    def connects(self, port: int = 1, **more: object) -> Connection | None:
        answers = self.comes(SYN, port, **more)
        if answers:
            self.comes(ACK, port, IRS + 1, answers[0].seq + 1)
        return self.made if answers else None

    def wait(self, seconds: float) -> list[Arrived]:
        until = self.now + int(seconds * SECOND)
        found = []
        while (at := self.listener.timer()) is not None and at <= until:
            self.now = at
            self.listener.timeout(at)
            found += self.sent()
        self.now = until
        return found


def test_syn_is_answered_and_the_third_segment_completes_it() -> None:
    hosts = Hosts()
    (answer,) = hosts.comes(SYN, mss=1400, window_scale=3, sack_permitted=True, stamps=(9, 0))
    assert (answer.flags, answer.ack, answer.mss) == (SYN | ACK, IRS + 1, 1460)
    assert (answer.window_scale, answer.sack_permitted) == (7, True)
    assert answer.stamps is not None and answer.stamps[1] == 9
    assert hosts.listener.accept() is None

    hosts.comes(ACK, seq=IRS + 1, ack=answer.seq + 1, stamps=(10, answer.stamps[0]))

    assert hosts.told == 1
    made = hosts.listener.accept()
    assert made is not None and made is hosts.made and made.state == TCP_ESTABLISHED
    assert (made.mss, made.snd_scale, made.sack_on, made.stamps_on) == (1388, 3, True, True)


def test_options_that_are_not_asked_for_are_not_told() -> None:
    (answer,) = Hosts().comes(SYN)

    assert (answer.window_scale, answer.sack_permitted, answer.stamps) == (None, False, None)


def test_data_with_the_third_segment_is_there() -> None:
    hosts = Hosts()
    (answer,) = hosts.comes(SYN)
    hosts.comes(ACK, seq=IRS + 1, ack=answer.seq + 1, payload=memoryview(b"hello"))

    assert hosts.made is not None
    assert b"".join(hosts.made.receive(hosts.now, 10)) == b"hello"


def test_accepted_connection_has_the_options_of_its_listener() -> None:
    tuning = Tuning(congestion="reno", **{
        name: number for number, name in enumerate(TUNED, 7) if name != "congestion"
    })  # fmt: skip
    hosts = Hosts(tuning=tuning)
    made = hosts.connects()

    assert made is not None and made.tuning is not tuning
    assert all(getattr(made.tuning, name) == getattr(tuning, name) for name in TUNED)
    assert made.timer() is not None


def test_ecn_is_agreed_on_when_it_is_asked_for() -> None:
    (answer,) = Hosts().comes(SYN | ECE | 0x80)
    assert answer.flags & ECE

    (answer,) = Hosts(tcp_ecn=0).comes(SYN | ECE | 0x80)
    assert not answer.flags & ECE


@pytest.mark.parametrize("flags", [ACK, SYN | ACK, FIN | ACK])
def test_acknowledgement_of_nothing_is_reset(flags: int) -> None:
    (reset,) = Hosts().comes(flags, ack=77)

    assert (reset.flags, reset.seq) == (RST, 77)


@pytest.mark.parametrize("flags", [0, FIN, RST, SYN | FIN, SYN | RST])
def test_other_segments_have_no_answer(flags: int) -> None:
    assert Hosts().comes(flags) == []


def test_damaged_syn_has_no_answer() -> None:
    assert Hosts().comes(SYN, checksum_ok=False) == []


def test_third_segment_with_another_number_is_reset() -> None:
    hosts = Hosts()
    (answer,) = hosts.comes(SYN)

    (reset,) = hosts.comes(ACK, seq=IRS + 1, ack=answer.seq + 2)

    assert reset.flags == RST and hosts.made is None and len(hosts.listener.requests) == 1


def test_syn_that_comes_again_is_answered_again() -> None:
    hosts = Hosts()
    first, second = hosts.comes(SYN), hosts.comes(SYN)

    assert first[0].seq == second[0].seq


def test_reset_forgets_the_request() -> None:
    hosts = Hosts()
    hosts.comes(SYN)
    hosts.comes(RST, seq=IRS + 1)

    assert not hosts.listener.requests and hosts.listener.timer() is None


def test_reset_elsewhere_does_not() -> None:
    hosts = Hosts()
    hosts.comes(SYN)
    hosts.comes(RST, seq=IRS + 100)

    assert len(hosts.listener.requests) == 1


def test_answer_is_sent_again_and_given_up() -> None:
    hosts = Hosts(tcp_synack_retries=2)
    hosts.comes(SYN)

    assert [len(hosts.wait(1.1)), len(hosts.wait(2)), len(hosts.wait(60))] == [1, 1, 0]
    assert not hosts.listener.requests and hosts.listener.timer() is None


def test_full_backlog_drops_syns_and_lets_one_more_in_than_it_says() -> None:
    hosts = Hosts(backlog=2)
    made = [hosts.connects(port) for port in range(1, 6)]

    assert [one is not None for one in made] == [True, True, True, False, False]
    assert hosts.listener.is_full
    assert hosts.shared.counters["TcpExt.ListenOverflows"] == 2


def test_third_segment_for_a_full_backlog_waits_for_room() -> None:
    hosts = Hosts(backlog=2)
    (answer,) = hosts.comes(SYN, 1)
    for port in (3, 4, 5):
        hosts.connects(port)
    assert hosts.listener.is_full

    hosts.comes(ACK, 1, IRS + 1, answer.seq + 1)
    assert hosts.made is None
    hosts.listener.accept()
    assert [one.flags for one in hosts.wait(1.2)] == [SYN | ACK]

    hosts.comes(ACK, 1, IRS + 1, answer.seq + 1)
    assert hosts.made is not None


def test_abort_on_overflow_resets() -> None:
    hosts = Hosts(backlog=0, tcp_abort_on_overflow=1)
    (answer,) = hosts.comes(SYN, 1)
    hosts.listener.accepted.append(object())  # type: ignore[arg-type]

    (reset,) = hosts.comes(ACK, 1, IRS + 1, answer.seq + 1)

    assert reset.flags == RST


def test_full_syn_queue_gives_cookies() -> None:
    hosts = Hosts(backlog=2)
    for port in (1, 2):
        hosts.comes(SYN, port)
    (answer,) = hosts.comes(SYN, 3, mss=1460, window_scale=5, sack_permitted=True, stamps=(9, 0))
    assert len(hosts.listener.requests) == 2 and answer.stamps is not None

    hosts.comes(ACK, 3, IRS + 1, answer.seq + 1, stamps=(10, answer.stamps[0]))

    assert hosts.made is not None
    assert (hosts.made.snd_scale, hosts.made.sack_on, hosts.made.stamps_on) == (5, True, True)
    assert hosts.made.rtt.smoothed_ns == 0


def test_cookie_without_timestamps_agrees_on_nothing_but_the_mss() -> None:
    hosts = Hosts(tcp_syncookies=2)
    (answer,) = hosts.comes(SYN, mss=1460, window_scale=5, sack_permitted=True)
    assert (answer.window_scale, answer.sack_permitted) == (None, False)

    hosts.comes(ACK, seq=IRS + 1, ack=answer.seq + 1)

    assert hosts.made is not None and not hosts.made.scale_on and not hosts.made.sack_on
    assert hosts.made.peer_mss == 1460


def test_cookies_are_believed_only_after_some_were_given() -> None:
    hosts = Hosts(tcp_syncookies=2)
    (answer,) = hosts.comes(SYN)
    other = Hosts(tcp_syncookies=2)

    assert other.comes(ACK, seq=IRS + 1, ack=answer.seq + 1)[0].flags == RST
    hosts.now += 300 * SECOND
    assert hosts.comes(ACK, seq=IRS + 1, ack=answer.seq + 1)[0].flags == RST


def test_without_cookies_a_full_syn_queue_drops() -> None:
    hosts = Hosts(backlog=2, tcp_syncookies=0)
    for port in (1, 2):
        hosts.comes(SYN, port)

    assert hosts.comes(SYN, 3) == []


def test_flood_of_syns_leaves_little() -> None:
    hosts = Hosts(backlog=100)
    for port in range(20_000):
        hosts.comes(SYN, port)

    assert len(hosts.listener.requests) == 100
    assert len(hosts.listener._wheel._where) == 100


def test_deferred_accept_waits_for_data() -> None:
    hosts = Hosts()
    hosts.listener.defer_seconds = 10
    (answer,) = hosts.comes(SYN)
    hosts.comes(ACK, seq=IRS + 1, ack=answer.seq + 1)
    assert hosts.made is None and hosts.wait(4) == []

    hosts.comes(ACK, seq=IRS + 1, ack=answer.seq + 1, payload=memoryview(b"data"))

    assert hosts.made is not None


def test_backlog_has_the_ceiling_of_somaxconn() -> None:
    assert Hosts(backlog=-1, somaxconn=7).listener.backlog == 7


def test_close_gives_back_who_was_not_accepted() -> None:
    hosts = Hosts()
    made = hosts.connects()
    hosts.comes(SYN, 9)

    assert hosts.listener.close() == [made]
    assert not hosts.listener.requests and hosts.listener.timer() is None


def test_handshake_that_has_moved_on_tells_where_it_is() -> None:
    hosts = Hosts()
    (answer,) = hosts.comes(SYN)

    (where,) = hosts.comes(ACK, seq=IRS + 1_000_000, ack=answer.seq + 1)

    assert (where.flags, where.seq, where.ack) == (ACK, answer.seq + 1, IRS + 1)
