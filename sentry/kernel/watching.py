"""What the kernel tells who watches it (`Kernel.watch`, sentry.watch): events that are no calls."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sentry.config import ProcessConfig

Task = Any
"""One, which knows this module by the kernel, as do the next two."""
ThreadGroup = Any
SigInfo = Any


class Watching(Protocol):
    """None of these waits, but for `digest`, or fails."""

    is_changing: bool
    """Somebody begins to listen."""

    def leave(self) -> None:
        """In a fork: nobody listens."""

    def started(self, task: Task, process: ProcessConfig) -> None:
        """The first program of a container is about to run."""

    def cloned(self, task: Task, child: Task, flags: int) -> None:
        """A task was made, and does not run yet."""

    def digest(self, task: Task, file: Any) -> Coroutine[Any, Any, bytes]:
        """The SHA-256 of a program, if somebody asks for it."""
        ...

    def execed(self, task: Task, file: Any, argv: Sequence[bytes], envp: Sequence[bytes],
               digest: bytes) -> None:  # fmt: skip
        """A process has become a program."""

    def signalled(self, task: Task, info: SigInfo) -> None:
        """A signal is about to be acted on."""

    def exits(self, task: Task, status: int) -> None:
        """A thread ends; `status` as wait(2) has it."""

    def ended(self, group: ThreadGroup) -> None:
        """A process has ended, and its parent is about to hear of it."""

    def out_of_memory(self, victim: ThreadGroup) -> None:
        """It is killed."""

    def hear_egress(self, egress: Any) -> None:
        """There is somebody who judges what leaves."""

    def flush(self) -> None:
        """The sandbox is over."""
