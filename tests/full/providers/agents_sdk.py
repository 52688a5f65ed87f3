"""The OpenAI Agents SDK with sandboxes of ours: sessions, and an agent whose model is a script.

Usage: agents_sdk.py ROOT STATE
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

from agents import ModelResponse, RunConfig, Runner, Usage
from agents.models.interface import Model
from agents.sandbox import Manifest, SandboxAgent, SandboxRunConfig
from agents.sandbox.capabilities import Shell
from agents.sandbox.entries import File
from agents.sandbox.errors import (
    ExecTimeoutError,
    InvalidManifestPathError,
    WorkspaceReadNotFoundError,
)
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from runsc import Sandbox
from runsc.providers.agents import RunscSandboxClient, RunscSandboxClientOptions


def raises(kind: type[BaseException], error: BaseException | None) -> None:
    assert isinstance(error, kind), error


async def failing(awaitable: Any) -> BaseException | None:
    try:
        await awaitable
    except BaseException as error:
        return error
    return None


async def sessions(options: RunscSandboxClientOptions, state: str) -> None:
    client = RunscSandboxClient()
    manifest = Manifest(entries={"hello.txt": File(content=b"hi\n")})
    session = await client.create(manifest=manifest, options=options)
    async with session:
        assert await session.running()
        done = await session.exec("cat hello.txt; pwd; echo err >&2; exit 3")
        assert (done.exit_code, done.stderr) == (3, b"err\n"), done.__dict__
        assert done.stdout == b"hi\n/workspace\n"
        raises(ExecTimeoutError, await failing(session.exec("sleep 100", timeout=0.5)))
        assert (await session.exec("id -u", user="nobody")).stdout.strip() not in (b"0", b"")
        await session.write(Path("a/b.bin"), io.BytesIO(bytes(range(256)) * 5000))
        assert (await session.read(Path("a/b.bin"))).read() == bytes(range(256)) * 5000
        raises(WorkspaceReadNotFoundError, await failing(session.read(Path("none"))))
        await session.exec("ln -s /etc/passwd out")
        raises(InvalidManifestPathError, await failing(session.read(Path("out"))))
        raises(InvalidManifestPathError, await failing(session.read(Path("../etc/passwd"))))
        assert "hello.txt" in {Path(each.path).name for each in await session.ls(".")}
        await session.exec("rm out; ln -s hello.txt link; mkdir -p d/e; echo x >'d/a b'")
        kept = (await session.persist_workspace()).read()
        payload = json.loads(json.dumps(client.serialize_session_state(session.state)))
        again = await client.resume(client.deserialize_session_state(payload))
        assert (await again.exec("cat hello.txt")).stdout == b"hi\n"
    await client.delete(session)
    assert not await session.running()
    assert Sandbox.list(state=state) == []
    other = await client.create(options=options)
    await other.start()
    await other.hydrate_workspace(io.BytesIO(kept))
    done = await other.exec("cat link 'd/a b'; test -d d/e && wc -c <a/b.bin")
    assert done.stdout.split() == [b"hi", b"x", b"1280000"], done.stdout
    await client.delete(other)


class Scripted(Model):
    """Asks for one command, then says what came of it."""

    async def get_response(
        self, system_instructions: Any, input: Any, *args: Any, **more: Any
    ) -> Any:
        outputs = [each for each in input if isinstance(each, dict)
                   and each.get("type") == "function_call_output"]  # fmt: skip
        if not outputs:
            tools = more.get("tools") or next(a for a in args if isinstance(a, list) and a)
            name = next(t.name for t in tools if "exec" in t.name)
            item: Any = ResponseFunctionToolCall(
                id="1", call_id="1", type="function_call", name=name,
                arguments=json.dumps({"cmd": "uname -r; cat task.txt"}),
            )  # fmt: skip
        else:
            said = str(outputs[-1]["output"])
            text = ResponseOutputText(text=said, type="output_text", annotations=[])
            item = ResponseOutputMessage(
                id="2", type="message", role="assistant", status="completed", content=[text]
            )
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError


async def agent(options: RunscSandboxClientOptions) -> None:
    made = SandboxAgent(
        name="a", model=Scripted(), instructions="", capabilities=[Shell()],
        default_manifest=Manifest(entries={"task.txt": File(content=b"the task")}),
    )  # fmt: skip
    sandbox = SandboxRunConfig(client=RunscSandboxClient(), options=options)
    run = RunConfig(sandbox=sandbox, tracing_disabled=True)
    result = await Runner.run(made, "go", run_config=run)
    assert "6.12.0" in result.final_output, result.final_output
    assert "the task" in result.final_output, result.final_output


def main(root: str, state: str) -> None:
    options = RunscSandboxClientOptions(root=root, state=state, timeout=120)
    asyncio.run(sessions(options, state))
    asyncio.run(agent(options))
    assert Sandbox.list(state=state) == []
    raises(ValueError, asyncio.run(failing(
        RunscSandboxClient().create(options=RunscSandboxClientOptions(state=state)))))  # fmt: skip
    print("passed")


if __name__ == "__main__":
    main(*sys.argv[1:])
