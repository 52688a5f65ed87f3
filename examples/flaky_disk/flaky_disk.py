"""A flaky disk for the tests of a database: what it says is stored is there, whatever breaks.

A program in the sandbox adds rows to SQLite, one transaction each, and says which were committed.
Meanwhile the disk is full now and then, refuses to sync, and cuts writes short, by the same chance
for the same seed. Then the disk is well again, and each row that was said to be committed is there.

    python3 examples/flaky_disk/flaky_disk.py [--root ROOT] [SEED]
"""

from __future__ import annotations

import argparse
import sys

from runsc import Sandbox

ROWS = 60
FAULTS = """
pwrite64: errno=ENOSPC, path=/data/**, probability=0.05, seed={seed}
pwrite64: short=100, path=/data/**, probability=0.05, seed={seed}
fsync,fdatasync: errno=EIO, path=/data/**, probability=0.1, seed={seed}
"""
WRITER = f"""
import sqlite3
database = sqlite3.connect("/data/rows.db", isolation_level=None)
for number in range({ROWS}):
    try:
        database.execute("insert into rows values (?)", (number,))
    except sqlite3.Error:
        continue
    print(number, flush=True)
"""
READER = """
import sqlite3
database = sqlite3.connect("/data/rows.db")
assert database.execute("pragma integrity_check").fetchone() == ("ok",)
for row in database.execute("select number from rows order by number"):
    print(*row)
"""
MAKER = """
import os, sqlite3
os.mkdir("/data")
sqlite3.connect("/data/rows.db").execute("create table rows (number integer)")
"""


def attempt(sandbox: Sandbox, seed: int) -> tuple[list[str], list[str], int]:
    """What was said to be committed, what is there, and how many faults there were."""
    run = sandbox.commands.run
    run(["python3", "-c", MAKER]).check()
    sandbox.inject(FAULTS.format(seed=seed))
    said = run(["python3", "-c", WRITER]).check().stdout.split()
    faults = sum(state.injected for state in sandbox.faults())
    sandbox.inject()
    return said, run(["python3", "-c", READER]).check().stdout.split(), faults


def main() -> int:
    """1 if something is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with Python in it; the host's own files else")
    parser.add_argument("seed", nargs="?", type=int, default=1)
    given = parser.parse_args()
    with Sandbox.create(root=given.root) as sandbox:
        said, there, faults = attempt(sandbox, given.seed)
    lost = sorted(set(said) - set(there))
    print(f"{faults} faults, {len(said)} of {ROWS} rows committed, lost: {lost or 'none'}")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
