"""The scoreboard's sums against its records, and its order by time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.tcp.scoreboard import MAX_RECORDS, Scoreboard, Sent

MSS = 10
SHARE = st.floats(0, 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 65)),
        st.tuples(st.just("sack"), SHARE, SHARE),
        st.tuples(st.just("ack"), SHARE),
        st.tuples(st.just("lose"), st.integers(1, 3)),
        st.tuples(st.just("again"), st.just(0)),
        st.tuples(st.just("timeout"), st.just(0)),
        st.tuples(st.just("renege"), st.just(0)),
        st.tuples(st.just("find"), st.just(0)),
    ),
    max_size=40,
)


def check(board: Scoreboard) -> None:
    records = board.records
    assert board.starts == [record.start for record in records]
    assert all(a.end == b.start for a, b in pairwise(records))

    def sums(which: str) -> tuple[int, int]:
        chosen = [one for one in records if which == "all" or getattr(one, which)]
        return sum(one.end - one.start for one in chosen), sum(one.count for one in chosen)

    assert (board.out_bytes, board.out_count) == sums("all")
    assert (board.sacked_bytes, board.sacked_count) == sums("sacked")
    assert (board.lost_bytes, board.lost_count) == sums("lost")
    assert (board.retrans_bytes, board.retrans_count) == sums("in_flight_again")
    assert board.sacked.total == board.sacked_bytes
    times = []
    place = board.oldest()
    while place is not None:
        assert not place.sacked and (place.in_flight_again or not place.lost)
        times.append(place.sent_ns)
        place = place.later
    assert times == sorted(times)
    waiting = [one for one in records if not one.sacked and (one.in_flight_again or not one.lost)]
    assert len(times) == len(waiting)
    lost = [one for one in records if one.lost and not one.in_flight_again and not one.sacked]
    assert board.next_lost() is (min(lost, key=lambda one: one.start) if lost else None)


@given(STEPS)
def test_sums_and_orders_are_those_of_the_records(steps: list) -> None:  # type: ignore[type-arg]
    board, end = Scoreboard(), 0
    for now, (kind, *what) in enumerate(steps, 1):
        start = board.records[0].start if board.records else end
        if kind == "send":
            board.sent(Sent(end, end + what[0], now, -(-what[0] // MSS)))
            end += what[0]
        elif kind == "sack" and end > start:
            low = start + int(what[0] * (end - start))
            high = low + int(what[1] * (end - low))
            if high > low:
                for record in board.sack(low, high, MSS):
                    assert low <= record.start and record.end <= high
        elif kind == "ack":
            board.acknowledge(start + int(what[0] * (end - start)), MSS)
        elif kind == "lose":
            for _ in range(what[0]):
                if (oldest := board.oldest()) is not None:
                    board.mark_lost(oldest)
        elif kind == "again" and (lost := board.next_lost()) is not None:
            board.sent_again(lost, now)
        elif kind == "timeout":
            board.lose_all()
        elif kind == "renege":
            board.forget_sacks()
            # what was sacked is the newest by time again, whenever it was sent
            for record in board.records:
                record.sent_ns = now if record.waits else record.sent_ns
        elif kind == "find":
            board.find_all()
            for record in board.records:
                record.sent_ns = now if record.waits else record.sent_ns
        check(board)


def test_sack_of_a_part_counts_whole_packets() -> None:
    board = Scoreboard()
    board.sent(Sent(0, 100, 1, 10))

    found = board.sack(13, 57, MSS)

    assert [(one.start, one.end) for one in found] == [(20, 50)]
    assert board.sacked_count == 3


def test_block_that_says_nothing_new_finds_nothing() -> None:
    board = Scoreboard()
    for at in range(0, 1000, 10):
        board.sent(Sent(at, at + 10, at, 1))
    board.sack(500, 1000, MSS)

    assert board.sack(500, 1000, MSS) == []
    assert board.sacked.gaps(500, 1000) == []


def test_full_board_is_not_cut() -> None:
    board = Scoreboard()
    for at in range(MAX_RECORDS):
        board.sent(Sent(at * 100, at * 100 + 100, at, 10))

    assert board.is_full
    assert board.sack(20, 50, MSS) == []
    assert len(board.records) == MAX_RECORDS


def test_board_that_is_not_needed_any_more_is_no_cycle() -> None:
    board = Scoreboard()
    for at in range(5):
        board.sent(Sent(at, at + 1, at, 1))
    board.unlink()

    assert not any(record.earlier or record.later for record in board.records)


def test_what_has_arrived_refers_to_nothing() -> None:
    board = Scoreboard()
    for at in range(5):
        board.sent(Sent(at, at + 1, at, 1))
    board.sack(1, 2, 1)

    assert not any(record.earlier or record.later for record in board.acknowledge(4, 1))
    assert board.oldest() is board.records[0]
