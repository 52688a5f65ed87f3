"""No rule of the Sentry's filter is there for nothing: it is used here, or says why not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from runsc.filters import sentry as sentry_rules
from sentry.abi import unistd
from tests.e2e.bundle import Bundle, execute, kvm_is_usable

WORK = """
import os, subprocess, tempfile, threading, time
threading.Thread(target=time.sleep, args=(0.01,)).start()
subprocess.run(["/bin/sh", "-c", "ls -lR /etc | sort | tail -1; echo x >/tmp/f; cat /tmp/f"])
os.urandom(8)
data = open("/usr/bin/python3", "rb").read()
with tempfile.TemporaryFile() as file:
    file.write(data)
print(len(bytearray(50 << 20)))
"""


@pytest.mark.root
@pytest.mark.kvm
@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_every_rule_of_the_sentry_is_used_or_says_why_not(tmp_path: Path, debian: Path) -> None:
    bundle = Bundle(tmp_path / "bundle", debian).args("python3", "-c", WORK)

    trace = tmp_path / "trace"
    result = execute(["strace", "-f", "-qq", "-o", trace, *bundle.command()])

    assert result.returncode == 0, result.stderr
    used = _calls_under_the_filter(trace.read_text())
    names = {number: name for name, number in vars(unistd).items() if isinstance(number, int)}
    without = {names[rule.number] for rule in sentry_rules.rules("kvm") if not rule.unused} - used
    assert without == set()


def _calls_under_the_filter(trace: str) -> set[str]:
    """Names of the calls that the Sentry made after seccomp(2)."""
    lines = [line.split(None, 1) for line in trace.splitlines() if " " in line]
    sentry = next(pid for pid, call in lines if "ioctl(" in call and "KVM_CREATE_VM" in call)
    threads, confined, used = {sentry}, False, set()
    for pid, call in lines:
        found = re.match(r"(?:<\.\.\. )?(\w+)(?:\(| resumed)", call)
        if pid not in threads or not found:
            continue
        if found[1] in ("clone", "clone3") and (made := re.search(r"= (\d+)$", call)):
            threads.add(made[1])
        if confined:
            used.add(found[1])
        confined = confined or found[1] == "seccomp"
    return used
