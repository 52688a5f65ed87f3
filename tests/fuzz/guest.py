"""Fuzzers that are programs of a sandbox: `PROGRAM SEED SECONDS`, with every right.

What becomes of their children is right; that one ends with 0, and that the log tells of no bug, is
what the tests want.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from runsc.oci.convert import CAPABILITIES
from tests.e2e.bundle import TIMEOUT_S, Bundle, Document
from tests.fuzz.running import SEED

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


def as_root_with_everything(document: Document) -> None:
    process = document["process"]
    process["capabilities"] = dict.fromkeys(
        ("bounding", "effective", "permitted"), sorted(CAPABILITIES)
    )
    process["noNewPrivileges"] = False
    process["rlimits"] = []
    document["root"]["readonly"] = False


def compile_program(name: str, folder: Path) -> Path:
    """Compile one program, or take it from $ABI_PROGRAMS, for a machine without a compiler."""
    if made := os.environ.get("ABI_PROGRAMS"):
        return Path(made) / name
    target = folder / name
    source = HERE / f"{name}.c"
    command = ["gcc", "-O1", "-w", "-static", "-pthread", f"-I{folder}", "-o", target, source]
    subprocess.run(command, check=True)
    return target


def run_program(bundle: Bundle, folder: Path, name: str, seconds: float) -> str:
    """Its output. Fails the test at a bug, or if it does not come to its end."""
    program, log = compile_program(name, folder), folder / "debug.log"
    bundle.configure(as_root_with_everything)
    bundle.document["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=256m"]},
        {"destination": "/fuzzer", "type": "bind", "source": str(program), "options": ["bind"]},
    ]
    flags = ["--network=none", "--debug", f"--debug-log={log}", "--memory=512M"]
    if "ASAN_OPTIONS" in os.environ:
        flags.append("--TESTONLY-unsafe-nofilter")  # it knows nothing of the sanitizer's own calls
    command = bundle.args("/fuzzer", str(SEED), str(seconds)).command(flags=flags)
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False,
        timeout=seconds * 3 + 30 + TIMEOUT_S, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    said = log.read_text(errors="replace")
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-2000:], said[-4000:])
    assert "BUG" not in said, said[said.index("BUG") :][:6000]
    return done.stdout
