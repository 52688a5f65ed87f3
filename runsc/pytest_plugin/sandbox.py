"""A sandbox that tells what its programs do."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from runsc.api.blocking.commands import Commands
from runsc.api.blocking.sandbox import Sandbox
from runsc.api.values import Limits
from runsc.pytest_plugin.syscalls import Syscalls


class _Limited(Commands):
    """Commands whose limits are these, where no others are said."""

    def __init__(self, commands: Commands, limits: Limits) -> None:
        super().__init__(commands._path, commands._user)
        self._limits = limits

    def run(self, cmd: Any, **options: Any) -> Any:
        """As `Commands.run`."""
        if options.get("limits") is None:
            options["limits"] = self._limits
        return super().run(cmd, **options)


class TestSandbox(Sandbox):
    """What the fixture gives."""

    __test__ = False
    syscalls: Syscalls

    def begin(self, limits: Limits | None) -> None:
        """Listen from now on. Raises: SandboxError, OSError."""
        if limits is not None:
            self.commands = _Limited(self.commands, limits)
        self.syscalls = Syscalls(self._path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        syscalls = getattr(self, "syscalls", None)
        super().__exit__(kind, error, traceback)
        if syscalls is not None:
            syscalls.close()
