"""The global flags, as one value."""

from __future__ import annotations

from runsc.containers.names import default_root
from runsc.log import Log
from runsc.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runsc.containers.container import Store
    from runsc.filters import Switches

OVERLAYS = "none, or root: or all: with memory, self or dir=/PATH, then perhaps ,size=SIZE"


class Globals(Value):
    """What stands before the sub-command."""

    root: str
    log: Log
    platform: str
    network: str | None
    """None: `runsc.launch.network_choice`."""
    debug: bool
    debug_log: str | None
    strace: bool
    overlay: str
    """Where writes to the root go: "none" (the host), "memory", or "disk" (a file in
    `overlay_folder`)."""
    memory: int | None
    network_is_default: bool = False
    """Nothing was said of it: `network` is what was chosen."""
    overlay_folder: str = ""
    """Of the host; empty: the root itself."""
    overlay_size: int = 0
    """Bytes at most; 0: what there is."""
    overlay_mounts: bool = False
    """Writes to bind mounts go there, too."""
    no_filter: bool = False
    trap: bool = False
    host_uds: str = "named"
    """Which sockets of the host are connected to, or made."""
    host_fifo: str = "open"
    """Whether FIFOs of the host are opened."""
    steps_log: str | None = None
    """For tests: where it is written what holds up the kernel thread."""
    hold_at: int = 0
    """For tests: the container is paused in its Nth system call; 0: never."""
    egress: str | None = None
    """A file: what may leave a network of the sandbox's own."""
    inject: str | None = None
    """Rules about faults, or a file with some."""
    pod_init_config: str | None = None
    """A file: who listens to what happens in a sandbox, from its start."""
    systemd_cgroup: bool = False
    ignore_cgroups: bool = False
    system_calls: str = "auto"
    strace_log: str | None = None
    strace_calls: str = ""
    """Names and families, with commas; "!" before them: all others."""
    strace_limit: int = 32
    """Bytes of what is read and written."""
    file_access: str = "exclusive"
    """Of the root; "shared": others change it, too: names are asked for, and nothing is behind."""
    repl: bool = False
    """`debug --repl` may run Python in the Sentry."""
    exclusive_mounts: bool = False
    """Folders that are mounted are taken for the container's own."""

    @property
    def opens_sockets(self) -> bool:
        """Programs may connect to sockets of the host that lie in mounted folders."""
        return self.host_uds in ("open", "all")

    @property
    def binds_sockets(self) -> bool:
        """Programs may make sockets in mounted folders that the host can connect to."""
        return self.host_uds in ("create", "all")

    def store(self) -> Store:
        """The state root, made if it is not there."""
        from runsc.containers.container import Store  # noqa: PLC0415  `exec` needs none

        return Store(self.root)

    @property
    def switches(self) -> Switches:
        """Of the filters."""
        from runsc.filters import Switches  # noqa: PLC0415  only where there are filters

        return Switches(self.no_filter, self.trap)


class BadValue(Exception):
    """Of a flag: what is wrong."""


def of(flags: dict[str, Any], command: str) -> Globals:
    """The flags, by the names that the command line gives them.

    Raises: BadValue, RuntimeFailure, OSError.
    """
    return Globals(
        root=flags["root"] or default_root(),
        log=Log(flags["log"], flags["log_format"], flags["debug"]),
        platform=flags["platform"],
        network=flags["network"],
        debug=flags["debug"],
        debug_log=log_file(flags["debug_log"], command),
        strace=bool(flags["strace"] or flags["strace_log"] or flags["strace_syscalls"]),
        strace_log=flags["strace_log"],
        strace_calls=_checked_filter(flags["strace_syscalls"]),
        strace_limit=flags["strace_log_size"],
        steps_log=flags["steps_log"],
        hold_at=flags["hold_at"],
        egress=flags["egress"],
        repl=flags["repl"],
        inject=flags["inject"],
        pod_init_config=flags["pod_init_config"],
        **_overlay(flags["overlay2"]),
        file_access=flags["file_access"],
        exclusive_mounts=flags["file_access_mounts"] == "exclusive",
        host_uds=flags["host_uds"],
        host_fifo=flags["host_fifo"],
        memory=_memory(flags["memory"]),
        system_calls=flags["system_calls"],
        no_filter=flags["no_filter"],
        trap=flags["trap"],
        systemd_cgroup=flags["systemd_cgroup"],
        ignore_cgroups=flags["ignore_cgroups"],
    )


def log_file(pattern: str | None, command: str) -> str | None:
    """--debug-log as gVisor has it: with %TIMESTAMP%, %COMMAND%, or a folder for such files."""
    if pattern is None or not (pattern.endswith("/") or "%" in pattern):
        return pattern
    import os  # noqa: PLC0415
    import time  # noqa: PLC0415

    if pattern.endswith("/"):
        os.makedirs(pattern, exist_ok=True)
        pattern += "runsc.log.%TIMESTAMP%.%COMMAND%.txt"
    now_ns = time.time_ns()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now_ns // 10**9))
    stamp += f".{now_ns // 1000 % 10**6:06}"
    return pattern.replace("%TIMESTAMP%", stamp).replace("%COMMAND%", command)


def _overlay(text: str) -> dict[str, Any]:
    """--overlay2, as fields of `Globals`. Raises: BadValue, RuntimeFailure."""
    where, comma, bound = text.partition(",")
    size = 0
    if comma:
        from runsc.oci import convert  # noqa: PLC0415  few say it

        size = convert.size(bound.removeprefix("size="), "--overlay2: size")
        if not size or not bound.startswith("size="):
            raise BadValue(f"--overlay2 {text!r}: {OVERLAYS}")
    if where == "none" and not comma:
        return {"overlay": "none"}
    scope, _, medium = where.partition(":")
    folder = medium.removeprefix("dir=")
    kind = {"memory": "memory", "self": "disk"}.get(medium)
    if kind is None and folder != medium and folder.startswith("/"):
        kind = "disk"
    if kind is None or scope not in ("root", "all"):
        raise BadValue(f"--overlay2 {text!r}: {OVERLAYS}")
    return {
        "overlay": kind,
        "overlay_folder": folder if folder != medium else "",
        "overlay_size": size,
        "overlay_mounts": scope == "all",
    }


def _memory(text: str | None) -> int | None:
    if not text:
        return None
    from runsc.oci.convert import memory_size  # noqa: PLC0415  few say it

    return memory_size(text)


def _checked_filter(text: str) -> str:
    """--strace-syscalls. Raises: BadValue."""
    if text:
        from sentry.syscalls.strace.families import check  # noqa: PLC0415  few ask for it

        problem = check([word for word in text.removeprefix("!").split(",") if word])
        if problem:
            raise BadValue(f"--strace-syscalls: {problem}")
    return text
