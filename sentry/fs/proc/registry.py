"""What files there are: one declaration each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry import written
from sentry.auth.userns import NO_ID
from sentry.errors import EINVAL, ERANGE, ESRCH
from sentry.fs.pseudo.files import Text

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
    from sentry.wait.queue import ChangeCount



class Subject:
    """Whose directory it is: a process, or a thread of one."""

    __slots__ = ()
    pids: Any
    """The PID namespace whose numbers are shown."""

    @property
    def group(self) -> Any:
        """The process (ThreadGroup)."""
        raise NotImplementedError

    @property
    def task(self) -> Any:
        """The thread that speaks for it; a dead one for a zombie."""
        raise NotImplementedError

    @property
    def exists(self) -> bool:
        """It has not been waited for yet."""
        raise NotImplementedError

    @property
    def is_thread(self) -> bool:
        """A directory below task/."""
        return False

    @property
    def id(self) -> int:
        """Its number."""
        raise NotImplementedError

    @property
    def mm(self) -> Any:
        """The address space, None of a zombie: also of a leader whose threads go on."""
        task = self.task
        return None if task.dead else task.mm

    @property
    def held_mm(self) -> Any:
        """The address space, for files that only open where there is one. Raises: ESRCH."""
        if (mm := self.mm) is None:
            raise ESRCH(f"process {self.id} has ended")
        return mm


class View(Struct, frozen=True):
    """A file that is being read or written: by whom, about whom."""

    kernel: Kernel
    caller: Any
    """The task that opened it."""
    _subject: Subject | None = None
    pinned: Any = None
    """What `Entry.pin` gave when the file was opened."""
    creds: Any = None
    """Of the task when it opened the file, of a process: struct file's f_cred."""
    writer: Any = None
    """The task that writes, which need not have opened it."""

    @property
    def pids(self) -> Any:
        """The PID namespace of the mount: numbers are shown as they are there."""
        return self._subject.pids if self._subject is not None else self.kernel.pids

    @property
    def subject(self) -> Subject:
        """Of a file of a process."""
        assert self._subject is not None
        return self._subject


Show = Callable[[View], Text]
Store = Callable[[View, bytes], None]


class Entry(Struct, frozen=True):
    """A text file."""

    name: str
    mode: int
    show: Show | None
    store: Store | None = None
    private: bool = False
    """Only for readers who may look into the process: PTRACE_MODE_READ."""
    where: str = "both"
    """`process` (not below task/), `thread` (only there), or both."""
    changes: Callable[[View], ChangeCount] | None = None
    """What tells a poll(2) that the text has changed."""
    pin: Callable[[View], Any] | None = None
    """What the open file goes on showing, whatever becomes of the process."""
    from_start: bool = False
    """It is written at position 0 only, which a write does not move."""


ROOT: Final[dict[str, Entry]] = {}
"""Files by their path below /proc."""
PROCESS: Final[dict[str, Entry]] = {}
"""Files of a process by their path below /proc/PID."""


def root_file(path: str, mode: int = 0o444) -> Callable[[Show], Show]:
    """Declare a file of the whole system."""

    def declare(show: Show) -> Show:
        ROOT[path] = Entry(path.rsplit("/", 1)[-1], mode, show)
        return show

    return declare


def pid_file(
    path: str,
    mode: int = 0o444,
    *,
    private: bool = False,
    store: Store | None = None,
    where: str = "both",
    changes: Callable[[View], ChangeCount] | None = None,
    pin: Callable[[View], Any] | None = None,
    from_start: bool = False,
) -> Callable[[Show], Show]:
    """Declare a file of each process."""

    def declare(show: Show) -> Show:
        name = path.rsplit("/", 1)[-1]
        PROCESS[path] = Entry(name, mode, show, store, private, where, changes, pin, from_start)
        return show

    return declare


def unsigned(text: bytes) -> int:
    """A written decimal number of 32 bits: kstrtouint(). Raises: EINVAL, ERANGE."""
    digits = text.removesuffix(b"\n").removeprefix(b"+")
    if not digits.isdigit():
        raise EINVAL(f"{text[:40]!r} is no number")
    if len(digits.lstrip(b"0")) > 10 or int(digits) > NO_ID:
        raise ERANGE(f"{text[:40]!r}")
    return int(digits)


def number(text: bytes, low: int, high: int) -> int:
    """A written number, octal after 0, hexadecimal after 0x. Raises: EINVAL, ERANGE."""
    try:
        value = written.integer(text.strip(b" \t\n\0").decode("latin-1"))
    except ValueError:
        raise EINVAL(f"{text[:40]!r} is no number") from None
    if not low <= value <= high:
        raise ERANGE(f"{text[:40]!r}")
    return value
