"""`HostView`: interfaces, addresses and routes of the host, as they are now.

They are listed again before a program gets an answer that depends on them: so it never sees less
than what was plugged in before it asked. And when the network process says that they have changed,
if somebody inside listens to rtnetlink(7), who is told then; else nothing is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.netlink import NETLINK_ROUTE
from sentry.errors import Errno
from sentry.net.host.interfaces import show
from sentry.suppress import suppress
from sentry.wait.again import settled
from sentry.wait.fiber import Mode
from sentry.wait.lock import Lock
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sentry.net.host.process import NetworkProcess
    from sentry.net.stack import Stack


class HostView:
    """What keeps a stack like the host's."""

    def __init__(self, stack: Stack, process: NetworkProcess, loop: Any) -> None:
        self._stack = stack
        self._process = process
        self._loop = loop
        self._lock = Lock()
        self._begun = 0
        """Looks that have begun."""
        self._changes = -1
        """How many there had been at the last list with everything."""
        self._is_stale = False
        """There have been more, and nobody has looked yet."""
        self._is_looking = False
        self.follow: Callable[[list[bytes]], Coroutine[Any, Any, None]] | None = None
        """What has to follow every change, after it is shown: it gets the list."""
        process.on_change = self._changed

    def check(self) -> None:
        """Let a call see what there is now; what was known, when nobody can tell any more.

        Raises: NotNow.
        """
        with suppress(Errno):
            settled((self, "look"), self.look)

    def listened(self) -> None:
        """Somebody listens from now on."""
        if self._is_stale and not self._is_looking:
            self._is_looking = True
            self._loop.spawn(self._look_again(), "network")

    def _changed(self) -> None:
        self._is_stale = True
        sockets = self._stack.netlink.items()
        if self.follow is not None or any(
            number == NETLINK_ROUTE and sock.groups for (number, _), sock in sockets
        ):
            self.listened()

    async def _look_again(self) -> None:
        try:
            while self._is_stale:
                await self.look()
        except Errno:
            pass
        finally:
            self._is_looking = False

    async def look(self) -> None:
        """List everything; one look is enough for all who asked before it began.

        Raises: what a list raises.
        """
        wanted = self._begun + 1
        async with self._lock:
            if self._begun >= wanted:
                return
            self._begun += 1
            self._is_stale = False
            answer = await self._process.list_all(self._changes)
            links_only = answer.changes == self._changes
            steps = show(self._stack, answer.parts, links_only=links_only)
            await driven(steps, Mode.UNINTERRUPTIBLE)
            self._changes = answer.changes
            if self.follow is not None and not links_only:
                await self.follow(answer.parts)
