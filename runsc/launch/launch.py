"""From a bundle that is understood to a sandbox that runs, or that waits for `start`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from runsc.containers import console, lifecycle, signals
from runsc.containers.container import Store
from runsc.containers.listener import listen
from runsc.containers.processes import start_time, write_pid_file
from runsc.containers.state import OF_FORKS, State
from runsc.errors import RuntimeFailure
from runsc.launch import (
    around,
    boot,
    early,
    isolation,
    joining,
    oom_victim,
    sandbox,
    stand_in,
    users,
)
from runsc.launch.configure import Wishes, has_services, make_config
from runsc.launch.janitor import keep_clean
from runsc.launch.label import of as label_of
from runsc.launch.network_choice import network_of, passt_of, settled
from runsc.launch.programs import Programs
from runsc.oci.convert import Container
from runsc.options import Globals
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.cgroups.cgroup import Cgroup
    from runsc.launch.joining import Joint
    from runsc.launch.network import Network
    from runsc.oci.spec import Hooks, Process
    from sentry.config import EgressConfig, SandboxConfig

Bodies = Callable[[str], Programs]


def real_programs(platform: str) -> Programs:
    """The Sentry, and the Gofer. Raises: RuntimeFailure."""
    try:
        return Programs(early.claim(platform), early.claim_gofer())
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
    joint = _reserve(flags, store, _new_state(identity, container), container)
    with store.held(identity.container_id) as state:
        try:
            if joint is not None:
                from runsc.launch import further  # noqa: PLC0415  most make a sandbox

                further.create(flags, store, state, container, wishes, joint)
                return
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
        state = store.load(identity.container_id)
        try:
            lifecycle.start(store, identity.container_id)
            if wishes.when_there is not None:
                wishes.when_there(store.load(identity.container_id))
        except BaseException:  # another one may have its name by now: a hook takes long
            lifecycle.destroy(store, state, flags.log.warning)
            raise
        return 0
    console.check(container.process.terminal, False, wishes.console_socket)
    store = flags.store()
    state = _new_state(identity, container)
    state.foreground = not wishes.keep
    joint = _reserve(flags, store, state, container)
    terminal = console.settings_kept(0) if container.process.terminal else nullcontext()
    try:
        with ExitStack() as until_begun:  # nobody else changes it
            state = until_begun.enter_context(store.held(state.id))
            if joint is not None:
                from runsc.launch import further  # noqa: PLC0415  most make a sandbox

                return further.stay(flags, store, state, container, wishes, joint, until_begun)
            with terminal as settings:
                return _stay(
                    flags, store, state, container, wishes, programs, settings, until_begun
                )
    except RuntimeFailure:
        if state.phase != "creating" and _is_deleted(store, state.id):
            return 128 + signal.SIGKILL
        raise
    finally:
        if not wishes.keep or state.phase != "running":
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
    until_begun: ExitStack,
) -> int:
    """Start it and wait for its end. Holds it until it runs."""
    relay = around.relay_for(container)
    if relay is not None:
        wishes = msgspec.structs.replace(wishes, wire=relay.slave)
    running = _bring_up(flags, store, state, container, wishes, programs)
    running.as_program = wishes.as_program
    running.lifeline = wishes.lifeline
    if relay is not None:
        relay.handed_over()
    try:
        wakeup = signals.catch(as_program=wishes.as_program)
        with keep_clean(store, state, flags.log, settings):
            _begin(store, state, wishes, running)
            until_begun.close()
            if state.hooks.get("startContainer"):  # for which the program waits
                lifecycle.before_start(store, state)
                lifecycle.ask(store, state, Request("start"))
            if wishes.when_there is not None:
                wishes.when_there(state)
            if wishes.when_ready is not None:
                running.await_ready()
                wishes.when_ready(state)
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


def _begin(store: Store, state: State, wishes: Wishes, running: sandbox.Sandbox) -> None:
    """Let the program run, once what is on disk says so."""
    if state.hooks:  # while they ran it may have been ended
        running.await_ready()
    state.phase = "running"
    store.save(state)
    if wishes.pid_file is not None:
        write_pid_file(wishes.pid_file, state.pid)
    running.begin()


def _new_state(identity: Identity, container: Container) -> State:
    return State(
        oci_version=identity.version,
        id=identity.container_id,
        bundle=identity.bundle,
        annotations=dict(each for each in identity.annotations.items() if each[0] not in OF_FORKS),
        rootfs=identity.rootfs,
        creator_pid=os.getpid(),
        creator_start=start_time(os.getpid()),
        hooks=_written(container.hooks),
        hook_process=_written(container.hook_process),
    )


def _written(part: Hooks | Process | None) -> dict[str, Any]:
    if part is None:
        return {}
    from runsc.oci import hooks  # noqa: PLC0415  few containers have hooks

    return hooks.written(part)


def _reserve(flags: Globals, store: Store, state: State, container: Container) -> Joint | None:
    """Write its first state; where it belongs to. Raises: RuntimeFailure."""
    if flags.systemd_cgroup:
        from runsc.cgroups import systemd  # noqa: PLC0415  few hosts have it so

        systemd.check()
    lifecycle.sweep(store, flags.log.warning)
    joint = joining.find(store, state.id, state.annotations, container)
    if joint is not None:
        early.discard()
        state.sandbox = joint.sandbox.id
    store.create(state)
    return joint


def _bring_up(
    flags: Globals,
    store: Store,
    state: State,
    container: Container,
    wishes: Wishes,
    programs: Bodies,
) -> sandbox.Sandbox:
    """cgroup → stand-in → the two processes, in the state on disk → hooks → they go on."""
    isolation.check_open_files()
    label = label_of(container)
    flags = settled(flags, container)
    with ExitStack() as later:
        cgroup = around.plan_cgroup(flags, container, state.id)
        if cgroup is not None:
            later.callback(cgroup.release)
            around.make_cgroup(flags, store, state, container.resources, cgroup)
        joins = cgroup.open_joins() if cgroup is not None else ()
        victim = oom_victim.prepare(container, cgroup)
        sysctls = container.sysctls if network_of(flags, container) != "none" else ()
        asked = stand_in.asked_for(container, label, sysctls)
        standing = stand_in.spawn(asked, state.id, joins, victim)
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
            state.others = tuple(f"{pid}:{start_time(pid)}" for pid in running.others)
            state.network = network_of(flags, container)
            state.low_ports = state.network == "host" and container.has_low_ports
            state.services = has_services(flags, container)
            if state.hooks:
                store.save(state)
                around.run_hooks(state)
                running.release()
            around.adjust_oom_score(
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
        held=bool(state.hooks),
        outlives=wishes.detach,
        own_terminal=bool(wishes.console_socket) or wishes.wire >= 0,
        joins=joins,
        label=label_of(container),
        before_gofer=around.create_container_hooks(state, container.process.env),
    )
    with listen(store.path(state.id, "control.sock")) as listener:
        container = around.claim_files(flags, store, state, container)
        egress = _egress(flags, container, state.annotations)
        state.judged = egress is not None
        if egress is not None:
            from runsc.launch.egress import sockets_of  # noqa: PLC0415  few have one

            state.brokers = sockets_of(egress)
            if wishes.egress_used:
                egress = msgspec.structs.replace(egress, used=wishes.egress_used)
        config = make_config(flags, container, state.id, listener.fileno(), wishes, egress)
        if "dev.runsc.policy" in state.annotations:
            from runsc.launch import policy  # noqa: PLC0415  few have one

            state.ruled = True
            config = msgspec.structs.replace(config, policy=policy.asked_for(state.annotations))
        if "dev.runsc.forkable" in state.annotations:
            from runsc.launch import forkable  # noqa: PLC0415  few are

            config = forkable.with_forks(config, state.annotations)
        if container.root.is_image:
            from runsc.launch import image  # noqa: PLC0415  few roots are one

            config = image.alone(container, config, terms)
        if flags.debug:
            from runsc.launch import report  # noqa: PLC0415

            for line in report.decisions(flags, container, config, cgroup):
                flags.log.debug(line)
        if config.network != "none" or terms.before_gofer is not None:
            standing.await_ready()  # they go into its namespaces
        config = msgspec.structs.replace(config, host_ids=standing.maps)
        beside: dict[int, str] = {}
        try:
            config = _with_link(flags, config, terms, beside)
            config = _with_dialer(flags, config, terms, beside)
            config = _with_faults(flags, wishes, _with_listeners(flags, config))
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
        except BaseException:
            for pid in beside:
                sandbox.end_child(pid)
            raise
        early.discard()  # a root that is an image needs no Gofer
        running.beside = beside
        running.warn = flags.log.warning
        if wishes.tell is not None and config.restore is not None:
            from runsc.containers.snapshots import PAGE  # noqa: PLC0415  few are restored
            from runsc.progress import of_reads  # noqa: PLC0415

            size = PAGE * sum(layer.pages for layer in config.restore.layers)
            running.looks = of_reads(running.pid, "reading memory", size, wishes.tell)
    namespace_fd = network.namespace_fd if network is not None else -1
    owners = [each.owners_fd for each in exports]
    link_fd = config.link.fd if config.link is not None else -1
    dialer_fd = config.egress.dialer_fd if config.egress is not None else -1
    opened = (
        config.kvm_fd, config.disk_fd, config.root.image_fd, namespace_fd, link_fd, dialer_fd,
        exports[0].lock_fd, *owners,
        *(config.restore.fds() if config.restore is not None else ()),
    )  # fmt: skip
    for fd in (*opened, *config.stdio, *config.preserved, *config.trace_fds, *joins):
        if fd >= 0:
            os.close(fd)
    return running


def _egress(
    flags: Globals, container: Container, annotations: dict[str, str]
) -> EgressConfig | None:
    if flags.egress is None and "dev.runsc.egress" not in annotations:
        return None
    from runsc.launch import egress  # noqa: PLC0415  few have one

    found = egress.asked_for(flags, annotations, network_of(flags, container))
    if found is None and flags.egress is not None:  # a fork must not have a network without it
        annotations[egress.ANNOTATION] = os.path.abspath(flags.egress)
    return found


def _with_link(
    flags: Globals, config: SandboxConfig, terms: boot.Terms, beside: dict[int, str]
) -> SandboxConfig:
    """With the interface of a sandbox whose network is passt's; the process is `beside` then."""
    path = passt_of(flags) if config.network == "sandbox" else ""
    if not path:
        return config
    from runsc.launch import passt  # noqa: PLC0415  few have it

    link, pid = passt.start(path, terms, config.log_fd)
    beside[pid] = passt.PROGRAM
    return msgspec.structs.replace(config, link=link)


def _with_dialer(
    flags: Globals, config: SandboxConfig, terms: boot.Terms, beside: dict[int, str]
) -> SandboxConfig:
    """With the way to a dialer, where a policy has brokers; the process is `beside` then."""
    if config.egress is None:
        return config
    from runsc.launch import egress  # noqa: PLC0415  who has read it has imported this

    made, pid = egress.with_dialer(config.egress, config.container_id, flags, terms, config.log_fd)
    if pid:
        beside[pid] = "dialer"
    return msgspec.structs.replace(config, egress=made)


def _with_faults(flags: Globals, wishes: Wishes, config: SandboxConfig) -> SandboxConfig:
    """With --inject, or what is wished for in place of that."""
    states = wishes.injected
    if states is None and flags.inject is not None:
        from runsc import faults  # noqa: PLC0415  few want any
        from sentry.faults import InjectState  # noqa: PLC0415

        states = tuple(map(InjectState, faults.read(flags.inject)))
    return msgspec.structs.replace(config, inject=states or ())


def _with_listeners(flags: Globals, config: SandboxConfig) -> SandboxConfig:
    """With who listens to it from the start: --pod-init-config."""
    if flags.pod_init_config is None:
        return config
    from runsc.launch import tracing  # noqa: PLC0415  few are watched

    made = tracing.connect(tracing.read(flags.pod_init_config))
    for warning in made.warnings:
        flags.log.warning(warning)
    return msgspec.structs.replace(config, trace=made.session, trace_fds=made.fds)


def _network(
    flags: Globals, container: Container, config: SandboxConfig, stand_in_pid: int
) -> Network | None:
    if config.network != "none":
        from runsc.launch import network  # noqa: PLC0415  not all containers have one

        return network.prepare(
            container, config.container_id, config.log_fd, stand_in_pid,
            uplinks=config.network == "sandbox" and config.link is None,
            names_only=config.link is not None,
        )  # fmt: skip
    if path := dict(container.namespaces).get("network"):
        flags.log.warning(
            f"the interfaces of network namespace {path} are not used:"
            " with --network=none a container has a loopback interface of its own"
        )
    return None
