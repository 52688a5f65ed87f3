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


class Deciding(Protocol):
    """Who decides on calls: sentry.policy."""

    is_changing: bool
    """Another policy is on its way."""

    def begins(self, task: Task) -> None:
        """The first program of a container is about to run."""


class Judging(Protocol):
    """`Task.judge`, while a call is made that a policy has rules about: sentry.policy.judge.

    Each may raise: an errno, what ends the call otherwise, NotNow.
    """

    heads: int
    """Walks to the directory of what is meant, and not to that itself."""

    def opening(self, location: Any, how: Any) -> None:
        """An open file is about to be made of it: all checks have been made."""

    def creating(self, directory: Any, name: bytes, how: Any) -> None:
        """A file is about to be made, and opened."""

    def walked(self, mount: Any, dentry: Any) -> None:
        """A path has led there."""

    def named(self, parent: Any) -> None:
        """A path has led to a directory and a name in it."""

    def layered(self, mount: Any, dentry: Any) -> None:
        """It is about to be a layer of an overlay."""

    def runs(self, file: Any, argv: list[bytes]) -> Coroutine[Any, Any, None]:
        """A file is about to be run as a program, an interpreter or a loader."""
        ...

    def address(self, sock: Any, raw: bytes) -> bytes:
        """An address that was copied from the program's memory; the one to use."""
        ...


class Watching(Protocol):
    """None of these waits, but for `digest`, or fails."""

    is_changing: bool
    """Somebody begins to listen."""

    def leave(self) -> None:
        """In a fork: nobody listens."""

    def end(self) -> None:
        """In one whose place another process takes: the same, and who has listened hears of it."""

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

    def decided(self, task: Task, verdict: str, rule: str, event: Any) -> None:
        """A policy has decided."""

    def hear_egress(self, egress: Any) -> None:
        """There is somebody who judges what leaves."""

    def flush(self) -> None:
        """The sandbox is over."""
