"""runsc debug --repl: statements in a sandbox that was started for it, and in one that was not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle, Result
from tests.e2e.client import Client


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    made = Client(bundle, platform)
    made.bundle.args("sleep", "1000")
    yield made
    for name in made.ok("list", "-q").split():  # of a test that has failed
        made.ok("delete", "--force", name)


def _prompt(client: Client, source: str) -> Result:
    return subprocess.run(
        client.command("debug", "--repl", "c"), input=source, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False, cwd=REPOSITORY,
    )  # fmt: skip


def test_statements_run_on_the_kernels_objects(client: Client) -> None:
    client.flags.append("--repl")
    client.create("c", "-d", command="run")
    done = _prompt(client, "\n".join([
        "n = len(tasks)", "n", "task(1).comm", "for t in tasks.values():",
        "    print(t.group.tgid)", "", "1 / 0", "print('\\x1b[2J')", "import turtle",
        "container.id", "",
    ]))  # fmt: skip
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:3] == ["1", "b'sleep'", "1"]
    assert "ZeroDivisionError: division by zero" in lines
    assert "?[2J" in lines
    assert "ModuleNotFoundError: No module named 'turtle'" in lines
    assert lines[-1] == "'c'"
    client.ok("kill", "c", "KILL")
    client.ok("delete", "--force", "c")


def test_a_sandbox_that_was_not_started_for_it_refuses(client: Client) -> None:
    client.create("c", "-d", command="run")
    done = _prompt(client, "kernel.container\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'the sandbox was not started with runsc --repl: \\"c\\"' in client.log.read_text()
    client.ok("kill", "c", "KILL")
    client.ok("delete", "--force", "c")
