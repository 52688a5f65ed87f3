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

from runsc.containers import state as state_file
from runsc.containers.names import check_id, check_root
from runsc.containers.state import State
from runsc.errors import FULL, Busy, NoContainer, RuntimeFailure, why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

LOCK_PATIENCE_S = 30.0
"""How long a command waits for another one that changes the same container."""


class _OwnerAlone:
    """What is made inside, folders above it too, is its owner's alone, whatever the umask is."""

    def __enter__(self) -> None:
        self._before = os.umask(0o077)

    def __exit__(self, *_: object) -> None:
        os.umask(self._before)


class Lock:
    """A descriptor with a flock(2), which ends with it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class Held:
    """A container that nobody else changes meanwhile: `Store.held`."""

    def __init__(self, store: Store, container_id: str, patience_s: float) -> None:
        self._store = store
        self._id = container_id
        self._patience_s = patience_s

    def __enter__(self) -> State:
        self._lock = self._store.lock(self._id, self._patience_s)
        try:
            state = self._store.load(self._id)
        except BaseException:
            self._lock.__exit__()
            raise
        self._store.folders[self._id] = self._lock.fd
        return state

    def __exit__(self, *_: object) -> None:
        del self._store.folders[self._id]
        self._lock.__exit__()


class Store:
    """The state root."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.folders: dict[str, int] = {}
        """Of containers that are held here: another one may have the name by now."""
        try:
            with _OwnerAlone():
                os.makedirs(root, mode=0o700, exist_ok=True)
        except OSError as error:
            reason = os.strerror(errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or 0)
            raise RuntimeFailure(f"state directory (--root) {root}: {reason.lower()}") from None
        check_root(self.root)

    def path(self, container_id: str, name: str = "") -> str:
        """A file in the directory of a container."""
        return os.path.join(self.root, container_id, name)

    def locked(self) -> Lock:
        """Nobody else makes containers meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with _OwnerAlone():
            fd = os.open(os.path.join(self.root, ".lock"), flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        return Lock(fd)

    def held(self, container_id: str, patience_s: float = LOCK_PATIENCE_S) -> Held:
        """Nobody else changes this container meanwhile. Gives its state, to be changed and saved.

        Raises: RuntimeFailure if there is no such container, or somebody keeps it too long.
        """
        return Held(self, check_id(container_id), patience_s)

    def lock(self, container_id: str, patience_s: float) -> Lock:
        """That of `held`, alone."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fd = os.open(self.path(container_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise NoContainer(container_id) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), os.stat(self.path(container_id))):
                    return Lock(fd)
            except FileNotFoundError:  # removed by whoever held the lock
                pass
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise Busy(container_id) from None
                time.sleep(0.01)
            os.close(fd)

    def create(self, state: State) -> None:
        """Reserve the name and write the first state. Raises: RuntimeFailure if it is taken."""
        directory = self.path(check_id(state.id))
        with self.locked():
            if not os.path.exists(self.path(state.id, "state.json")):
                self._remove(state.id)  # a command was killed while it made or removed this one
            try:
                with _OwnerAlone():
                    os.mkdir(directory, 0o700)
            except FileExistsError:
                raise RuntimeFailure(
                    f'container with given ID already exists: "{state.id}"',
                    hint=f"use another name, or remove that one: `runsc delete {state.id}`",
                ) from None
            now = time.time_ns()
            seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
            state.created = f"{seconds}.{now % 10**9:09d}".rstrip("0").rstrip(".") + "Z"
            state.owner = os.geteuid()
            try:
                self.save(state)
            except BaseException:
                self._remove(state.id)
                raise

    def save(self, state: State) -> None:
        """Replace the state on disk, in one step. Raises: OSError; RuntimeFailure, also if the
        container has been removed meanwhile, by who has started it, whoever has its name then."""
        folder = self.folders.get(state.id)
        name = "state.json" if folder is not None else self.path(state.id, "state.json")
        temporary = f"{name}.{os.getpid()}"

        def opener(path: str, flags: int) -> int:
            with _OwnerAlone():
                return os.open(path, flags, 0o600, dir_fd=folder)

        try:
            with open(temporary, "wb", opener=opener) as file:
                file.write(state_file.encode(state))
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except FileNotFoundError:
            raise NoContainer(state.id) from None
        except OSError as error:
            if error.errno not in FULL:
                raise
            try:  # noqa: SIM105  contextlib costs more
                os.unlink(temporary, dir_fd=folder)
            except OSError:
                pass
            raise RuntimeFailure(f"state directory (--root) {self.root}: {why(error)}") from None

    def load(self, container_id: str) -> State:
        """Raises: RuntimeFailure if there is no such container."""
        try:
            with open(self.path(check_id(container_id), "state.json"), "rb") as file:
                return state_file.decode(file.read())
        except (FileNotFoundError, NotADirectoryError):
            raise NoContainer(container_id) from None
        except ValueError as error:
            raise RuntimeFailure(f"state.json of {container_id}: {error}") from None

    def all(self) -> list[State]:
        """All containers, by name."""
        found = []
        for name in sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir()):
            try:
                found.append(self.load(name))
            except RuntimeFailure:  # it has just been deleted
                continue
        return found

    def remove(self, container_id: str, created: str = "") -> bool:
        """Forget a container, or only the one that was made then; whether it was there."""
        with self.locked():
            if created and self.is_another(container_id, created):
                return False
            was_there = os.path.exists(self.path(check_id(container_id), "state.json"))
            self._remove(container_id)
            return was_there

    def is_another(self, container_id: str, created: str) -> bool:
        """Whether the one that was made then is gone, and another one has its name."""
        try:
            return self.load(container_id).created != created
        except RuntimeFailure:
            return False

    def forget_remains(self, container_id: str) -> None:
        """What a command left that was killed while it made or removed a container."""
        with self.locked():
            if not os.path.exists(self.path(check_id(container_id), "state.json")):
                self._remove(container_id)

    def _remove(self, container_id: str) -> None:
        """The state goes last: it is what is found. Holds the root's lock, and not always that of
        the container: what somebody saves meanwhile goes, too."""
        directory = self.path(container_id)
        while True:
            try:
                names = sorted(os.listdir(directory), key=lambda name: name == "state.json")
                for name in names:
                    try:
                        os.unlink(os.path.join(directory, name))
                    except FileNotFoundError:
                        continue
                os.rmdir(directory)
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
