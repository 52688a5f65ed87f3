"""debug --stacks, --strace, --log-level: of a container that runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.client import Client

MOST = 200
"""Looks at a sandbox for something that will come."""
LOOP = "while :; do read -r line </etc/passwd; cat /proc/not/there 2>/dev/null; sleep 0.01; done"


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    made = Client(bundle, platform)
    yield made
    made.call("delete", "--force", "c")


def _run(client: Client, script: str, *flags: str) -> None:
    client.bundle.args("sh", "-c", script)
    client.flags += flags
    client.create("c", "--detach", command="run")


def _comes(client: Client, path: Path, pattern: str) -> str:
    """What the file says once that is in it."""
    for _ in range(MOST):
        text = path.read_text()
        if re.search(pattern, text, re.M):
            return text
        client.state("c")
    raise AssertionError(f"{pattern} does not come: {path.read_text()}")


def test_stacks_show_the_call_of_each_task_and_how_long(client: Client) -> None:
    _run(client, "sleep 1000 & read line <>/tmp/none || exec cat /dev/zero >/dev/null")

    for _ in range(MOST):
        shown = client.ok("debug", "--stacks", "c")
        if "nanosleep" in shown:
            break

    sleeper = re.search(r"^task 2 of process 2, sleep: (.*)\n    (.*)$", shown, re.M)
    assert sleeper is not None, shown
    assert re.fullmatch(
        r"sleeps \(interruptible\) in clock_nanosleep\(.*\) for \d+\.\d{3} s", sleeper[1]
    )
    assert sleeper[2].startswith("sentry.wait.sleep.")
    assert "task 1 of process 1, " in shown
    assert re.search(r"^thread of the kernel\n    sentry\.control\.stacks:", shown, re.M)


def test_strace_is_turned_on_and_off_while_programs_run(client: Client, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    _run(client, LOOP)
    assert "--strace-log" in client.error("debug", "--strace=on", "c")
    client.flags.append(f"--strace-log={one}")
    client.ok("debug", "--strace=openat,open", "c")
    text = _comes(client, one, r"^\[pid +\d+\] .* open(at)?\(.*/etc/passwd.*\) += \d+ <")
    assert "wait4" not in text

    client.flags[-1] = f"--strace-log={other}"
    client.ok("debug", "--strace=!%file", "c")
    _comes(client, other, r"(read|wait4|clone|fork|vfork)\(")
    client.ok("debug", "--strace=off", "c")
    assert not re.search(r" open(at)?\(", other.read_text())
    sizes = one.stat().st_size, other.stat().st_size
    client.ok("exec", "c", "cat", "/etc/passwd")
    assert (one.stat().st_size, other.stat().st_size) == sizes
    assert "no system call 'opne'" in client.error("debug", "--strace=opne", "c")


def test_strace_goes_into_the_log_of_a_sandbox_that_has_one(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(client, LOOP, f"--debug-log={log}")
    before = log.read_text()
    assert "openat" not in before

    client.ok("debug", "--strace=on", "c")

    _comes(client, log, r"^\[pid +\d+\] .* exit_group\(")


def test_strace_from_the_start_is_turned_off(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    _run(client, "read line; sleep 1000", f"--strace-log={log}")
    _comes(client, log, "nanosleep")

    client.ok("debug", "--strace=off", "c")
    size = log.stat().st_size
    client.ok("exec", "c", "true")

    assert log.stat().st_size == size


def test_level_debug_counts_what_programs_do_not_get_until_info(
    client: Client, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    _run(client, "sleep 1000", f"--debug-log={log}")

    client.ok("debug", "--log-level=debug", "c")
    client.call("exec", "c", "cat", "/proc/not/there")
    client.ok("debug", "--log-level=info", "c")

    text = log.read_text()
    assert re.search(r'^debug: +1  open(at)? "/proc/not/there"  ENOENT$', text, re.M)
    assert text.count("absent or refused") == 1


def test_one_thing_is_asked_for_at_a_time(client: Client) -> None:
    client.create("c")

    assert "two things" in client.error("debug", "--stacks", "--counts", "c")
    assert client.call("debug", "--log-level=loud", "c").returncode == 1
