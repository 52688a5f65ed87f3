"""Standard streams that are no terminal, of programs that want one or close them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle, Result, execute
from tests.e2e.client import Client


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Client:
    return Client(bundle, platform)


def test_run_of_a_terminal_with_pipes(bundle: Bundle, platform: str) -> None:
    bundle.document["process"]["terminal"] = True
    bundle.document["process"]["consoleSize"] = {"height": 25, "width": 81}
    bundle.args("sh", "-c", "tty; stty size; read line; echo got $line; exit 7")

    result = bundle.run(platform, stdin="typed\n")

    assert result.returncode == 7, result.stderr
    assert sorted(result.stdout.splitlines()) == ["/dev/pts/0", "25 81", "got typed", "typed"]


def test_exec_of_a_terminal_with_pipes(client: Client) -> None:
    client.bundle.args("sleep", "1000")
    client.create("c")
    client.ok("start", "c")
    script = "tty; yes | head -c 100000; read line; echo got $line; exit 6"

    result = execute(client.command("exec", "-t", "c", "sh", "-c", script), "typed\n")

    assert result.returncode == 6, result.stderr
    lines = result.stdout.splitlines()
    assert {"/dev/pts/0", "got typed"} <= set(lines)
    assert lines.count("y") == 50_000
    client.ok("delete", "--force", "c")


def test_console_belongs_to_the_user_and_the_group_of_devpts(
    bundle: Bundle, platform: str
) -> None:
    bundle.document["process"]["terminal"] = True
    bundle.document["process"]["user"] = {"uid": 1000, "gid": 1001}
    bundle.args("stat", "-c", "%u %g %a", "/dev/pts/0")

    assert bundle.run(platform).stdout == "1000 5 620\n"


def test_output_that_a_detached_program_closes_is_at_its_end(client: Client) -> None:
    client.bundle.args("sh", "-c", "echo all; exec </dev/null >/dev/null 2>&1; exec sleep 1000")
    command = client.command("run", "--detach", f"--bundle={client.bundle.write()}", "c")

    result: Result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
        cwd=REPOSITORY,
    )

    assert result.stdout == "all\n"
    assert client.state("c")["status"] == "running"
    client.ok("delete", "--force", "c")


def test_input_that_a_program_closes_has_no_reader(client: Client, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    client.bundle.args("sh", "-c", "exec </dev/null; echo closed; exec sleep 1000")
    with (tmp_path / "out").open("w") as output:
        subprocess.run(
            client.command("run", "--detach", f"--bundle={client.bundle.write()}", "c"),
            stdin=reader,
            stdout=output,
            stderr=output,
            timeout=TIMEOUT_S,
            check=True,
            cwd=REPOSITORY,
        )
    os.close(reader)
    client.ok("exec", "c", "sh", "-c", "while [ /proc/1/fd/0 -ef /dev/fd/0 ]; do :; done")

    with pytest.raises(BrokenPipeError):
        while True:
            os.write(writer, b"x")

    os.close(writer)
    client.ok("delete", "--force", "c")
