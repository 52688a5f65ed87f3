"""A further container that is there: its commands, and its end."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Protocol

from sentry.control.descriptors import close_all
from sentry.control.operations import Operations
from sentry.control.oversight import Shared
from sentry.control.server import ControlServer
from sentry.kernel.device_filters import removed
from sentry.suppress import suppress

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.boot.gofers import Gofer, Gofers
    from sentry.config import FurtherConfig
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.net.host.process import NetworkProcess


class Others(Shared, Protocol):
    """All containers of the sandbox: sentry.boot.further."""

    kernel: Kernel
    server: ControlServer | None
    gofers: Gofers

    def gone(self, config: FurtherConfig, container: Container) -> None:
        """It has ended."""


def let_go(kernel: Kernel, container: Container) -> None:
    """It is over: its namespaces go with the last task that is in them, its files from memory, and
    programs of extended BPF of its cgroups, for which all containers have one ceiling."""
    container.ns = kernel.first
    container.in_memory = []
    for cgroup in container.cgroup.down():
        removed(cgroup)


class Running:
    """One that is there, to its end."""

    network: NetworkProcess | None = None

    def __init__(
        self,
        containers: Others,
        config: FurtherConfig,
        container: Container,
        gofer: Gofer,
    ) -> None:
        self._containers = containers
        self._kernel = containers.kernel
        self._config = config
        self._container = container
        self._gofer_end = os.dup(gofer.session.sock.fileno())
        self.operations = Operations(self._kernel, container, config, containers)
        self._server: ControlServer | None = None
        container.on_end = self._ended

    def serve(self, start: Callable[[], None]) -> None:
        """Hear commands, and of the ends of its processes on the host."""
        loop, config = self._kernel.loop, self._config
        self.operations.await_start(start)
        self._server = ControlServer(
            loop, self.operations, -1, config.control_listener_fd, beside=self._containers.server
        )
        loop.watch(config.stand_in_fd, select.EPOLLIN | select.EPOLLRDHUP, self._stand_in_told)
        loop.watch(self._gofer_end, select.EPOLLRDHUP, self._gofer_gone)

    def _stand_in_told(self, _events: int) -> None:
        """A byte: its terminal has a new size. Its end: so is that of the container."""
        with suppress(OSError):
            if os.read(self._config.stand_in_fd, 1):
                self.operations.control_resize()
                return
        self._kernel.loop.watch(self._config.stand_in_fd, 0)
        self.operations.end()

    def _gofer_gone(self, _events: int) -> None:
        self._kernel.loop.watch(self._gofer_end, 0)
        container_id = self._config.container_id
        self._kernel.log.write(f"the gofer process of {container_id} has ended: so does that\n")
        self.operations.end()

    def _ended(self, status: int) -> None:
        """Nobody of it is left."""
        self._containers.gone(self._config, self._container)
        console, self._container.console = self._container.console, None
        if console is None:
            self._over(status)
        else:
            console.close(lambda: self._over(status))

    def _over(self, status: int) -> None:
        """What it had on its screen is out."""
        config, loop = self._config, self._kernel.loop
        self.operations.finish(status)
        if self._server is not None:
            self._server.close()
        told = status
        with suppress(OSError):
            if self._container.oom_kills and config.victim_fd >= 0:
                os.write(config.victim_fd, b"\0")
                told -= 1 << 31  # after the victim
        if config.root.written_behind and told >= 0:
            told -= 1 << 31  # after the Gofer
        with suppress(OSError):
            os.write(config.stand_in_fd, told.to_bytes(4, "little", signed=True))
        for fd in (config.stand_in_fd, self._gofer_end):
            loop.watch(fd, 0)
        close_all({config.stand_in_fd, self._gofer_end, config.victim_fd} - {-1})
        if self.network is not None:
            self._leave_network(self.network)
        self._containers.gofers.leave(self._container)
        let_go(self._kernel, self._container)

    def _leave_network(self, process: NetworkProcess) -> None:
        from sentry.net.inet.last_words import when_said  # noqa: PLC0415  few have one

        when_said(self._container.ns.net.stack, self._kernel.loop, process.close)
