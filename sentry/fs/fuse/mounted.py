"""`MountedFs`: a file system of a server as its nodes know it: who asks, and how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sentry.abi.fuse import FUSE_ROOT_ID
from sentry.auth.userns import is_inside
from sentry.errors import EACCES
from sentry.fs.fuse.request import Request
from sentry.fs.fuse.wire import entry_of
from sentry.vfs.filesystem import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from sentry.auth.credentials import Credentials
    from sentry.fs.fuse.connection import Connection
    from sentry.vfs.vfs import Vfs


class Options(Struct, frozen=True):
    """What mount(2) was given."""

    fd: int
    root_mode: int
    user: int
    group: int
    default_permissions: bool
    allow_other: bool
    max_read: int
    subtype: str


class MountedFs(FileSystem, ABC):
    """The files of one server."""

    def __init__(self, vfs: Vfs, options: Options, connection: Connection, user: int) -> None:
        super().__init__(vfs.new_dev(), vfs.now_ns)
        if options.subtype:
            self.name = f"fuse.{options.subtype}"
        self.vfs = vfs
        self.options = options
        self.connection = connection
        self.user_id = user
        """Whose processes may use it, without allow_other."""
        self.group_id = options.group

    @property
    def no_devices(self) -> bool:  # type: ignore[override]
        """Where a user namespace has mounted it: alloc_super()."""
        return self.owner is not None

    # --- who asks

    @property
    def umask(self) -> int:
        """Of who makes a file."""
        task = self.task
        return 0 if task is None else task.fs.umask & 0o777

    @property
    def task(self) -> Any:
        """The task for which something is done at this moment; None: for nobody."""
        return self.vfs.task

    def allows(self, creds: Credentials) -> bool:
        """fuse_allow_current_process()."""
        if self.options.allow_other:
            return is_inside(creds.user_ns, self.connection.user_ns)
        users = {creds.uid, creds.euid, creds.suid}
        groups = {creds.gid, creds.egid, creds.sgid}
        return users == {self.user_id} and groups == {self.group_id}

    def check_allowed(self) -> None:
        """Raises: EACCES for a process that is somebody else's."""
        task = self.task
        if task is not None and not self.allows(task.creds):
            raise EACCES("the file system is another user's")

    # --- asking

    def ask(
        self,
        key: Hashable,
        opcode: int,
        nodeid: int,
        body: bytes,
        size: int = 0,
        *,
        is_variable: bool = False,
        undo: Callable[[bytes], object] | None = None,
    ) -> Request:
        """The answered request that this call makes once. Raises: as `Connection.ask`."""

        def make() -> Request:
            request = Request(
                self.connection, opcode, nodeid, body, size, is_variable=is_variable
            )
            request.undo = undo
            return request

        return self.connection.ask(key, self.task, make)

    # --- nodes

    def forget_entry(self, data: bytes) -> None:
        """Nobody came for the answer that has it."""
        entry, _ = entry_of(data)
        if entry.nodeid != FUSE_ROOT_ID:
            self.connection.forget(entry.nodeid, 1)

    @abstractmethod
    def inode_of(
        self, directory: Any, name: bytes, data: bytes, at: int = 0, kind: int = 0
    ) -> tuple[Any, int]:
        """The node of an answer: `FuseFs`."""

    @abstractmethod
    def known(self, nodeid: int) -> Any:
        """The node of a number. Raises: ENOENT."""

    @abstractmethod
    def gone(self, inode: Any) -> None:
        """Nobody holds a node any more."""

    @abstractmethod
    def forget_names(self) -> None:
        """Names of directories are asked for again."""
