"""The container's cgroup where systemd makes it: a scope, for --systemd-cgroup.

systemd owns the hierarchies of version 2 and its own of version 1; in the others of version 1 the
same directories are ours. A scope is made with a process in it, and ends with its last one: so a
process that only waits is the first, until the sandbox's have joined (systemd.scope(5)).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from runsc import host
from runsc.cgroups import Record, hierarchies, systemd, units, v1
from runsc.cgroups.cgroup import Cgroup, Warn, at
from runsc.cgroups.hierarchies import V2, Hierarchy
from runsc.errors import RuntimeFailure
from runsc.oci.resources import Resources

MANAGED = (V2, "name=systemd")


def for_container(
    cgroups_path: str,
    container_id: str,
    resources: Resources | None,
    found: Sequence[Hierarchy] | None = None,
) -> Cgroup | None:
    """Where the container's cgroup will be; None if it gets none, as with the other driver.

    Raises: SpecError; RuntimeFailure where there is no systemd.
    """
    if not cgroups_path and not v1.asks(resources or Resources()):
        return None
    unit = units.parse(cgroups_path, container_id, systemd.asks_the_systems())
    path = systemd.control_group() + unit.path
    record = at(path, container_id, hierarchies.read() if found is None else found).record
    slices = tuple(
        os.path.dirname(record.directories[name]) for name in MANAGED if name in record.directories
    )
    made = tuple(step for step in record.made if not any(_holds(step, at) for at in slices))
    return Scope(record.changed(made=made, unit=unit.name, slice=unit.slice))


def _holds(directory: str, below: str) -> bool:
    return directory == below or below.startswith(directory + "/")


class Scope(Cgroup):
    """A cgroup that is a unit as well."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._first = self._held = -1
        """The process that waits, and the end of a pipe that it waits for."""

    def create(self) -> None:
        """The unit, and the directories that systemd makes none of. Raises: RuntimeFailure."""
        self._first, self._held = _waiting()
        unit = units.Unit(self.record.slice, self.record.unit)
        systemd.start(unit.name, units.new_scope(unit, self._first))
        self._leave_out_what_is_not_managed()
        super().create()

    def _leave_out_what_is_not_managed(self) -> None:
        """On a hybrid machine it may be that systemd has its own hierarchy alone."""
        there = {
            name: directory
            for name, directory in self.record.directories.items()
            if name not in MANAGED or os.path.isdir(directory)
        }
        if not there.keys() & set(MANAGED):
            raise RuntimeFailure(f"systemd has made no cgroup for {self.record.unit}")
        controllers = {c: name for c, name in self.record.controllers.items() if name in there}
        self.record = self.record.changed(directories=there, controllers=controllers)

    def release(self) -> None:
        """Others are in it now."""
        if self._first > 0:
            os.kill(self._first, signal.SIGKILL)
            os.waitpid(self._first, 0)
            os.close(self._held)
            self._first = -1

    def apply(self, resources: Resources, warn: Warn) -> None:
        """To systemd, which would undo what it does not know, and as files."""
        version = 2 if self.record.controllers.get("memory", V2) == V2 else 1
        systemd.change(self.record.unit, units.limits(resources, version))
        super().apply(resources, warn)

    def delete(self) -> None:
        """End the unit; remove what is left."""
        self.release()
        try:
            systemd.stop(self.record.unit)
        finally:
            super().delete()


def _waiting() -> tuple[int, int]:
    """A process that ends with us, at the latest: its pid, and the descriptor that keeps it."""
    read, write = os.pipe()
    pid = host.spawn(0)
    if pid == 0:
        try:
            os.close(write)
            os.read(read, 1)
        finally:
            os._exit(0)
    os.close(read)
    return pid, write
