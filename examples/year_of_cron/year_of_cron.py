"""A year of cron in a minute: which jobs would have run, and when.

busybox's crond runs in a sandbox whose time stands still, and is advanced from one timer to the
next. What a job does is done as often as in a year, on the days on which it would be.

    python3 year_of_cron.py [DAYS]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from runsc import Sandbox

TABLE = """
0 0 1 * *   date -u '+monthly %F' >> /log
30 6 * * 1  date -u '+monday %F' >> /log
15 12 * * * date -u '+daily %F' >> /log
"""
START = "2027-01-01 00:00"


def simulated(sandbox: Sandbox, days: int) -> list[str]:
    """What the jobs of so many days have written."""
    clock = sandbox.clock
    clock.freeze()
    clock.set(START)
    sandbox.files.write("/crontabs/root", TABLE)
    crond = ["crond", "-f", "-c", "/crontabs", "-L", "/dev/null"]
    with sandbox.commands.run(crond, background=True, env={"TZ": "UTC"}):
        clock.advance(f"{days} days")
    return sandbox.files.read("/log").splitlines() if sandbox.files.exists("/log") else []


def main(root: Path | None, days: int) -> int:
    """Prints how many there were of each."""
    began = time.monotonic()
    with Sandbox.create(root=root) as sandbox:
        lines = simulated(sandbox, days)
    for kind in ("daily", "monday", "monthly"):
        print(kind, sum(line.startswith(kind) for line in lines))
    print(f"{days} days in {time.monotonic() - began:.0f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main(None, int(sys.argv[1]) if len(sys.argv) > 1 else 365))
