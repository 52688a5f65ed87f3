"""The processes behind a container: whether they still are, and the pid file. Imports nothing."""

from __future__ import annotations

import os

STOPPED = "stopped"


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none (a zombie is none)."""
    fields = _stat(pid)
    return 0 if not fields or fields[0] in (b"Z", b"X") else int(fields[19])


def began(pid: int) -> int:
    """The same, also of a zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _stat(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_same(pid: int, started: int) -> bool:
    """Whether a process is still the one that started then."""
    return pid > 0 and start_time(pid) == started != 0


def pidfd_of(pid: int, started: int) -> int:
    """A pidfd of the process that started then; -1 if it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    if is_same(pid, started):  # so it was when that was opened
        return pidfd
    os.close(pidfd)
    return -1


def is_held_up(pid: int) -> bool:
    """Whether the kernel keeps a process from ending, in a file system that does not answer.

    A killed one that waits uninterruptibly runs nothing of its own any more.
    """
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] == b"D":
                    return True
    except (FileNotFoundError, ProcessLookupError):
        pass
    return False


def word_for(
    phase: str, creator: tuple[int, int], sandbox: tuple[int, int], paused: bool
) -> str:
    """OCI's word: creating, created, running, paused, stopped. Processes: (pid, start time)."""
    if phase == "creating":
        return phase if is_same(*creator) else STOPPED
    if not is_same(*sandbox):
        return STOPPED
    return "paused" if paused else phase


def write_pid_file(path: str, pid: int) -> None:
    """Written elsewhere and renamed: a reader finds the whole number or no file. What has the name
    of that other place is not written to: in /tmp it may be anybody's link. Raises: OSError."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    try:  # noqa: SIM105  contextlib costs more
        os.unlink(temporary)  # of a command that was killed
    except FileNotFoundError:
        pass
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write(str(pid))
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
