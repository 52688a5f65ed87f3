"""What travels between AF_UNIX sockets, and the descriptors that are on their way.

A descriptor in flight is a use of its own. Sockets that are only reachable through each other's
queues would live for ever; `collect` finds them, as net/unix/garbage.c does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sentry.net.socket import Ancillary

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.net.unix import UnixSocket

OVERHEAD: Final = 767
"""What a segment costs beside its bytes (struct sk_buff)."""
OVERFLOW_ID: Final = 65534

Ucred = tuple[int, int, int]


class Segment:
    """Bytes in flight with what belongs to them."""

    __slots__ = ("ancillary", "charge", "creds", "data", "sender", "stamp_ns", "urgent")

    def __init__(
        self, data: bytes, sender: UnixSocket, creds: Ucred | None, ancillary: Ancillary | None
    ) -> None:
        self.data = data
        self.sender = sender
        self.creds = creds
        """Of the sender; None where neither end wanted to know."""
        self.ancillary = ancillary
        self.charge = len(data) + OVERHEAD
        self.stamp_ns = 0
        """When it came, where the receiver wants to know (CLOCK_REALTIME)."""
        self.urgent = False
        """One byte of out-of-band data."""

    @property
    def files(self) -> list[Any]:
        """The descriptors that it carries."""
        return self.ancillary.files if self.ancillary is not None else []


def count_in_flight(stack: Stack, files: list[Any], step: int) -> None:
    """Descriptors begin (+1) or end (-1) to be on their way."""
    stack.in_flight += step * len(files)
    stack.sockets_in_flight += step * sum(1 for f in files if hasattr(f, "segments"))


def drop(stack: Stack, files: list[Any]) -> None:
    """Give up descriptors that nobody received.

    By a list of work and not by recursion: a socket may carry one that carries one that …
    """
    stack.doomed.extend(files)
    if stack.dropping:
        return
    stack.dropping = True
    try:
        while stack.doomed:
            stack.doomed.pop().decref()
    finally:
        stack.dropping = False


def drop_files(stack: Stack, ancillary: Ancillary | None) -> None:
    """What a message carried and nobody took."""
    if ancillary is not None and ancillary.files:
        files, ancillary.files = ancillary.files, []
        drop(stack, files)


def queues_of(sock: UnixSocket) -> list[UnixSocket]:
    """A socket and the connections that it has not accepted: whose queues it keeps."""
    return [sock, *sock.pending]


def collect(stack: Stack) -> None:
    """Release the sockets in flight that no descriptor can ever reach again."""
    sockets: list[Any] = [s for s in stack.sockets if hasattr(s, "segments")]
    flying: Counter[Any] = Counter()
    carried: dict[Any, list[Any]] = {}
    for sock in sockets:
        inside = [
            file
            for one in queues_of(sock)
            for segment in one.segments
            for file in segment.files
            if hasattr(file, "segments")
        ]
        if inside:
            carried[sock] = inside
            flying.update(inside)
    garbage = {sock for sock, uses in flying.items() if sock.refs == uses}
    reachable = [sock for sock in carried if sock not in garbage]
    while reachable:
        for file in carried.get(reachable.pop(), ()):
            if file in garbage:
                garbage.discard(file)
                reachable.append(file)
    for sock in garbage:
        for one in queues_of(sock):
            for segment in one.segments:
                files = segment.files
                if files and segment.ancillary is not None:
                    segment.ancillary.files = []
                    count_in_flight(stack, files, -1)
                    drop(stack, files)
