"""Processor, kernel, and what runs the programs."""

from __future__ import annotations

import importlib.util
import os
import re

from runsc.checks.findings import Finding, bad, good, note
from runsc.checks.tried import Failed, tried
from runsc.errors import RuntimeFailure
from runsc.launch.configure import open_kvm

OLDEST = (5, 12)
"""mount_setattr(2)."""
PROBED_RAM = 1 << 30


def processor(machine: str | None = None) -> Finding:
    """Programs of x86-64 only."""
    name = os.uname().machine if machine is None else machine
    if name != "x86_64":
        return bad("processor", f"{name}", "runsc needs x86-64")
    return good("processor", name)


def kernel(release: str | None = None) -> Finding:
    """Its version, as far as that says something."""
    name = os.uname().release if release is None else release
    match = re.match(r"(\d+)\.(\d+)", name)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return bad("kernel", f"Linux {name}", f"runsc needs Linux {oldest} or newer")
    return good("kernel", f"Linux {name}")


def kvm(*, needed: bool) -> Finding:
    """Whether a virtual machine runs here, and of which kind. It is made, and runs the probe."""
    make = bad if needed else note
    try:
        os.close(open_kvm())
    except RuntimeFailure as error:
        text, _, advice = str(error).partition("; ")
        if "is not there" in text:
            advice = (
                "load the module (`sudo modprobe kvm_intel` or `kvm_amd`); it may be turned off in"
                f" the firmware, or, in a virtual machine, not be passed on; {advice}"
            )
        return make("kvm", text, advice)
    try:
        return good("kvm", tried(_description))
    except Failed as error:
        return make("kvm", f"no virtual machine runs: {error}", "see `dmesg`, and its modules")


def _description() -> str:
    from sentry.platform.kvm import KvmPlatform  # noqa: PLC0415

    return KvmPlatform(os.memfd_create("check"), PROBED_RAM).description


def emulator(*, needed: bool) -> Finding:
    """--platform=unicorn."""
    if importlib.util.find_spec("unicorn") is not None:
        return good("unicorn", "there, for --platform=unicorn (no security boundary)")
    make = bad if needed else note
    return make("unicorn", "not there", "only for --platform=unicorn: pip install 'runsc[unicorn]'")
