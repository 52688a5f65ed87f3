"""The cgroup of a container: a directory in each hierarchy, for the sandbox's processes.

In this order: `for_container` decides where it lies and touches nothing; the caller writes
`cgroup.record` to disk, so that a crash from here on leaves nothing that is not known; `create`
makes the directories, `apply` writes the limits, `open_joins` opens what the children write to
when they join. From another command: `recorded.of(state.cgroups)`, then `apply`, `freeze`,
`delete`…
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from runsc.cgroups import Record, files, hierarchies, v1, v2
from runsc.cgroups.hierarchies import V2, Hierarchy
from runsc.errors import RuntimeFailure, SpecError, why
from runsc.oci.resources import Resources

Warn = Callable[[str], None]

_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LIMIT = 1 << 62
"""Version 1 has a number where nothing is limited: the most pages that a long can count."""
PATIENCE_S = 2.0
"""How long a cgroup whose processes were killed may take to become empty, or frozen."""


class Vanished(RuntimeFailure):
    """A directory above has gone since it was decided where the cgroup lies: the last container in
    it has ended, which had made it."""


def for_container(
    cgroups_path: str,
    container_id: str,
    resources: Resources | None,
    found: Sequence[Hierarchy] | None = None,
) -> Cgroup | None:
    """Where the container's cgroup will be; None if it gets none. Touches nothing.

    As runc: an absolute path counts from the top of each hierarchy, a relative one from our own
    cgroup (in a machine with version 2 only, from its parent: a cgroup with processes has no
    children with controllers); without a path it is called like the container. "slice:prefix:name",
    which systemd's driver would take apart, is a relative path like any other. Other than runc, a
    container without a path and without limits gets no cgroup: to join one costs 13 ms.
    """
    limits = v1.asks(resources or Resources())
    if not cgroups_path and not limits:
        return None
    if "\0" in cgroups_path:
        raise SpecError("$.linux.cgroupsPath", "it has a NUL character")
    return at(cgroups_path, container_id, hierarchies.read() if found is None else found)


def at(cgroups_path: str, container_id: str, found: Sequence[Hierarchy]) -> Cgroup:
    """The cgroup of that path, in these hierarchies."""
    only_v2 = all(hierarchy.name == V2 for hierarchy in found)
    path = os.path.normpath(cgroups_path) if cgroups_path else container_id
    if not path.startswith("/"):
        path = os.path.normpath("/" + path)[1:]  # ".." leads nowhere
    directories: dict[str, str] = {}
    controllers: dict[str, str] = {}
    made: list[str] = []
    for hierarchy in found:
        if path.startswith("/"):
            directory = hierarchy.mount + os.path.normpath(path).replace("//", "/")
        elif only_v2 and hierarchy.own != hierarchy.mount:
            directory = os.path.join(os.path.dirname(hierarchy.own), path)
        else:
            directory = os.path.join(hierarchy.own, path)
        directory = directory.rstrip("/")
        directories[hierarchy.name] = directory
        for controller in hierarchy.controllers:
            controllers.setdefault(controller, hierarchy.name)
        made += _missing(hierarchy.mount, directory)
    return Cgroup(Record(directories, controllers, tuple(made)))


def _missing(mount: str, directory: str) -> list[str]:
    """The directories that have to be made, outermost first."""
    missing: list[str] = []
    while len(directory) > len(mount) and not os.path.isdir(directory):
        missing.insert(0, directory)
        directory = os.path.dirname(directory)
    return missing


class Cgroup:
    """One container's cgroup. Its only state is the record, and what the kernel has."""

    def __init__(self, record: Record) -> None:
        self.record = record
        """To be kept in state.json; changes with `create`."""

    def create(self) -> None:
        """Make the directories. Hierarchies that we may not write in are left out.

        Raises: RuntimeFailure when something else is wrong, `Vanished` among that; nothing is left
        behind then.
        """
        usable: dict[str, str] = {}
        try:
            for name, directory in self.record.directories.items():
                try:
                    self._create_in(name, directory)
                except OSError as error:
                    if error.errno not in _NO_PERMISSION:
                        raise
                    for made in reversed(self._steps(directory)):
                        if made in self.record.made:
                            _remove(made)
                    continue
                usable[name] = directory
        except OSError as error:
            self.delete()
            reason = (error.strerror or str(error)).lower()
            kind = Vanished if error.errno == errno.ENOENT else RuntimeFailure
            raise kind(
                f"unable to apply cgroup configuration: {error.filename}: {reason}"
            ) from None
        controllers = {c: name for c, name in self.record.controllers.items() if name in usable}
        self.record = self.record.changed(directories=usable, controllers=controllers)

    def look_again(self) -> None:
        """Which directories have to be made now: `record` changes."""
        places = self.record.directories.values()
        made = [step for directory in places for step in _missing("/", directory)]
        self.record = self.record.changed(made=tuple(made))

    def release(self) -> None:
        """The sandbox's processes have joined, or never will."""

    def _create_in(self, name: str, directory: str) -> None:
        only_v2 = list(self.record.directories) == [V2]
        for step in self._steps(directory):
            if only_v2:
                v2.enable_controllers(os.path.dirname(step))
            with suppress(FileExistsError):
                os.mkdir(step, 0o755)
            if "cpuset" in name.split(","):
                v1.inherit_cpuset(step)
        if not os.access(os.path.join(directory, "cgroup.procs"), os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), directory)

    def _steps(self, directory: str) -> list[str]:
        """The directories on the way that are ours; the last one if none is."""
        return [made for made in self.record.made if _is_within(directory, made)] or [directory]

    def _enable_controllers(self) -> None:
        """In version 2 a cgroup has the controllers that its parent gives to its children.

        Where version 1 has most of them, the others are enabled only when a limit asks.
        """
        for step in self._steps(self.record.directories[V2]):
            v2.enable_controllers(os.path.dirname(step))

    def apply(self, resources: Resources, warn: Warn) -> None:
        """Write the limits; what the document does not name stays as it is.

        A controller that this machine, or this user, does not have is a warning, if a limit asks
        for it. Raises: RuntimeFailure where the kernel refuses a value.
        """
        for controller in v1.asks(resources):
            directory, version = self._find(controller)
            if directory is None:
                warn(f"cannot set {controller} limit: container could not join or create cgroup")
            elif version == 1:
                v1.apply(controller, directory, resources)
            else:
                self._enable_controllers()
                v2.apply(controller, directory, resources)
        if resources.unified:
            directory = self.record.directories.get(V2)
            if directory is None:
                raise RuntimeFailure("invalid configuration: cannot use unified on cgroup v1")
            self._enable_controllers()
            v2.apply_unified(directory, resources.unified)

    def _find(self, controller: str) -> tuple[str | None, int]:
        """The directory in which a controller's files are, and the version they are of."""
        name = self.record.controllers.get(controller)
        if name is None and controller == "blkio":
            name = self.record.controllers.get("io")
        if name is None:
            return None, 0
        return self.record.directories[name], 2 if name == V2 else 1

    def directory(self, controller: str) -> str | None:
        """Where the files of a controller are (names as in version 1); None if nowhere."""
        return self._find(controller)[0]

    def memory_limit(self) -> int:
        """Bytes that the kernel allows it now; 0 where nothing is limited."""
        directory, version = self._find("memory")
        if directory is None:
            return 0
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        limit = files.read_number(directory, name) or 0
        return limit if limit < NO_LIMIT else 0

    def open_joins(self) -> tuple[int, ...]:
        """Descriptors that a child inherits and gives to `join`: it needs no path and no rights.

        A process joins before it allocates, for memory belongs to the cgroup that it was first
        used in. Whoever opens them closes them.
        """
        opened: list[int] = []
        try:
            for directory in self.record.directories.values():
                path = os.path.join(directory, "cgroup.procs")
                opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            for fd in opened:
                os.close(fd)
            reason = (error.strerror or str(error)).lower()
            raise RuntimeFailure(f"cgroup: open {error.filename}: {reason}") from None
        return tuple(opened)

    def open_limits(self) -> tuple[int, ...]:
        """Descriptors that write the limit of memory, and, if there is one, of swap.

        None if others may be in the cgroup, or where there is no controller.
        """
        directory, version = self._find("memory")
        if directory is None or not self._is_ours():
            return ()
        names = ("memory.max", "memory.swap.max")
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.swappiness")
        opened: list[int] = []
        with suppress(OSError):
            for name in names:
                path = os.path.join(directory, name)
                opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        return tuple(opened)

    def add(self, pid: int) -> None:
        """Move a running process here, as `update` does with a sandbox that has no cgroup yet."""
        for directory in self.record.directories.values():
            files.must_write(directory, "cgroup.procs", str(pid))

    def processes(self) -> set[int]:
        """The processes in it, as we number them."""
        found: set[int] = set()
        for directory in self.record.directories.values():
            with suppress(OSError):
                words = files.read(directory, "cgroup.procs").split()
                found.update(int(word) for word in words if word != "0")
        return found

    def freeze(self) -> None:
        """Stop the sandbox's processes. Raises: RuntimeFailure without a freezer."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Let them run again."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        directory = self.directory("freezer")
        if directory is not None:
            place, word = directory, "FROZEN" if frozen else "THAWED"
            files.must_write(place, "freezer.state", word)
            _wait(lambda: files.read(place, "freezer.state").strip() == word)
            return
        unified = self.record.directories.get(V2, "")
        if not files.exists(unified, "cgroup.freeze"):
            raise RuntimeFailure("cannot toggle freezer: cgroups not configured for container")
        files.must_write(unified, "cgroup.freeze", "1" if frozen else "0")
        wanted = 1 if frozen else 0
        _wait(lambda: files.read_table(unified, "cgroup.events").get("frozen") == wanted)

    def kill(self) -> None:
        """SIGKILL to whatever is left in it, if the cgroup is ours alone."""
        if not self._is_ours():
            return
        with suppress(RuntimeFailure):
            self.thaw()
        for pidfd in self._opened().values():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)

    def expel(self, is_held_up: Callable[[int, int], bool]) -> set[int]:
        """Processes that are killed, but cannot end now, are to keep no cgroup: the top one has
        them from now on. Who that is. `is_held_up` gets pid and pidfd, which stays open."""
        if not self._is_ours():
            return set()
        opened = self._opened()
        try:
            found = {pid for pid, pidfd in opened.items() if is_held_up(pid, pidfd)}
            for hierarchy in hierarchies.read() if found else ():
                if hierarchy.name in self.record.directories:
                    for pid in found:
                        self._move(pid, opened[pid], hierarchy.mount)
        finally:
            for pidfd in opened.values():
                os.close(pidfd)
        return found

    @staticmethod
    def _move(pid: int, pidfd: int, directory: str) -> None:
        """To this cgroup, unless it has ended: the kernel takes a number only, which may be another
        process's then."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(0):
            with suppress(RuntimeFailure):
                files.must_write(directory, "cgroup.procs", str(pid))

    def _opened(self) -> dict[int, int]:
        """pid → pidfd of all others that are in it. Who is found once it has been opened is who was
        opened: a number that another process has got meanwhile is in the cgroup no more."""
        opened: dict[int, int] = {}
        for pid in self.processes() - {os.getpid()}:
            with suppress(OSError):
                opened[pid] = os.pidfd_open(pid)
        for pid in opened.keys() - self.processes():
            os.close(opened.pop(pid))
        return opened

    def _is_ours(self) -> bool:
        made = set(self.record.made)
        return bool(made) and made.issuperset(self.record.directories.values())

    def delete(self) -> None:
        """Remove the directories that `create` made; no error if they are gone.

        Those above the container's own stay if somebody else uses them by now.
        Raises: RuntimeFailure if processes will not leave.
        """
        own = set(self.record.directories.values())
        deadline = time.monotonic() + PATIENCE_S
        for directory in reversed(self.record.made):
            while not _remove(directory) and directory in own:
                if time.monotonic() > deadline:
                    raise RuntimeFailure(f"unable to destroy container: {directory} is in use")
                time.sleep(0.005)


def join(descriptors: Sequence[int]) -> None:
    """Called by a child: move itself into the cgroup whose `open_joins` it inherited.

    Raises: OSError.
    """
    for fd in descriptors:
        os.write(fd, b"0")
        os.close(fd)


def _is_within(directory: str, above: str) -> bool:
    return directory == above or directory.startswith(above + "/")


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeFailure("unable to freeze: a process does not stop")
        time.sleep(0.001)


def _remove(directory: str) -> bool:
    """False while something is in it."""
    if not os.path.isdir(directory):
        return True
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise RuntimeFailure(f"rmdir {directory}: {why(error)}") from None
        return False
    return True
