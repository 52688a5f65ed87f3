"""`AsyncClock`: the time that programs of a sandbox see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runsc import spans
from runsc.api.aio.wire import ANSWER_S, ask
from runsc.api.errors import SandboxEnded, SandboxError
from runsc.containers import asking
from sentry.control.answers import ClockState
from sentry.control.orders import ClockOrder
from sentry.control.protocol import Request, encode

Span = str | float | timedelta
"""A text such as "90s" or "30 days", seconds, or a timedelta."""


class AsyncClock:
    """The sandbox's clock: the host's, until it is shaped.

    CLOCK_MONOTONIC never goes back; CPU time, the network and the Gofer keep the host's time.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    async def now(self) -> datetime:
        """What its wall clock shows, in UTC. Raises: SandboxEnded."""
        wall_ns = (await self._order(ClockOrder())).wall_ns
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=wall_ns // 1000)

    async def freeze(self) -> None:
        """It stands still. Raises: SandboxEnded."""
        await self._order(ClockOrder("speed", speed=0.0))

    async def run_at(self, speed: float) -> None:
        """So many seconds go by in one, 10,000 at most. Raises: SandboxEnded, ValueError."""
        await self._order(_at(speed))

    async def jump(self, by: Span) -> None:
        """So much time has gone by at once: what is due by then is due, and a timer that comes
        again and again was missed. Raises: SandboxEnded, ValueError."""
        await self._order(ClockOrder("jump", ns=spans.span_ns(by)))

    async def set(self, to: str | float | datetime) -> None:
        """The wall clock alone shows this, also if it is earlier. Raises: SandboxEnded,
        ValueError."""
        await self._order(ClockOrder("set", ns=spans.moment_ns(to)))

    async def advance(self, by: Span, *, timeout: float | None = None) -> None:
        """So much time goes by, as fast as programs are done with it: from one timer of theirs to
        the next, each time when all of them wait for something.

        If it takes longer than `timeout` seconds, it ends where it is: SandboxError. Raises:
        SandboxEnded, ValueError.
        """
        reply = await ask(self._path, Request("advance", time_ns=spans.span_ns(by)), (), timeout)
        if reply.error:
            raise SandboxError(reply.error)

    @property
    def speed(self) -> float:
        """How many seconds go by in one; 0: it stands still. It can be set. Raises: SandboxEnded,
        ValueError."""
        return self._order_now(ClockOrder()).speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._order_now(_at(speed))

    async def _order(self, order: ClockOrder) -> ClockState:
        reply = await ask(self._path, Request("clock", clock=order))
        if reply.error or reply.clock is None:
            raise SandboxError(reply.error or "the sandbox does not tell the time")
        return reply.clock

    def _order_now(self, order: ClockOrder) -> ClockState:
        try:
            sock = asking.connect(self._path)
            try:
                answer = asking.answer_to(sock, encode(Request("clock", clock=order)), ANSWER_S)
            finally:
                sock.close()
        except OSError:
            raise SandboxEnded("the sandbox has ended") from None
        reply = asking.reply(answer)
        if reply.error or reply.clock is None:
            raise SandboxError(reply.error or "the sandbox does not tell the time")
        return reply.clock


def _at(speed: float) -> ClockOrder:
    if not 0 <= speed <= 10_000:
        raise ValueError(f"a speed is 0 to 10,000, not {speed!r}")
    return ClockOrder("speed", speed=float(speed))
