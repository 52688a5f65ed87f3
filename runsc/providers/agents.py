"""A client for sandboxes of the OpenAI Agents SDK: `SandboxRunConfig(client=RunscSandboxClient())`.

A session is a sandbox that outlives the client's process, so that it can be resumed; it ends with
`delete`, or when its time is over. What a model asks for is checked by the SDK (paths stay in the
workspace) and contained by the sandbox.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.manifest import Manifest
from agents.sandbox.session import SandboxSession, SandboxSessionState
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.runtime_helpers import (
    RESOLVE_WORKSPACE_PATH_HELPER,
    RuntimeHelperScript,
)
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.workspace_payloads import coerce_write_payload
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot
from agents.sandbox.types import ExecResult, User
from agents.sandbox.util.tar_utils import UnsafeTarMemberError, validate_tarfile

from runsc.api.aio.sandbox import AsyncSandbox
from runsc.api.errors import CommandNotStarted, SandboxError
from runsc.api.limits import LimitExceeded, TimeLimitExceeded
from runsc.api.values import Limits
from runsc.providers.options import NAMES, arguments

NOT_STARTED = 127
LIFE_S = 4 * 3600.0
PIECE = 1 << 18
ARCHIVE = 4 << 30
"""Bytes of a workspace that is kept, or of a file that is read."""
IN_MEMORY = 1 << 24
SAID = 500
"""Characters of what tar says that are told."""


class RunscSandboxClientOptions(BaseSandboxClientOptions):
    """What a session's sandbox is: as arguments of `runsc.AsyncSandbox.create`."""

    type: Literal["runsc"] = "runsc"
    image: str | None = None
    root: str | None = None
    bundle: str | None = None
    memory: int | None = None
    cpus: int | None = None
    network: str = "none"
    egress: str | None = None
    user: str | None = None
    timeout: float = LIFE_S
    """Seconds, after which it ends, whoever is there then."""
    state: str | None = None
    platform: str = "kvm"
    host_files: bool = False
    """It may be made of the host's own files, which it can read, if nothing else is named."""


class RunscSandboxSessionState(SandboxSessionState):
    """What is kept of a session."""

    type: Literal["runsc"] = "runsc"
    sandbox_id: str
    options: RunscSandboxClientOptions


class RunscSandboxSession(BaseSandboxSession):
    """A session in a sandbox."""

    state: RunscSandboxSessionState

    def __init__(self, state: RunscSandboxSessionState, sandbox: AsyncSandbox) -> None:
        self.state = state
        self.sandbox = sandbox
        self._has_root = state.workspace_root_ready

    # --- commands

    async def exec(
        self, *command: str | Path, timeout: float | None = None,
        shell: bool | list[str] = True, user: str | User | None = None,
    ) -> ExecResult:  # fmt: skip
        """As a user of the sandbox, without sudo in it."""
        words = self._prepare_exec_command(*command, shell=shell, user=None)
        return await self._run(words, timeout, _name(user))

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        return await self._run([str(word) for word in command], timeout, None)

    async def _run(
        self, words: list[str], timeout: float | None, user: str | None
    ) -> ExecResult:
        env = await self.state.manifest.environment.resolve()
        cwd = self.state.manifest.root if await self._root_is_there() else None
        try:
            done = await self.sandbox.commands.run(
                words, timeout=timeout, user=user, env=env, cwd=cwd
            )
        except CommandNotStarted as error:
            return ExecResult(stdout=b"", stderr=f"{error}\n".encode(), exit_code=NOT_STARTED)
        except TimeLimitExceeded as error:
            raise ExecTimeoutError(command=words, timeout_s=timeout, cause=error) from error
        except (SandboxError, OSError) as error:
            raise ExecTransportError(command=words, cause=error) from error
        return ExecResult(
            stdout=done.stdout_bytes, stderr=done.stderr_bytes, exit_code=done.exit_code
        )

    async def _root_is_there(self) -> bool:
        """Before the SDK has made it commands run where there is no workspace yet."""
        if not self._has_root:
            with suppress(OSError, SandboxError):
                self._has_root = await self.sandbox.files.exists(self.state.manifest.root)
        return self._has_root

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    def _current_runtime_helper_cache_key(self) -> object | None:
        return self.state.sandbox_id

    # --- files

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        """A link in the sandbox does not lead out of the workspace."""
        found: Path = await self._validate_remote_path_access(path, for_write=for_write)
        return found

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """A file of the workspace."""
        place = await self._validate_path_access(path)
        kept = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  it is given back
        try:
            async for piece in self.sandbox.files.stream(place, user=_name(user)):
                if kept.tell() + len(piece) > ARCHIVE:  # a file of holes fills the host's disk, too
                    raise SandboxError(f"more than {ARCHIVE >> 30} GiB")
                kept.write(piece)
        except FileNotFoundError as error:
            kept.close()
            raise WorkspaceReadNotFoundError(path=path, cause=error) from error
        except (SandboxError, OSError) as error:
            kept.close()
            raise WorkspaceArchiveReadError(path=path, cause=error) from error
        kept.seek(0)
        return kept

    async def write(
        self, path: Path, data: io.IOBase, *, user: str | User | None = None
    ) -> None:
        """Folders above it are made."""
        stream = coerce_write_payload(path=path, data=data).stream
        place = await self._validate_path_access(path, for_write=True)
        try:
            await self.sandbox.files.write(place, _pieces(stream), user=_name(user))
        except (SandboxError, OSError) as error:
            raise WorkspaceArchiveWriteError(path=path, cause=error) from error

    # --- its life

    async def _prepare_backend_workspace(self) -> None:
        await self.sandbox.files.make_dir(self.state.manifest.root)
        self._has_root = True

    async def running(self) -> bool:
        """Whether it is there."""
        return await self.sandbox.is_running()

    async def _shutdown_backend(self) -> None:
        await self.sandbox.kill()

    # --- workspaces that are kept

    async def persist_workspace(self) -> io.IOBase:
        """The workspace as a tar, whose names begin in it."""
        root = self._workspace_root_path()
        left_out = sorted(self._persist_workspace_skip_relpaths())
        words = ["tar", "-C", str(root), "-cf", "-"]
        words += [f"--exclude=./{path}" for path in left_out] + ["--", "."]
        kept = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  it is given back
        said: list[str] = []
        try:
            handle = await self.sandbox.commands.run(
                words, background=True, limits=Limits(output=ARCHIVE),
                on_stderr=lambda text: said.extend(text[: SAID - len(said)]),
            )  # fmt: skip
            async with handle:
                handle.close_stdin()
                handle.hear_bytes(handle.stdout, kept.write)
                done = await handle.wait()
            if done.exit_code:
                raise SandboxError(f"tar: {''.join(said).strip()}")
        except (SandboxError, LimitExceeded, OSError) as error:
            kept.close()
            raise WorkspaceArchiveReadError(path=root, cause=error) from error
        kept.seek(0)
        return kept

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Out of such a tar, which is looked at before."""
        root = self._workspace_root_path()
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as kept:
            for piece in _pieces(coerce_write_payload(path=root, data=data).stream):
                kept.write(piece)
            kept.seek(0)
            try:
                await asyncio.to_thread(_check, kept)
                kept.seek(0)
                await self.sandbox.files.make_dir(root)
                done = await self.sandbox.commands.run(
                    ["tar", "-C", str(root), "-xf", "-"], stdin=_pieces(kept)
                )
                if done.exit_code:
                    raise SandboxError(f"tar: {done.stderr.strip()[:SAID]}")
            except (SandboxError, OSError, tarfile.TarError, UnsafeTarMemberError) as error:
                raise WorkspaceArchiveWriteError(path=root, cause=error) from error


class RunscSandboxClient(BaseSandboxClient[RunscSandboxClientOptions]):
    """Makes sessions, finds them again, ends them."""

    backend_id = "runsc"

    def __init__(self, *, instrumentation: Instrumentation | None = None) -> None:
        self._instrumentation = instrumentation or Instrumentation()

    async def create(
        self, *, snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None, options: RunscSandboxClientOptions,
    ) -> SandboxSession:  # fmt: skip
        """Raises: SandboxError, ValueError."""
        manifest = self._validate_manifest_for_create(manifest or Manifest())
        session_id = uuid.uuid4()
        sandbox = await _made(options)
        state = RunscSandboxSessionState(
            session_id=session_id, manifest=manifest, options=options,
            snapshot=resolve_snapshot(snapshot, str(session_id)), sandbox_id=sandbox.sandbox_id,
        )  # fmt: skip
        return self._wrapped(RunscSandboxSession(state, sandbox))

    def _wrapped(self, session: RunscSandboxSession) -> SandboxSession:
        return self._wrap_session(session, instrumentation=self._instrumentation)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """It ends, and all that was in it."""
        inner = session._inner
        if not isinstance(inner, RunscSandboxSession):
            raise TypeError("not a session of runsc")
        try:
            await inner.shutdown()
        finally:
            await inner.sandbox.kill()
        return session

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """The sandbox, if it is still there; else another one, with the workspace that was kept."""
        if not isinstance(state, RunscSandboxSessionState):
            raise TypeError("not the state of a session of runsc")
        state.assert_path_grants_rebound()
        there = False
        with suppress(SandboxError):
            sandbox = await AsyncSandbox.connect(state.sandbox_id, state=state.options.state)
            there = await sandbox.is_running()
        if not there:
            sandbox = await _made(state.options)
            state.sandbox_id = sandbox.sandbox_id
            state.workspace_root_ready = False
        inner = RunscSandboxSession(state, sandbox)
        inner._set_start_state_preserved(there)
        return self._wrapped(inner)

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Of JSON. Raises: ValueError."""
        return self._deserialize_session_state_payload(payload, RunscSandboxSessionState)


async def _made(options: RunscSandboxClientOptions) -> AsyncSandbox:
    given = {name: getattr(options, name, None) for name in NAMES}
    chosen: dict[str, Any] = arguments(given, host_files=options.host_files)
    return await AsyncSandbox.create(detach=True, **chosen)


def _name(user: str | User | None) -> str | None:
    return user.name if isinstance(user, User) else user


def _pieces(stream: Any) -> Iterator[bytes]:
    while piece := stream.read(PIECE):
        yield piece


def _check(archive: Any) -> None:
    with tarfile.open(fileobj=archive, mode="r:*") as tar:
        validate_tarfile(tar, allow_external_symlink_targets=False)
