"""`Budget`: what the files of a sandbox may cost the Sentry itself, all file systems together.

Bytes of files lie in RAM frames and count against the memory limit. What is counted here are the
objects around them, which a program can make in any number if nobody says stop.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, Protocol

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from sentry.errors import EAGAIN, ENFILE, ENOLCK, ENOMEM, ENOSPC

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.auth.credentials import Credentials
    from sentry.vfs.locks import FileLocks
    from sentry.wait.sleep import End

MAX_INODES: Final = 524_288
"""Inodes in memory of all tmpfs and overlays (about 1 KiB each); never more than pages of RAM."""
MAX_SMALL_BYTES: Final = 64 << 20
"""Texts of symbolic links and extended attributes."""
MAX_FILES: Final = 100_000
"""Open descriptions: Linux's fs.file-max, but nobody may go beyond."""
NR_OPEN: Final = 1 << 20
"""No descriptor reaches it, however high fs.nr_open is."""
MAX_LOCKS: Final = 262_144
"""Record locks."""
MAX_MOUNTS: Final = 20_000
"""Mounts of all namespaces."""
MAX_MOUNTS_OF_NAMESPACE: Final = 10_000
"""Of one: fs.mount-max, which is 100,000 on Linux, cannot go beyond."""
MAX_MESSAGE_BYTES: Final = 64 << 20
"""Messages in System V and POSIX queues, and those that wait for room in one."""
MESSAGE_COST: Final = 128
"""What a message costs besides its bytes."""
MAX_SEMAPHORES: Final = 4 << 20
"""Semaphores in all System V sets (6 bytes each)."""
MAX_UNDOS: Final = 1 << 18
"""Semaphores that a process has to give back when it ends (SEM_UNDO)."""
MAX_IPC_NAMESPACES: Final = 1024
"""user.max_ipc_namespaces"""
MAX_AIO_REQUESTS: Final = 1 << 17
"""Requests of io_submit(2) that have not ended."""
MAX_HOST_DESCRIPTORS: Final = 1 << 14
"""Descriptors of the Sentry that programs hold: donated files, sockets of the host."""

MAX_TEXT_BYTES: Final = 128 << 20
"""Texts of /proc and its like, and listings, that open files keep from one read to the next."""

MAX_CLOSING: Final = 64
"""More of them that are only being closed count, too."""


class Evictable(Protocol):
    """A cache."""

    def evict(self, count: int) -> None: ...


class Reader(Protocol):
    """An open file that keeps a text, or a directory its listing."""

    def forget_text(self) -> None: ...


class Budget:
    """The counts."""

    __slots__ = (
        "aio_contexts", "aio_events", "aio_requests", "anonymous", "closing", "files",
        "host_descriptors", "idle_files", "inodes", "ipc_namespaces", "locked", "locks",
        "max_host_descriptors", "max_inodes", "message_bytes", "mount_max", "mounts",
        "namespace_ids", "semaphores", "small_bytes", "text_bytes", "texts", "undos",
    )  # fmt: skip

    def __init__(self, memory_pages: int = MAX_INODES) -> None:
        self.max_inodes = min(MAX_INODES, memory_pages)
        self.aio_requests = self.ipc_namespaces = self.message_bytes = 0
        self.aio_contexts = self.aio_events = 0
        """What io_setup(2) made and reserved: fs.aio-nr."""
        self.semaphores = self.undos = 0
        self.namespace_ids = itertools.count(1)
        self.mount_max = MAX_MOUNTS_OF_NAMESPACE
        """fs.mount-max"""
        self.files = 0
        """Open descriptions of files with a name,"""
        self.anonymous = 0
        """and of those without one (pipes, sockets, eventfds…)."""
        self.locked: dict[FileLocks, None] = {}
        """Files on which somebody holds a lock or a lease: /proc/locks."""
        self.inodes = self.locks = self.mounts = self.small_bytes = 0
        self.host_descriptors = 0
        self.closing = 0
        """Descriptors that nobody holds, but whose server has not answered the close yet."""
        self.max_host_descriptors = MAX_HOST_DESCRIPTORS
        """Less where the host allows this process fewer (`sentry.boot.host_links`)."""
        self.texts: dict[Reader, int] = {}
        """Who keeps a text, and how long it is: who has made his last behind the others."""
        self.text_bytes = 0
        self.idle_files: Evictable | None = None
        """Who has descriptors that are only kept for who may want them."""

    def check_inode(self) -> None:
        """One more inode in memory. Raises: ENOSPC."""
        if self.inodes >= self.max_inodes or self.small_bytes >= MAX_SMALL_BYTES:
            raise ENOSPC("the ceiling of inodes in memory")

    def check_small(self, more: int) -> None:
        """So many bytes of attributes. Raises: ENOSPC."""
        if self.small_bytes + more > MAX_SMALL_BYTES:
            raise ENOSPC("the ceiling of extended attributes")

    def check_files(self) -> None:
        """One more open file. Raises: ENFILE."""
        if self.anonymous + self.files >= MAX_FILES:
            raise ENFILE("the ceiling of open files")

    @property
    def host_room(self) -> int:
        """How many more descriptors of the host there may be."""
        room = self.max_host_descriptors - self.host_descriptors
        late = self.closing - MAX_CLOSING
        return room - late if late > 0 else room

    def check_host_descriptor(self) -> None:
        """One more of them. Raises: ENFILE."""
        if self.host_room <= 0 and self.idle_files is not None:
            self.idle_files.evict(1)
        if self.host_room <= 0:
            raise ENFILE("the ceiling of the host's descriptors")

    def keep_text(self, reader: Reader, size: int) -> None:
        """Somebody keeps another text; beyond the ceiling those who made theirs first have to make
        it anew when they read on. Of listings it is who has not read for longest."""
        self.drop_text(reader)
        self.texts[reader] = size
        self.text_bytes += size
        while self.text_bytes > MAX_TEXT_BYTES and len(self.texts) > 1:
            first = next(iter(self.texts))
            self.drop_text(first)
            first.forget_text()

    def drop_text(self, reader: Reader) -> None:
        """He keeps none any more."""
        self.text_bytes -= self.texts.pop(reader, 0)

    def check_locks(self, more: int) -> None:
        """So many more record locks. Raises: ENOLCK."""
        if more > 0 and self.locks + more > MAX_LOCKS:
            raise ENOLCK("the ceiling of record locks")

    def check_mounts(self, more: int, present: int | None = None) -> None:
        """So many more mounts; `present`: are attached in a namespace that has so many, which
        fs.mount-max is for (count_mounts(), fs/namespace.c). Raises: ENOSPC."""
        if present is not None and present + more > min(self.mount_max, MAX_MOUNTS_OF_NAMESPACE):
            raise ENOSPC("fs.mount-max")
        if self.mounts + more > MAX_MOUNTS:
            raise ENOSPC("the ceiling of mounts")

    def check_messages(self, size: int) -> None:
        """One more message of so many bytes. Raises: ENOMEM."""
        if self.message_bytes + size + MESSAGE_COST > MAX_MESSAGE_BYTES:
            raise ENOMEM("the ceiling of queued messages")

    def count_waiting(self, size: int) -> End:
        """A message whose sender sleeps, until the end of that sleep. Raises: ENOMEM."""
        self.check_messages(size)
        self.message_bytes += size + MESSAGE_COST

        def end(finish: Callable[[], Any]) -> Any:
            self.message_bytes -= size + MESSAGE_COST
            return finish()

        return end

    def check_semaphores(self, more: int) -> None:
        """So many more System V semaphores. Raises: ENOSPC."""
        if self.semaphores + more > MAX_SEMAPHORES:
            raise ENOSPC("the ceiling of semaphores")

    def check_undos(self, more: int) -> None:
        """So many more values to undo at exit. Raises: ENOMEM."""
        if self.undos + more > MAX_UNDOS:
            raise ENOMEM("the ceiling of SEM_UNDO")

    def check_ipc_namespaces(self) -> None:
        """One more IPC namespace. Raises: ENOSPC."""
        if self.ipc_namespaces >= MAX_IPC_NAMESPACES:
            raise ENOSPC("the ceiling of IPC namespaces")

    def check_aio(self) -> None:
        """One more asynchronous request in flight. Raises: EAGAIN."""
        if self.aio_requests >= MAX_AIO_REQUESTS:
            raise EAGAIN("the ceiling of asynchronous requests")


class DescriptorLimit:
    """fs.nr_open."""

    __slots__ = ("nr_open",)

    def __init__(self) -> None:
        self.nr_open = NR_OPEN


class PipeLimits:
    """fs.pipe-*: how large a pipe may become, and how many pages the pipes of a user may have."""

    __slots__ = ("_of_user", "max_size", "pages", "user_pages_hard", "user_pages_soft")

    def __init__(self) -> None:
        self.max_size = 1 << 20
        self.user_pages_soft = 16_384
        self.user_pages_hard = 0
        self.pages = 0
        """Of all pipes."""
        self._of_user: dict[int, int] = {}

    def count(self, uid: int, pages: int) -> None:
        """A user's pipes have so many pages more."""
        self.pages += pages
        total = self._of_user.get(uid, 0) + pages
        if total:
            self._of_user[uid] = total
        else:
            self._of_user.pop(uid, None)

    def beyond(self, creds: Credentials, more: int, limit: int) -> bool:
        """Whether so many more are too many: 0 is no limit, and the privileged have none."""
        if not limit or self._of_user.get(creds.uid, 0) + more <= limit:
            return False
        return not (creds.has(CAP_SYS_RESOURCE) or creds.has(CAP_SYS_ADMIN))
