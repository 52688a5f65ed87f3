"""What a TCP connection leaves behind when no socket has it any more: net/ipv4/tcp_minisocks.c.

The end that sends the first FIN holds its address for a while: in FIN_WAIT2 until the other end's
FIN comes (TCP_LINGER2), then in TIME_WAIT. bind(2) meets it; connect(2) does not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from sentry.abi.socket import BPF_TCP_TIME_WAIT
from sentry.net.inet.address import Endpoint

TIME_WAIT_SECONDS: Final = 60
"""TCP_TIMEWAIT_LEN."""
MOST: Final = 8192
"""The oldest give way: net.ipv4.tcp_max_tw_buckets, a ceiling of ours."""


class Remains(Struct, eq=False):
    """struct inet_timewait_sock."""

    local: Endpoint
    remote: Endpoint
    family: int
    options: set[int]
    v6only: bool
    owner_uid: int
    state: int
    """FIN_WAIT2 or TIME_WAIT."""
    expires_ns: int
    """On CLOCK_MONOTONIC."""
    shares_port: bool = False
    by_link: bool = False
    """The engine has it, too, and says when it goes."""
    listening: bool = False

    @property
    def holds_way(self) -> bool:
        """Nobody may connect to the same place from the same port yet: tcp_twsk_unique()."""
        if self.by_link:
            return True
        second = self.expires_ns - (TIME_WAIT_SECONDS - 1) * 10**9
        return self.state != BPF_TCP_TIME_WAIT or time.monotonic_ns() < second


class TimeWait:
    """Those of one protocol, by port."""

    def __init__(self) -> None:
        self._by_port: dict[int, dict[Remains, None]] = {}
        self._oldest: deque[Remains] = deque()

    def __iter__(self) -> Iterator[Remains]:
        for port in list(self._by_port):
            yield from self.at(port)

    def at(self, port: int) -> Sequence[Remains]:
        """Those that hold a port now."""
        found = self._by_port.get(port)
        if not found:
            return ()
        now_ns = time.monotonic_ns()
        return [one for one in found if one.expires_ns > now_ns]

    def add(self, remains: Remains, seconds: int) -> None:
        """One more, for so many seconds."""
        remains.expires_ns = time.monotonic_ns() + seconds * 10**9
        self.keep(remains)

    def keep(self, remains: Remains) -> None:
        """One more, until its time is over."""
        self._by_port.setdefault(remains.local.port, {})[remains] = None
        self._oldest.append(remains)
        while self._oldest and (len(self._oldest) > MOST or not self._is_kept(self._oldest[0])):
            self.remove(self._oldest.popleft())

    def finish(self, remains: Remains) -> None:
        """The other end's FIN has come."""
        if self._is_kept(remains):
            remains.state = BPF_TCP_TIME_WAIT
            remains.expires_ns = time.monotonic_ns() + TIME_WAIT_SECONDS * 10**9

    def remove(self, remains: Remains) -> None:
        """Its time is over, or a reset has come."""
        found = self._by_port.get(remains.local.port)
        if found and remains in found:
            del found[remains]
            if not found:
                del self._by_port[remains.local.port]

    def _is_kept(self, remains: Remains) -> bool:
        there = remains in self._by_port.get(remains.local.port, ())
        return there and remains.expires_ns > time.monotonic_ns()
