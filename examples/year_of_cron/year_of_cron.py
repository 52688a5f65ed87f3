"""A year of cron in a minute: which jobs run, and on which days?

A cron runs in a sandbox whose time stands still, and is advanced from one timer to the next: each
job runs as often as in a year, at the times at which it would.

    python3 examples/year_of_cron/year_of_cron.py [--root ROOT] [DAYS]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from runsc import Sandbox

CRON = Path(__file__).with_name("crond.py")
TABLE = """
0 0 1 * *   date -u '+monthly %F %R' >> /log
30 6 * * 1  date -u '+monday %F %R' >> /log
15 12 * * * date -u '+daily %F %R' >> /log
"""
START = "2027-01-01 00:00"


def simulated(sandbox: Sandbox, days: int) -> list[str]:
    """What the jobs of so many days have written."""
    clock, files = sandbox.clock, sandbox.files
    clock.freeze()
    clock.set(START)
    files.write("/log", "")
    files.write("/crontab", TABLE)
    files.write("/crond.py", CRON.read_text())
    with sandbox.commands.run(["python3", "/crond.py", "/crontab"], background=True):
        clock.advance(f"{days} days")
    return files.read("/log").splitlines()


def main() -> None:
    """Prints how many there were of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with Python in it; the host's own files else")
    parser.add_argument("days", nargs="?", type=int, default=365)
    given = parser.parse_args()
    began = time.monotonic()
    with Sandbox.create(root=given.root) as sandbox:
        lines = simulated(sandbox, given.days)
    for kind in ("daily", "monday", "monthly"):
        found = [line for line in lines if line.startswith(kind)]
        print(f"{len(found):4} {kind}, the last one at {found[-1].split(None, 1)[1]}")
    print(f"{given.days} days in {time.monotonic() - began:.0f} seconds")


if __name__ == "__main__":
    main()
