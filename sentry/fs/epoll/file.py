"""`EpollFile`: a set of watched files and the list of those that may be ready. fs/eventpoll.c.

An item is registered on the queue of its file; what comes there only puts the item on the ready
list. Whether the file is ready is asked when the events are fetched: a level-triggered item stays
on the list while it is, an edge-triggered one leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi.fcntl import O_RDWR
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLONESHOT,
    EPOLLOUT,
    EPOLLRDNORM,
    EPOLLWAKEUP,
)
from sentry.errors import EAGAIN, EEXIST, EINVAL, ELOOP, ENOENT, ENOSPC, EPERM
from sentry.vfs.file import FileDescription
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.leftovers import FEW
from sentry.vfs.requests import Requests

if TYPE_CHECKING:
    from sentry.vfs.vfs import Vfs

PRIVATE: Final = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE
EXCLUSIVE_OK: Final = (
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE
)
ALWAYS: Final = EPOLLERR | EPOLLHUP
MAX_NESTING: Final = 4
MAX_WAYS: Final = (None, 500, 100, 50, 10)
"""How many ways from a file up to an epoll that nobody watches lead through 1, 2, … epolls."""
WAY_BITS: Final = 64
AT_ONCE: Final = 4096
"""Items that a look comes to."""
MAX_WATCHES: Final = 131_072
"""Ceiling of the items of a sandbox (fs.epoll.max_user_watches)."""


class Item:
    """One watched (descriptor, file), registered on the queue of the file."""

    __slots__ = ("data", "epoll", "events", "exclusive", "fd", "file", "mask")

    def __init__(
        self, epoll: EpollFile, fd: int, file: FileDescription, events: int, data: int
    ) -> None:
        self.epoll: EpollFile | None = epoll
        """Whose it is, until it is dropped."""
        self.fd = fd
        self.file = file
        self.events = events
        self.data = data
        self.mask = events & ~PRIVATE | ALWAYS
        self.exclusive = bool(events & EPOLLEXCLUSIVE)
        file.queue.enter(self)

    def callback(self, events: int) -> bool | None:
        """The file may be ready. False: nobody waits at the epoll, ep_poll_callback()."""
        if self.epoll is not None and self.events & ~PRIVATE:
            return None if self.epoll.may_be_ready(self) else False
        return False

    def ready(self) -> int:
        """The events that hold and are wanted."""
        wanted = self.events & ~PRIVATE
        return self.file.poll() & (wanted | ALWAYS) if wanted else 0

    def modify(self, events: int, data: int) -> None:
        """EPOLL_CTL_MOD."""
        self.file.queue.remove(self)
        self.events, self.data = events | ALWAYS, data
        self.mask = events & ~PRIVATE | ALWAYS
        self.file.queue.enter(self)

    def file_closes(self, items: list[Item]) -> None:
        """This is one of all items of a file that is closed: nothing of it is ready any more."""
        epoll = self.epoll
        if len(items) <= FEW or epoll is None:
            for item in items:
                item.drop()
            return
        for item in items:
            item.events = 0
        epoll.drop_all(items)

    def drop(self) -> None:
        """Watch no more."""
        if self.epoll is not None:
            self.epoll.forget(self)
            self.epoll = None
        self.file.queue.remove(self)
        if self.file.epolls is not None:
            self.file.epolls.pop(id(self), None)


Ready = tuple[int, Item]
"""The events that hold, and of what."""


class EpollFile(FileDescription):
    """An open epoll instance."""

    __slots__ = ("_ready", "_vfs", "items")
    has_read: ClassVar = False
    has_write: ClassVar = False
    splice_read: ClassVar = False
    splice_write: ClassVar = False
    seeks_nowhere: ClassVar = True
    can_poll: ClassVar = True
    requests: ClassVar = Requests(unknown=EINVAL)

    def __init__(self, vfs: Vfs) -> None:
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
        super().__init__(vfs.anon_location(inode, b"anon_inode:[eventpoll]"), O_RDWR)
        self._vfs = vfs
        self.items: dict[tuple[int, int], Item] = {}
        self._ready: dict[Item, None] = {}

    # --- epoll_ctl

    def add(self, fd: int, file: FileDescription, events: int, data: int) -> None:
        """EPOLL_CTL_ADD. Raises: EEXIST, ELOOP, ENOSPC, EINVAL for too many ways."""
        if isinstance(file, EpollFile):
            self._check_nesting(file)
        if (fd, id(file)) in self.items:
            raise EEXIST(f"fd {fd}")
        if self._vfs.epoll_items >= MAX_WATCHES:
            raise ENOSPC("too many watches")
        self._vfs.epoll_items += 1
        item = self.items[fd, id(file)] = Item(self, fd, file, events | ALWAYS, data)
        if file.epolls is None:
            file.epolls = {}
        file.epolls[id(item)] = item
        try:
            self._check_ways(file)
        except EINVAL:
            item.drop()
            raise
        if item.ready():
            self.may_be_ready(item)

    def modify(self, fd: int, file: FileDescription, events: int, data: int) -> None:
        """EPOLL_CTL_MOD. Raises: ENOENT, EINVAL for an exclusive one."""
        item = self._item(fd, file)
        if item.events & EPOLLEXCLUSIVE:
            raise EINVAL("exclusive")
        item.modify(events, data)
        if item.ready():
            self.may_be_ready(item)

    def delete(self, fd: int, file: FileDescription) -> None:
        """EPOLL_CTL_DEL. Raises: ENOENT."""
        self._item(fd, file).drop()

    def _item(self, fd: int, file: FileDescription) -> Item:
        item = self.items.get((fd, id(file)))
        if item is None:
            raise ENOENT(f"fd {fd}")
        return item

    def watched(self, fd: int) -> list[FileDescription]:
        """The files that are watched under a number, in the order in which they were added."""
        return [item.file for item in self.items.values() if item.fd == fd]

    def forget(self, item: Item) -> None:
        """The item is gone."""
        if self.items.pop((item.fd, id(item.file)), None) is not None:
            self._vfs.epoll_items -= 1
        self._ready.pop(item, None)

    def _check_nesting(self, inner: EpollFile) -> None:
        """ep_loop_check(): no circle, at most MAX_NESTING deep. Raises: ELOOP."""
        if inner.depth({self: MAX_NESTING + 1}) + self.height({}) > MAX_NESTING:
            raise ELOOP("epolls within epolls")

    def depth(self, known: dict[EpollFile, int]) -> int:
        """How many epolls are in a row from this one down; `known` of some. Raises: ELOOP."""
        if (deepest := known.get(self)) is None:
            deepest = max((inner.depth(known) for inner in self._inner()), default=0) + 1
            if deepest > MAX_NESTING + 1:
                raise ELOOP("epolls within epolls")
            known[self] = deepest
        return deepest

    def height(self, known: dict[EpollFile, int]) -> int:
        """How many epolls watch this one, in a row."""
        if (highest := known.get(self)) is None:
            highest = max((outer.height(known) + 1 for outer in watchers(self)), default=0)
            known[self] = highest
        return highest

    def _inner(self) -> list[EpollFile]:
        return [item.file for item in self.items.values() if isinstance(item.file, EpollFile)]

    def _check_ways(self, file: FileDescription) -> None:
        """reverse_path_check(), after `file` was added. Raises: EINVAL."""
        known: dict[EpollFile, int] = {}
        fine: set[int] = set()
        files: dict[FileDescription, None] = {}
        if isinstance(file, EpollFile):
            file.collect(files)
        elif self.epolls:
            files[file] = None
        for each in files:
            if not isinstance(each, EpollFile) and (ways := ways_of(each, known)) not in fine:
                check_ways(ways)
                fine.add(ways)

    def collect(self, files: dict[FileDescription, None]) -> None:
        """All that is watched from here down; of those that only one epoll watches, one."""
        files[self] = None
        alone: FileDescription | None = None
        for item in self.items.values():
            file = item.file
            if isinstance(file, EpollFile):
                if file not in files:
                    file.collect(files)
            elif file.epolls is None or len(file.epolls) > 1:
                files[file] = None
            else:
                alone = file
        if alone is not None:
            files[alone] = None

    # --- epoll_wait

    def may_be_ready(self, item: Item) -> int:
        """Put an item on the list; how many hear of it."""
        if item not in self._ready:
            self._ready[item] = None
        return self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def fetch(self, limit: int) -> list[Ready]:
        """Up to `limit` ready items. Raises: EAGAIN when there are none."""
        found = self.ready_now(limit)
        if not found:
            self.go_on()
            raise EAGAIN("nothing is ready")
        return found

    def go_on(self) -> None:
        """Who sleeps, or is about to, looks at the items that the last look has not come to."""
        if self._ready:
            self._vfs.loop.call_soon(partial(self.queue.notify, EPOLLIN | EPOLLRDNORM))

    @property
    def has_more(self) -> bool:
        """After a look that has found nothing: there are items that it has not come to."""
        return bool(self._ready)

    def ready_now(self, limit: int) -> list[Ready]:
        """Up to `limit` ready items, of the first AT_ONCE."""
        found: list[Ready] = []
        if not self._ready:
            return found
        again: list[Item] = []
        for item in list(islice(self._ready, AT_ONCE)):
            if len(found) == limit:
                break
            del self._ready[item]
            events = item.ready()
            if not events:
                continue
            found.append((events, item))
            if item.events & EPOLLONESHOT:
                item.events &= PRIVATE
            elif not item.events & EPOLLET:
                again.append(item)
        for item in again:
            self._ready[item] = None
        return found

    def untold(self, found: list[Ready]) -> None:
        """The program could not be told of these: they are as they were. ep_send_events()."""
        back = [item for _, item in found if item.epoll is self]
        for item in back:
            item.events |= item.mask  # of EPOLLONESHOT
        self._ready = dict.fromkeys(back) | self._ready
        self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def poll(self) -> int:
        """Readable while an item is ready, or one of those beyond the first AT_ONCE may be."""
        for item in list(islice(self._ready, AT_ONCE)):
            if item.ready():
                return EPOLLIN | EPOLLRDNORM
            del self._ready[item]
        return EPOLLIN | EPOLLRDNORM if self._ready else 0

    def release(self) -> None:
        """Closed: nothing is watched any more."""
        self.drop_all(self.items.values())

    def drop_all(self, items: Iterable[Item]) -> None:
        """Drop these, many in their turn."""
        self._vfs.leftovers.begin(items, Item.drop)

    def fdinfo(self) -> Iterator[str]:
        """One line for each item."""
        for item in list(self.items.values()):
            file, inode = item.file, item.file.inode
            if item.epoll is not None:
                yield (
                    f"tfd: {item.fd:8d} events: {item.events:8x} data: {item.data:16x}  "
                    f"pos:{file.position} ino:{inode.ino:x} sdev:{inode.fs.dev:x}\n"
                )


def watchers(file: FileDescription) -> list[EpollFile]:
    """The epolls that watch it."""
    items = file.epolls.values() if file.epolls else ()
    return [item.epoll for item in items if item.epoll is not None]


def ways_of(file: FileDescription, known: dict[EpollFile, int]) -> int:
    """How many ways lead from a file up to an epoll that nobody watches: WAY_BITS for those through
    one epoll, the next ones for those through two, … An epoll is looked at once."""
    total = 0
    for item in file.epolls.values() if file.epolls else ():
        if (epoll := item.epoll) is None:
            continue
        ways = known.get(epoll)
        if ways is None:
            ways = known[epoll] = ways_of(epoll, known) << WAY_BITS if epoll.epolls else 1
        total += ways
    return total


def check_ways(ways: int) -> None:
    """Raises: EINVAL."""
    for length, most in enumerate(MAX_WAYS):
        if most is not None and ways >> length * WAY_BITS & (1 << WAY_BITS) - 1 > most:
            raise EINVAL("too many ways through epolls")


def check_exclusive(file: FileDescription, events: int, adding: bool) -> None:
    """The rules of EPOLLEXCLUSIVE. Raises: EINVAL."""
    if not events & EPOLLEXCLUSIVE:
        return
    if not adding or isinstance(file, EpollFile) or events & ~EXCLUSIVE_OK:
        raise EINVAL("EPOLLEXCLUSIVE")


def check_pollable(file: FileDescription) -> None:
    """Raises: EPERM for a file that is always ready."""
    if not file.can_poll:
        raise EPERM("cannot be polled")
