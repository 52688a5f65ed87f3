"""Calls with arguments that nobody means: the program may die of them, the Sentry has no exception.

RUNSC_FUZZ_SECONDS (20) says how long, RUNSC_FUZZ_SEED which calls. To look at one child again:
`calls SEED 0 CHILD` tells what it does; the log has the exceptions.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runsc.oci.convert import CAPABILITIES
from tests.e2e.bundle import Bundle, Document, kvm_is_usable
from tests.fuzz.call_table import table

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("RUNSC_FUZZ_SECONDS", "20"))
SEED = os.environ.get("RUNSC_FUZZ_SEED", "1")


def as_root_with_everything(document: Document) -> None:
    process = document["process"]
    process["capabilities"] = dict.fromkeys(
        ("bounding", "effective", "permitted"), sorted(CAPABILITIES)
    )
    process["noNewPrivileges"] = False
    process["rlimits"] = []
    document["root"]["readonly"] = False


def run_calls(bundle: Bundle, folder: Path, *arguments: str) -> tuple[str, str]:
    """Output and log of the program with these arguments."""
    (folder / "calls.h").write_text(table())
    program = folder / "calls"
    subprocess.run(
        ["gcc", "-O1", "-w", "-static", f"-I{folder}", "-o", program, HERE / "calls.c"], check=True
    )
    bundle.configure(as_root_with_everything)
    bundle.document["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=256m"]},
        {"destination": "/calls", "type": "bind", "source": str(program), "options": ["bind"]},
    ]
    log = folder / "debug.log"
    command = bundle.args("/calls", *arguments).command(
        flags=["--debug", f"--debug-log={log}", "--memory=512M"]
    )
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False,
        timeout=SECONDS * 3 + 90, cwd=HERE.parents[1], stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, (
        done.returncode,
        done.stderr[-2000:],
        log.read_text(errors="replace")[-4000:],
    )
    return done.stdout, log.read_text(errors="replace")


@pytest.mark.timeout(SECONDS * 3 + 120)
@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened")
def test_no_call_is_an_exception_in_the_sentry(bundle: Bundle, tmp_path: Path) -> None:
    output, log = run_calls(bundle, tmp_path, SEED, str(SECONDS))

    assert output.endswith("children\n")
    assert "BUG" not in log, log[log.index("BUG") :][:6000]
