"""events: memory that runs out is told at once, and so is the end."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle, kvm_is_usable
from tests.e2e.client import Client

TAKE = """awk 'BEGIN { for (;;) a[i++] = sprintf("%100000s", "x") }'; echo alive"""


@pytest.fixture
def client(bundle: Bundle) -> Client:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    made = Client(bundle.args("sleep", "1000"))
    made.flags.append("--memory=96M")
    made.create("c", "--detach", command="run")
    return made


def test_a_kill_is_told_at_once_and_the_end_ends_it(client: Client) -> None:
    with subprocess.Popen(
        client.command("events", "--interval", "1h", "c"), stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as events:
        try:
            assert events.stdout is not None
            assert json.loads(events.stdout.readline())["type"] == "stats"
            for _ in range(2):
                assert "alive" in client.ok("exec", "c", "sh", "-c", TAKE)
                assert json.loads(events.stdout.readline()) == {"type": "oom", "id": "c"}
            client.ok("kill", "c", "KILL")
            assert events.stdout.read() == b""
            assert events.wait(TIMEOUT_S) == 0
        finally:
            events.kill()
    client.ok("delete", "--force", "c")


def test_kills_before_it_began_are_no_news(client: Client) -> None:
    client.ok("exec", "c", "sh", "-c", TAKE)

    (line,) = client.ok("events", "--stats", "c").splitlines()

    stats = json.loads(line)["data"]["memory"]["usage"]
    assert stats["failcnt"] == 1
    client.ok("delete", "--force", "c")
