"""From a bundle that is understood to a sandbox that runs, or that waits for `start`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from runsc.containers import console, lifecycle, signals
from runsc.containers.container import State, Store
from runsc.containers.listener import listen
from runsc.containers.processes import start_time, write_pid_file
from runsc.errors import RuntimeFailure
from runsc.launch import boot, early, oom_victim, sandbox, stand_in, users
from runsc.launch.configure import Wishes, make_config, network_of
from runsc.launch.janitor import keep_clean
from runsc.launch.programs import Programs
from runsc.oci.convert import Container
from runsc.options import Globals
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.cgroups.cgroup import Cgroup
    from runsc.containers.relay import Relay
    from runsc.launch.network import Network
    from runsc.oci.resources import Resources
    from sentry.config import SandboxConfig

Bodies = Callable[[str], Programs]


def real_programs(platform: str) -> Programs:
    """The Sentry, and the Gofer. Raises: RuntimeFailure."""
    from gofer.main import run  # noqa: PLC0415

    try:
        return Programs(early.claim(platform), run)
    except RuntimeError as error:  # libunicorn is not there
        raise RuntimeFailure(str(error)) from None


class Identity(Struct, frozen=True):
    """How a container is called and where it comes from."""

    container_id: str
    bundle: str
    rootfs: str
    version: str
    annotations: dict[str, str]


def create(
    flags: Globals,
    identity: Identity,
    container: Container,
    wishes: Wishes,
    programs: Bodies = real_programs,
) -> None:
    """Make a container whose first process waits for `start`, and which outlives this process."""
    console.check(container.process.terminal, True, wishes.console_socket)
    store, warn = flags.store(), flags.log.warning
    _reserve(flags, store, _new_state(identity, container))
    with store.held(identity.container_id) as state:
        try:
            running = _bring_up(flags, store, state, container, wishes, programs)
            try:
                running.await_ready()
                state.phase = "created"
                store.save(state)
                if wishes.pid_file is not None:
                    write_pid_file(wishes.pid_file, state.pid)
                running.keep()
            except BaseException:
                running.abandon()
                raise
        except BaseException:
            with suppress(RuntimeFailure):
                lifecycle.destroy(store, state, warn)
            raise


def run(
    flags: Globals,
    identity: Identity,
    container: Container,
    wishes: Wishes,
    programs: Bodies = real_programs,
) -> int:
    """Run a container to its end, with the caller's terminal and signals. Gives its exit code.

    With --detach: to its start.
    """
    if wishes.detach:
        create(flags, identity, container, wishes, programs)
        store = flags.store()
        try:
            lifecycle.start(store, identity.container_id)
        except BaseException:
            lifecycle.delete(store, identity.container_id, True, flags.log.warning)
            raise
        return 0
    console.check(container.process.terminal, False, wishes.console_socket)
    store = flags.store()
    state = _new_state(identity, container)
    state.foreground = not wishes.keep
    _reserve(flags, store, state)
    terminal = console.settings_kept(0) if container.process.terminal else nullcontext()
    try:
        with terminal as settings:
            return _stay(flags, store, state, container, wishes, programs, settings)
    except RuntimeFailure:
        if state.pid and _is_deleted(store, state.id):
            return 128 + signal.SIGKILL
        raise
    finally:
        if not wishes.keep or state.phase == "creating":
            lifecycle.destroy(store, state, flags.log.warning)


def _is_deleted(store: Store, container_id: str) -> bool:
    """Whether another command has deleted it, or is about to: until it has, it holds the lock."""
    try:
        with store.held(container_id):
            return False
    except RuntimeFailure:
        return not os.path.exists(store.path(container_id, "state.json"))


def _stay(
    flags: Globals,
    store: Store,
    state: State,
    container: Container,
    wishes: Wishes,
    programs: Bodies,
    settings: console.Settings | None,
) -> int:
    """Start it and wait for its end."""
    relay = _relay(container)
    if relay is not None:
        wishes = msgspec.structs.replace(wishes, wire=relay.slave)
    running = _bring_up(flags, store, state, container, wishes, programs)
    if relay is not None:
        relay.handed_over()
    try:
        wakeup = signals.catch(as_program=wishes.mortal_init)
        with keep_clean(store, state.id, flags.log.warning, settings):
            state.phase = "running"
            store.save(state)
            if wishes.pid_file is not None:
                write_pid_file(wishes.pid_file, state.pid)
            if state.hooks is not None:
                running.await_ready()
                if state.hooks.start_container:
                    lifecycle.before_start(store, state)
                    lifecycle.ask(store, state, Request("start"))
                lifecycle.after_start(state)
            if relay is None:
                return running.wait(wakeup)
            running.on_resize = relay.resize
            relay.start()
            code = running.wait(wakeup)
            relay.finish()
            return code
    except BaseException:
        running.abandon()
        raise


def _relay(container: Container) -> Relay | None:
    """Where a program wants a terminal that the caller's streams are not."""
    if not container.process.terminal:
        return None
    from runsc.containers import relay  # noqa: PLC0415  most have no terminal

    return relay.Relay(container.process.console_size) if relay.is_needed() else None


def _new_state(identity: Identity, container: Container) -> State:
    return State(
        oci_version=identity.version,
        id=identity.container_id,
        bundle=identity.bundle,
        annotations=identity.annotations,
        rootfs=identity.rootfs,
        creator_pid=os.getpid(),
        creator_start=start_time(os.getpid()),
        hooks=container.hooks,
    )


def _reserve(flags: Globals, store: Store, state: State) -> None:
    if flags.systemd_cgroup:
        from runsc.cgroups import systemd  # noqa: PLC0415  few hosts have it so

        systemd.check()
    lifecycle.sweep(store, flags.log.warning)
    store.create(state)


def _bring_up(
    flags: Globals,
    store: Store,
    state: State,
    container: Container,
    wishes: Wishes,
    programs: Bodies,
) -> sandbox.Sandbox:
    """cgroup → stand-in → the two processes, in the state on disk → hooks → they go on."""
    with ExitStack() as later:
        cgroup = _plan_cgroup(flags, container, state.id)
        if cgroup is not None:
            later.callback(cgroup.release)
            _make_cgroup(flags, store, state, container.resources, cgroup)
        joins = cgroup.open_joins() if cgroup is not None else ()
        victim = oom_victim.prepare(container, cgroup)
        sysctls = container.sysctls if network_of(flags, container) == "host" else ()
        standing = stand_in.spawn(stand_in.asked_for(container, sysctls), state.id, joins, victim)
        state.pid, state.pid_start = standing.pid, start_time(standing.pid)
        try:
            running = _start(flags, store, state, container, wishes, programs, cgroup, standing)
        except BaseException:
            standing.end()
            raise
        try:
            state.sentry_pid, state.sentry_start = running.pid, start_time(running.pid)
            state.gofer_pid = running.gofer_pid
            state.gofer_start = start_time(running.gofer_pid)
            if state.hooks is not None:
                store.save(state)
                _run_hooks(state)
                running.release()
            _adjust_oom_score(
                container.process.oom_score_adj, (standing.pid, running.pid, running.gofer_pid)
            )
        except BaseException:
            running.abandon()
            raise
        return running


def _start(
    flags: Globals,
    store: Store,
    state: State,
    container: Container,
    wishes: Wishes,
    programs: Bodies,
    cgroup: Cgroup | None,
    standing: stand_in.StandIn,
) -> sandbox.Sandbox:
    """The two processes; with hooks they wait for `release`."""
    joins = standing.joins
    terms = boot.Terms(
        held=state.hooks is not None,
        outlives=wishes.detach,
        own_terminal=bool(wishes.console_socket) or wishes.wire >= 0,
        joins=joins,
        before_gofer=_create_container_hooks(state, container.process.env),
    )
    with listen(store.path(state.id, "control.sock")) as listener:
        config = make_config(flags, container, state.id, listener.fileno(), wishes)
        if flags.debug:
            from runsc.launch import report  # noqa: PLC0415

            for line in report.decisions(flags, container, config, cgroup):
                flags.log.debug(line)
        standing.await_ready()
        config = msgspec.structs.replace(config, host_ids=standing.maps)
        network = _network(flags, container, config, standing.pid)
        exports = users.with_owners(container.exports)
        running = sandbox.start(
            config,
            exports,
            programs(flags.platform),
            flags.switches,
            terms,
            standing,
            network,
        )
    namespace_fd = network.namespace_fd if network is not None else -1
    owners = [each.owners_fd for each in exports]
    for fd in (config.kvm_fd, *config.stdio, *config.preserved, *joins, namespace_fd, *owners):
        if fd >= 0:
            os.close(fd)
    return running


def _network(
    flags: Globals, container: Container, config: SandboxConfig, stand_in_pid: int
) -> Network | None:
    if config.network == "host":
        from runsc.launch import network  # noqa: PLC0415  not all containers have one

        return network.prepare(container, config.container_id, config.log_fd, stand_in_pid)
    if path := dict(container.namespaces).get("network"):
        flags.log.warning(
            f"the interfaces of network namespace {path} are not used:"
            " with --network=none a container has a loopback interface of its own"
        )
    return None


def _plan_cgroup(flags: Globals, container: Container, container_id: str) -> Cgroup | None:
    """Where it will be; nothing is touched."""
    if flags.ignore_cgroups or (not container.cgroups_path and container.resources is None):
        return None
    if flags.systemd_cgroup:
        from runsc.cgroups.scope import for_container as driver  # noqa: PLC0415
    else:
        from runsc.cgroups.cgroup import for_container as driver  # noqa: PLC0415  few have one
    return driver(container.cgroups_path, container_id, container.resources)


def _make_cgroup(
    flags: Globals, store: Store, state: State, resources: Resources | None, cgroup: Cgroup
) -> None:
    """The state names it before it is there, so that a crash leaves nothing unknown."""
    from runsc.cgroups.guest import on_host  # noqa: PLC0415  few containers have a cgroup
    from runsc.oci.resources import Resources  # noqa: PLC0415

    state.cgroups = cgroup.record
    store.save(state)
    cgroup.create()
    state.cgroups = cgroup.record
    cgroup.apply(on_host(resources or Resources()), flags.log.warning)


def _run_hooks(state: State) -> None:
    """Those that come before anything of the container. Raises: RuntimeFailure."""
    from runsc.oci import hooks  # noqa: PLC0415  few containers have hooks

    document = lifecycle.document(state, "creating")
    hooks.run(state.hooks, hooks.Phase.PRESTART, document)
    hooks.run(state.hooks, hooks.Phase.CREATE_RUNTIME, document)


def _create_container_hooks(
    state: State, variables: tuple[bytes, ...]
) -> Callable[[], str] | None:
    if state.hooks is None or not state.hooks.create_container:
        return None
    from runsc.oci import hooks  # noqa: PLC0415

    def before_gofer() -> str:
        try:
            place = hooks.Place(state.rootfs, [os.fsdecode(each) for each in variables])
            document = lifecycle.document(state, "creating")
            hooks.run(state.hooks, hooks.Phase.CREATE_CONTAINER, document, place)
        except RuntimeFailure as error:
            return str(error)
        return ""

    return before_gofer


def _adjust_oom_score(value: int, pids: tuple[int, ...]) -> None:
    """What the bundle asks for the host too; to lower it needs CAP_SYS_RESOURCE: then it stays."""
    if not value:
        return
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(value))
