"""The engine and the host's kernel over a bridge that loses, holds, doubles, swaps and damages.

A state machine, of which each step is one of a program or of the bridge. Whatever happens, what is
read is what was written, in order, and once the bridge is whole both ends finish. Time is the
kernel's, so steps are few; RUNSC_TCP_STEPS says how many.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from runsc import host
from sentry.abi.sched import CLONE_NEWNET
from sentry.abi.socket import SHUT_WR
from tests.unit.net.tcp.kernel import Kernel, received, sent

STEPS = int(os.environ.get("RUNSC_TCP_STEPS", "300"))
STEPS_OF_ONE = 30
MOST_HELD = 20
SIZES = st.sampled_from([1, 100, 1448, 10_000, 100_000])
SWITCH = st.sampled_from([1, 1, 0])


class Bridge(RuleBasedStateMachine):
    """A program at each end, and what is between them."""

    def __init__(self) -> None:
        super().__init__()
        self._before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        host.unshare(CLONE_NEWNET)
        self.kernel: Kernel | None = None
        self.chance = random.Random(0)
        self.loss = self.swap = self.double = self.damage = 0.0
        self.held: list[Callable[[], None]] = []
        self.ours, self.theirs = random.Random(1), random.Random(2)
        self.written = bytearray(), bytearray()
        self.read = bytearray(), bytearray()
        self.shut = [False, False]

    @initialize(
        cut=st.booleans(), is_ours=st.booleans(), seed=st.integers(0, 1 << 30),
        tuning=st.fixed_dictionaries({"tcp_sack": SWITCH, "tcp_timestamps": SWITCH}),
    )  # fmt: skip
    def begin(self, cut: bool, is_ours: bool, seed: int, tuning: dict[str, int]) -> None:
        self.chance = random.Random(seed)
        kernel = self.kernel = Kernel(cut=cut, **tuning)
        self.one, self.sock = kernel.ours_connects() if is_ours else kernel.theirs_connects()
        kernel.carry, kernel.is_damaged = self.carry, lambda: self.chance.random() < self.damage

    def carry(self, is_ours: bool, deliver: Callable[[], None]) -> None:
        if self.chance.random() < self.loss:
            return
        if self.chance.random() < self.swap and len(self.held) < MOST_HELD:
            self.held.append(deliver)
            return
        deliver()
        if self.chance.random() < self.double:
            deliver()
        while self.held and self.chance.random() < 0.5:
            self.held.pop(self.chance.randrange(len(self.held)))()

    @rule(loss=st.sampled_from([0.0, 0.02, 0.05]), swap=st.sampled_from([0.0, 0.1]),
          double=st.sampled_from([0.0, 0.05]), damage=st.sampled_from([0.0, 0.03]))  # fmt: skip
    def weather(self, loss: float, swap: float, double: float, damage: float) -> None:
        self.loss, self.swap, self.double, self.damage = loss, swap, double, damage

    @rule(turns=st.sampled_from([1, 5, 20]))
    def time_passes(self, turns: int) -> None:
        assert self.kernel is not None
        left = iter(range(turns))
        self.kernel.until(lambda: next(left, None) is None)
        while self.held:
            self.held.pop()()

    @rule(size=SIZES)
    def we_write(self, size: int) -> None:
        if not self.shut[0]:
            data = self.ours.randbytes(size)
            taken = self.one.send(self.now, data)
            self.written[0].extend(data[:taken])
            self.turn()

    @rule(size=SIZES)
    def they_write(self, size: int) -> None:
        if not self.shut[1]:
            data = self.theirs.randbytes(size)
            self.written[1].extend(data[: sent(self.sock, data)])
            self.turn()

    @rule(size=SIZES)
    def both_read(self, size: int) -> None:
        for piece in self.one.receive(self.now, size):
            self.read[0].extend(piece)
        self.read[1].extend(received(self.sock, size) or b"")
        self.turn()
        assert self.written[1].startswith(self.read[0])
        assert self.written[0].startswith(self.read[1])

    @rule(side=st.sampled_from([0, 1]))
    def finish(self, side: int) -> None:
        if not self.shut[side]:
            self.shut[side] = True
            if side:
                self.sock.shutdown(socket.SHUT_WR)
            else:
                self.one.shutdown(self.now, SHUT_WR)
            self.turn()

    @property
    def now(self) -> int:
        assert self.kernel is not None
        return self.kernel.now

    def turn(self) -> None:
        """What has been done goes on its way."""
        assert self.kernel is not None
        self.kernel.until(lambda: True)

    def teardown(self) -> None:
        """The bridge is whole again: all that was written arrives, and both ends finish."""
        try:
            if self.kernel is not None:
                self._end(self.kernel)
        finally:
            if self.kernel is not None:
                self.kernel.close()
            host.setns(self._before, CLONE_NEWNET)
            os.close(self._before)

    def _end(self, kernel: Kernel) -> None:
        self.loss = self.swap = self.double = self.damage = 0.0
        while self.held:
            self.held.pop()()
        self.finish(0)
        self.finish(1)
        kernel.until(self._take_all)
        assert not self.one.error
        assert self.read[0] == self.written[1]
        assert self.read[1] == self.written[0]
        kernel.until(lambda: self.one.is_over)

    def _take_all(self) -> bool:
        for piece in self.one.receive(self.now, 1 << 20):
            self.read[0].extend(piece)
        self.read[1].extend(received(self.sock) or b"")
        return self.one.eof and len(self.read[1]) == len(self.written[0])


TestBridge = Bridge.TestCase
TestBridge.settings = settings(
    max_examples=max(1, STEPS // STEPS_OF_ONE), stateful_step_count=STEPS_OF_ONE, deadline=None,
    suppress_health_check=list(HealthCheck), database=None,
)  # fmt: skip
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="needs /dev/net/tun"),
    pytest.mark.timeout(STEPS * 2 + 120),
]
