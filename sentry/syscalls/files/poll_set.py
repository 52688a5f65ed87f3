"""`PollSet`: files that are polled again and again, each registered with its queue once.

poll(2) names all files in each call, and who serves thousands of connections makes the same call
in a loop. So what a process has polled is remembered with its table of descriptors: if the same
list comes again, its files are registered, and from then on only those are looked at that have been
heard of, or that do not tell of everything (`FileDescription.tells`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import chain
from struct import Struct
from typing import TYPE_CHECKING, Final

from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLNVAL
from sentry.errors import EBADF
from sentry.vfs.file import FileDescription
from sentry.wait.queue import WaitQueue
from sentry.wait.steps import Steps

if TYPE_CHECKING:
    from sentry.syscalls.files.looking import Looked
    from sentry.vfs.fd_table import FdTable
    from sentry.vfs.vfs import Vfs

_FD: Final = Struct("<i")
ENTRY_SIZE: Final = 8
"""Of struct pollfd."""
FEWEST: Final = 64
"""Files for which it is worth it."""
AT_A_TIME: Final = 32
"""Files between two looks at the clock."""
MAX_SETS: Final = 4
"""Of a table of descriptors: it forgets the oldest."""
MAX_POLLED: Final = 131_072
"""Ceiling of the files in all sets of a sandbox, as of those that epolls watch."""
ALWAYS: Final = EPOLLERR | EPOLLHUP


Asked = tuple[int, int, int]
"""Three sets, a bit for each descriptor."""
SPARSE: Final = 64
"""Bits for each descriptor: sets with fewer are not remembered, for their size is in no count."""
LARGEST: Final = 1024
"""Bits of a set that is remembered: FD_SETSIZE. Its list is made in one step, in up to 2 ms."""


class Polled:
    """A file of a set, registered on its queue."""

    __slots__ = ("_at", "_set", "file")

    def __init__(self, of: PollSet, at: int, file: FileDescription) -> None:
        self._set = of
        self._at = at
        self.file = file
        file.queue.keep(self)

    def callback(self, _events: int) -> None:
        """The file may be ready."""
        self._set.heard(self._at)

    def drop(self) -> None:
        """Hear no more."""
        self.file.queue.keep_no_more(self)

    def drop_held(self) -> None:
        """Nor have a use of the file."""
        self.file.queue.keep_no_more(self)
        self.file.decref()


class PollSet:
    """A list of files. Whoever sleeps on it has a use of it, as of a file (`refs`, `decref`)."""

    __slots__ = (
        "_asked", "_begun", "_changed", "_entries", "_events", "_fds", "_files", "_rows", "_shown",
        "_vfs", "queue", "refs", "stale",
    )  # fmt: skip

    def __init__(self, vfs: Vfs, rows: bytes) -> None:
        """`rows`: struct pollfd of each, without results."""
        self._vfs = vfs
        self._rows = self._shown = rows
        count = len(rows) // ENTRY_SIZE
        self._events = array("H", rows)[2::4]
        self._fds = frozenset(array("i", rows)[::2])
        self._begun = 0
        """Those from here on are not registered yet."""
        self._entries: dict[int, Polled] = {}
        """By place in the list."""
        self._files: set[FileDescription] = set()
        """Of the entries."""
        self._changed: dict[int, None] = {}
        """Registered ones that may be ready. Of all others that are registered nothing holds."""
        self._asked: list[int] = []
        """Those that do not tell, or that stand in the list twice."""
        self.queue = WaitQueue()
        """Told when one of the registered files may be ready."""
        self.refs = 0
        self.stale = False
        """A descriptor means another file: the list has to be looked at anew."""
        vfs.polled += count

    def __len__(self) -> int:
        return len(self._events)

    def row(self, at: int) -> tuple[int, int]:
        """Descriptor and events of one in the list."""
        fd: int = _FD.unpack_from(self._rows, at * ENTRY_SIZE)[0]
        return fd, self._events[at]

    def is_of(self, rows: bytes) -> bool:
        """Whether these are the same files and events, whatever was found before."""
        return rows in (self._shown, self._rows) or _asked_for(rows) == self._rows

    def has(self, fd: int) -> bool:
        """Whether a descriptor is in the list."""
        return fd in self._fds

    def heard(self, at: int) -> None:
        """A file may be ready."""
        self._changed[at] = None
        self.queue.notify()

    def look(self, table: FdTable, files: list[Looked], results: array[int]) -> Steps[int]:
        """Look at those that may be ready; how many are. `files` gets what it depends on.

        `results`, all 0, gets what holds: it is the call's own, for others may look meanwhile.
        """
        files.append(self)
        ready, fds = 0, array("i", self._rows)
        known, rest = [*self._changed, *self._asked], range(self._begun, len(results))
        for number, at in enumerate(chain(known, rest), 1):
            entry, file, got = self._entries.get(at), None, 0
            if fds[2 * at] >= 0:
                try:
                    file = table.get(fds[2 * at])
                    got = file.poll() & (self._events[at] | ALWAYS)
                except EBADF:
                    got = EPOLLNVAL
            if at == self._begun and not self.stale:
                self._begun += 1
                entry = self._register(at, file, got)
            if entry is not None and got:
                self._changed[at] = None
            elif entry is not None:
                self._changed.pop(at, None)
            if file is not None and (entry is None or entry.file is not file):
                files.append(file)
            results[at] = got
            ready += got != 0
            if not number % AT_A_TIME:
                yield
        return ready

    def _register(self, at: int, file: FileDescription | None, got: int) -> Polled | None:
        """Hear of a file from now on, if it tells of all that is wanted, and once of each."""
        if file is None:
            if got:
                self._asked.append(at)  # not open
            return None
        if (self._events[at] | ALWAYS) & ~file.tells or file in self._files:
            self._asked.append(at)
            return None
        self._files.add(file)
        entry = self._entries[at] = Polled(self, at, file)
        return entry

    def shown(self, ready: int, results: array[int]) -> bytes:
        """struct pollfd of each with what a look has found."""
        if not ready:
            return self._rows
        entries = array("H", self._rows)
        entries[3::4] = results
        self._shown = entries.tobytes()
        return self._shown

    # --- its end

    def forget(self) -> None:
        """It is no use any more, but for who sleeps on it: a descriptor is about to change."""
        self.stale = True
        self._vfs.polled -= len(self._events)
        if not self.refs:
            self._let_go(Polled.drop)
            return
        for file in self._files:
            file.refs += 1

    def let_go(self) -> None:
        """A call that was asleep with it has ended: sentry.wait.again."""
        self.decref()

    def decref(self) -> None:
        """One sleeps on it no more."""
        self.refs -= 1
        if self.stale and not self.refs:
            self._let_go(Polled.drop_held)

    def _let_go(self, end: Callable[[Polled], None]) -> None:
        entries, self._entries = self._entries, {}
        self._files.clear()
        self._vfs.leftovers.begin(entries.values(), end)


class PollSets:
    """What has been polled through a table of descriptors, by address and length of the list; or by
    the sets of select(2), as numbers."""

    __slots__ = ("_sets", "_vfs")

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._sets: dict[tuple[int, ...], PollSet] = {}

    def find(self, addr: int, rows: bytes) -> PollSet | None:
        """The set of this list, if it was polled before; else it is remembered."""
        key = addr, len(rows)
        found = self._sets.get(key)
        if found is not None and found.is_of(rows):
            return found
        if found is not None:
            del self._sets[key]
            found.forget()
        self._remember(key, _asked_for(rows))
        return None

    def select(self, asked: Asked, rows: Callable[[], bytes]) -> PollSet | None:
        """The same of sets, which `rows` makes a list of."""
        found = self._sets.get(asked)
        if found is None:
            self._remember(asked, rows())
        return found

    def _remember(self, key: tuple[int, ...], rows: bytes) -> None:
        if len(self._sets) >= MAX_SETS:
            self._sets.pop(next(iter(self._sets))).forget()
        if self._vfs.polled + len(rows) // ENTRY_SIZE <= MAX_POLLED:
            self._sets[key] = PollSet(self._vfs, rows)

    def changes(self, fd: int) -> None:
        """A descriptor is about to mean another file, or none."""
        for key, each in list(self._sets.items()):
            if each.has(fd):
                del self._sets[key]
                each.forget()

    def forget(self) -> None:
        """The table goes."""
        sets, self._sets = self._sets, {}
        for each in sets.values():
            each.forget()


def poll_set(vfs: Vfs, table: FdTable, addr: int, rows: bytes) -> PollSet | None:
    """The set of a list that has been polled before. `rows`: its struct pollfd, as it stands."""
    if len(rows) < FEWEST * ENTRY_SIZE:
        return None
    if table.polls is None:
        table.polls = PollSets(vfs)
    known: PollSets = table.polls
    return known.find(addr, rows)


def select_set(
    vfs: Vfs, table: FdTable, asked: Asked, rows: Callable[[], bytes]
) -> PollSet | None:
    """The set of fd_sets, as numbers, that have been asked for before. `rows` makes their list."""
    count = (asked[0] | asked[1] | asked[2]).bit_count()
    if count < FEWEST or max(asked).bit_length() > min(SPARSE * count, LARGEST):
        return None
    if table.polls is None:
        table.polls = PollSets(vfs)
    known: PollSets = table.polls
    return known.select(asked, rows)


def _asked_for(rows: bytes) -> bytes:
    """The list without results."""
    entries = array("H", rows)
    entries[3::4] = array("H", bytes(len(rows) // 4))
    return entries.tobytes()
