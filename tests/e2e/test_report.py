"""runsc report: of a run that goes on, and of a recording of it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.client import Client, wait_for_end
from tests.e2e.screens import screen
from tests.patience import TIMEOUT_S

WAITS = "while [ ! -e /dev/shm/go ]; do sleep 0.01; done; cat '/none/<b>'; exit 3"


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    made = Client(bundle, platform)
    yield made
    for name in made.ok("list", "-q").split():  # of a test that has failed
        made.ok("delete", "--force", name)


def test_a_recording_of_a_run_is_a_page_and_a_picture(tmp_path: Path, client: Client) -> None:
    client.bundle.args("sh", "-c", WAITS)
    pidfd = os.pidfd_open(client.create("c", "-d", command="run"))
    recording, page = tmp_path / "recording", tmp_path / "report.html"
    with client.begin("trace", "watch", f"--record={recording}", "c") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline()
        client.ok("exec", "--detach", "c", "touch", "/dev/shm/go")  # ends with the container
        wait_for_end(pidfd)
        watching.stdout.read()

    client.ok("report", "-o", str(page), str(recording))

    made = page.read_text()
    for text in ("<h2>Processes</h2>", "cat /none/&lt;b&gt;", "exit code 1", "ENOENT 1",
                 "<h2>Memory</h2>"):  # fmt: skip
        assert text in made
    assert page.stat().st_mode & 0o777 == 0o600
    assert client.ok("report", "--plot=timeline", "-o-", str(recording)).startswith("<svg ")
    cut = tmp_path / "cut"
    cut.write_bytes(recording.read_bytes()[:-3])
    assert "not read to its end" in client.ok("report", "-o-", str(cut))
    client.ok("delete", "c")


def test_a_container_that_runs_is_looked_at_for_a_time_and_left_as_it_was(client: Client) -> None:
    client.bundle.args("sleep", "1000")
    client.create("c", "-d", command="run")
    assert "<h1>c</h1>" in client.ok("report", "--time=100ms", "--output=-", "c")
    with client.begin("report", "--output=-", "c") as looking:
        deadline = time.monotonic() + TIMEOUT_S
        while "SESSIONS (1)" not in client.ok("trace", "list", "c"):
            assert time.monotonic() < deadline
        client.call("exec", "c", "cat", "/etc/none")
        looking.send_signal(signal.SIGINT)
        assert looking.stdout is not None
        assert "cat /etc/none" in looking.stdout.read()
    assert looking.returncode == 0
    assert "SESSIONS (0)" in client.ok("trace", "list", "c")
    client.ok("kill", "c", "KILL")
    client.ok("delete", "--force", "c")


def test_person_hears_that_it_is_looked_at_and_where_the_page_is(
    client: Client, tmp_path: Path
) -> None:
    client.bundle.args("sleep", "1000")
    client.create("c", "-d", command="run")
    shown = screen(client.root, f"report --time 100ms -o {tmp_path}/page c")
    first, second = shown.splitlines()
    assert first == "runsc: c is looked at, until 100ms are over, or Ctrl-C"
    assert re.fullmatch(f"runsc: {tmp_path}/page is written: [0-9]+ records of what.*", second)
    client.ok("delete", "--force", "c")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none",), "no container and no recording: none"),
        (("./none",), "open ./none: no such file or directory"),
        (("/etc/passwd",), "/etc/passwd: no recording of a trace session"),
        (("--time=5s", "/etc/passwd"), "are for a container"),
        (("--time=soon", "none"), "is no duration"),
    ],
)
def test_what_is_no_run_is_said(client: Client, words: tuple[str, ...], said: str) -> None:
    done = client.call("report", "-o-", *words)
    assert done.returncode == 1
    assert said in client.log.read_text() + done.stderr
