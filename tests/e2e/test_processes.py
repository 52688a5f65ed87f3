"""What happens to the processes of a sandbox when one of them ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e import processes
from tests.patience import TIMEOUT_S


def test_run_of_program_that_exits_gives_its_exit_code(tmp_path: Path) -> None:
    result = processes.run(tmp_path, f"exit {7 << 8}")

    assert (result.returncode, result.stderr) == (7, "")
    assert processes.becomes_empty(tmp_path)


def test_run_of_program_killed_by_signal_gives_128_plus_its_number(tmp_path: Path) -> None:
    assert processes.run(tmp_path, f"exit {int(signal.SIGTERM)}").returncode == 143


def test_run_of_program_that_cannot_start_says_why(tmp_path: Path) -> None:
    result = processes.run(tmp_path, "fail")

    assert result.returncode == 1
    assert result.stderr == (
        'unable to start container process: exec: "/nope": no such file or directory\n'
    )


@pytest.mark.parametrize("victim", ["cli", "sentry", "gofer"])
def test_kill_of_one_process_leaves_nothing_behind(tmp_path: Path, victim: str) -> None:
    running = processes.start(tmp_path)
    pidfds = running.pidfds()

    signal.pidfd_send_signal(pidfds[victim], signal.SIGKILL)

    assert processes.all_end(pidfds)
    _, errors = running.cli.communicate(timeout=TIMEOUT_S)
    assert processes.becomes_empty(tmp_path)
    expected = {
        "cli": "",
        "sentry": "the sandbox process was killed by signal 9\n",
        "gofer": "the gofer process was killed by signal 9: the sandbox has ended\n",
    }
    assert errors == expected[victim]
    assert running.cli.returncode == (-9 if victim == "cli" else 1)


def test_sigterm_to_the_command_line_is_forwarded(tmp_path: Path) -> None:
    running = processes.start(tmp_path, "forwarded")

    running.cli.send_signal(signal.SIGTERM)

    output, _ = running.cli.communicate(timeout=TIMEOUT_S)
    assert output.strip() == f'{{"op":"kill","signal":{int(signal.SIGTERM)}}}'
    assert running.cli.returncode == 0


def test_second_container_with_the_same_name_is_refused(tmp_path: Path) -> None:
    running = processes.start(tmp_path)

    result = processes.run(tmp_path, "exit 0")

    assert result.returncode == 1
    assert result.stderr == 'container with given ID already exists: "c1"\n'
    running.cli.kill()
    running.cli.communicate()
    assert processes.becomes_empty(tmp_path)


def test_sandbox_leaves_no_mount_on_the_host(tmp_path: Path) -> None:
    before = processes.mounts(tmp_path)
    running = processes.start(tmp_path)

    during = processes.mounts(tmp_path)
    running.cli.kill()
    running.cli.communicate()

    assert during == before
    assert os.listdir("/proc/self/ns")


def test_program_does_not_run_before_the_state_says_so_and_others_may_change_it(
    tmp_path: Path,
) -> None:
    result = processes.run(tmp_path, "wait", "serve", "unbegun")

    assert (result.returncode, result.stdout) == (1, "running held\n")  # and no "ready"
    assert [name for name in os.listdir(tmp_path) if name != ".lock"] == []
