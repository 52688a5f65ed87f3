"""`Outside`: who makes calls for the command line, where a task of the container is.

`Acting` is one with the rights of a user, and with directories that it has come to: a walk through
a tree names what is in them, so that no link that a program puts there leads it elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from sentry.abi.fcntl import O_NOCTTY, O_NONBLOCK, O_PATH
from sentry.auth.credentials import Credentials
from sentry.errors import EBADF, ESRCH
from sentry.vfs.file import FileDescription

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.task import Task
    from sentry.vfs.file import Caller
    from sentry.vfs.location import Location
    from sentry.vfs.mounts import MountNamespace


AS_NOBODY: Final = O_NONBLOCK | O_NOCTTY
"""How files are opened: a FIFO is not waited for, and no terminal that a program has put there
becomes that of the task, whose keys would be signals for it."""


class Outside:
    """A caller with a task's namespaces and rights, which hears of no signal, and
    on whose calls nobody decides."""

    judge = None

    def __init__(self, task: Task) -> None:
        self._task = task
        self.fs, self.ns = task.fs.copy(), task.ns
        """Its own: the task may end meanwhile."""

    @property
    def mounts(self) -> MountNamespace:
        """As of a task."""
        return self.ns.mounts.mounts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def send_signal(self, signo: int) -> None:
        """SIGPIPE and the like are for programs."""


def beside_init(container: Container) -> Caller:
    """Where the container's first process is. Raises: ESRCH."""
    init = container.init
    if init is None or not init.tasks:
        raise ESRCH("the container is ending")
    return cast("Caller", Outside(init.tasks[0]))


class Places:
    """Directories that a walk has come to, by numbers that take the place of descriptors."""

    def __init__(self) -> None:
        self._places: list[Location] = []

    def enter(self, place: Location) -> int:
        """The number of one more."""
        self._places.append(place)
        return len(self._places) - 1

    def leave(self) -> None:
        """The last one."""
        self._places.pop()

    def get_raw(self, fd: int) -> FileDescription:
        """As of a table of descriptors. Raises: EBADF."""
        if not 0 <= fd < len(self._places):
            raise EBADF(f"place {fd}")
        return FileDescription(self._places[fd], O_PATH)

    get = get_raw


class Acting(Outside):
    """A caller with the rights of a user, in the root directory, wherever the task has gone. Root
    has all rights: whoever may ask from outside is the container's owner."""

    def __init__(self, task: Task, uid: int, gid: int, groups: tuple[int, ...]) -> None:
        super().__init__(task)
        self.fs.chdir(self.fs.root)
        self.creds = Credentials.user(uid, gid, groups) if uid else Credentials.root()
        self.files = Places()


def acting(container: Container, uid: int, gid: int, groups: tuple[int, ...]) -> Acting:
    """Where the container's first process is. Raises: ESRCH."""
    init = container.init
    if init is None or not init.tasks:
        raise ESRCH("the container is ending")
    return Acting(init.tasks[0], uid, gid, groups)
