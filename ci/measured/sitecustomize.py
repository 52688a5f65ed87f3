"""Which lines of this repository run, in every Python process that has this folder in PYTHONPATH.

Each line that runs sets a byte in a shared mapping of the file $RUNSC_MEASURED, whose layout
`ci/measured/lines.py` made: forked processes, locked-in ones and those that are killed count alike,
and nothing has to be written at the end. An event is switched off where it has been seen, so that
it costs nothing from then on (sys.monitoring, Python 3.12).
"""

from __future__ import annotations

import json
import os
import sys
from mmap import mmap
from types import CodeType


def start(path: str) -> None:
    """Count from now on."""
    with open(path + ".layout", encoding="utf-8") as layout:
        starts: dict[str, int] = json.load(layout)
    with open(path, "r+b") as file:
        hits = mmap(file.fileno(), 0)
    monitoring = sys.monitoring
    seen = monitoring.DISABLE

    def line(code: CodeType, number: int) -> object:
        at = starts.get(code.co_filename)
        if at is not None:
            hits[at + number] = 1
        return seen

    monitoring.use_tool_id(monitoring.COVERAGE_ID, "measured")
    monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.LINE, line)
    monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.LINE)


if "RUNSC_MEASURED" in os.environ and hasattr(sys, "monitoring"):
    start(os.environ["RUNSC_MEASURED"])
