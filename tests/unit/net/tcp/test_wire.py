"""Two engines over a wire that loses, holds, doubles, swaps and damages: a state machine.

Whatever happens, what is read is what was written, in order; and once the wire is whole again both
ends finish, and nothing is left that waits.
"""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sentry.abi.socket import SHUT_WR
from sentry.errors import ECONNRESET
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.segment import CE, Arrived
from sentry.net.tcp.settings import Tuning
from tests.unit.net.tcp.pair import MS, SECOND, Pair, shared

SWITCH = st.sampled_from([1, 1, 1, 0])
SETTINGS = st.fixed_dictionaries({
    "tcp_sack": SWITCH, "tcp_timestamps": SWITCH, "tcp_window_scaling": SWITCH,
    "tcp_dsack": SWITCH, "tcp_ecn": st.sampled_from([2, 2, 1, 0]),
    "tcp_congestion_control": st.sampled_from(["cubic", "reno"]),
    "tcp_early_retrans": st.sampled_from([3, 3, 0]),
    "tcp_rmem": st.sampled_from([
        (4096, 131072, 6291456), (4096, 131072, 6291456), (4096, 16384, 65536), (4096, 3000, 3000),
    ]),
    "tcp_syncookies": st.sampled_from([1, 2]),
})  # fmt: skip
TUNINGS = st.builds(
    Tuning, nodelay=st.booleans(), cork=st.sampled_from([False, False, True]),
    keepalive=st.booleans(), maxseg=st.sampled_from([0, 0, 536, 100]),
    sndbuf=st.sampled_from([0, 0, 5000]),
)  # fmt: skip
SIZES = st.integers(1, 50) | st.sampled_from([536, 1448, 1460, 10_000, 100_000])
SIDE = st.sampled_from([0, 1])
REPAIRS_S = 4000
"""Virtual seconds: longer than any timer."""


class End:
    """What one program has written and read."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.written = bytearray()
        self.read = bytearray()
        self.shut = False


class Wire(RuleBasedStateMachine):
    """The programs at both ends, and what happens between them."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.ends = End(1), End(2)
        self.chance = random.Random(0)
        self.loss = self.swap = self.double = self.damage = self.mark = 0.0
        self.was_bad = self.has_cookies = False

    @initialize(left=SETTINGS, right=SETTINGS, tunings=st.tuples(TUNINGS, TUNINGS),
                cut=st.booleans(), seed=st.integers(0, 1 << 30),
                is_early=st.sampled_from([False, False, True]))  # fmt: skip
    def begin(
        self,
        left: dict[str, object],
        right: dict[str, object],
        tunings: tuple[Tuning, Tuning],
        cut: bool,
        seed: int,
        is_early: bool,
    ) -> None:
        self.chance = random.Random(seed)
        self.has_cookies = right["tcp_syncookies"] == 2
        self.pair = Pair(shared(b"L" * 16, **left), shared(b"R" * 16, **right), tunings, cut=cut)
        self.pair.filters = [self.carry, self.carry]
        connecting = self.pair.sides[0].endpoints.connect(self.pair.now, self.pair.left)
        self.pair.put(0, [one for _, one in connecting])
        if not is_early:
            self.pair.run(0.1)

    def carry(self, delay_ns: int, seg: Arrived) -> list[tuple[int, Arrived]]:
        chance = self.chance
        if chance.random() < self.loss:
            return []
        if chance.random() < self.damage:
            seg.checksum_ok = False
        if seg.ecn and chance.random() < self.mark:
            seg.ecn = CE
        if chance.random() < self.swap:
            delay_ns += chance.randrange(30 * MS)
        found = [(delay_ns, seg)]
        if chance.random() < self.double:
            found.append((delay_ns + chance.randrange(20 * MS), seg))
        return found

    def connection(self, side: int) -> Connection | None:
        return (self.pair.left, self.pair.right)[side]

    # --- the wire

    @rule(loss=st.sampled_from([0.0, 0.0, 0.02, 0.1, 0.3]), swap=st.sampled_from([0.0, 0.1]),
          double=st.sampled_from([0.0, 0.05]), damage=st.sampled_from([0.0, 0.03]),
          mark=st.sampled_from([0.0, 0.2]))  # fmt: skip
    def weather(self, loss: float, swap: float, double: float, damage: float, mark: float) -> None:
        self.loss, self.swap, self.double, self.damage, self.mark = loss, swap, double, damage, mark
        self.was_bad |= bool(loss or swap or damage)

    @rule(ms=st.sampled_from([0, 1, 5, 40, 200, 1000]))
    def time_passes(self, ms: int) -> None:
        self.pair.run(ms / 1000, steps=200_000)
        self.check()

    @rule(side=SIDE, mtu=st.sampled_from([576, 1000, 1280]))
    def path_gets_smaller(self, side: int, mtu: int) -> None:
        one = self.connection(side)
        if one is not None:
            one.path_mtu(self.pair.now, one.snd_una & 0xFFFFFFFF, mtu)
            self.pair.flush()

    # --- programs

    @rule(side=SIDE, size=SIZES, how=st.sampled_from(["send", "send_more", "send_urgent"]))
    def write(self, side: int, size: int, how: str) -> None:
        one, end = self.connection(side), self.ends[side]
        if one is None or end.shut or not one.connected:
            return
        if how == "send_urgent" and not one.tuning.oob_inline:
            how = "send"
        data = end.source.randbytes(size)
        taken = getattr(one, how)(self.pair.now, data)
        assert 0 <= taken <= size
        end.written += data[:taken]
        self.pair.flush()

    @rule(side=SIDE, size=SIZES)
    def read(self, side: int, size: int) -> None:
        one, end = self.connection(side), self.ends[side]
        if one is None:
            return
        pieces = one.receive(self.pair.now, size)
        assert sum(map(len, pieces)) <= size
        for piece in pieces:
            end.read += piece
        self.pair.flush()

    @rule(side=SIDE, nodelay=st.booleans(), cork=st.booleans())
    def tune(self, side: int, nodelay: bool, cork: bool) -> None:
        one = self.connection(side)
        if one is not None:
            one.tuning.nodelay, one.tuning.cork = nodelay, cork
            one.tuned(self.pair.now)
            self.pair.flush()

    @precondition(lambda self: self.pair.right is not None)
    @rule(side=SIDE)
    def finish(self, side: int) -> None:
        one, end = self.connection(side), self.ends[side]
        if one is not None and one.connected and not end.shut:
            end.shut = True
            one.shutdown(self.pair.now, SHUT_WR)
            self.pair.flush()

    # --- what is always so

    def check(self) -> None:
        for side in (0, 1):
            one, end, other = self.connection(side), self.ends[side], self.ends[1 - side]
            assert other.written.startswith(end.read)
            if one is None:
                continue
            assert not one.error or self.loss or self.may_be_reset(one), one.error
            assert one.snd_una <= one.snd_nxt <= one.stream.end + 1
            assert one.rcv.read <= one.rcv.next
            assert one.board.out_bytes == one.snd_nxt - one.snd_una or not one.board.records
            assert len(one.outgoing) == 0

    def may_be_reset(self, one: Connection) -> bool:
        """A cookie is known by what follows the SYN: if that is not what comes first, nobody knows
        of the connection, as on Linux."""
        return one.error == ECONNRESET.number and self.has_cookies and self.was_bad

    def teardown(self) -> None:
        """The wire is whole again: all that was written arrives, and both ends finish."""
        pair = self.pair
        self.loss = self.swap = self.double = self.damage = self.mark = 0.0
        until = pair.now + REPAIRS_S * SECOND
        while pair.now < until and not self.is_done():
            for side in (0, 1):
                self.take_all(side)
            if not pair.step(until):
                break
        for side in (0, 1):
            self.take_all(side)
        assert pair.left.error or self.is_done(), (pair.left.state, pair.deadlines())
        if pair.left.error or (pair.right is not None and pair.right.error):
            return  # it was given up while nothing arrived
        assert self.ends[0].read == self.ends[1].written
        assert self.ends[1].read == self.ends[0].written
        pair.run(200)
        assert not pair.deadlines()
        assert not any(side.endpoints.connections for side in pair.sides)

    def take_all(self, side: int) -> None:
        """Read what is there, and say that nothing more will be written."""
        one = self.connection(side)
        if one is None or one.error:
            return
        for piece in one.receive(self.pair.now, 1 << 20):
            self.ends[side].read += piece
        if one.connected and not self.ends[side].shut:
            self.ends[side].shut = True
            one.shutdown(self.pair.now, SHUT_WR)
        self.pair.flush()

    def is_done(self) -> bool:
        return all(
            one is not None and one.eof and one.is_over for one in map(self.connection, (0, 1))
        )


TestWire = Wire.TestCase
TestWire.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
