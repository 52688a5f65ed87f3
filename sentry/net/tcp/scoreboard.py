"""What is on its way: a record for each segment that was sent, and what SACK says of it.

Records cost what changes: a block of SACK that says nothing new is found by bisection and walked
over never, and one that does say something costs its new records once. RFC 2018, 6675, 8985.
"""

from __future__ import annotations

from _heapq import heappop, heappush
from bisect import bisect_left, bisect_right
from typing import Final

from sentry.net.tcp.intervals import Intervals

MAX_RECORDS: Final = 1024
"""No more are on their way, and none is cut when there are so many."""


class Sent:
    """A range of the stream that was sent in one segment."""

    __slots__ = (
        "count", "delivered", "delivered_ns", "earlier", "end", "in_flight_again", "later", "lost",
        "sacked", "sent_ns", "start", "transmissions", "waits",
    )  # fmt: skip

    def __init__(self, start: int, end: int, now_ns: int, count: int) -> None:
        self.start = start
        self.end = end
        self.count = count
        """How many packets of one MSS."""
        self.sent_ns = now_ns
        self.transmissions = 1
        self.sacked = False
        self.lost = False
        """By RACK or by time-out; it stays so when it was sent again."""
        self.in_flight_again = False
        """It was lost, was sent again, and is not lost again."""
        self.delivered = 0
        self.delivered_ns = 0
        """What was delivered when it was sent, and when the last of that was."""
        self.earlier: Sent | None = None
        self.later: Sent | None = None
        """Its neighbours in the list by time."""
        self.waits = False
        """It is in that list: it may be on its way."""

    def __lt__(self, other: Sent) -> bool:
        return self.start < other.start


class Scoreboard:
    """Records in order of the stream, and those that may still be on their way by time."""

    __slots__ = (
        "_first", "_last", "_lost", "highest_sacked", "lost_bytes", "lost_count", "out_bytes",
        "out_count", "records", "retrans_bytes", "retrans_count", "sacked", "sacked_bytes",
        "sacked_count", "starts",
    )  # fmt: skip

    def __init__(self) -> None:
        self.records: list[Sent] = []
        self.starts: list[int] = []
        self._first: Sent | None = None
        self._last: Sent | None = None
        """Of a list of those neither sacked nor lost, in the order in which they were sent."""
        self._lost: list[Sent] = []
        """A heap of those to be sent again; some of them may be no more."""
        self.sacked = Intervals()
        self.highest_sacked = 0
        self.out_bytes = self.out_count = 0
        self.sacked_bytes = self.sacked_count = 0
        self.lost_bytes = self.lost_count = 0
        self.retrans_bytes = self.retrans_count = 0

    @property
    def in_flight(self) -> int:
        """Bytes that should be in the network: `pipe` of RFC 6675."""
        return self.out_bytes - self.sacked_bytes - self.lost_bytes + self.retrans_bytes

    @property
    def is_full(self) -> bool:
        """No more may be sent before something is acknowledged."""
        return len(self.records) >= MAX_RECORDS

    def sent(self, record: Sent) -> None:
        """New data."""
        self.records.append(record)
        self.starts.append(record.start)
        self._put_last(record)
        self.out_bytes += record.end - record.start
        self.out_count += record.count

    def sent_again(self, record: Sent, now_ns: int) -> None:
        """A record went out once more."""
        if record.in_flight_again:
            self._land(record)
        record.sent_ns = now_ns
        record.transmissions += 1
        record.in_flight_again = True
        self.retrans_bytes += record.end - record.start
        self.retrans_count += record.count
        self._take_out(record)
        self._put_last(record)

    def _put_last(self, record: Sent) -> None:
        """Into the list by time: it was sent just now."""
        record.waits = True
        record.earlier, record.later = self._last, None
        if self._last is None:
            self._first = record
        else:
            self._last.later = record
        self._last = record

    def _put_behind(self, place: Sent, record: Sent) -> None:
        """Beside another one, which was sent at the same time."""
        record.waits = True
        record.earlier, record.later = place, place.later
        if place.later is None:
            self._last = record
        else:
            place.later.earlier = record
        place.later = record

    def _take_out(self, record: Sent) -> None:
        """Of the list by time, if it is in it."""
        if not record.waits:
            return
        earlier, later = record.earlier, record.later
        if earlier is None:
            self._first = later
        else:
            earlier.later = later
        if later is None:
            self._last = earlier
        else:
            later.earlier = earlier
        record.earlier = record.later = None
        record.waits = False

    def _land(self, record: Sent) -> None:
        record.in_flight_again = False
        self.retrans_bytes -= record.end - record.start
        self.retrans_count -= record.count

    def _find(self, record: Sent) -> None:
        """It is not lost."""
        record.lost = False
        self.lost_bytes -= record.end - record.start
        self.lost_count -= record.count

    def _leave(self, record: Sent) -> None:
        """It is not on its way any more."""
        self._take_out(record)
        if record.in_flight_again:
            self._land(record)
        if record.lost:
            self._find(record)

    def mark_lost(self, record: Sent) -> None:
        """It is lost, or what was sent again of it is."""
        if record.lost and not record.in_flight_again:
            return
        self._take_out(record)
        if record.in_flight_again:
            self._land(record)
        if not record.lost:
            record.lost = True
            self.lost_bytes += record.end - record.start
            self.lost_count += record.count
        heappush(self._lost, record)

    def next_lost(self) -> Sent | None:
        """The first that is lost and not under way again."""
        heap = self._lost
        while heap:
            record = heap[0]
            if record.lost and not record.in_flight_again and not record.sacked:
                return record
            heappop(heap)
        return None

    def oldest(self) -> Sent | None:
        """Of those that may be on their way the one sent longest ago."""
        return self._first

    def cut(self, record: Sent, at: int, mss: int) -> Sent:
        """Make two of one; the second."""
        second = Sent(at, record.end, record.sent_ns, 0)
        first_count = min(record.count, max(1, -(-(at - record.start) // mss)))
        second.count = max(1, record.count - first_count)
        extra = first_count + second.count - record.count
        second.transmissions = record.transmissions
        second.delivered, second.delivered_ns = record.delivered, record.delivered_ns
        second.lost, second.in_flight_again = record.lost, record.in_flight_again
        second.sacked = record.sacked
        record.end, record.count = at, first_count
        index = bisect_right(self.starts, record.start)
        self.records.insert(index, second)
        self.starts.insert(index, at)
        self.out_count += extra
        self.sacked_count += extra * record.sacked
        self.lost_count += extra * record.lost
        self.retrans_count += extra * record.in_flight_again
        if record.waits:
            self._put_behind(record, second)
        if record.lost:
            heappush(self._lost, second)
        return second

    def acknowledge(self, up_to: int, mss: int) -> list[Sent]:
        """Take away what is acknowledged in whole; a part of a record is cut off first."""
        index = bisect_left(self.starts, up_to)
        if index and self.records[index - 1].end > up_to:
            self.cut(self.records[index - 1], up_to, mss)
        gone = self.records[:index]
        del self.records[:index], self.starts[:index]
        for record in gone:
            size = record.end - record.start
            self.out_bytes -= size
            self.out_count -= record.count
            if record.sacked:
                self.sacked_bytes -= size
                self.sacked_count -= record.count
            else:
                self._leave(record)
        self.sacked.forget_below(up_to)
        if not self.records:
            self._lost.clear()
        return gone

    def sack(self, start: int, end: int, mss: int) -> list[Sent]:
        """A block of SACK: the records that are new in it. Those in it in part are cut.

        Preconditions: start and end lie between SND.UNA and SND.NXT.
        """
        found = []
        for low, high in self.sacked.gaps(start, end):
            index = bisect_right(self.starts, low) - 1
            index = max(index, 0)
            while index < len(self.records) and self.records[index].start < high:
                record = self.records[index]
                index += 1
                if record.sacked or not self._fit(record, low, high, mss):
                    continue
                if record.start < low:
                    record = self.records[index]
                    index += 1
                found.append(record)
        for record in found:
            self._sacked(record)
        return found

    def _fit(self, record: Sent, low: int, high: int, mss: int) -> bool:
        """Cut a record so that the part inside is a record. Cuts are where packets end.

        After a cut at `low` the part inside is the record that follows.
        """
        start, end = record.start, record.end
        first = start + max(0, -(-(low - start) // mss)) * mss
        last = end if high >= end else start + (high - start) // mss * mss
        if first >= last or ((first > start or last < end) and self.is_full):
            return False
        if last < end:
            self.cut(record, last, mss)
        if first > start:
            self.cut(record, first, mss)
        return True

    def _sacked(self, record: Sent) -> None:
        self._leave(record)
        record.sacked = True
        self.sacked_bytes += record.end - record.start
        self.sacked_count += record.count
        self.sacked.add(record.start, record.end)
        self.highest_sacked = max(self.highest_sacked, record.end)

    def forget_sacks(self) -> None:
        """The receiver has reneged: what it said it has, it has not. RFC 2018, 8."""
        for record in self.records:
            if record.sacked:
                record.sacked = False
                self._put_last(record)
        self.sacked.clear()
        self.sacked_bytes = self.sacked_count = 0
        self.highest_sacked = 0

    def lose_all(self) -> None:
        """A time-out: nothing that was not sacked is on its way."""
        for record in self.records:
            self._take_out(record)
            if record.in_flight_again:
                self._land(record)
            if not (record.sacked or record.lost):
                record.lost = True
                self.lost_bytes += record.end - record.start
                self.lost_count += record.count
        self._lost = [record for record in self.records if record.lost]

    def unlink(self) -> None:
        """It is not needed any more: nothing of it refers to itself."""
        for record in self.records:
            record.earlier = record.later = None

    def find_all(self) -> None:
        """What was taken for lost was only late; what was sent again of it counts no more."""
        for record in self.records:
            if record.in_flight_again:
                self._land(record)
            if record.lost:
                self._find(record)
                self._take_out(record)
                self._put_last(record)
        self._lost.clear()
