"""The programs that the Python API starts, each a process of its own: no fork of the caller runs
Python, whatever threads it has."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from runsc.zygote import place

KEEPER = "runsc.api.keeper"
FORKER = "runsc.api.forker"
COMMAND_LINE = "runsc"


class Process(Protocol):
    """One that was started."""

    def pidfd(self) -> int:
        """Of it, to be closed, as long as it has not ended."""

    def poll(self) -> int | None:
        """None: it has not ended."""

    def wait(self) -> int:
        """Until it has."""

    def kill(self) -> None:
        """SIGKILL."""


class OfZygote:
    """A fork of the zygote, which nobody here can wait for: how it ends is not known."""

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd

    def __del__(self) -> None:
        os.close(self._pidfd)

    def pidfd(self) -> int:
        """Of it, to be closed."""
        return os.dup(self._pidfd)

    def _has_ended(self, timeout_ms: int | None) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_ms))

    def poll(self) -> int | None:
        """0, if it has ended."""
        return 0 if self._has_ended(0) else None

    def wait(self) -> int:
        """0, when it has ended."""
        self._has_ended(None)
        return 0

    def kill(self) -> None:
        """SIGKILL."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


class Child(subprocess.Popen[bytes]):
    """A child of this process."""

    def pidfd(self) -> int:
        """Of it, to be closed."""
        return os.pidfd_open(self.pid)


def begun(
    module: str, words: Sequence[str], fds: Sequence[int] = (), stderr: int = subprocess.DEVNULL
) -> Child:
    """`python -m MODULE WORDS`, in a session of its own: the keys of a terminal are not for it."""
    return Child(
        [sys.executable, "-P", "-m", module, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=fds,
        start_new_session=True,
        cwd="/",
        env=environment(os.environ),
    )


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """In which it finds what we have found."""
    return {**given, "PYTHONPATH": os.pathsep.join(place.paths(given))}


def why_ended() -> str:
    """Of one that was to make a sandbox, and said nothing."""
    from importlib.util import find_spec  # noqa: PLC0415  only for a mistake

    if find_spec("runsc._native") is None:
        return (
            f"runsc was found in {place.HOME}, a source folder in which it is not built: "
            "run this elsewhere, or `python ci/build.py` there"
        )
    return "the process that makes the sandbox has ended"
