"""runsc.containers.relay: a terminal between two pipes."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import os
from runsc.containers import relay

assert relay.is_needed()
made = relay.Relay((25, 81))
slave = os.dup(made.slave)
made.handed_over()
made.start()
print(os.get_terminal_size(slave), file=__import__("sys").stderr)
os.write(slave, b"shown " * 20000)
os.write(slave, os.read(slave, 100))
os.close(slave)
made.finish()
"""


def test_bytes_go_both_ways_until_nobody_has_the_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=b"typed", capture_output=True, check=True, timeout=60
    )

    assert done.stdout == b"shown " * 20000 + b"typed"
    assert done.stderr == b"os.terminal_size(columns=81, lines=25)\n"


def test_reader_that_is_gone_holds_nothing_up() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=b"typed",
        stdout=writer,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    os.close(writer)

    assert done.returncode == 0


def test_one_terminal_for_both_needs_no_relay() -> None:
    master, slave = os.openpty()
    script = "from runsc.containers import relay; raise SystemExit(relay.is_needed())"

    for stdout, expected in ((slave, 0), (subprocess.DEVNULL, 1)):
        done = subprocess.run(
            [sys.executable, "-c", script], stdin=slave, stdout=stdout, check=False, timeout=60
        )
        assert done.returncode == expected
    os.close(master)
    os.close(slave)
