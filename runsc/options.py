"""The global flags, as one value."""

from __future__ import annotations

from msgspec import Struct

from runsc.containers.container import Store
from runsc.filters import Switches
from runsc.log import Log

OVERLAYS = {
    "none": "none",
    "root:memory": "memory",
    "root:self": "memory",
    "memory": "memory",
    "all:memory": "memory",
}
"""--overlay2 → where writes to the root go. root:self keeps them in the sandbox too."""


class Globals(Struct, frozen=True):
    """What stands before the sub-command."""

    root: str
    log: Log
    platform: str
    network: str | None
    """None: as config.json says, `runsc.launch.configure.network_of`."""
    debug: bool
    debug_log: str | None
    strace: bool
    overlay: str
    memory: int | None
    switches: Switches
    host_uds: str = "named"
    """Which sockets of the host are connected to."""
    host_fifo: str = "open"
    """Whether FIFOs of the host are opened."""
    steps_log: str | None = None
    """For tests: where it is written what holds up the kernel thread."""
    systemd_cgroup: bool = False
    ignore_cgroups: bool = False
    system_calls: str = "auto"
    strace_log: str | None = None
    strace_calls: str = ""
    """Names and families, with commas; "!" before them: all others."""
    strace_limit: int = 32
    """Bytes of what is read and written."""

    def store(self) -> Store:
        """The state root, made if it is not there."""
        return Store(self.root)
