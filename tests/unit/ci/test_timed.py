"""Scripts of ci/ that people call: how long something has taken is seen at a terminal alone."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

COMMON = Path(__file__).parents[3] / "ci/common.bash"
SCRIPT = f'source {COMMON}; code=0; timed waiting "$@" || code=$?; echo then; exit $code'


def _script(*command: str | Path) -> list[str]:
    return ["bash", "-c", SCRIPT, "bash", *map(str, command)]


def test_person_sees_the_seconds_and_then_the_line_is_free(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    ours, theirs = pty.openpty()
    script = 'read -r line < "$1"; exit 3'
    with subprocess.Popen(
        _script("bash", "-c", script, "bash", tmp_path / "fifo"),
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env=os.environ | {"TERM": "xterm", "XDG_CACHE_HOME": str(tmp_path)},
    ) as process:  # fmt: skip
        os.close(theirs)
        screen = b""
        while b"\rwaiting: 2 s" not in screen:
            screen += os.read(ours, 1000)
        (tmp_path / "fifo").write_text("\n")
        while b"then\r\n" not in screen:
            screen += os.read(ours, 1000)
    os.close(ours)
    assert process.returncode == 3
    assert screen.startswith(b"\rwaiting: 1 s") and screen.endswith(b"\r\x1b[Kthen\r\n")


def test_nobody_else_sees_anything(tmp_path: Path) -> None:
    done = subprocess.run(
        _script("sh", "-c", "echo out; exit 4"), capture_output=True, text=True, check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("out\nthen\n", "", 4)
