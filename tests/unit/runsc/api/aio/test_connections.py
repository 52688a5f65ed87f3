"""What a sandbox that was taken over says of its egress policy gets it nothing of the host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.api.aio import connections as connections_of
from runsc.api.aio.changed import now
from runsc.api.aio.connections import AsyncConnections
from runsc.api.aio.serving import AsyncConnection
from runsc.api.errors import SandboxError
from runsc.containers.container import Store
from runsc.containers.state import State
from sentry.control.answers import EgressState
from sentry.control.orders import Decided
from sentry.control.protocol import Reply, encode
from tests.unit.runsc.api.standin import StandIn, standing_in
from tests.unit.runsc.api.test_policies import BROKER, POLICY

NAME = "taken"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[StandIn]:
    store = Store(str(tmp_path))
    store.create(State("1.2.0", NAME, "/b", brokers=("/run/other.sock",)))
    with standing_in(tmp_path / NAME) as made:
        made.says = encode(Reply(egress=EgressState(POLICY), decided=Decided(egress=POLICY)))
        yield made


@pytest.fixture
def connections(sandbox: StandIn, tmp_path: Path) -> AsyncConnections:
    return AsyncConnections(str(tmp_path), NAME, sandbox.path)


async def handler(connection: AsyncConnection) -> None:
    raise AssertionError("nobody connects")


def test_broker_of_its_own_is_not_opened_for_it(connections: AsyncConnections) -> None:
    with pytest.raises(SandboxError, match=f"never given: {BROKER}"):
        asyncio.run(connections.serve("api.internal:80", handler))


def test_who_begins_in_its_place_does_not_get_it_either(
    sandbox: StandIn, connections: AsyncConnections
) -> None:
    with pytest.raises(SandboxError, match=f"never given: {BROKER}"):
        asyncio.run(now(sandbox.path, connections))


def test_nor_if_it_says_so_elsewhere_only(
    sandbox: StandIn, connections: AsyncConnections
) -> None:
    sandbox.says = encode(Reply(decided=Decided(egress=POLICY)))
    assert asyncio.run(now(sandbox.path, connections)).egress is None


def test_two_tasks_may_serve_at_once(
    sandbox: StandIn, connections: AsyncConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.says = encode(Reply(egress=EgressState('default = "deny"\n')))
    given: list[str] = []
    others: list[asyncio.Task[None]] = []

    async def command(*words: str) -> None:
        given.append(Path(words[-1]).read_text())
        if not others:
            others.append(asyncio.create_task(connections.serve("b.internal:81", handler)))
            await asyncio.sleep(0)

    async def run() -> None:
        await connections.serve("a.internal:80", handler)
        await others[0]
        connections.close()

    monkeypatch.setattr(connections_of, "command", command)
    asyncio.run(run())
    assert [text.count("broker") for text in given] == [1, 2]
