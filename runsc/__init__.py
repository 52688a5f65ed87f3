"""The command line, the OCI runtime, the Python API: the host side.

What is public for Python programs is imported when it is used: see runsc/api/README.md.
"""

from __future__ import annotations

__version__ = "0.2.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runsc.api.aio.clock import AsyncClock as AsyncClock
    from runsc.api.aio.commands import AsyncCommandHandle as AsyncCommandHandle
    from runsc.api.aio.policy import AsyncPolicy as AsyncPolicy
    from runsc.api.aio.pty import AsyncPtyHandle as AsyncPtyHandle
    from runsc.api.aio.sandbox import AsyncSandbox as AsyncSandbox
    from runsc.api.aio.template import AsyncTemplate as AsyncTemplate
    from runsc.api.aio.watching import AsyncWatch as AsyncWatch
    from runsc.api.blocking.clock import Clock as Clock
    from runsc.api.blocking.commands import CommandHandle as CommandHandle
    from runsc.api.blocking.policy import Policy as Policy
    from runsc.api.blocking.pty import PtyHandle as PtyHandle
    from runsc.api.blocking.sandbox import Sandbox as Sandbox
    from runsc.api.blocking.template import Template as Template
    from runsc.api.blocking.watching import Watch as Watch
    from runsc.api.errors import CommandNotStarted as CommandNotStarted
    from runsc.api.errors import SandboxEnded as SandboxEnded
    from runsc.api.errors import SandboxError as SandboxError
    from runsc.api.errors import SandboxNotFound as SandboxNotFound
    from runsc.api.limits import CpuLimitExceeded as CpuLimitExceeded
    from runsc.api.limits import EgressLimitExceeded as EgressLimitExceeded
    from runsc.api.limits import LimitExceeded as LimitExceeded
    from runsc.api.limits import MemoryLimitExceeded as MemoryLimitExceeded
    from runsc.api.limits import OutputLimitExceeded as OutputLimitExceeded
    from runsc.api.limits import ProcessLimitExceeded as ProcessLimitExceeded
    from runsc.api.limits import TimeLimitExceeded as TimeLimitExceeded
    from runsc.api.limits import WriteLimitExceeded as WriteLimitExceeded
    from runsc.api.values import CommandFailed as CommandFailed
    from runsc.api.values import CommandResult as CommandResult
    from runsc.api.values import EntryInfo as EntryInfo
    from runsc.api.values import FileChange as FileChange
    from runsc.api.values import FilesystemEvent as FilesystemEvent
    from runsc.api.values import Limits as Limits
    from runsc.api.values import Mount as Mount
    from runsc.api.values import PolicyQuestion as PolicyQuestion
    from runsc.api.values import SandboxInfo as SandboxInfo
    from runsc.api.values import Size as Size
    from runsc.api.values import Snapshot as Snapshot
    from runsc.api.values import Stats as Stats
    from runsc.api.values import Usage as Usage

PUBLIC = {
    "aio.clock": "AsyncClock",
    "aio.commands": "AsyncCommandHandle",
    "aio.policy": "AsyncPolicy",
    "aio.pty": "AsyncPtyHandle",
    "aio.sandbox": "AsyncSandbox",
    "aio.template": "AsyncTemplate",
    "aio.watching": "AsyncWatch",
    "blocking.clock": "Clock",
    "blocking.commands": "CommandHandle",
    "blocking.policy": "Policy",
    "blocking.pty": "PtyHandle",
    "blocking.sandbox": "Sandbox",
    "blocking.template": "Template",
    "blocking.watching": "Watch",
    "errors": "CommandNotStarted SandboxEnded SandboxError SandboxNotFound",
    "limits": "CpuLimitExceeded EgressLimitExceeded LimitExceeded MemoryLimitExceeded"
    " OutputLimitExceeded ProcessLimitExceeded TimeLimitExceeded WriteLimitExceeded",
    "values": "CommandFailed CommandResult EntryInfo FileChange FilesystemEvent Limits Mount"
    " PolicyQuestion SandboxInfo Size Snapshot Stats Usage",
}
"""Modules of runsc.api, and what is public of each."""


def __getattr__(name: str) -> object:
    """Something public that nobody has used yet; also asked for each room that is imported."""
    for module, names in PUBLIC.items():
        if name[:1].isupper() and name in names.split():
            from importlib import import_module  # noqa: PLC0415  the command line has no use for it

            return getattr(import_module(f"runsc.api.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *" ".join(PUBLIC.values()).split()])
