"""What a zygote has imported, and that forks leave it as it is."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, os, sys
from runsc.zygote import warm

warm.prepared()
names = ("runsc.launch.launch", "runsc.shim.daemon", "runsc.api.keeper", "gofer.main",
         "sentry.boot.sandbox", "sentry.fs.fuse", "runsc.commands.do")
counted = sys.getrefcount(json) < 1 << 30
print(json.dumps([[name for name in names if name not in sys.modules], counted]))
"""


def test_all_that_a_start_takes_is_imported_and_counts_no_references() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )

    assert json.loads(done.stdout) == [[], sys.version_info < (3, 12)]
