"""The state of containers on disk: one directory per container below the state root.

`<root>/<id>/state.json` is written by renaming, `<root>/<id>/control.sock` is where the sandbox
listens. A directory is made under the root's lock, so two commands cannot make the same container;
a container whose processes are gone and that nobody will delete (it was made by `run`) is swept up
by the next command that looks.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from runsc.errors import RuntimeFailure

_ID = re.compile(r"[\w+\-.]+", re.ASCII)


class State(msgspec.Struct, rename="camel", omit_defaults=True):
    """What is kept of a container. The first five are the specification's state."""

    oci_version: str
    id: str
    bundle: str
    pid: int = 0
    """The Sentry, as the host sees it: lives as long as the container."""
    annotations: dict[str, str] = {}
    rootfs: str = ""
    created: str = ""
    owner: int = 0
    pid_start: int = 0
    """Start time of that process in clock ticks: tells it from a later one with the same number."""
    gofer_pid: int = 0
    gofer_start: int = 0
    foreground: bool = False
    """Made by `run` without --detach: ends, and goes away, with that command."""


def default_root() -> str:
    """/run/runsc for root; below XDG_RUNTIME_DIR, or a private folder in /tmp, for others."""
    if os.geteuid() == 0:
        return "/run/runsc"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "runsc") if runtime else f"/tmp/runsc-{os.geteuid()}"


def check_id(container_id: str) -> str:
    """The same names that runc takes. Raises: RuntimeFailure."""
    if not _ID.fullmatch(container_id) or container_id in (".", "..") or len(container_id) > 255:
        raise RuntimeFailure("invalid container ID format")
    return container_id


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none (a zombie is none)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(state: State) -> bool:
    """Whether the sandbox process of this state is still the same and running."""
    return state.pid > 0 and start_time(state.pid) == state.pid_start != 0


class Store:
    """The state root."""

    def __init__(self, root: str) -> None:
        self.root = root
        os.makedirs(root, mode=0o700, exist_ok=True)
        info = os.stat(root)
        if info.st_uid not in (os.geteuid(), 0):
            raise RuntimeFailure(f"{root} belongs to another user")

    def path(self, container_id: str, name: str = "") -> str:
        """A file in the directory of a container."""
        return os.path.join(self.root, container_id, name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else makes or removes containers meanwhile."""
        fd = os.open(os.path.join(self.root, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def create(self, state: State) -> None:
        """Reserve the name and write the first state. Raises: RuntimeFailure if it is taken."""
        with self.locked():
            self._sweep()
            try:
                os.mkdir(self.path(state.id), 0o711)
            except FileExistsError:
                raise RuntimeFailure("container with given ID already exists") from None
            state.created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
            state.owner = os.geteuid()
            self.save(state)

    def save(self, state: State) -> None:
        """Replace the state on disk, in one step."""
        temporary = self.path(state.id, f"state.json.{os.getpid()}")
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(state))
        os.rename(temporary, self.path(state.id, "state.json"))

    def load(self, container_id: str) -> State:
        """Raises: RuntimeFailure if there is no such container."""
        try:
            with open(self.path(check_id(container_id), "state.json"), "rb") as file:
                return msgspec.json.decode(file.read(), type=State)
        except (FileNotFoundError, NotADirectoryError):
            raise RuntimeFailure("container does not exist") from None

    def all(self) -> list[State]:
        """All containers, by name."""
        with self.locked():
            self._sweep()
            return [self.load(name) for name in self._names()]

    def remove(self, container_id: str) -> None:
        """Forget a container; no error if it is gone."""
        directory = self.path(check_id(container_id))
        try:
            for entry in os.scandir(directory):
                os.unlink(entry.path)
            os.rmdir(directory)
        except FileNotFoundError:
            pass

    def _names(self) -> list[str]:
        names = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        return [name for name in names if os.path.exists(self.path(name, "state.json"))]

    def _sweep(self) -> None:
        """Remove what a killed `run` left behind. Holds the lock."""
        for name in self._names():
            state = self.load(name)
            if state.foreground and state.pid and not is_alive(state):
                self.remove(name)
