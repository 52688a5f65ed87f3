"""A container that is added to a sandbox: from a bundle to the Sentry's answer.

It gets a cgroup, a stand-in process and a Gofer of its own as the first one does; a second Gofer
serves its bind mounts, for other containers of the sandbox may have them too. The Sentry, which
runs and is locked in, gets the ways to them over its control socket. What it answers is not
trusted: a word, in time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from runsc.containers import console
from runsc.containers.listener import ask, listen
from runsc.containers.processes import start_time
from runsc.errors import NotRunning, RuntimeFailure
from runsc.launch import around, configure, isolation, oom_victim, stand_in, users
from runsc.launch.beside import Processes
from runsc.launch.label import of as label_of
from runsc.launch.places import with_places
from runsc.launch.sandbox import MESSAGE_MAX, READY_S
from sentry.config import FurtherConfig, LinkConfig
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from runsc.containers.container import Store
    from runsc.containers.state import State
    from runsc.launch.configure import Wishes
    from runsc.launch.joining import Joint
    from runsc.oci.convert import Container
    from runsc.options import Globals
    from sentry.config import RestoreConfig

VOLUMES_FIRST = 1
"""The number of the first attachment that the second Gofer serves."""


class Further:
    """One that is being added, seen from the command line."""

    def __init__(
        self,
        flags: Globals,
        store: Store,
        state: State,
        container: Container,
        wishes: Wishes,
        joint: Joint,
    ) -> None:
        self._flags = flags
        self._store = store
        self._state = state
        self._container = container
        self._wishes = wishes
        self._joint = joint
        self._network = "none"
        self._streams = wishes.stdio
        self.processes = Processes(flags, state, container, joint, wishes.detach)
        self.standing: stand_in.StandIn | None = None

    def bring_up(self) -> None:
        """Until it waits for its start. Raises: RuntimeFailure; nothing is left then."""
        if self._flags.debug:
            shared = ", ".join(f"{kind} of {other}" for kind, other in self._joint.shares)
            self._flags.log.debug(
                f'the container joins the sandbox "{self._joint.sandbox.id}"; it shares:'
                f" {shared or 'nothing'}"
            )
        try:
            with self.processes.closing:
                self._bring_up()
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Its processes, whatever they do."""
        if self.standing is not None:
            self.standing.end()
        self.processes.end()

    def _bring_up(self) -> None:
        flags, state, container = self._flags, self._state, self._container
        self._check_services()
        self._check_egress()
        self._check_policy()
        label = label_of(container)
        cgroup = around.plan_cgroup(flags, container, state.id)
        if cgroup is not None:
            self.processes.closing.callback(cgroup.release)
            around.make_cgroup(flags, self._store, state, container.resources, cgroup)
        joins = self.processes.held(cgroup.open_joins() if cgroup is not None else ())
        victim = oom_victim.prepare(container, cgroup)
        self._network = self.processes.own_network()
        self._streams = self._stdio()
        terminal = self._streams[0] if self._wishes.console_socket else -1
        sysctls = container.sysctls if self._network != "none" else ()
        asked = stand_in.asked_for(container, label, sysctls)
        self.standing = standing = stand_in.spawn(asked, state.id, joins, victim, terminal)
        state.pid, state.pid_start = standing.pid, start_time(standing.pid)
        self.processes.terms = msgspec.structs.replace(
            self.processes.terms,
            joins=joins,
            label=label,
            before_gofer=around.create_container_hooks(state, container.process.env),
        )
        log_fd = self.processes.held((configure.log_fd(flags, self._wishes.detach),))[0]
        standing.await_ready()
        self._check_users(standing)
        fds: list[int] = []
        config = self._config(fds, log_fd)
        self._store.save(state)
        if state.hooks:
            around.run_hooks(state)
            self.processes.let_go_on()
        around.adjust_oom_score(container.process.oom_score_adj, (standing.pid, state.gofer_pid))
        self._ask(config, fds)
        self.processes.are_there()
        standing.close()
        standing.check()

    def _check_policy(self) -> None:
        """One holds for all of a sandbox. Raises: RuntimeFailure."""
        sandbox = self._joint.sandbox
        asked = self._state.annotations.get("dev.runsc.policy")
        if asked is None:
            return
        if not sandbox.ruled:
            raise RuntimeFailure(
                f'"{self._state.id}" has a policy, but the sandbox "{sandbox.id}",'
                " which it joins, was started without one"
            )
        if asked != sandbox.annotations.get("dev.runsc.policy"):
            raise RuntimeFailure(
                f'"{self._state.id}" has another policy than the sandbox "{sandbox.id}",'
                " which it joins"
            )

    def _check_egress(self) -> None:
        """A policy is the sandbox's, of its first container. Raises: RuntimeFailure."""
        if self._flags.egress is not None or "dev.runsc.egress" in self._state.annotations:
            from runsc.launch import egress  # noqa: PLC0415  few have one

            egress.check_joined(self._state.id, self._joint.sandbox)

    def _check_services(self) -> None:
        """Raises: RuntimeFailure. What the Sentry may do with sockets was decided when it began."""
        maker = self._joint.sandbox
        if maker.network == "host" or maker.services:
            return
        for export in self._container.exports:
            if export.is_service or export.reaches or export.binds:
                raise RuntimeFailure(
                    f'{export.path}: the sandbox "{maker.id}", which the container belongs to, was'
                    " made without sockets of the host"
                )

    def _check_users(self, standing: stand_in.StandIn) -> None:
        """Raises: RuntimeFailure. Owners of all containers are translated by one map; an ordinary
        user's, who is root and alone in each of his namespaces, are."""
        maker = self._joint.sandbox
        if not isolation.is_privileged():
            return
        try:
            spaces = [os.stat(f"/proc/{pid}/ns/user").st_ino for pid in (standing.pid, maker.pid)]
        except FileNotFoundError:
            raise NotRunning(maker.id) from None
        if spaces[0] != spaces[1]:
            raise RuntimeFailure(
                f'its user namespace is not that of the sandbox "{maker.id}", which it belongs to'
            )
        self.processes.entrance = standing.entrance

    def _config(self, fds: list[int], log_fd: int) -> FurtherConfig:
        """What the Sentry is told. `fds` get the descriptors, in the order of their places."""
        flags, state = self._flags, self._state
        standing = self.standing
        assert standing is not None

        def place(fd: int) -> int:
            fds.append(fd)
            return len(fds) - 1

        stdio = tuple(map(place, self._streams))
        preserved = configure.preserved_fds(self._wishes.preserve_fds)
        places = tuple(map(place, self.processes.held(preserved)))
        listening = listen(self._store.path(state.id, "control.sock"))
        self.processes.closing.enter_context(listening)
        container = around.claim_files(flags, self._store, state, self._container)
        self.processes.held(tuple(fd for fd in (container.exports[0].lock_fd,) if fd >= 0))
        exports = users.with_owners(container.exports)
        self.processes.held(tuple(each.owners_fd for each in exports if each.owners_fd >= 0))
        life = standing.life.fileno() if container.root.written_behind else -1
        gofer = self.processes.gofer(exports[:1], log_fd, 0, life)
        volumes = -1
        if exports[VOLUMES_FIRST:]:
            volumes = self.processes.gofer(exports[VOLUMES_FIRST:], log_fd, VOLUMES_FIRST)
        network = -1
        link: LinkConfig | None = None
        if self._network != "none":
            network = self.processes.network(self._network, log_fd, standing.pid)
            if self._network == "sandbox" and not isolation.is_privileged():
                link = self.processes.link(log_fd)
        victim = standing.victim
        restore = self._restore(place)
        limits = configure.limits_of(flags, container.resources)
        asked = container.resources
        limited = asked is not None and asked.memory_limit is not None
        return FurtherConfig(
            container_id=state.id,
            process=configure.told_of_them(container.process),
            root=container.root,
            mounts=with_places(container),
            hostname=configure.host_name(container),
            domainname=container.domainname,
            masked_paths=container.masked_paths,
            readonly_paths=container.readonly_paths,
            sysctls=container.sysctls,
            devices=container.devices,
            seccomp=container.seccomp,
            memory_limit=limits.memory if limited else 0,
            pids_limit=limits.pids,
            cpu_quota=limits.cpu_quota,
            cpu_weight=limits.cpu_weight,
            oom_group=limits.oom_group,
            shares=self._joint.shares,
            mortal_init=configure.is_mortal(container),
            stdio=(stdio[0], stdio[1], stdio[2]),
            preserved=places,
            control_listener_fd=place(listening.fileno()),
            gofer_fd=place(gofer),
            volumes_fd=place(volumes) if volumes >= 0 else -1,
            network=self._network,
            network_fd=place(network) if network >= 0 else -1,
            link=msgspec.structs.replace(link, fd=place(link.fd)) if link is not None else None,
            stand_in_fd=place(standing.life.fileno()),
            victim_fd=place(victim.told.fileno()) if victim is not None else -1,
            restore=restore,
        )

    def _restore(self, place: Callable[[int], int]) -> RestoreConfig | None:
        """The snapshot that it begins with. Raises: RuntimeFailure."""
        if self._wishes.image is None:
            return None
        from runsc.containers import snapshots  # noqa: PLC0415  few begin so

        limits = configure.limits_of(self._flags, self._container.resources)
        told = {} if self._wishes.tell is None else {"tell": self._wishes.tell}
        found = snapshots.opened(self._wishes.image, limits.memory, background=False, **told)
        self.processes.held(found.fds())
        layers = tuple(
            msgspec.structs.replace(layer, fd=place(layer.fd)) for layer in found.layers
        )
        return msgspec.structs.replace(found, objects_fd=place(found.objects_fd), layers=layers)

    def _stdio(self) -> tuple[int, int, int]:
        """The caller's, or a terminal that is made for it."""
        if self._wishes.wire >= 0:
            return (self._wishes.wire,) * 3
        if not self._wishes.console_socket:
            return self._wishes.stdio
        size = self._container.process.console_size
        (made,) = self.processes.held((console.make(self._wishes.console_socket, size),))
        return made, made, made

    def _ask(self, config: FurtherConfig, fds: list[int]) -> None:
        """Have the Sentry make it. Raises: RuntimeFailure."""
        sandbox = self._joint.sandbox
        request = Request("create", container=config)
        try:
            path = self._store.path(sandbox.id, "control.sock")
            reply = ask(path, request, READY_S, fds)
        except TimeoutError:
            raise RuntimeFailure(
                f"the sandbox was not ready after {READY_S:g} seconds"
            ) from None
        except (OSError, ValueError):
            raise NotRunning(sandbox.id) from None
        if reply.error:
            text = self.processes.what_is_wrong() or reply.error[:MESSAGE_MAX]
            raise RuntimeFailure(f"unable to start container process: {text}")
