"""The programs that the Python API starts, each a process of its own: no fork of the caller runs
Python, whatever threads it has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

KEEPER = "runsc.api.keeper"
FORKER = "runsc.api.forker"
COMMAND_LINE = "runsc"
HOME = Path(__file__).resolve().parents[2]
"""Where this package lies."""


def begun(
    module: str, words: Sequence[str], fds: Sequence[int] = (), stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """`python -m MODULE WORDS`, in a session of its own: the keys of a terminal are not for it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=fds,
        start_new_session=True,
        cwd="/",
        env=environment(os.environ),
    )


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """In which it finds what we have found."""
    paths = [str(HOME), *filter(None, given.get("PYTHONPATH", "").split(os.pathsep))]
    absolute = [path for path in paths if os.path.isabs(path)]
    return {**given, "PYTHONPATH": os.pathsep.join(dict.fromkeys(absolute))}
