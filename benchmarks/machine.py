"""What the figures were measured on: processor, kernel, versions, the answers of our probe."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.ways import GVISOR, TREE

PROBE = """
import os
from sentry.platform.kvm import KvmPlatform
machine = KvmPlatform(os.memfd_create("ram"), 1 << 30)
print(machine.quirks)
machine.close()
"""


def first_line(command: list[str], **options: object) -> str:
    """What a command says first, or why it does not."""
    if not shutil.which(command[0]):
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def about(python: str) -> dict[str, str]:
    """Name → value."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} CPUs, {cpu}, Linux {platform.release()}",
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "Python": platform.python_version(),
        "ours": first_line(["git", "-C", str(TREE), "log", "-1", "--format=%h"]),
        "gVisor": first_line([GVISOR, "--version"]),
        "runc": first_line(["runc", "--version"]),
        "probe": first_line([python, "-c", PROBE], env=os.environ | {"PYTHONPATH": str(TREE)}),
    }
