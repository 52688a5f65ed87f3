"""A connection within the sandbox, where netfilter has rules: its SYN is judged as a packet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.ahead import mypyc_attr
from sentry.errors import ETIMEDOUT, Errno
from sentry.net.inet.tcp_leaving import TcpLeaving

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.inet.address import Endpoint
    from sentry.net.netfilter.conntrack import Connection, Conntrack
    from sentry.vfs.file import Caller

FIRST_NS: Final = 1_000_000_000
"""Until a SYN is sent again: TCP_TIMEOUT_INIT."""
MOST_TRIES: Final = 6
"""net.ipv4.tcp_syn_retries."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpFiltered(TcpLeaving):
    """The side of a socket that asks the rules."""

    __slots__ = ()

    def behind_rules(self, caller: Caller, target: Endpoint, tries: int) -> Endpoint | None:
        """Whom the SYN is for behind the rules. None: it goes by a link now, or is lost, and sent
        again, or was rejected, and all is over."""
        self.followed = None
        if self.stack.netfilter is None:
            return target
        from sentry.net.netfilter.local import judge_segment  # noqa: PLC0415  few have rules

        source, loop = self.source_for(target), caller.kernel.loop
        found = judge_segment(self.stack, loop.now_ns(), source, target, caller)
        if found is None:
            return target
        if found.leaves:
            self.local = source
            try:
                self.begin_by_link(caller, target)
            except Errno as error:
                self.refuse(error.number)
            return None
        if found.passes:
            if found.connection is not None:
                table = self.stack.netfilter.conntrack
                self.followed = _follower(table, found.connection, loop)
            return found.target
        if found.errno:
            self.refuse(found.errno)
        elif tries >= int(self.stack.sysctls.get("net/ipv4/tcp_syn_retries", MOST_TRIES)):
            self.refuse(ETIMEDOUT.number)
        else:
            at_ns = loop.now_ns() + (FIRST_NS << min(tries, MOST_TRIES))
            timer = loop.call_at(at_ns, lambda: self.try_again(caller, tries + 1))
            self.asks = timer.cancel
        return None

    def refuse(self, number: int) -> None:
        """There will be no connection."""
        self.state = TCP_CLOSE
        self.stack.counters["Tcp.AttemptFails"] += 1
        self.so_error = number
        self.reset = self.read_shut = self.write_shut = True
        self.leave_port()
        self.queue.notify()

    def try_again(self, caller: Caller, tries: int) -> None:
        """The SYN goes once more."""
        raise NotImplementedError


def _follower(table: Conntrack, connection: Connection, loop: Any) -> Callable[[bool], None]:
    return lambda is_complete: table.went(loop.now_ns(), connection, is_complete=is_complete)
