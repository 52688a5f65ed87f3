"""TIME_WAIT, and FIN_WAIT2 of what nobody holds. RFC 9293, 3.6.1; 6191; 1337."""

from __future__ import annotations

from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT2 as TCP_FIN_WAIT2,
)
from sentry.abi.socket import (
    BPF_TCP_TIME_WAIT as TCP_TIME_WAIT,
)
from sentry.net.tcp.segment import ACK, FIN, RST, SYN, Arrived, parse
from sentry.net.tcp.time_wait import Remains, TimeWait, Verdict
from tests.unit.net.tcp.hand import Hand
from tests.unit.net.tcp.pair import SECOND


class Left:
    """What one connection has left."""

    def __init__(self, state: int = TCP_TIME_WAIT, stamps: bool = False, **settings: object):
        self.hand = Hand(stamps=stamps, **settings)
        self.hand.one.stamps_on = stamps
        self.now = self.hand.now
        self.table = TimeWait(self.hand.shared)
        self.hand.one.remains = (state, 60)
        self.table.add(self.now, self.hand.one)
        self.remains: Remains | None = self.table.get(self.hand.flow)

    def comes(
        self, flags: int, seq: int = 0, data: bytes = b"", value: int | None = None
    ) -> Verdict:
        """A segment `seq` numbers behind what is expected."""
        left = self.remains
        assert left is not None
        seg = Arrived(80, 4000, (left.rcv_nxt + seq) & 0xFFFFFFFF, left.snd_nxt & 0xFFFFFFFF,
                      flags, 1000, 0, memoryview(data))  # fmt: skip
        if value is not None:
            seg.stamps = (value & 0xFFFFFFFF, 0)
        return self.table.segment(self.now, left, seg)


def flags_of(verdict: Verdict) -> int:
    assert verdict.reply is not None
    seg = parse(verdict.reply.header)
    assert seg is not None
    return seg.flags


def test_it_is_over_after_a_minute() -> None:
    left = Left()
    assert left.table.timer() == left.now + 60 * SECOND

    left.table.timeout(left.now + 60 * SECOND)

    assert len(left.table) == 0 and left.table.timer() is None


def test_fin_that_comes_again_is_acknowledged_and_begins_it_anew() -> None:
    left = Left()
    left.now += 30 * SECOND

    verdict = left.comes(FIN | ACK, seq=-1)

    assert flags_of(verdict) == ACK and verdict.iss is None
    assert left.table.timer() == left.now + 60 * SECOND


def test_answers_are_few() -> None:
    left = Left()
    answers = [left.comes(FIN | ACK, seq=-1).reply for _ in range(10)]

    assert sum(one is not None for one in answers) == 1


def test_new_syn_begins_a_new_connection_beyond_the_old_one() -> None:
    left = Left()
    verdict = left.comes(SYN, seq=10)

    assert left.remains is not None
    assert verdict.iss == (left.remains.snd_nxt + 65537) & 0xFFFFFFFF


def test_old_syn_does_not() -> None:
    left = Left()

    assert left.comes(SYN, seq=-10).iss is None


def test_syn_with_a_newer_timestamp_begins_a_new_connection() -> None:
    left = Left(stamps=True)
    assert left.remains is not None

    assert left.comes(SYN, seq=-10, value=left.remains.ts_recent + 1).iss is not None
    assert left.comes(SYN, seq=10, value=left.remains.ts_recent - 1).iss is None


def test_reset_ends_it_unless_rfc_1337_is_kept_to() -> None:
    left = Left()
    left.comes(RST, seq=5)
    assert len(left.table) == 1
    left.comes(RST)
    assert len(left.table) == 0

    careful = Left(tcp_rfc1337=1)
    careful.comes(RST)
    assert len(careful.table) == 1


def test_damaged_segment_is_no_matter() -> None:
    left = Left()
    assert left.remains is not None
    seg = Arrived(80, 4000, 0, 0, SYN, 0, 0, memoryview(b""), checksum_ok=False)

    assert left.table.segment(left.now, left.remains, seg) == Verdict()


def test_fin_wait_2_becomes_time_wait() -> None:
    left = Left(TCP_FIN_WAIT2)
    left.now += 50 * SECOND
    assert left.comes(ACK) == Verdict()

    assert flags_of(left.comes(FIN | ACK)) == ACK
    assert left.remains is not None and left.remains.state == TCP_TIME_WAIT
    assert left.table.timer() == left.now + 60 * SECOND


def test_data_for_fin_wait_2_is_reset() -> None:
    left = Left(TCP_FIN_WAIT2)

    assert flags_of(left.comes(ACK, data=b"x")) & RST
    assert len(left.table) == 0


def test_fin_wait_2_is_ended_by_a_reset_in_its_window() -> None:
    left = Left(TCP_FIN_WAIT2)
    left.comes(RST, seq=1 << 30)
    assert len(left.table) == 1
    left.comes(RST)

    assert len(left.table) == 0


def test_what_is_outside_of_the_window_of_fin_wait_2_hears_where_it_is() -> None:
    assert flags_of(Left(TCP_FIN_WAIT2).comes(ACK, seq=1 << 30, data=b"x")) == ACK


def test_there_are_no_more_than_the_ceiling() -> None:
    left = Left(tcp_max_tw_buckets=1)
    other = Hand()
    other.one.flow = other.flow._replace(local=other.flow.local._replace(port=9))
    other.one.remains = (TCP_TIME_WAIT, 60)
    left.table.add(left.now, other.one)

    assert len(left.table) == 1
    assert left.hand.counters["TcpExt.TCPTimeWaitOverflow"] == 1


def test_connect_may_begin_anew_where_timestamps_tell_the_difference() -> None:
    flow = Left().hand.flow
    later = 2 * SECOND
    for stamps, reuse, loopback, expected in (
        (True, 1, False, True), (True, 2, False, False), (True, 2, True, True),
        (True, 0, True, False), (False, 1, True, False),
    ):  # fmt: skip
        left = Left(stamps=stamps, tcp_tw_reuse=reuse)
        assert not left.table.may_reuse(left.now, flow, is_loopback=loopback)
        assert left.table.may_reuse(left.now + later, flow, is_loopback=loopback) is expected

    assert TimeWait(left.hand.shared).may_reuse(0, flow, is_loopback=False)
