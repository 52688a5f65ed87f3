"""What a session does in a sandbox, without the SDK: its classes are stand-ins."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runsc.api.aio.commands import AsyncCommands
from tests.patience import TIMEOUT_S
from tests.unit.runsc.api.standin import standing_in

MODULES = (
    "errors", "manifest", "session", "session.base_sandbox_session", "session.manager",
    "session.runtime_helpers", "session.sandbox_client", "session.workspace_payloads", "snapshot",
    "types", "util", "util.tar_utils",
)  # fmt: skip
MUCH = 3 << 20
TAR = f"""#!/bin/sh
head -c {MUCH} /dev/zero | tr '\\0' x >&2
echo archive
exec 1>&-
head -c {MUCH} /dev/zero >&2
exit $CODE
"""


class Any_(Exception):
    """Each class of the SDK."""

    def __init__(self, **given: Any) -> None:
        super().__init__(given)

    def __class_getitem__(cls, _: object) -> type:
        return cls


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in ("agents", "agents.sandbox", *(f"agents.sandbox.{each}" for each in MODULES)):
        module: Any = ModuleType(name)
        module.__getattr__ = lambda attribute: type(attribute, (Any_,), {})
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    agents = import_module("runsc.providers.agents")
    del sys.modules["runsc.providers.agents"]
    made = agents.RunscSandboxSession(SimpleNamespace(workspace_root_ready=True), None)
    made._workspace_root_path = lambda: "/workspace"
    made._persist_workspace_skip_relpaths = tuple
    (tmp_path / "tar").write_text(TAR)
    (tmp_path / "tar").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return made


@pytest.mark.parametrize("code", [0, 1])
def test_a_workspace_is_kept_whatever_tar_says(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("CODE", str(code))

    async def kept() -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            with await session.persist_workspace() as archive:
                data: bytes = archive.read()
            return data

    with standing_in(tmp_path) as sandbox:
        session.sandbox = SimpleNamespace(commands=AsyncCommands(sandbox.path, None))
        if not code:
            assert asyncio.run(kept()) == b"archive\n"
            return
        with pytest.raises(Any_, match=f"tar: {'x' * 500}'") as raised:
            asyncio.run(kept())
        assert type(raised.value).__name__ == "WorkspaceArchiveReadError"
