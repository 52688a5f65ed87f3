"""Descriptors that are closed together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from runsc.launch.closing import Closers
closers = Closers(3)
ends = [os.pipe() for _ in range(20)]
closers.close(writer for _, writer in ends)
for reader, _ in ends:
    assert os.read(reader, 1) == b""  # so nobody has the other end
print(len(os.listdir("/proc/self/task")))
sys.stdout.flush()
os._exit(0)
"""


def test_all_are_closed_and_threads_stay() -> None:
    root = str(Path(__file__).parents[4])
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=root, capture_output=True, check=True, timeout=60)
    assert done.stdout == b"4\n"
