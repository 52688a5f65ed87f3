"""The soak: long, mixed work, after which nothing may be left.

RUNSC_SOAK_SECONDS (1800) says how long, RUNSC_SOAK_SEED which mixture. Other tests beside it come
first: it is paid for with time.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import Bundle, execute, kvm_is_usable
from tests.e2e.talker import Talker

SECONDS = float(os.environ.get("RUNSC_SOAK_SECONDS", "1800"))
SEED = os.environ.get("RUNSC_SOAK_SEED", "1")
WARM_UP_SECONDS = 20
WORKERS = 4
YIELDING = ("nice", "-n", "10")
SOURCE = Path(__file__).with_name("soak.c")
GROWS = (
    "ram_flush", "ram_pooled", "ram_dirty", "ram_kernel_frames", "ram_tables", "ram_quarant",
    "descriptors_kept", "object sentry.net.inet.time_wait.", "object sentry.net.inet.address.",
    "object sentry.control.meter.Meter",
)  # fmt: skip
"""Counts of what happened (a `Meter` for each kind of long step), of what is kept for the next one
who needs it, within a bound, or of what ends by itself a minute later (TIME_WAIT)."""

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(SECONDS * 2 + 300),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened"),
]


def counts(bundle: Bundle) -> dict[str, int]:
    """How much of everything the sandbox has."""
    command = bundle.command()
    told = execute([*command[: command.index("run")], "debug", "--counts", "test"])
    assert told.returncode == 0, told.stderr
    return without(GROWS, json.loads(told.stdout))


def without(names: tuple[str, ...], found: dict[str, int]) -> dict[str, int]:
    """All but what begins so, and but what the Sentry tells its Gofer by itself (on which CPU it
    is), which may be under way: `Session`."""
    under_way = found.pop("object gofer.p9.extensions.Tnearx", 0)
    if under_way:
        pending = "object sentry.fs.gofer.requests.Pending"
        found[pending] -= under_way
        if not found[pending]:
            del found[pending]
    return {name: n for name, n in found.items() if not name.startswith(names)}


def differences(before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
    return {
        name: (before.get(name, 0), after.get(name, 0))
        for name in before | after
        if before.get(name, 0) != after.get(name, 0)
    }


def test_after_a_soak_everything_has_been_given_back(bundle: Bundle, tmp_path: Path) -> None:
    program = tmp_path / "soak"
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", program, SOURCE], check=True)
    log = tmp_path / "debug.log"
    bundle.document["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/soak", "type": "bind", "source": str(program), "options": ["bind", "ro"]},
    ]
    bundle.args("/soak", str(WARM_UP_SECONDS), SEED, str(WORKERS))
    flags = ["--network=none", "--debug", f"--debug-log={log}"]
    running = Talker([*YIELDING, *bundle.command(flags=flags)])
    assert running.hear() == "ready"
    rounds = max(1, round(SECONDS / WARM_UP_SECONDS))
    before: dict[str, int] = {}
    for number in range(rounds + 1):
        running.say("go")
        while (said := running.hear()).endswith("rounds"):
            print(said)
        assert said == "done", log.read_text()[-8000:]
        if number == 0:  # what is made once, by the first of its kind, is there now
            before = counts(bundle)
    after = counts(bundle)
    running.end()
    assert running.process.returncode == 0
    assert "BUG" not in log.read_text()
    assert not (left := differences(before, after)), json.dumps(left, indent=1)
