"""What is done around a container's processes: cgroup, files, hooks, terminal, place before a
killer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure

if TYPE_CHECKING:
    from runsc.cgroups.cgroup import Cgroup
    from runsc.containers.container import Store
    from runsc.containers.relay import Relay
    from runsc.containers.state import State
    from runsc.oci.convert import Container
    from runsc.oci.resources import Resources
    from runsc.options import Globals


CGROUP_TRIES = 8
"""The one above may go each time: others end in the same moment."""


def plan_cgroup(flags: Globals, container: Container, container_id: str) -> Cgroup | None:
    """Where it will be; nothing is touched."""
    if flags.ignore_cgroups or (not container.cgroups_path and container.resources is None):
        return None
    if flags.systemd_cgroup:
        from runsc.cgroups.scope import for_container as driver  # noqa: PLC0415
    else:
        from runsc.cgroups.cgroup import for_container as driver  # noqa: PLC0415  few have one
    return driver(container.cgroups_path, container_id, container.resources)


def make_cgroup(
    flags: Globals, store: Store, state: State, resources: Resources | None, cgroup: Cgroup
) -> None:
    """The state names it before it is there, so that a crash leaves nothing unknown."""
    from runsc.cgroups.cgroup import Vanished  # noqa: PLC0415  few containers have a cgroup
    from runsc.cgroups.guest import on_host  # noqa: PLC0415
    from runsc.oci.resources import Resources  # noqa: PLC0415

    for left in reversed(range(CGROUP_TRIES)):
        state.cgroups = cgroup.record
        store.save(state)
        try:
            cgroup.create()
            break
        except Vanished:
            if not left or cgroup.record.unit:  # what systemd has made is its own
                raise
            cgroup.look_again()
    state.cgroups = cgroup.record
    cgroup.apply(on_host(resources or Resources()), flags.log.warning)


def run_hooks(state: State) -> None:
    """Those that come before anything of the container, as long as that is there: who ends it need
    not wait for them. Raises: RuntimeFailure."""
    from runsc.oci import hooks  # noqa: PLC0415  few containers have hooks

    document = lifecycle.document(state, "creating")
    found = hooks.read(state.hooks)
    stand_in = os.pidfd_open(state.pid)
    try:
        place = hooks.Place(ends_with=stand_in, tie=signal.SIGKILL)
        hooks.run(found, hooks.Phase.PRESTART, document, place)
        hooks.run(found, hooks.Phase.CREATE_RUNTIME, document, place)
    finally:
        os.close(stand_in)


def create_container_hooks(
    state: State, variables: tuple[bytes, ...]
) -> Callable[[], str] | None:
    """What the Gofer's process does first: those in its namespaces, and what failed."""
    if not state.hooks.get("createContainer"):
        return None
    from runsc.oci import hooks  # noqa: PLC0415

    def before_gofer() -> str:
        try:
            environment = [os.fsdecode(each) for each in variables]
            place = hooks.Place(state.rootfs, environment, tie=signal.SIGKILL)
            document = lifecycle.document(state, "creating")
            hooks.run(hooks.read(state.hooks), hooks.Phase.CREATE_CONTAINER, document, place)
        except RuntimeFailure as error:
            return str(error)
        return ""

    return before_gofer


def adjust_oom_score(value: int, pids: tuple[int, ...]) -> None:
    """What the bundle asks for the host too; to lower it needs CAP_SYS_RESOURCE: then it stays."""
    if not value:
        return
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(value))


def claim_files(flags: Globals, store: Store, state: State, container: Container) -> Container:
    """What of the host's files is its alone, and what others have, too: before its Gofer is made.

    Preconditions: its control socket listens.
    """
    if not any(export.writable for export in container.exports):
        return container
    from runsc.launch import overlap  # noqa: PLC0415  not of `do`

    def noted() -> None:
        state.written_behind = True
        store.save(state)

    def ask(paths: list[str]) -> None:
        from runsc.launch import neighbours  # noqa: PLC0415  few have them

        neighbours.ask(store, state.id, paths, flags.log.warning)

    container = overlap.claimed(container, flags.log.debug, noted, ask)
    state.written_behind = container.root.written_behind
    return container


def relay_for(container: Container) -> Relay | None:
    """Where a program wants a terminal that the caller's streams are not."""
    if not container.process.terminal:
        return None
    from runsc.containers import relay  # noqa: PLC0415  most have no terminal

    return relay.Relay(container.process.console_size) if relay.is_needed() else None
