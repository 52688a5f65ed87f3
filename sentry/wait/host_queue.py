"""Readiness of a host descriptor as a wait queue.

A wait queue tells of changes. So an event is watched only from the moment when somebody wants it
and it was seen not to hold, until it comes; and by its edge: epoll(7) tells of EPOLLERR and
EPOLLHUP whether they are wanted or not, and an error queue (IP_RECVERR) that nobody reads holds
EPOLLERR for ever. Each change of what is watched is told of what holds already.
"""

from __future__ import annotations

import select
from typing import Any

from sentry.abi.poll import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from sentry.wait.queue import ALL, Registration, WaitQueue

WATCHED = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP


class HostQueue(WaitQueue):
    """The queue of one descriptor. `watchable`: it is of a kind that poll(2) works on."""

    __slots__ = ("_armed", "_fd", "_loop", "_poll", "_watchable")

    def __init__(self, loop: Any, fd: int, watchable: bool) -> None:
        super().__init__()
        self._loop = loop
        self._fd = fd
        self._armed = 0
        self._watchable = watchable
        self._poll = select.poll()

    def enter(self, entry: Registration) -> None:
        """Register, and watch for what is wanted."""
        super().enter(entry)
        self.arm(ALL)

    def remove(self, entry: Registration) -> None:
        """Unregister; what nobody wants is not watched any more."""
        super().remove(entry)
        self._watch(self._armed & self._wanted())

    def close(self) -> None:
        """The descriptor is about to be closed: nothing is watched any more."""
        self._watch(0)
        self._watchable = False

    def reopen(self) -> None:
        """After `close`: it is another file, of a kind that poll(2) works on."""
        self._watchable = True
        self.arm(ALL)

    def ready(self) -> int:
        """EPOLL* events that hold now; those that do not are watched for whoever wants them."""
        if not self._watchable:
            return EPOLLIN | EPOLLOUT
        self._poll.register(self._fd, select.POLLIN | select.POLLOUT | select.POLLPRI | EPOLLRDHUP)
        found = self._poll.poll(0)
        events = found[0][1] if found else 0
        self.arm(~events)
        return events

    def arm(self, events: int) -> None:
        """Watch for those of `events` that somebody wants."""
        self._watch(self._armed | self._wanted() & events)

    def _wanted(self) -> int:
        mask = 0
        for entry in self._entries:
            mask |= entry.mask
        for wanted, line in (self._exclusive or {}).items():
            mask |= wanted if line else 0
        return mask & WATCHED

    def _watch(self, events: int) -> None:
        if events == self._armed or not self._watchable:
            return
        self._armed = events
        self._loop.watch(self._fd, events | EPOLLET if events else 0, self._came)

    def _came(self, events: int) -> None:
        self._watch(self._armed & ~events)
        self.notify(events)
