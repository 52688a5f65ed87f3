"""runsc top of a sandbox that runs: as text, and what is said without the package of its screen."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle
from tests.e2e.client import Client


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    made = Client(bundle, platform)
    yield made
    for name in made.ok("list", "-q").split():  # of a test that has failed
        made.ok("delete", "--force", name)


def test_without_a_terminal_figures_and_processes_are_text(client: Client) -> None:
    name = "a\x1b[31mb"
    client.bundle.args("sh", "-c", f"while :; do stat / /; done >/dev/null; : '{name}'")
    client.create("busy", "-d", command="run")
    heads, line, *rest = client.ok("top", "busy").splitlines()
    words = re.sub(r" (?=[KMGT]iB)", "", line).split()
    cells = dict(zip(re.split("  +", heads), words, strict=True))
    assert (cells["ID"], cells["STATUS"]) == ("busy", "running")
    assert int(cells["TASKS"]) >= 1
    assert cells["CALLS/s"] not in ("-", "0")
    assert cells["MEMORY"].endswith("iB")
    assert any("a?[31mb" in each for each in rest)
    assert "\x1b" not in line + "".join(rest)
    client.ok("kill", "busy", "KILL")
    client.ok("delete", "--force", "busy")


def test_no_sandbox_is_an_empty_table_and_no_container_an_error(client: Client) -> None:
    assert len(client.ok("top", "--once").splitlines()) == 1
    assert client.call("top", "none").returncode == 1
    assert client.call("top", "--interval=soon").returncode == 1


def test_on_a_terminal_without_textual_the_package_is_named(
    tmp_path: Path, client: Client
) -> None:
    hidden = tmp_path / "textual.py"
    hidden.write_text("raise ModuleNotFoundError('no textual', name='textual')\n")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        client.command("top"),
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=REPOSITORY, timeout=TIMEOUT_S,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 1
    assert "pip install 'runsc[top]'" in client.log.read_text()
