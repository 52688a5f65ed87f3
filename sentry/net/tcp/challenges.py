"""How many challenge ACKs are sent: RFC 5961, 7 and 10. tcp_send_challenge_ack()."""

from __future__ import annotations

from typing import Final

SECOND: Final = 1_000_000_000
UNLIMITED: Final = 0x7FFFFFFF


class Challenges:
    """A budget for each second, of all connections of a network namespace."""

    __slots__ = ("_left", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._left = 0

    def allowed(self, now_ns: int, limit: int) -> bool:
        """One more may go out now; `limit` is net.ipv4.tcp_challenge_ack_limit."""
        if limit == UNLIMITED:
            return True
        second = now_ns // SECOND
        if second != self._second:
            self._second, self._left = second, limit
        if self._left <= 0:
            return False
        self._left -= 1
        return True
