"""What a command is asked to be, before it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from runsc.api.values import Limits, PathLike, nanoseconds, variables
from sentry.config import JobLimits
from sentry.control.orders import ExecProcess

if TYPE_CHECKING:
    from runsc.accounts import Ids

Command = str | Sequence[str]
"""For a shell, or the program and its arguments."""


class Spec:
    """One command."""

    def __init__(
        self,
        cmd: Command,
        env: Mapping[str, str] | None,
        cwd: PathLike | None,
        timeout: float | None,
        limits: Limits | None,
    ) -> None:
        self.args = ("/bin/sh", "-c", cmd) if isinstance(cmd, str) else tuple(cmd)
        if not self.args:
            raise ValueError("no command")
        self.env = variables(env)
        self.cwd = os.fsencode(cwd) if cwd is not None else b""
        if self.cwd and not self.cwd.startswith(b"/"):
            raise ValueError(f"cwd {cwd!r} does not begin with /")
        self.timeout = timeout
        self._wall_ns = nanoseconds("timeout", timeout)
        self.limits = limits or Limits()
        for name in Limits.__struct_fields__:
            most = getattr(self.limits, name)
            if most is not None and not most > 0:
                raise ValueError(f"{name} is limited to {most}")
        self._cpu_ns = nanoseconds("CPU time", self.limits.cpu)
        self.began = time.monotonic()
        """When its caller asked for it."""

    def process(self, account: Ids | None, *, terminal: bool = False) -> ExecProcess:
        """As the sandbox is told of it."""
        limits = self.limits
        return ExecProcess(
            args=tuple(map(os.fsencode, self.args)),
            extra_env=tuple(map(os.fsencode, self.env)),
            cwd=self.cwd,
            uid=account.uid if account is not None else None,
            gid=account.gid if account is not None else None,
            additional_gids=account.groups if account is not None else None,
            terminal=terminal,
            job=JobLimits(
                wall_ns=self._wall_ns,
                cpu_ns=self._cpu_ns,
                memory=limits.memory or 0,
                tasks=limits.processes or 0,
                written=limits.written or 0,
                sent=limits.egress or 0,
            ),
        )
