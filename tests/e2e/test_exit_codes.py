"""Exit codes: of `do` those of `docker run`, of `run` and `exec` runc's."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.e2e.bundle import RUNSC, Bundle, execute
from tests.e2e.client import Client, wait_for_end

DO = {
    "true": 0,
    "sh -c 'exit 7'": 7,
    "sh -c 'exit 1'": 1,
    "sh -c 'kill -9 $$'": 137,
    "sh -c 'kill $$'": 143,
    "nothing-here": 127,
    "/nothing/here": 127,
    "/etc/passwd": 126,
    "/etc": 126,
    "-v /none:/x true": 125,
    "--user nobody-here true": 125,
    "--no-such-flag true": 125,
    "--name x true": 125,
    "--network bridge true": 125,
    "": 125,
}


@pytest.mark.parametrize("line", DO)
def test_do_ends_as_docker_run_does(
    line: str, tmp_path: Path, busybox: Path, platform: str
) -> None:
    flags = [f"--root={tmp_path}/state", f"--platform={platform}", "--zygote=off"]
    done = execute([*RUNSC, *flags, "do", f"--root={busybox}", *shlex.split(line)])
    assert done.returncode == DO[line], done.stderr


def test_failure_before_do_is_one_of_the_command(tmp_path: Path) -> None:
    flags = [f"--root={tmp_path}/state", "--zygote=off"]
    for wrong, code in {"--debug-log=/none/x": 125, "--no-such": 1, "--memory=x": 125}.items():
        assert execute([*RUNSC, *flags, wrong, "do", "true"]).returncode == code


@pytest.mark.parametrize(
    ("args", "code"),
    [(("sh", "-c", "exit 7"), 7), (("sh", "-c", "ulimit -s 100; f() { f; }; f"), 139),
     (("nothing",), 1), (("/etc/passwd",), 1)],
)  # fmt: skip
def test_run_ends_as_runc_does(
    args: tuple[str, ...], code: int, bundle: Bundle, platform: str
) -> None:
    assert bundle.args(*args).run(platform).returncode == code


def test_exec_ends_as_runc_does(bundle: Bundle, platform: str) -> None:
    client = Client(bundle.args("sleep", "1000"), platform)
    pidfd = os.pidfd_open(client.create("c", "--detach", command="run"))
    for words, code in {
        ("c", "sh", "-c", "exit 7"): 7,
        ("c", "sh", "-c", "kill -9 $$"): 137,
        ("c", "nothing"): 255,
        ("c", "/etc/passwd"): 255,
        ("none", "true"): 255,
        ("--no-such", "c", "true"): 1,
    }.items():
        assert execute(client.command("exec", *words)).returncode == code, words
    client.ok("kill", "c", "KILL")
    wait_for_end(pidfd)
    assert execute(client.command("exec", "c", "true")).returncode == 255
    client.ok("delete", "c")
