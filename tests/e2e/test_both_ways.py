"""A container's life by the quick way of each command, and by the command line's framework."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle
from tests.e2e.client import Client, wait_for_end

WITH_CLICK = [sys.executable, "-c", "from runsc.cli import main; main()"]
LIFE = [
    "create c",
    "create c",
    "exec c /bin/true",
    "start c",
    "start c",
    "state c",
    "ps c",
    "exec -e A=b --cwd /proc -u 5:6 c /bin/sh -c 'echo $A $PWD; id -u; id -g; exit 3'",
    "exec c /nowhere",
    "exec --detach --pid-file PID c /bin/sleep 1000",
    "delete c",
    "pause c",
    "state c",
    "exec c /bin/true",
    "resume c",
    "kill c WINCH",
    "kill --pid 999 c KILL",
    "kill c KILL",
    "END",
    "state c",
    "kill c KILL",
    "exec c /bin/true",
    "delete c",
    "run --detach c",
    "delete --force c",
]
"""What is asked of it, one after the other."""


class ByClick(Client):
    """The same client, of the other way."""

    def command(self, *args: str) -> list[str]:
        return [*WITH_CLICK, *self.flags, *args]


def _words(line: str) -> list[str]:
    return [a or b for a, b in re.findall(r"'([^']*)'|(\S+)", line)]


def _plain(text: str, client: Client) -> str:
    """Without what differs from one container to the other: times, numbers of processes."""
    text = text.replace(str(client.root), "ROOT").replace(str(client.log), "LOG")
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]*Z", "TIME", text)
    text = re.sub(r'"pid": [1-9]\d*', '"pid": PID', text)
    text = re.sub(r"^\[\d+\]$", "[PID]", text)
    return re.sub(r" +\d+ \d\d:\d\d (\S+ +)\d\d:\d\d:\d\d", r" C STIME \1TIME", text)


def _call(client: Client, words: list[str]) -> tuple[int, str, str]:
    """The output is files: a container that is left holds it."""
    paths = [client.bundle.path / name for name in ("out", "err")]
    with paths[0].open("w") as out, paths[1].open("w") as err:
        done = subprocess.run(
            client.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            timeout=TIMEOUT_S,
            check=False,
            cwd=REPOSITORY,
        )
    return done.returncode, paths[0].read_text(), paths[1].read_text()


def _life(client: Client) -> list[tuple[str, int, str, str, str]]:
    """What each command exits with and says, and what it writes to the log."""
    seen = []
    pidfd = -1
    client.log.touch()
    for line in LIFE:
        words = _words(line.replace("PID", str(client.bundle.path / "exec.pid")))
        if line == "END":
            wait_for_end(pidfd)
            continue
        if words[0] in ("create", "run"):
            words[1:1] = [f"--bundle={client.bundle.path}"]
        before = len(client.log.read_text())
        code, *texts = _call(client, words)
        if words[0] == "create" and code == 0:
            pidfd = os.pidfd_open(json.loads(client.ok("state", "c"))["pid"])
        texts.append(client.log.read_text()[before:])
        out, err, log = (_plain(text, client) for text in texts)
        seen.append((line, code, out, err, log))
    assert client.remains() == []
    return seen


def test_both_ways_are_the_same_to_a_caller(bundle: Bundle, platform: str, tmp_path: Path) -> None:
    bundle.args("sleep", "1000")
    bundle.write()
    quick, other = Client(bundle, platform), ByClick(bundle, platform)
    other.root, other.log = tmp_path / "other", tmp_path / "other.log"
    other.flags = [f"--root={other.root}", f"--log={other.log}", *quick.flags[2:]]

    assert _life(quick) == _life(other)
