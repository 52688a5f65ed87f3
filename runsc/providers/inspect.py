"""A sandbox environment for inspect-ai: `sandbox=("runsc", RunscConfig(image=…))`.

inspect-ai finds it by this package's entry point. It needs asyncio, which is what inspect-ai runs
on unless told otherwise.
"""

from __future__ import annotations

import os.path
from typing import Any, Literal, overload

from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxEnvironmentLimits,
    sandboxenv,
)
from inspect_ai.util._sandbox.environment import SandboxUnavailableError
from pydantic import BaseModel, ConfigDict

from runsc.api.aio.sandbox import AsyncSandbox
from runsc.api.errors import CommandNotStarted, SandboxEnded
from runsc.api.limits import OutputLimitExceeded
from runsc.api.values import Limits
from runsc.providers.options import arguments

NOT_FOUND = 127
NOT_RUN = 126


class RunscConfig(BaseModel):
    """What the sandbox of each sample is: as arguments of `runsc.AsyncSandbox.create`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image: str | None = None
    root: str | None = None
    bundle: str | None = None
    memory: int | None = None
    cpus: int | None = None
    env: tuple[str, ...] = ()
    """NAME=VALUE."""
    network: str = "none"
    egress: str | None = None
    user: str | None = None
    timeout: float | None = None
    state: str | None = None
    platform: str = "kvm"
    host_files: bool = False
    """It may be made of the host's own files, which it can read, if nothing else is named."""
    workdir: str = "/workspace"
    """Where a sample's files are, and commands run."""


@sandboxenv(name="runsc")
class RunscSandboxEnvironment(SandboxEnvironment):
    """A sandbox for a sample."""

    def __init__(self, sandbox: AsyncSandbox, workdir: str) -> None:
        super().__init__()
        self.sandbox = sandbox
        self._workdir = workdir

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        """Of a log."""
        return RunscConfig(**config)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: Any, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Raises: SandboxError, ValueError."""
        if isinstance(config, str):
            config = RunscConfig(image=config)
        config = config or RunscConfig()
        given = config.model_dump(exclude={"host_files", "workdir", "env"})
        given["env"] = dict(each.split("=", 1) for each in config.env)
        made = await AsyncSandbox.create(**arguments(given, host_files=config.host_files))
        try:
            await made.files.make_dir(config.workdir, mode=0o777)
        except BaseException:
            await made.kill()
            raise
        return {"default": cls(made, config.workdir)}

    @classmethod
    async def sample_cleanup(
        cls, task_name: str, config: Any, environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:  # fmt: skip
        """They end, and all that was in them."""
        for environment in environments.values():
            await environment.as_type(cls).sandbox.kill()

    async def exec(
        self, cmd: list[str], input: str | bytes | None = None, cwd: str | None = None,
        env: dict[str, str] | None = None, user: str | None = None, timeout: int | None = None,
        timeout_retry: bool = True, concurrency: bool = True,
    ) -> ExecResult[str]:  # fmt: skip
        """As inspect-ai says; nothing is tried twice, since a second time may do harm."""
        most = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        try:
            done = await self.sandbox.commands.run(
                cmd, stdin=input, cwd=self._place(cwd or "."), env=env, user=user, timeout=timeout,
                limits=Limits(output=most),
            )  # fmt: skip
        except CommandNotStarted as error:
            code = NOT_FOUND if "not found" in str(error) else NOT_RUN
            if "permission denied" in str(error).lower():
                raise PermissionError(str(error)) from None
            return ExecResult(False, code, "", f"{error}\n")
        except OutputLimitExceeded as error:
            text = error.result.stdout[:most]
            raise OutputLimitExceededError(
                SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, text
            ) from None
        except SandboxEnded as error:
            raise SandboxUnavailableError(str(error)) from None
        return ExecResult(done.exit_code == 0, done.exit_code, done.stdout, done.stderr)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Folders above it are made. Raises: OSError."""
        await self.sandbox.files.write(self._place(file), contents)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """As it is: no line ends are changed. Raises: OSError, UnicodeDecodeError."""
        place = self._place(file)
        most = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        if (await self.sandbox.files.stat(place)).size > most:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        data = await self.sandbox.files.read(place, "bytes", limit=most)
        return data.decode() if text else data

    def _place(self, path: str) -> str:
        return os.path.join(self._workdir, path)
