"""Further containers of a sandbox that runs: brought up, served, taken down again.

A command line asks for one over the control socket of any container of the sandbox, and sends the
ways to a Gofer, a stand-in process and a listener of its own. Everything is made beside what runs,
in a fiber: its mounts, namespaces that are its own or another container's, a cgroup, the first
process, which waits for its start. What fails leaves nothing behind.

It ends when its first process does, or when its stand-in or its Gofer is gone; none of that is any
other container's affair. What several containers have mounted of the host is served by a second
Gofer, which stays as long as one of them has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sentry.boot import first_process, tree
from sentry.boot.gofers import Gofer, Gofers, RunningTrees
from sentry.boot.placing import placed
from sentry.boot.running import Running, let_go
from sentry.config import FurtherConfig, StartError, descriptors
from sentry.control.descriptors import close_all
from sentry.control.protocol import DEFECT
from sentry.control.server import ControlServer
from sentry.errors import EEXIST, EINVAL, ENOSPC, Errno
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel.container import Container
from sentry.kernel.namespaces import beside
from sentry.wait.fiber import Killed, Mode

if TYPE_CHECKING:
    from sentry.config import SandboxConfig
    from sentry.control.oversight import Forking
    from sentry.control.watchdog import Watchdog
    from sentry.kernel.kernel import Kernel
    from sentry.net.host.process import NetworkProcess
    from sentry.net.link.sender import Sender

Told = Callable[[str], object]
MAX_CONTAINERS: Final = 256
"""Of one sandbox."""


class Containers:
    """All of a sandbox, by their ids."""

    def __init__(
        self, kernel: Kernel, config: SandboxConfig, watchdog: Watchdog
    ) -> None:
        self.kernel = kernel
        self.log_fd = config.log_fd
        self.strace_fd = config.strace_fd
        self.watchdog = watchdog
        self.repl_is_on = config.repl
        self.server: ControlServer | None = None
        """That of the first one."""
        self.forks: Forking | None = None
        """Where the sandbox may be forked."""
        self.sender: Sender | None = None
        """Who sends the frames of all, where there is somebody."""
        self._network = config.network, config.link is not None
        self.gofers = Gofers(kernel)
        self.by_id: dict[str, Container] = {config.container_id: kernel.container}
        self._coming: set[str] = set()

    def add(self, config: FurtherConfig, fds: list[int], told: Told) -> Bringing:
        """Bring one up. `told` hears "" once it waits for its start, or why there is none.

        Raises: EINVAL, EEXIST, ENOSPC; the descriptors belong to it from the start.
        """
        try:
            if config.container_id in self.by_id or config.container_id in self._coming:
                raise EEXIST(f'the sandbox has a container "{config.container_id}"')
            if len(self.by_id) + len(self._coming) >= MAX_CONTAINERS:
                raise ENOSPC(f"a sandbox has at most {MAX_CONTAINERS} containers")
            config = placed(config, fds)
            self._check_network(config)
            for kind, other in config.shares:
                if other not in self.by_id:
                    raise EINVAL(f'the {kind} namespace is that of "{other}", which has ended')
        except Errno:
            close_all(fds)
            raise
        self._coming.add(config.container_id)
        return Bringing(self, config, told)

    def _check_network(self, config: FurtherConfig) -> None:
        """What the Sentry may do with sockets was decided when it began. Raises: EINVAL."""
        wanted = config.network, config.link is not None
        if (config.network_fd < 0) != (wanted == ("none", False)):
            raise EINVAL("a network without a network process, or the other way round")
        if config.network_fd < 0:
            return
        if wanted != self._network:
            raise EINVAL("another kind of network than the sandbox has")
        if self.kernel.first.net.stack.egress is not None:
            raise EINVAL("the sandbox's egress policy is for the network of its first container")

    def arrived(self, config: FurtherConfig, container: Container | None) -> None:
        """It is there, or will not be."""
        self._coming.discard(config.container_id)
        if container is not None:
            self.by_id[config.container_id] = container
            self.kernel.further.append(container)

    def gone(self, config: FurtherConfig, container: Container) -> None:
        """It has ended."""
        del self.by_id[config.container_id]
        self.kernel.further.remove(container)


def _in_memory(container: Container) -> list[TmpFs]:
    """The file systems in memory that its mounts have."""
    from sentry.fs.overlay.filesystem import OverlayFs  # noqa: PLC0415  most are alone

    found = {mount.fs for mount in container.ns.mounts.mounts}
    uppers = [fs.upper for fs in found if isinstance(fs, OverlayFs)]
    both = [*uppers, *(fs for fs in found if isinstance(fs, TmpFs))]
    return [fs for fs in both if fs.in_memory]


class Bringing:
    """One that comes: the fiber that makes it."""

    def __init__(self, containers: Containers, config: FurtherConfig, told: Told) -> None:
        self._containers = containers
        self._kernel = kernel = containers.kernel
        self._config = config
        self._told: Told | None = told
        self._open = descriptors(config)
        """What nobody else closes yet."""
        self.container = Container()
        self._gofer: Gofer | None = None
        self._network: NetworkProcess | None = None
        self._fiber = kernel.loop.spawn(self._make(), "create", self._made)

    def look(self) -> None:
        """It is never there at once."""

    def abandon(self) -> None:
        """Who asked is gone."""
        self._told = None
        self._fiber.interrupt(Killed(), Mode.KILLABLE)

    def _take(self, fd: int) -> int:
        """Somebody else closes it from now on."""
        self._open.discard(fd)
        return fd

    async def _make(self) -> Callable[[], None]:
        """Gives what lets it begin."""
        kernel, config, container = self._kernel, self._config, self.container
        container.id = config.container_id
        container.oom_group = config.oom_group
        container.pids_limit = config.pids_limit
        container.memory_limit = config.memory_limit
        container.cpu_quota, container.cpu_weight = config.cpu_quota, config.cpu_weight
        try:
            gofers = self._containers.gofers
            self._gofer = own = await gofers.add(self._take(config.gofer_fd), container)
            volumes = own
            if config.volumes_fd >= 0:
                volumes = await gofers.add(self._take(config.volumes_fd), container)
        except Errno as error:
            raise StartError(f"the gofer process: {error.why()}") from error
        trees = RunningTrees(kernel, gofers, (own, volumes), container)
        container.root = await tree.make_root(kernel, config, trees)
        root = kernel.vfs.new_mount(container.root)
        by_id = self._containers.by_id
        try:
            shared = {kind: by_id[other].ns for kind, other in config.shares}
        except KeyError as error:
            raise StartError(f"container {error} has ended") from None
        names = config.hostname.encode(), config.domainname.encode()
        container.ns = beside(kernel, container, root, names, shared)
        await tree.mount_all(tree.Starter(kernel, container), config, trees)
        container.in_memory = _in_memory(container)
        if "network" not in shared:
            from sentry.net.interfaces import bring_up  # noqa: PLC0415  most are alone

            bring_up(container.ns.net.stack.interfaces.loopback)  # as those who make one do
        if config.network_fd >= 0:
            await self._connect()
        for fd in (*config.stdio, *config.preserved):
            self._take(fd)
        if config.restore is not None:
            from sentry.boot import restoring  # noqa: PLC0415  few begin so

            return await restoring.load(kernel, config, container)
        task = await first_process.load_further(kernel, config, container)
        return first_process.stood(task, config.process)

    async def _connect(self) -> None:
        """To a network that is its own. Raises: StartError."""
        from sentry.boot import networks  # noqa: PLC0415  few have one
        from sentry.net.host.process import NetworkProcess  # noqa: PLC0415

        config, loop = self._config, self._kernel.loop
        self._network = process = NetworkProcess(self._take(config.network_fd), loop)
        if config.link is not None:
            self._take(config.link.fd)
        stack, sender = self.container.ns.net.stack, self._containers.sender
        await networks.connect(stack, config, process, loop, sender)

    def _made(self, start: Callable[[], None] | None, error: BaseException | None) -> None:
        told = self._told
        if start is None:
            self._containers.arrived(self._config, None)
            self._take_down()
            if told is not None:
                told(self._why(error))
            return
        assert self._gofer is not None
        running = Running(self._containers, self._config, self.container, self._gofer)
        running.network = self._network
        self._containers.arrived(self._config, self.container)
        if self._config.restore is not None:
            close_all(self._config.restore.fds())
        running.serve(start)
        if told is None:
            running.operations.end()
        else:
            told("")

    def _why(self, error: BaseException | None) -> str:
        if isinstance(error, (StartError, Errno)):
            return error.why() if isinstance(error, Errno) else str(error)
        if error is not None and not isinstance(error, Killed):
            self._kernel.log.bug("create", error)
        return DEFECT

    def _take_down(self) -> None:
        close_all(self._open)
        self._open = set()
        if self.container.console is not None:
            self.container.console.close(lambda: None)
        if self._network is not None:
            self._network.close()
        self._containers.gofers.leave(self.container)
        let_go(self._kernel, self.container)
