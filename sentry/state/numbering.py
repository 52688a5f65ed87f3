"""`Numbers`: numbers of processes in a snapshot, as those of the sandbox that reads it.

A container that has the first PID namespace gives each the number that it had. One beside it gives
each a new one, known in its own namespace as it was: sentry.kernel.pids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.errors import Errno
from sentry.state.pages import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.state import records


class Numbers:
    """Those of a container that has nobody yet."""

    def __init__(self, kernel: Kernel, container: Container) -> None:
        self._pids = kernel.pids
        self.container = container
        self._known: dict[int, int] | None = None
        if container.pids is not kernel.pids:
            self._known = {}

    def admit(self, snapshot: records.Snapshot) -> None:
        """All that it has. Raises: Damaged."""
        known = self._known
        for number in () if known is None else _numbers(snapshot):
            if known is not None and number not in known:
                try:
                    known[number] = self._pids.admit(self.container.pids, number)
                except Errno as error:
                    raise Damaged(f"process {number}: {error}") from None

    def of(self, number: int) -> int:
        """The sandbox's; 0: nobody has it. Those below 1 are none, and stay."""
        if self._known is None or number <= 0:
            return number
        return self._known.get(number, 0)

    def let_go(self) -> None:
        """Those that nobody has are free again."""
        for number in (self._known or {}).values():
            self._pids.release(number)


def _numbers(snapshot: records.Snapshot) -> Iterator[int]:
    for session in snapshot.sessions:
        yield session.sid
    for process in snapshot.processes:
        yield from (process.pid, process.group, process.session)
        yield from (thread.tid for thread in process.threads)
