"""Commands, as a program with asyncio has them: what is different is how one waits."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.api.aio import commands as commands_of
from runsc.api.aio.commands import AsyncCommandHandle, AsyncCommands
from runsc.api.aio.wire import CHUNK, AsyncWire
from runsc.api.errors import SandboxEnded, SandboxError
from runsc.api.execspec import Spec
from runsc.api.limits import OutputLimitExceeded
from runsc.api.values import Limits
from sentry.control.protocol import Event, Reply, encode
from tests.patience import TIMEOUT_S
from tests.unit.runsc.api.standin import StandIn, standing_in

NONE = -1, -1, -1


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[StandIn]:
    with standing_in(tmp_path) as made:
        yield made


@pytest.fixture
def commands(sandbox: StandIn) -> AsyncCommands:
    return AsyncCommands(sandbox.path, None)


def test_many_run_at_once_in_one_thread(commands: AsyncCommands) -> None:
    async def run() -> list[str]:
        many = [commands.run(f"sleep 0.2; echo {number}") for number in range(30)]
        return [result.stdout for result in await asyncio.gather(*many)]

    before = threading.active_count()
    assert asyncio.run(run()) == [f"{number}\n" for number in range(30)]
    assert threading.active_count() <= before + 31  # the stand-in's own, and no more


def test_tasks_write_read_and_wait_at_once(commands: AsyncCommands) -> None:
    async def run() -> tuple[int, int]:
        async with await commands.run(["cat"], background=True) as handle:

            async def write() -> None:
                for _ in range(20):
                    await handle.send_stdin(bytes(1 << 18))
                handle.close_stdin()

            async def read() -> int:
                return sum([len(data) async for data in handle.stdout])

            _, size, result = await asyncio.gather(write(), read(), handle.wait())
            return size, result.exit_code

    assert asyncio.run(run()) == (20 << 18, 0)


def test_tasks_that_wait_for_a_command_that_is_closed_go_on(commands: AsyncCommands) -> None:
    has_begun = asyncio.Event()

    async def read(handle: AsyncCommandHandle) -> str:
        heard = ""
        async for line in handle.stdout.lines():
            heard += line
            has_begun.set()
        return heard

    async def write(handle: AsyncCommandHandle) -> str:
        with pytest.raises(BrokenPipeError):
            await handle.send_stdin(bytes(8 << 20))
        return ""

    async def wait(handle: AsyncCommandHandle) -> str:
        with pytest.raises(SandboxEnded, match="ended"):
            await handle.wait()
        return ""

    async def run() -> list[str]:
        handle = await commands.run("echo begun; sleep 1000", background=True)
        tasks = [asyncio.create_task(each(handle)) for each in (read, write, wait)]
        async with asyncio.timeout(TIMEOUT_S):
            await has_begun.wait()
            handle.close()
            return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == ["begun", "", ""]


def test_a_command_whose_task_is_cancelled_ends(sandbox: StandIn, commands: AsyncCommands) -> None:
    async def run() -> None:
        async with asyncio.timeout(0.3):
            await commands.run(["sleep", "1000"])

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TimeoutError):
        asyncio.run(run())
    sandbox.settle()

    assert len(os.listdir("/proc/self/fd")) == before


def test_lines_and_limits_are_as_without_asyncio(commands: AsyncCommands) -> None:
    async def lines() -> list[str]:
        async with await commands.run("printf 'a\\nb\\n\\nc'", background=True) as handle:
            return [line async for line in handle.stdout.lines()]

    async def limited() -> None:
        await commands.run(["yes"], limits=Limits(output=10))

    assert asyncio.run(lines()) == ["a", "b", "", "c"]
    with pytest.raises(OutputLimitExceeded):
        asyncio.run(limited())


def test_who_waits_leaves_the_loop_to_others(commands: AsyncCommands) -> None:
    async def run() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await commands.run("head -c 5000000 /dev/zero")
        counting.cancel()
        return turns

    assert asyncio.run(run()) > 3


def talking() -> tuple[socket.socket, socket.socket]:
    """A wire to a sandbox that has said much, and the end of a command behind it."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    theirs.sendall(encode(Reply()) * (3 * CHUNK // len(encode(Reply()))))
    theirs.sendall(encode(Event("exited", status=7 << 8)))
    ours.setblocking(False)
    return ours, theirs


def test_sandbox_that_says_much_lets_others_run() -> None:
    """It is one of many that a loop looks after, and may have been taken over."""
    ours, theirs = talking()
    turns = 0

    async def run() -> int:
        nonlocal turns
        handle = AsyncCommandHandle(AsyncWire(ours), Spec("x", None, None, None, None), 1, NONE)
        waiting = asyncio.create_task(handle.wait())
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0)
        return (await waiting).exit_code

    with theirs:
        assert asyncio.run(run()) == 7
    assert turns > 3


def test_sandbox_that_says_much_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_of, "ANSWER_S", 0.0)
    ours, theirs = talking()

    async def run() -> None:
        spec = Spec("x", None, None, 1e-9, None)
        async with AsyncCommandHandle(AsyncWire(ours), spec, 1, NONE) as handle:
            await handle.wait()

    with theirs, pytest.raises(SandboxError, match="does not answer"):
        asyncio.run(run())
