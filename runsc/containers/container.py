"""The state of containers on disk: one directory per container below the state root.

`<root>/<id>/state.json` is written by renaming, `<root>/<id>/control.sock` is where the sandbox
listens. A directory is made under the root's lock, so two commands cannot make the same container;
a command that changes a container holds the lock of its directory (flock(2), so that it ends with
the process that holds it). What a state says of processes is believed only if they are still the
same: pid and start time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from runsc.cgroups import Record
from runsc.containers.names import check_id
from runsc.containers.processes import word_for
from runsc.errors import NoContainer, RuntimeFailure
from runsc.oci.spec import Hooks

LOCK_PATIENCE_S = 30.0
"""How long a command waits for another one that changes the same container."""


class State(msgspec.Struct, rename="camel", omit_defaults=True):
    """What is kept of a container. The first five are the specification's state."""

    oci_version: str
    id: str
    bundle: str
    pid: int = 0
    """The stand-in: lives on the host as long as the container's first process."""
    annotations: dict[str, str] = {}
    rootfs: str = ""
    created: str = ""
    owner: int = 0
    pid_start: int = 0
    """Start time of that process in clock ticks: tells it from a later one with the same number."""
    sentry_pid: int = 0
    sentry_start: int = 0
    gofer_pid: int = 0
    gofer_start: int = 0
    foreground: bool = False
    """Made by `run` without --detach: ends, and goes away, with that command."""
    phase: str = "creating"
    """ "creating", "created", "running": what the last command brought about."""
    creator_pid: int = 0
    creator_start: int = 0
    """The command that is creating it."""
    sandbox: str = ""
    """The container whose sandbox this one has joined; "": it made its own."""
    network: str = ""
    """The sandbox's: "host" or "none"."""
    services: bool = False
    """It was made with sockets of the host as mounts."""
    paused: bool = False
    cgroups: Record = Record()
    hooks: Hooks | None = None


def status(state: State) -> str:
    """OCI's word for it: creating, created, running, paused, stopped."""
    creator, sandbox = (state.creator_pid, state.creator_start), (state.pid, state.pid_start)
    return word_for(state.phase, creator, sandbox, state.paused)


@contextmanager
def _owner_alone() -> Iterator[None]:
    """What is made inside, folders above it too, is its owner's alone, whatever the umask is."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _private(path: str, flags: int) -> int:
    with _owner_alone():
        return os.open(path, flags, 0o600)


class Store:
    """The state root."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        try:
            with _owner_alone():
                os.makedirs(root, mode=0o700, exist_ok=True)
        except OSError as error:
            reason = os.strerror(errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or 0)
            raise RuntimeFailure(f"state directory (--root) {root}: {reason.lower()}") from None
        info = os.stat(root)
        if info.st_uid not in (os.geteuid(), 0):
            raise RuntimeFailure(f"{root} belongs to another user")
        if info.st_mode & 0o022:
            raise RuntimeFailure(f"state directory (--root) {root}: others may write to it")

    def path(self, container_id: str, name: str = "") -> str:
        """A file in the directory of a container."""
        return os.path.join(self.root, container_id, name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else makes containers meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with _owner_alone():
            fd = os.open(os.path.join(self.root, ".lock"), flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def held(self, container_id: str, patience_s: float = LOCK_PATIENCE_S) -> Iterator[State]:
        """Nobody else changes this container meanwhile. Gives its state, to be changed and saved.

        Raises: RuntimeFailure if there is no such container, or somebody keeps it too long.
        """
        fd = self._lock(check_id(container_id), patience_s)
        try:
            yield self.load(container_id)
        finally:
            os.close(fd)

    def _lock(self, container_id: str, patience_s: float) -> int:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fd = os.open(self.path(container_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise NoContainer(container_id) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), os.stat(self.path(container_id))):
                    return fd
            except FileNotFoundError:  # removed by whoever held the lock
                pass
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise RuntimeFailure(
                        f'another command is changing the container "{container_id}"'
                    ) from None
                time.sleep(0.01)
            os.close(fd)

    def create(self, state: State) -> None:
        """Reserve the name and write the first state. Raises: RuntimeFailure if it is taken."""
        directory = self.path(check_id(state.id))
        with self.locked():
            if not os.path.exists(self.path(state.id, "state.json")):
                self._remove(state.id)  # a command was killed while it made or removed this one
            try:
                with _owner_alone():
                    os.mkdir(directory, 0o700)
            except FileExistsError:
                raise RuntimeFailure(
                    f'container with given ID already exists: "{state.id}"'
                ) from None
            now = time.time_ns()
            seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
            state.created = f"{seconds}.{now % 10**9:09d}".rstrip("0").rstrip(".") + "Z"
            state.owner = os.geteuid()
            self.save(state)

    def save(self, state: State) -> None:
        """Replace the state on disk, in one step."""
        temporary = self.path(state.id, f"state.json.{os.getpid()}")
        with open(temporary, "wb", opener=_private) as file:
            file.write(msgspec.json.encode(state))
        os.rename(temporary, self.path(state.id, "state.json"))

    def load(self, container_id: str) -> State:
        """Raises: RuntimeFailure if there is no such container."""
        try:
            with open(self.path(check_id(container_id), "state.json"), "rb") as file:
                return msgspec.json.decode(file.read(), type=State)
        except (FileNotFoundError, NotADirectoryError):
            raise NoContainer(container_id) from None
        except msgspec.DecodeError as error:
            raise RuntimeFailure(f"state.json of {container_id}: {error}") from None

    def all(self) -> list[State]:
        """All containers, by name."""
        found = []
        for name in sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir()):
            with suppress(RuntimeFailure):  # it has just been deleted
                found.append(self.load(name))
        return found

    def remove(self, container_id: str) -> None:
        """Forget a container; no error if it is gone."""
        with self.locked():
            self._remove(check_id(container_id))

    def forget_remains(self, container_id: str) -> None:
        """What a command left that was killed while it made or removed a container."""
        with self.locked():
            if not os.path.exists(self.path(check_id(container_id), "state.json")):
                self._remove(container_id)

    def _remove(self, container_id: str) -> None:
        """The state goes last: it is what is found. Holds the root's lock."""
        directory = self.path(container_id)
        try:
            names = sorted(os.listdir(directory), key=lambda name: name == "state.json")
            for name in names:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(directory, name))
            os.rmdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            pass
